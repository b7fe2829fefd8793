"""What a callback is: an object whose hooks the training loop calls."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from torch import Tensor

from newrelax.plugins import Extension

if TYPE_CHECKING:
    from plugin.training.loop import TrainState
    from plugin.training.losses.base import Terms
    from plugin.training.schedule import Values


@dataclass(frozen=True)
class StepInfo:
    """One finished step. Tensors are on the device: reading one waits for it.

    `step` counts from 0; `values` are what the step trained with; `x`, `y` its batch;
    `terms` those of the batch's last piece; `loss` and `gradient_norm` are scalars, the norm
    before clipping. The gradients are still in the parameters.
    """

    step: int
    values: Values
    x: Tensor
    y: Tensor
    terms: Terms
    loss: Tensor
    gradient_norm: Tensor


@dataclass(frozen=True)
class EpochInfo:
    """One finished epoch.

    `epoch` counts from 1, `step` is the number of steps taken so far, `values` are the last
    step's. `means` and `scalars` (a plugin's, by tag) depend on the run's settings and seed alone; `seconds` and
    `images_per_second` on the machine.
    """

    epoch: int
    step: int
    values: Values
    means: dict[str, float | list[float] | None]
    seconds: float
    images_per_second: float
    scalars: Mapping[str, float] = field(default_factory=dict)

    def record(self) -> dict[str, object]:
        """The line of metrics.jsonl: no wall-clock figures, so that runs can be compared."""
        return {"epoch": self.epoch, "step": self.step, **self.values._asdict(), **self.means, **self.scalars}


class Callback(Extension):
    """Hooks of the training loop; each does nothing unless overridden.

    A callback must leave training as it is: weights, optimiser and random streams included. A class with a `name` in a plugin's
    file joins every run that loads the file; it is made without arguments.
    """

    def on_start(self, state: TrainState) -> None:
        """Training starts, or goes on from a checkpoint (`state.step` > 0)."""

    def on_step(self, state: TrainState, info: StepInfo) -> None:
        """A step is done; `state.step` already counts it."""

    def on_epoch(self, state: TrainState, info: EpochInfo) -> None:
        """An epoch is done; `state.epoch` already counts it."""

    def on_interrupt(self, state: TrainState) -> None:
        """The run was asked to stop; this is the time to save."""

    def on_trained(self, state: TrainState) -> None:
        """The last epoch is done."""

    def on_end(self, state: TrainState, result: dict[str, object]) -> None:
        """The trained network has been evaluated."""

    def close(self) -> None:
        """Called last, whatever happened."""
