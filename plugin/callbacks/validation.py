"""The held-back part of the training set: its accuracies every few epochs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from newrelax.methods.method import Method
from plugin.callbacks.tensorboard import TensorBoard
from plugin.certification.evaluation import accuracies, evaluate
from plugin.process.files import write_atomically
from plugin.training.callback import Callback, EpochInfo
from plugin.training.loop import TrainState

RECORDS = "validation.jsonl"


class Validation(Callback):
    """Natural, PGD and certified accuracy at the radius that is certified, every `validate_every` epochs and at the end.

    Goes to TensorBoard (`validation/…`), to validation.jsonl in the folder, and into the result. Runs in evaluation mode with
    random streams of its own, so training is what it would be without. certifier: whose bounds count.
    """

    def __init__(self, certifier: Method, board: TensorBoard | None = None, folder: Path | None = None) -> None:
        self._certifier, self._board = certifier, board
        self._path = None if folder is None else folder / RECORDS
        self._lines: list[dict[str, Any]] = []

    @property
    def last(self) -> dict[str, Any] | None:
        """The latest measurement: its epoch and accuracies (fractions)."""
        return self._lines[-1] if self._lines else None

    @property
    def history(self) -> list[dict[str, Any]]:
        """All measurements, the earliest first."""
        return list(self._lines)

    def on_start(self, state: TrainState) -> None:
        if self._path is not None and self._path.exists():
            lines = [json.loads(line) for line in self._path.read_text().splitlines()]
            self._lines = [line for line in lines if line["epoch"] <= state.epoch]

    def on_epoch(self, state: TrainState, info: EpochInfo) -> None:
        if info.epoch % state.config.validate_every and info.epoch != state.config.epochs:
            return
        dataset, config = state.dataset, state.config
        assert dataset.validation_x is not None
        assert dataset.validation_y is not None
        with state.evaluated():
            measured = evaluate(
                state.model,
                dataset.validation_x,
                dataset.validation_y,
                config.eps,
                self._certifier,
                region=state.learner.region,
                bounding=state.bounding,
            )
        figures = {name: value for name, value in accuracies(measured).items() if value is not None}
        self._lines.append({"epoch": info.epoch, "images": len(dataset.validation_y), **figures})
        if self._board is not None:
            self._board.write(
                {f"validation/{name.removesuffix('_accuracy')}": value for name, value in figures.items()}, info.epoch
            )
        if self._path is not None:
            write_atomically(self._path, "".join(json.dumps(line) + "\n" for line in self._lines).encode())
