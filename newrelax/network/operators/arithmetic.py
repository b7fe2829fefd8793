"""Sums, differences and concatenations of several steps."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from newrelax.network.interval import Interval
from newrelax.network.operators.base import POINT, Affine, Footprint, Shape


class Placewise(Affine):
    """Every place of the output sees the same place of the inputs, and nothing else."""

    @property
    def footprint(self) -> Footprint | None:
        return POINT

    def windowed(self, size: Shape) -> Affine | None:
        return self


@dataclass(frozen=True)
class Sum(Placewise):
    """± x₁ ± x₂ … of steps of one shape; signs: +1 or −1 for each."""

    signs: tuple[int, ...]

    def value(self, *x: Tensor) -> Tensor:
        total = x[0] if self.signs[0] > 0 else -x[0]
        for sign, part in zip(self.signs[1:], x[1:], strict=True):
            total = total + part if sign > 0 else total - part
        return total

    linear = value

    def magnitude(self, *radius: Tensor) -> Tensor:
        total = radius[0]
        for part in radius[1:]:
            total = total + part
        return total

    def transpose(self, a: Tensor) -> tuple[Tensor, ...]:
        return tuple(a if sign > 0 else -a for sign in self.signs)


@dataclass(frozen=True)
class LargerOfTwo(Placewise):
    """max(x, y), as y plus a ReLU of x − y that is a step of its own.

    Inputs: x, y, ReLU(x − y). Intervals of x and y alone say more than their sums: the larger of the ends.
    """

    def value(self, *x: Tensor) -> Tensor:
        return x[1] + x[2]

    linear = magnitude = value

    def interval(self, *x: Interval) -> Interval:
        first, second = x[0], x[1]
        return Interval.between(torch.maximum(first.lower, second.lower), torch.maximum(first.upper, second.upper))

    def transpose(self, a: Tensor) -> tuple[Tensor, ...]:
        return torch.zeros_like(a), a, a


@dataclass(frozen=True)
class Concatenate(Affine):
    """Steps side by side along an axis of [n, *features], 1 or more; sizes: of each along it."""

    axis: int
    sizes: tuple[int, ...]

    pointwise = injective = moves = True

    def value(self, *x: Tensor) -> Tensor:
        return torch.cat(x, self.axis)

    linear = magnitude = value

    def transpose(self, a: Tensor) -> tuple[Tensor, ...]:
        parts: tuple[Tensor, ...] = a.split(self.sizes, self.axis)
        return parts

    @property
    def footprint(self) -> Footprint | None:
        return POINT if self.axis == 1 else None

    def windowed(self, size: Shape) -> Affine | None:
        return self
