"""Features in another shape, and constants as features."""

from __future__ import annotations

from dataclasses import dataclass

import torch
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


@dataclass(frozen=True)
class Constant(Affine):
    """The same values for every example, whatever the input: what a network repeats for each, as a step.

    tensor: [*shape]. input_shape: of the step that tells how many examples there are.
    """

    tensor: Tensor
    input_shape: Shape

    pointwise = True

    def value(self, *x: Tensor) -> Tensor:
        return self.tensor.expand(len(x[0]), *self.tensor.shape)

    def linear(self, *x: Tensor) -> Tensor:
        return torch.zeros_like(self.value(*x))

    def magnitude(self, *radius: Tensor) -> Tensor:
        return self.linear(*radius)

    def transpose(self, a: Tensor) -> tuple[Tensor, ...]:
        return (a.new_zeros(len(a), *self.input_shape),)
