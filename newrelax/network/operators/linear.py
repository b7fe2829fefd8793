"""Linear layers."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from newrelax.cpu.product import linear
from newrelax.network.operators.base import Affine


@dataclass(frozen=True)
class Linear(Affine):
    """y = Wx + b over the last axis. weight: [outputs, inputs]; bias: [outputs] or None."""

    weight: Tensor
    bias: Tensor | None

    def value(self, *x: Tensor) -> Tensor:
        return linear(x[0], self.weight, self.bias)

    def linear(self, *x: Tensor) -> Tensor:
        return linear(x[0], self.weight)

    def magnitude(self, *radius: Tensor) -> Tensor:
        return linear(radius[0], self.weight.abs())

    def transpose(self, a: Tensor) -> tuple[Tensor, ...]:
        return (linear(a, self.weight.t()),)

    def ends(self, lower: Tensor, upper: Tensor) -> tuple[Tensor, Tensor]:
        positive, negative = self.weight.clamp(min=0), self.weight.clamp(max=0)
        low = linear(lower, positive, self.bias) + linear(upper, negative)
        return low, linear(upper, positive, self.bias) + linear(lower, negative)
