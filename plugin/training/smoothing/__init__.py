"""Smoothing: estimates of the gradient of a loss that is averaged over noise on the weights."""

from plugin.training.smoothing.base import Estimate, Smoothing
from plugin.training.smoothing.catalogue import list_smoothings, read_smoothing, smoothings
from plugin.training.smoothing.neighbourhood import Neighbourhood, Objective, Pair, Sides

__all__ = [
    "Estimate",
    "Neighbourhood",
    "Objective",
    "Pair",
    "Sides",
    "Smoothing",
    "list_smoothings",
    "read_smoothing",
    "smoothings",
]
