"""Where to look: intervals [l, u] and points x of an activation, and how far lines are off there."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from newrelax.relaxations.activation import RELU, Activation
from newrelax.relaxations.base import Lines

Intervals = tuple[Tensor, Tensor]
"""(lower, upper), each [n], lower <= upper."""

ROUNDINGS = 16
"""Rounded operations granted to a relaxation: its lines are made of about a dozen, on numbers
no larger than those of `_size`, so they may be off by this many units of rounding at that size."""

ALLOWANCE = 1e-8
"""Absolute excess not held against a relaxation. Guards such as u/(u - l + 1e-8) move a line by
up to this much; networks with pre-activations of order one round by more in float32."""

_MAGNITUDES = (
    1e-30,
    1e-20,
    1e-12,
    1e-9,
    1e-8,
    1e-7,
    1e-6,
    1e-4,
    1e-2,
    0.1,
    0.3,
    1.0,
    1.5,
    2.0,
    3.0,
    10.0,
    1e2,
    1e4,
    1e6,
    1e10,
    1e18,
    1e30,
)


def display(name: str) -> str:
    """An activation's name as sentences have it."""
    return "ReLU" if name == RELU.name else name


def search_intervals(activation: Activation, dtype: torch.dtype, generator: torch.Generator) -> Iterator[Intervals]:
    """The intervals of a search, in batches, those first that read well. Only usable ones, and no batch is empty."""
    for lower, upper in _stages(activation, dtype, generator):
        lower, upper = usable(activation, lower, upper)
        if len(lower):
            yield lower, upper


def usable(activation: Activation, lower: Tensor, upper: Tensor) -> Intervals:
    """Those of the intervals on which the activation is defined, with values and slopes whose products do not overflow."""
    if activation is RELU:
        return lower, upper
    inside, low, high = activation.within(lower, upper)
    inside = inside & (low == lower) & (high == upper)
    most = torch.finfo(lower.dtype).max ** 0.5
    for end in (low, high):
        for function in (activation, activation.derivative):
            inside = inside if function is None else inside & (function(end).abs() < most)
    return lower[inside], upper[inside]


def points(activation: Activation, lines: Lines | None, lower: Tensor, upper: Tensor) -> Tensor:
    """Places in [lower, upper] to look at: [m, n], among them the ends, 0, where the activation turns, and where it has the
    slope of a line."""
    known = activation is RELU or activation.critical is not None
    shares = torch.linspace(0, 1, 6 if known else 65, dtype=lower.dtype)[:, None]
    found = [lower[None], upper[None], torch.zeros_like(lower)[None]]
    found += [torch.full_like(lower, at)[None] for at in activation.extrema]
    if lines is not None and activation.critical is not None:
        slopes = torch.stack([lines.lower_slope, lines.upper_slope])
        found += [place.expand_as(slopes) for place in activation.critical(slopes)]
    places = torch.cat(found)
    if activation.period is not None:
        # All that lie within are alike but for a line's slope: the first and the last are extreme.
        turns = activation.period
        places = torch.cat(
            [
                places,
                places + turns * ((lower - places) / turns).ceil(),
                places + turns * ((upper - places) / turns).floor(),
            ]
        )
    inside = lower * (1 - shares) + upper * shares  # no upper - lower: that can overflow
    places = torch.cat([places, inside])
    return torch.minimum(torch.maximum(torch.where(places.isnan(), lower, places), lower), upper)


def excess(activation: Activation, lines: Lines, x: Tensor) -> tuple[Tensor, Tensor]:
    """How far the lower and the upper line are on the wrong side of the activation at x (float64), each [m, n].

    lines: each [n]; x: [m, n]. The lines are evaluated in float64, so that in float32 only the relaxation's own rounding
    counts. Positive is a violation.
    """
    parts = [part.double() for part in lines]
    y = activation(x.double())
    return parts[0] * x.double() + parts[1] - y, y - parts[2] * x.double() - parts[3]


def tolerance(activation: Activation, lines: Lines | None, lower: Tensor, upper: Tensor, x: Tensor) -> Tensor:
    """The excess that rounding and guards explain (float64), see `ROUNDINGS` and `ALLOWANCE`; [n] or [2, 1, n].

    x: [m, n], where the activation is looked at.
    """
    size = _size(activation, lines, lower, upper, x)
    return ROUNDINGS * torch.finfo(lower.dtype).eps * size + ALLOWANCE


def _size(activation: Activation, lines: Lines | None, lower: Tensor, upper: Tensor, x: Tensor) -> Tensor:
    """How large the numbers are that lines over [lower, upper] are made of.

    For ReLU, the larger end. Otherwise that times the activation's steepness, and its values; or the terms of the line
    itself, if they are smaller: a line that hardly rises has no excuse in what is steep elsewhere.
    """
    ends = torch.maximum(lower.abs(), upper.abs()).double()
    if activation is RELU:
        return ends
    steep = torch.ones_like(ends)
    if activation.derivative is not None:
        slopes = activation.derivative(x.double()).abs()
        steep = torch.where(slopes.isfinite(), slopes, 0.0).amax(0).clamp(min=1)
    values = activation(x.double()).abs().amax(0)
    size = ends * steep + values
    if lines is None:
        return size
    parts = [part.double().abs() for part in lines]
    own = torch.stack([parts[0] * ends + parts[1], parts[2] * ends + parts[3]])
    # The function itself rounds as x does: x·Φ(x) by what x·1 rounds.
    return torch.fmin(size, torch.where(own.isfinite(), own, torch.inf) + ends)[:, None]


def _stages(activation: Activation, dtype: torch.dtype, generator: torch.Generator) -> Iterator[Intervals]:
    yield all_pairs(torch.arange(-6, 7, dtype=dtype) / 2)
    yield all_pairs(torch.arange(-40, 41, dtype=dtype) / 13)
    if activation is not RELU:  # smooth functions bend over a longer way
        yield all_pairs(torch.arange(-40, 41, dtype=dtype) * 0.2917)
    # The product of two bounds, as in -l u/(u - l), must not overflow: 1e18 in float32.
    size = torch.tensor([m for m in _MAGNITUDES if m * m < torch.finfo(dtype).max], dtype=dtype)
    yield all_pairs(torch.cat([-size.flip(0), torch.zeros(1, dtype=dtype), size]))
    yield _neighbours(size)
    power = torch.rand(2, 2000, generator=generator, dtype=dtype) * 12 - 8
    sign = torch.randint(0, 2, (2, 2000), generator=generator) * 2 - 1
    ends = sign * 10**power
    yield ends.amin(0), ends.amax(0)
    if activation is not RELU:  # and narrow ones, which random ends seldom give
        middle = torch.randn(2000, generator=generator, dtype=dtype) * 4
        width = 10 ** (torch.rand(2000, generator=generator, dtype=dtype) * 8 - 7)
        yield middle - width, middle + width


def all_pairs(values: Tensor) -> Intervals:
    """Every [l, u] with both ends among ascending values."""
    first, second = torch.triu_indices(len(values), len(values))
    return values[first], values[second]


def _neighbours(size: Tensor) -> Intervals:
    """-l = u, l = u, l = 0 and u = 0, and one unit of rounding beside each."""
    zero = torch.zeros_like(size)
    up, down = torch.nextafter(size, 2 * size), torch.nextafter(size, zero)
    tiny = torch.full_like(size, torch.finfo(size.dtype).tiny)
    lower = [-size, -size, -size, size, -up, down, -size, -size, -tiny, tiny, -tiny]
    upper = [size, up, down, size, -size, size, tiny, -tiny, size, size, tiny]
    return torch.cat(lower), torch.cat(upper)
