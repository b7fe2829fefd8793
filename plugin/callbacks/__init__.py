"""Observers of the training loop."""

from plugin.callbacks.base import Callback, EpochInfo, StepInfo

__all__ = ["Callback", "EpochInfo", "StepInfo"]
