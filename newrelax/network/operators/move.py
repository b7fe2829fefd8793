"""Features in another shape."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from newrelax.network.operators.base import Affine, Shape


@dataclass(frozen=True)
class Reshape(Affine):
    """[n, *before] → [n, *after], in order."""

    before: Shape
    after: Shape

    pointwise = injective = moves = True

    def value(self, *x: Tensor) -> Tensor:
        return x[0].reshape(len(x[0]), *self.after)

    linear = magnitude = value

    def transpose(self, a: Tensor) -> tuple[Tensor, ...]:
        return (a.reshape(len(a), *self.before),)
