"""An interval for each value of a step: centre and radius, as matrix products carry them."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor


class Interval(NamedTuple):
    """center − radius ≤ x ≤ center + radius; both tensors [batch, *shape of the step]."""

    center: Tensor
    radius: Tensor

    @classmethod
    def between(cls, lower: Tensor, upper: Tensor) -> Interval:
        """The interval [lower, upper]."""
        return cls(0.5 * (upper + lower), 0.5 * (upper - lower))  # a CPU divides slowly

    @property
    def lower(self) -> Tensor:
        return self.center - self.radius

    @property
    def upper(self) -> Tensor:
        return self.center + self.radius

    def detach(self) -> Interval:
        """The same numbers without their way back to the weights."""
        return Interval(self.center.detach(), self.radius.detach())
