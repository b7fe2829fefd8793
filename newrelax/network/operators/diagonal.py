"""Operators that scale and shift each feature alone."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from newrelax.network.operators.base import POINT, Affine, Footprint, Shape


class Diagonal(Affine):
    """y = scale·x + shift."""

    pointwise = injective = True

    @property
    def scale(self) -> Tensor:
        """Broadcasts against [n, *features]."""
        raise NotImplementedError

    def linear(self, *x: Tensor) -> Tensor:
        return self.scale * x[0]

    def magnitude(self, *radius: Tensor) -> Tensor:
        return self.scale.abs() * radius[0]

    def transpose(self, a: Tensor) -> tuple[Tensor, ...]:
        return (self.scale * a,)

    def ends(self, lower: Tensor, upper: Tensor) -> tuple[Tensor, Tensor]:
        low, high = self.value(lower), self.value(upper)
        return torch.minimum(low, high), torch.maximum(low, high)

    @property
    def footprint(self) -> Footprint | None:
        return POINT if self.windowed((1, 1)) is not None else None

    def windowed(self, size: Shape) -> Affine | None:
        return self if _is_uniform(self.scale) else None


@dataclass(frozen=True)
class Scale(Diagonal):
    """x·factor, or x / factor as the network itself computes it: without a rounding of 1 / factor."""

    factor: Tensor
    divides: bool = False

    @property
    def scale(self) -> Tensor:
        return 1 / self.factor if self.divides else self.factor

    def value(self, *x: Tensor) -> Tensor:
        return x[0] / self.factor if self.divides else x[0] * self.factor


@dataclass(frozen=True)
class Shift(Diagonal):
    """x + offset."""

    offset: Tensor

    def value(self, *x: Tensor) -> Tensor:
        return x[0] + self.offset

    def linear(self, *x: Tensor) -> Tensor:
        return x[0]

    magnitude = linear

    def transpose(self, a: Tensor) -> tuple[Tensor, ...]:
        return (a,)

    def ends(self, lower: Tensor, upper: Tensor) -> tuple[Tensor, Tensor]:
        return self.value(lower), self.value(upper)

    def windowed(self, size: Shape) -> Affine | None:
        return self


@dataclass(frozen=True)
class Negate(Diagonal):
    """−x."""

    def value(self, *x: Tensor) -> Tensor:
        return -x[0]

    linear = value

    def magnitude(self, *radius: Tensor) -> Tensor:
        return radius[0]

    def transpose(self, a: Tensor) -> tuple[Tensor, ...]:
        return (-a,)

    def windowed(self, size: Shape) -> Affine | None:
        return self


@dataclass(frozen=True)
class ScaleShift(Diagonal):
    """factor·x + offset in one operation: batch normalisation with given statistics.

    removed: the scaled mean, if the offset is a bias less that: what the rounding of the offset is relative to.
    """

    factor: Tensor
    offset: Tensor
    removed: Tensor | None = None

    @property
    def scale(self) -> Tensor:
        return self.factor

    def value(self, *x: Tensor) -> Tensor:
        return torch.addcmul(self.offset, self.factor, x[0])


def _is_uniform(scale: Tensor) -> bool:
    """Whether an image's channels are scaled alike in every place."""
    return all(size == 1 for size in scale.shape[-2:])
