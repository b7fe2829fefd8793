"""Observers of the training loop."""

from plugin.training.callback import Callback, EpochInfo, StepInfo

__all__ = ["Callback", "EpochInfo", "StepInfo"]
