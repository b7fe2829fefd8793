"""ReLU and what is made of it, between lines whose slopes are hints and whose offsets are proven."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from newrelax.network.operators.base import Elementwise, LinesOf
from newrelax.network.operators.elementwise import Bend, Bent, Number, Relu
from newrelax.relaxations.activation import RELU
from newrelax.rigorous.rounding import DOUBLE

Ends = tuple[Tensor, Tensor]


@dataclass(frozen=True)
class Sides:
    """weight·relu(x − at) with low·(x − at) ≤ relu(x − at) ≤ high·(x − at) + gap; low and high in [0, 1], [batch, *shape]."""

    weight: Tensor
    at: Tensor
    low: Tensor
    high: Tensor
    gap: Tensor


def as_bent(operator: Elementwise) -> Bent:
    """The step as slope·x + offset + Σ weight·relu(x − at)."""
    if isinstance(operator, Relu):
        return Bent(0.0, 0.0, (Bend(1.0, 0.0),))
    assert isinstance(operator, Bent)
    return operator


def image(bent: Bent, ends: Ends) -> Ends:
    """Its smallest and largest value, but for the rounding of values: at an end or at a bend."""
    lower, upper = ends
    places = [lower, upper]
    for bend in bent.bends:
        places.append(torch.minimum(torch.maximum(lower, _as(bend.at, lower)), upper))
    values = [bent.value(place) for place in places]
    low = high = values[0]
    for value in values[1:]:
        low, high = torch.minimum(low, value), torch.maximum(high, value)
    return low, high


def size(bent: Bent, largest: Tensor) -> Tensor:
    """All its terms and those of its lines in absolute value, for |x| ≤ largest [batch, *shape]."""
    total = _as(bent.slope, largest).abs() * largest + _as(bent.offset, largest).abs()
    for bend in bent.bends:
        total = total + 2 * _as(bend.weight, largest).abs() * (largest + _as(bend.at, largest).abs())
    return total


def sides(bent: Bent, ends: Ends, lines_of: LinesOf) -> Iterator[Sides]:
    """The lines of each bend between those ends; slopes are `lines_of`'s as far as they lie in [0, 1]."""
    for bend in bent.bends:
        at = _as(bend.at, ends[0])
        lower, upper = below(ends[0] - at), above(ends[1] - at)
        hints = lines_of(RELU, lower, upper)
        low, high = (_slope(hint, lower, upper) for hint in (hints.lower_slopes[0], hints.upper_slopes[0]))
        gap = torch.maximum(-high * lower, (1 - high) * upper).clamp(min=0) * (1 + 8 * DOUBLE.unit)
        yield Sides(_as(bend.weight, lower), at, low, high, gap)


def _slope(hint: Tensor, lower: Tensor, upper: Tensor) -> Tensor:
    """ReLU's own slope where it does not cross zero, else the hint if it is one."""
    hint = hint.expand_as(lower).nan_to_num(nan=0.0).clamp(0, 1)
    return torch.where(lower >= 0, 1.0, torch.where(upper <= 0, 0.0, hint))


def _as(number: Number, like: Tensor) -> Tensor:
    """A number, or a tensor that broadcasts, in the shape of [batch, *shape]."""
    return torch.as_tensor(number, dtype=like.dtype, device=like.device).expand_as(like)


def below(x: Tensor) -> Tensor:
    """The next number below: a lower bound of what one operation has rounded to x."""
    return torch.nextafter(x, x.new_full((), -torch.inf))


def above(x: Tensor) -> Tensor:
    """The next number above."""
    return torch.nextafter(x, x.new_full((), torch.inf))
