"""Saves the run every so many steps or epochs, when it is stopped, and at its end."""

from __future__ import annotations

from pathlib import Path

from plugin.runs import checkpoint
from plugin.training.callback import Callback, EpochInfo, StepInfo
from plugin.training.loop import TrainState


class Checkpoints(Callback):
    """Keeps the last good checkpoint at `path`; goes last, so that other files are never behind it.

    `every` is a count and its unit, "steps" or "epochs".
    """

    def __init__(self, path: Path, every: tuple[int, str] = (1, "epochs")) -> None:
        self._path = path
        self._count, self._unit = every
        self._saved: tuple[int, int] | None = None

    def on_start(self, state: TrainState) -> None:
        if state.step == 0:
            self._save(state)

    def on_step(self, state: TrainState, info: StepInfo) -> None:
        if self._unit == "steps" and state.step % self._count == 0:
            self._save(state)

    def on_epoch(self, state: TrainState, info: EpochInfo) -> None:
        if self._unit == "epochs" and state.epoch % self._count == 0:
            self._save(state)

    def on_interrupt(self, state: TrainState) -> None:
        self._save(state)

    def on_trained(self, state: TrainState) -> None:
        self._save(state)

    def _save(self, state: TrainState) -> None:
        position = (state.step, state.epoch)
        if position != self._saved:
            checkpoint.save(self._path, state)
            self._saved = position
