"""Lines for any activation whose slopes are known: a few slopes are tried, and each gets its best offsets.

A line of slope s lies below f on [l, u] exactly if its offset is at most min(f(x) − s·x), which is taken at l, u or a
place where f has the slope s; above f, likewise with the maximum. So every slope gives sound lines, and a choice of slopes
is a choice of tightness alone: for each line the one with the smallest area to f, that is, with the best value in the
middle of [l, u]; for parallel lines the pair that is closest together. Slopes tried: the chord's, and f's at both ends and
in the middle. For a convex f the lower line is then the tangent in the middle and the upper line the chord.

What is chosen is found without gradients; the chosen slope and offset are then computed again as functions of l and u. A
slope that was tried and not chosen, infinite perhaps, so leaves nothing in the gradient, and autograd keeps one slope
instead of four. The place of an offset may be held fixed: there, or at its own end, f(x) − s·x does not change with x.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from newrelax.relaxations.activation import Activation
from newrelax.relaxations.base import Lines

STEEPEST = 0.31
"""Tangents steeper than the largest number to this power are not tried: their gradients could overflow."""

_CHORD, _MIDDLE, _LOWER, _UPPER = range(4)


class _Choice(NamedTuple):
    """Which slope a line has, and where f(x) − slope·x is extreme.

    slope: an index into the slopes tried. place: a number, where it is neither end. at_lower, at_upper: whether it is.
    """

    slope: Tensor
    place: Tensor
    at_lower: Tensor
    at_upper: Tensor


def smooth_lines(activation: Activation, lower: Tensor, upper: Tensor, *, parallel: bool) -> Lines:
    """Two lines around the activation over [lower, upper]; with one slope if they have to be parallel.

    lower, upper: floating point, one shape. Offsets are infinite where the activation is not defined on all of
    [lower, upper].
    """
    if activation.is_everywhere:
        return _lines(activation, lower, upper, parallel)
    inside, lower, upper = activation.within(lower, upper)
    lines = _lines(activation, lower, upper, parallel)
    below = torch.where(inside, lines.lower_offset, -math.inf)
    return lines._replace(lower_offset=below, upper_offset=torch.where(inside, lines.upper_offset, math.inf))


def _lines(activation: Activation, lower: Tensor, upper: Tensor, parallel: bool) -> Lines:
    if activation.derivative is None or activation.critical is None:
        low, high = activation.interval(lower, upper)
        zero = torch.zeros_like(low)
        return Lines(zero, low, zero, high)
    wide = _is_wide(lower, upper)
    with torch.no_grad():
        below, above = _chosen(activation, lower, upper, wide, parallel)
    slope = _slope(activation, below.slope, lower, upper, wide)
    upper_slope = slope if parallel else _slope(activation, above.slope, lower, upper, wide)
    return Lines(
        slope,
        _offset(activation, slope, below, lower, upper),
        upper_slope,
        _offset(activation, upper_slope, above, lower, upper),
    )


def _is_wide(lower: Tensor, upper: Tensor) -> Tensor:
    """Whether the chord has digits left; in a narrower interval the slope in the middle is as good."""
    size = torch.maximum(lower.detach().abs(), upper.detach().abs())
    least: float = torch.finfo(lower.dtype).eps ** (1 / 3)
    return (upper - lower).detach() > least * (1e-3 + size)


def _chord(activation: Activation, lower: Tensor, upper: Tensor) -> Tensor:
    return (activation(upper) - activation(lower)) / (upper - lower)


def _chosen(activation: Activation, lower: Tensor, upper: Tensor, wide: Tensor, parallel: bool) -> tuple[_Choice, _Choice]:
    """What the lower and the upper line are made of."""
    assert activation.derivative is not None
    assert activation.critical is not None
    middle = 0.5 * lower + 0.5 * upper
    slopes = torch.stack([_chord(activation, lower, upper), *(activation.derivative(x) for x in (middle, lower, upper))])
    steepest = torch.finfo(lower.dtype).max ** STEEPEST
    usable = torch.cat([(wide & slopes[0].isfinite())[None], slopes[1:].abs() <= steepest])
    slopes = torch.where(usable, slopes, 0.0)
    # Slope 0 is the interval's: where no slope can be computed it stands in the chord's place.
    usable = torch.cat([(usable[0] | ~usable.any(0))[None], usable[1:]])
    places = [lower.expand_as(slopes), upper.expand_as(slopes)]
    for place in activation.critical(slopes):
        places += [_held(part, lower, upper) for part in _repeated(activation, place, lower, upper)]
    least = torch.full_like(slopes, math.inf)
    most = -least
    where_least = where_most = torch.zeros_like(slopes, dtype=torch.long)
    for number, x in enumerate(places):
        value = activation(x) - slopes * x
        smaller, larger = value < least, value > most
        least, where_least = torch.where(smaller, value, least), torch.where(smaller, number, where_least)
        most, where_most = torch.where(larger, value, most), torch.where(larger, number, where_most)
    if parallel:
        low = high = torch.where(usable, least - most, -math.inf).nan_to_num(nan=-math.inf).argmax(0, keepdim=True)
    else:
        low = torch.where(usable, slopes * middle + least, -math.inf).nan_to_num(nan=-math.inf).argmax(0, keepdim=True)
        high = torch.where(usable, slopes * middle + most, math.inf).nan_to_num(nan=math.inf).argmin(0, keepdim=True)
    every = torch.stack([part.gather(0, low).squeeze(0) for part in places])
    others = every if parallel else torch.stack([part.gather(0, high).squeeze(0) for part in places])
    return _choice(low, where_least, every), _choice(high, where_most, others)


def _choice(slope: Tensor, where: Tensor, places: Tensor) -> _Choice:
    number = where.gather(0, slope)
    place = places.gather(0, number).squeeze(0)
    return _Choice(slope.squeeze(0), place, number.squeeze(0) == 0, number.squeeze(0) == 1)


def _repeated(activation: Activation, place: Tensor, lower: Tensor, upper: Tensor) -> tuple[Tensor, ...]:
    """The place; for a function that repeats itself the first and the last of its kind, between which f(x) − s·x is
    monotone from one to the next."""
    if activation.period is None:
        return (place,)
    period = activation.period
    return place + period * ((lower - place) / period).ceil(), place + period * ((upper - place) / period).floor()


def _held(place: Tensor, lower: Tensor, upper: Tensor) -> Tensor:
    """The place within [lower, upper]; lower where there is none."""
    return torch.minimum(torch.maximum(torch.where(place.isnan(), lower, place), lower), upper)


def _slope(activation: Activation, kind: Tensor, lower: Tensor, upper: Tensor, wide: Tensor) -> Tensor:
    """The slope of that kind, as a function of the bounds."""
    assert activation.derivative is not None
    chord = kind == _CHORD
    # Where another kind is chosen, each expression gets numbers that every function takes.
    at = torch.where(kind == _MIDDLE, 0.5 * lower + 0.5 * upper, torch.where(kind == _LOWER, lower, upper))
    tangent = activation.derivative(torch.where(chord, 1.0, at))
    used = chord & wide
    chord_slope = _chord(activation, torch.where(used, lower, 1.0), torch.where(used, upper, 2.0))
    chord_slope = torch.where(used & chord_slope.detach().isfinite(), chord_slope, 0.0)
    return torch.where(chord, chord_slope, tangent)


def _offset(activation: Activation, slope: Tensor, choice: _Choice, lower: Tensor, upper: Tensor) -> Tensor:
    """f(x) − slope·x at the place that was found for the slope."""
    place = torch.where(choice.at_lower, lower, torch.where(choice.at_upper, upper, choice.place))
    return activation(place) - slope * place
