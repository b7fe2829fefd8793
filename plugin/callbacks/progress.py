"""What the console shows of a run: a bar on a terminal or in a notebook, plain lines elsewhere."""

from __future__ import annotations

import sys
from typing import TextIO

from tqdm import tqdm

from plugin.callbacks.validation import Validation
from plugin.process.notebook import in_notebook, notebook_bar
from plugin.training.callback import Callback, EpochInfo, StepInfo
from plugin.training.loop import TrainState

# Plain lines are for log files: about this many per run are enough.
PLAIN_LINES = 20


class Progress(Callback):
    """Shows epoch, losses, the worst case's accuracy and the time left, on `stream`."""

    def __init__(self, stream: TextIO | None = None, validation: Validation | None = None) -> None:
        """validation: whose latest figures to show beside the epoch's."""
        self._validation = validation
        self._stream = sys.stderr if stream is None else stream
        self._bar: tqdm | None = None
        self._started = (0, 0.0)

    def on_start(self, state: TrainState) -> None:
        self._started = (state.step, state.seconds)
        if self._stream.isatty() or in_notebook():
            kind = notebook_bar() if in_notebook() else tqdm
            self._bar = kind(
                total=state.total_steps,
                initial=state.step,
                unit="step",
                file=self._stream,
                dynamic_ncols=True,
                mininterval=0.2,
            )
            self._bar.set_description(f"epoch {min(state.epoch + 1, state.config.epochs)}/{state.config.epochs}")

    def on_step(self, state: TrainState, info: StepInfo) -> None:
        if self._bar is not None:
            self._bar.update()

    def on_epoch(self, state: TrainState, info: EpochInfo) -> None:
        epochs = state.config.epochs
        if self._bar is not None:
            self._bar.set_description(f"epoch {min(info.epoch + 1, epochs)}/{epochs}", refresh=False)
            self._bar.set_postfix_str(self._shown(info), refresh=False)
        elif info.epoch % max(1, epochs // PLAIN_LINES) == 0 or info.epoch in (1, epochs):
            left = self._seconds_left(state)
            self._stream.write(f"epoch {info.epoch}/{epochs}  {self._shown(info)}  {_clock(left)} left\n")
            self._stream.flush()

    def _shown(self, info: EpochInfo) -> str:
        """The epoch's figures, and those of the held-back part where it was just measured."""
        last = None if self._validation is None else self._validation.last
        if last is None or last["epoch"] != info.epoch:
            return _figures(info)
        shares = {name.removesuffix("_accuracy"): share for name, share in last.items() if name.endswith("_accuracy")}
        held_back = ", ".join(f"{name} {100 * share:.1f} %" for name, share in shares.items())
        return f"{_figures(info)}; validation {held_back}"

    def on_trained(self, state: TrainState) -> None:
        self.close()

    def close(self) -> None:
        if self._bar is not None:
            self._bar.close()
            self._bar = None

    def _seconds_left(self, state: TrainState) -> float:
        step, seconds = self._started
        return (state.seconds - seconds) / max(1, state.step - step) * (state.total_steps - state.step)


def _figures(info: EpochInfo) -> str:
    parts = []
    for name, value in info.means.items():
        kind, _, quantity = name.rpartition("_")
        if isinstance(value, float) and quantity == "loss":
            parts.append(f"{kind} loss {value:.4f}".strip())
        elif isinstance(value, float) and quantity == "accuracy":
            parts.append(f"{kind} {100 * value:.1f} %")
    return ", ".join([*parts, f"eps {info.values.eps:.4g}"])


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
