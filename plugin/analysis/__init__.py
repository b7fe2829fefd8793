"""Continuity, sensitivity and tightness of a relaxation, measured blind.

The three measurements are functions of closures and parameters; nothing here needs this project's trainer.
"""

from plugin.analysis.continuity import continuity
from plugin.analysis.directions import (
    default_directions,
    gradient_direction,
    random_directions,
    step_direction,
    weight_direction,
)
from plugin.analysis.network import CertifiedLoss
from plugin.analysis.records import Continuity, Direction, Jump, Sensitivity, Tightness
from plugin.analysis.sensitivity import sensitivity
from plugin.analysis.tightness import tightness

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
