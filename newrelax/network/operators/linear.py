"""Linear layers."""

from __future__ import annotations

from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor

from newrelax.network.operators.base import Affine


@dataclass(frozen=True)
class Linear(Affine):
    """y = Wx + b over the last axis. weight: [outputs, inputs]; bias: [outputs] or None."""

    weight: Tensor
    bias: Tensor | None

    def value(self, *x: Tensor) -> Tensor:
        return F.linear(x[0], self.weight, self.bias)

    def linear(self, *x: Tensor) -> Tensor:
        return F.linear(x[0], self.weight)

    def magnitude(self, *radius: Tensor) -> Tensor:
        return F.linear(radius[0], self.weight.abs())

    def transpose(self, a: Tensor) -> tuple[Tensor, ...]:
        return (a @ self.weight,)

    def ends(self, lower: Tensor, upper: Tensor) -> tuple[Tensor, Tensor]:
        positive, negative = self.weight.clamp(min=0), self.weight.clamp(max=0)
        low = F.linear(lower, positive, self.bias) + F.linear(upper, negative)
        return low, F.linear(upper, positive, self.bias) + F.linear(lower, negative)
