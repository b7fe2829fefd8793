"""Certified training with convex relaxations: train, certify and watch."""

from newrelax.bounds import certify
from newrelax.errors import UserError
from plugin.certification.api import evaluate
from plugin.data import Dataset, dataset
from plugin.fitting.fit import Result, fit
from plugin.settings.table import setting
from plugin.training.callback import Callback
from plugin.training.losses import Batch, Learner, Loss, Term, Terms
from plugin.training.module import CertifiedLoss
from plugin.training.regularizers import Context, Regularizer
from plugin.training.scalars import scalar
from plugin.training.schedule import Values
from plugin.training.smoothing import Smoothing
from plugin.training.starts import Start

__all__ = [
    "Batch",
    "Callback",
    "CertifiedLoss",
    "Context",
    "Dataset",
    "Learner",
    "Loss",
    "Regularizer",
    "Result",
    "Smoothing",
    "Start",
    "Term",
    "Terms",
    "UserError",
    "Values",
    "certify",
    "dataset",
    "evaluate",
    "fit",
    "scalar",
    "setting",
]
