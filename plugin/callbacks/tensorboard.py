"""TensorBoard: the epoch's figures as scalars, and the hyperparameters with the final result."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from torch.utils.tensorboard import SummaryWriter

from plugin.process.files import no_space_is_user_error
from plugin.training.callback import Callback, EpochInfo
from plugin.training.loop import TrainState

# Where a figure of EpochInfo.means is shown; those of a loss's terms are added by kind: loss/TERM, accuracy/TERM.
_TAGS = {
    "loss": "loss/total",
    "gradient_norm": "training/gradient_norm",
    "signal_to_noise": "smoothing/signal_to_noise",
    "jump_share": "smoothing/jump_share",
    "unforetold": "smoothing/unforetold",
}


class TensorBoard(Callback):
    """Writes event files into `folder`, one value an epoch."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._writer: SummaryWriter | None = None
        self._excepthook = threading.excepthook

    @property
    def writer(self) -> SummaryWriter:
        """For other callbacks that have something to show; there once training has started."""
        assert self._writer is not None, "training has not started"
        return self._writer

    def on_start(self, state: TrainState) -> None:
        # What an interrupted run wrote after its last checkpoint is hidden by purge_step.
        purge = state.epoch + 1 if state.step > 0 else None
        self._excepthook, threading.excepthook = threading.excepthook, self._quiet
        with no_space_is_user_error(self._folder):
            self._writer = SummaryWriter(str(self._folder), purge_step=purge)

    def on_epoch(self, state: TrainState, info: EpochInfo) -> None:
        figures = {
            "schedule/eps": float(info.values.eps),
            "schedule/kappa": float(info.values.kappa),
            "schedule/beta": float(info.values.beta),
            "schedule/learning_rate": float(info.values.lr),
            "speed/images_per_second": info.images_per_second,
        }
        for name, value in info.means.items():
            if isinstance(value, float):
                figures[_tag(name)] = value
        crossing = info.means.get("crossing")
        if isinstance(crossing, list):
            for index, share in enumerate(crossing, start=1):
                figures[f"crossing/relu_{index}"] = share
        self.write({**figures, **info.scalars}, info.epoch)

    def write(self, figures: Mapping[str, float], epoch: int) -> None:
        """Scalars of an epoch, each under its tag. Raises UserError when the device is full."""
        with no_space_is_user_error(self._folder):
            for tag, value in figures.items():
                self.writer.add_scalar(tag, value, epoch)
            self.writer.flush()

    def on_end(self, state: TrainState, result: dict[str, object]) -> None:
        hyperparameters = {
            name: value if isinstance(value, (bool, int, float, str)) else str(value)
            for name, value in state.config.to_json().items()
            if value is not None
        }
        metrics = {
            f"result/{name}": float(value)
            for name, value in result.items()
            if name.endswith("_accuracy") and isinstance(value, (int, float))
        }
        with no_space_is_user_error(self._folder):
            self.writer.add_hparams(hyperparameters, metrics, run_name=".")

    def close(self) -> None:
        if self._writer is not None:
            with suppress(OSError):  # the same that on_epoch or on_end has told already
                self._writer.close()
            self._writer = None
            threading.excepthook = self._excepthook

    def _quiet(self, problem: threading.ExceptHookArgs) -> None:
        # TensorBoard's writing thread fails with a traceback of its own before the next call raises the same.
        if not isinstance(problem.exc_value, OSError):
            self._excepthook(problem)


def _tag(name: str) -> str:
    if name in _TAGS:
        return _TAGS[name]
    kind, _, quantity = name.rpartition("_")
    return f"{quantity}/{kind}"
