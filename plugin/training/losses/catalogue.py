"""Losses by their names: the built-in ones, and those that plugins bring."""

from __future__ import annotations

from newrelax.methods.method import Method
from plugin.settings.nouns import Catalogue
from plugin.training.losses.adversarial import Adversarial
from plugin.training.losses.base import Loss
from plugin.training.losses.cc import CC
from plugin.training.losses.certified import Certified
from plugin.training.losses.exp import Exp
from plugin.training.losses.fused import Fused
from plugin.training.losses.mtl import MTL
from plugin.training.losses.natural import Natural
from plugin.training.losses.sabr import SABR
from plugin.training.losses.staps import STAPS
from plugin.training.losses.taps import TAPS

LOSSES = Catalogue("loss", Loss, (Natural, Certified, Fused, Adversarial, MTL, CC, Exp, SABR, TAPS, STAPS), capitals=True)
losses, read_loss, list_losses = LOSSES.known, LOSSES.read, LOSSES.listing


def default_loss(method: Method) -> str:
    """What a method trains with unless `--loss` says otherwise."""
    return {"none": Natural.name, "attack": Adversarial.name}.get(method.propagation.name, Certified.name)
