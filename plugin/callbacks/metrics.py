"""Writes metrics.jsonl, a line an epoch."""

from __future__ import annotations

from plugin.runs.folder import RunFolder
from plugin.training.callback import Callback, EpochInfo
from plugin.training.loop import TrainState


class Metrics(Callback):
    """Keeps metrics.jsonl in step with the run, also when it goes on from a checkpoint."""

    def __init__(self, folder: RunFolder) -> None:
        self._folder = folder

    def on_start(self, state: TrainState) -> None:
        self._folder.keep_metrics(state.epoch)

    def on_epoch(self, state: TrainState, info: EpochInfo) -> None:
        self._folder.append_metrics(info.record())
