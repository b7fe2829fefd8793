"""Functions of each feature alone: ReLU, everything that is made of bends like ReLU's, and smooth activations."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from newrelax.network.enclosures import Planes
from newrelax.network.operators.base import Elementwise, LinesOf
from newrelax.relaxations.activation import RELU, Activation

Number = Tensor | float

_ROUNDINGS = 4


@dataclass(frozen=True)
class Relu(Elementwise):
    """max(x, 0)."""

    activation = RELU

    @property
    def keeps_chords(self) -> bool:
        return True

    def value(self, *x: Tensor) -> Tensor:
        return torch.relu(x[0])

    def image(self, lower: Tensor, upper: Tensor) -> tuple[Tensor, Tensor]:
        return lower.relu(), upper.relu()


@dataclass(frozen=True)
class Bend:
    """weight·relu(x − at)."""

    weight: Number
    at: Number


@dataclass(frozen=True)
class Bent(Elementwise):
    """slope·x + offset + Σ weight·relu(x − at): piecewise linear, continuous, bounded by lines of ReLU for each bend.

    Any ReLU relaxation thus bounds LeakyReLU, PReLU, ReLU6, clamp, hardsigmoid, abs and their like. Numbers or tensors
    that broadcast against [n, *features]; the bends ascend.
    """

    slope: Number
    offset: Number
    bends: tuple[Bend, ...]

    activation = RELU

    @property
    def rises(self) -> bool:
        """Whether the function is known to fall nowhere: its slopes are numbers, none of them below zero."""
        slopes = (
            [self.slope, *(bend.weight for bend in sorted(self.bends, key=lambda bend: float(bend.at)))] if self._known else []
        )
        numbers = [float(slope) for slope in slopes]
        return bool(numbers) and all(sum(numbers[: i + 1]) >= -1e-12 for i in range(len(numbers)))

    @property
    def _known(self) -> bool:
        numbers = [self.slope, *(end for bend in self.bends for end in (bend.weight, bend.at))]
        return not any(isinstance(number, Tensor) for number in numbers)

    @property
    def keeps_chords(self) -> bool:
        """One bend upwards of a function that falls nowhere: its chord is made of ReLU's."""
        return len(self.bends) == 1 and self.rises and float(self.bends[0].weight) >= 0

    @property
    def _leaks(self) -> bool:
        """Whether this is LeakyReLU: x above 0, slope·x below."""
        if not self._known or not _is_zero(self.offset) or len(self.bends) != 1 or not _is_zero(self.bends[0].at):
            return False
        return abs(float(self.slope) + float(self.bends[0].weight) - 1) < 1e-12

    def value(self, *x: Tensor) -> Tensor:
        """Each piece's slope times what of x lies in it: sums of ReLUs would lose the digits of x beside a far bend."""
        if self._leaks:
            return F.leaky_relu(x[0], float(self.slope))
        slope, constant, total = self.slope, self.offset, None
        for k in range(len(self.bends) + 1):
            inside = x[0]
            if k > 0:
                slope = slope + self.bends[k - 1].weight
                constant = constant - slope * self.bends[k - 1].at
                inside = inside.clamp(min=self.bends[k - 1].at)
            if k < len(self.bends):
                inside = inside.clamp(max=self.bends[k].at)
            if not _is_zero(slope):
                total = slope * inside if total is None else total + slope * inside
        total = torch.zeros_like(x[0]) if total is None else total
        return total if _is_zero(constant) else total + constant

    def image(self, lower: Tensor, upper: Tensor) -> tuple[Tensor, Tensor]:
        if self.rises:
            return self.value(lower), self.value(upper)
        low = high = self.value(lower)
        for end in (upper, *(torch.minimum(lower.clamp(min=bend.at), upper) for bend in self.bends)):
            value = self.value(end)
            low, high = torch.minimum(low, value), torch.maximum(high, value)
        return low, high

    def planes(self, lower: Tensor, upper: Tensor, lines_of: LinesOf) -> Planes:
        below: tuple[Number, Number] = (self.slope, self.offset)
        above = below
        for bend in self.bends:
            lines = lines_of(RELU, *((lower, upper) if _is_zero(bend.at) else (lower - bend.at, upper - bend.at)))
            low = _moved(lines.lower_slopes[0], lines.lower_offset, bend)
            high = _moved(lines.upper_slopes[0], lines.upper_offset, bend)
            if isinstance(bend.weight, Tensor):
                turned = bend.weight < 0
                low, high = (
                    (torch.where(turned, high[0], low[0]), torch.where(turned, high[1], low[1])),
                    (torch.where(turned, low[0], high[0]), torch.where(turned, low[1], high[1])),
                )
            elif bend.weight < 0:
                low, high = high, low
            below = _plus(below[0], low[0]), _plus(below[1], low[1])
            above = _plus(above[0], high[0]), _plus(above[1], high[1])
        slopes, offsets = ([_like(lower, line[k]) for line in (below, above)] for k in (0, 1))
        return Planes((slopes[0],), offsets[0], (slopes[1],), offsets[1])


def _moved(slope: Tensor, offset: Tensor, bend: Bend) -> tuple[Tensor, Tensor]:
    """The line of relu(x) as a line of the bend."""
    return bend.weight * slope, bend.weight * (offset if _is_zero(bend.at) else offset - slope * bend.at)


def _plus(number: Number, part: Tensor) -> Tensor:
    return part if _is_zero(number) else number + part


def _like(bounds: Tensor, number: Number) -> Tensor:
    """Numbers of a line as a tensor of the bounds' shape."""
    return number * torch.ones_like(bounds) if not isinstance(number, Tensor) or number.shape != bounds.shape else number


def _is_zero(number: Number) -> bool:
    return not isinstance(number, Tensor) and number == 0


@dataclass(frozen=True)
class Smooth(Elementwise):
    """An activation that has a relaxation of its own.

    floor: what the network itself keeps its inputs above, such as the ε under a normalisation's root. Bounds that have lost
    it, by rounding or because intervals forget how inputs hang together, get it back.
    """

    activation: Activation
    floor: float = -math.inf

    def value(self, *x: Tensor) -> Tensor:
        return self.activation(x[0])

    def image(self, lower: Tensor, upper: Tensor) -> tuple[Tensor, Tensor]:
        return self.activation.interval(*self._floored(lower, upper))

    def planes(self, lower: Tensor, upper: Tensor, lines_of: LinesOf) -> Planes:
        return super().planes(*self._floored(lower, upper), lines_of)

    def _floored(self, lower: Tensor, upper: Tensor) -> tuple[Tensor, Tensor]:
        if self.floor == -math.inf or not self.activation.is_defined_above(self.floor):
            return lower, upper
        # next to a pole the last digit of a bound decides; it may have been rounded up
        slack = _ROUNDINGS * torch.finfo(lower.dtype).eps * torch.maximum(lower.abs(), upper.abs()).detach()
        return (lower - slack).clamp(min=self.floor), (upper + slack).clamp(min=self.floor)
