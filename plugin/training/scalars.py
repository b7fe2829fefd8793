"""Numbers of one's own, read once an epoch: they go to TensorBoard and metrics.jsonl."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from newrelax.errors import UserError, with_type
from newrelax.network.place import line_of
from newrelax.plugins import Extension

if TYPE_CHECKING:
    from plugin.training.loop import TrainState


@dataclass(frozen=True)
class Scalar(Extension):
    """A number of the run's present state under a TensorBoard tag such as `norms/first_layer`. read: must change nothing."""

    name: str
    read: Callable[[TrainState], float | Tensor]
    summary: str = ""

    def __call__(self, state: TrainState) -> float:
        """The number as it is now; waits for the device. Raises UserError, with the place, where reading it fails."""
        try:
            with torch.no_grad():
                return float(self.read(state))
        except UserError:
            raise
        except Exception as problem:  # somebody else's code may fail in any way
            raise UserError(f"scalar {self.name}: {with_type(problem)} ({line_of(problem)})") from problem


def scalar(tag: str) -> Callable[[Callable[[TrainState], float | Tensor]], Scalar]:
    """Turns a function of the run's state into a number that is shown each epoch under that tag."""

    def decorate(function: Callable[[TrainState], float | Tensor]) -> Scalar:
        made = Scalar(tag, function, (function.__doc__ or tag).strip().splitlines()[0])
        object.__setattr__(made, "__module__", function.__module__)
        return made

    return decorate
