"""Which relaxation bounds which activation."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from torch import Tensor

from newrelax.network.enclosures import Planes
from newrelax.relaxations.activation import Activation
from newrelax.relaxations.base import Lines, Relaxation
from newrelax.relaxations.smooth import smooth_lines


@dataclass(frozen=True)
class Relaxations:
    """A relaxation of ReLU, perhaps some of other activations, and `smooth_lines` for the rest.

    relu: None where nothing asks for lines. parallel: all lines have one slope.
    """

    relu: Relaxation | None
    others: Mapping[str, Relaxation] = field(default_factory=dict)
    parallel: bool = False

    def __call__(self, activation: Activation, lower: Tensor, upper: Tensor) -> Planes:
        """The lines of an activation's neurons over [lower, upper]."""
        lines = self._lines(activation, lower, upper)
        return Planes((lines.lower_slope,), lines.lower_offset, (lines.upper_slope,), lines.upper_offset)

    def _lines(self, activation: Activation, lower: Tensor, upper: Tensor) -> Lines:
        if activation.name == "relu" and self.relu is not None:
            return self.relu(lower, upper)
        if activation.name in self.others:
            return self.others[activation.name](lower, upper)
        return smooth_lines(activation, lower, upper, parallel=self.parallel)

    @property
    def chord(self) -> bool:
        """Whether ReLU's upper line is its chord."""
        return self.relu is not None and self.relu.chord and not self.parallel

    @property
    def widen(self) -> Callable[[Tensor, Tensor], tuple[Tensor, Tensor]] | None:
        """What replaces intervals before activations, for interval relaxations."""
        return None if self.relu is None else self.relu.widen
