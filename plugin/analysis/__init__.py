"""Continuity, sensitivity and tightness of a relaxation, measured blind.

The three measurements are functions of closures and parameters; nothing here needs this project's trainer.
"""

from .continuity import continuity
from .directions import (
    default_directions,
    gradient_direction,
    random_directions,
    step_direction,
    weight_direction,
)
from .network import CertifiedLoss
from .records import Continuity, Direction, Jump, Sensitivity, Tightness
from .sensitivity import sensitivity
from .tightness import tightness

__all__ = [
    "CertifiedLoss",
    "Continuity",
    "Direction",
    "Jump",
    "Sensitivity",
    "Tightness",
    "continuity",
    "default_directions",
    "gradient_direction",
    "random_directions",
    "sensitivity",
    "step_direction",
    "tightness",
    "weight_direction",
]
