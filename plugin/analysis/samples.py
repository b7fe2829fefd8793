"""A function of one variable as it is known from the places where it was called, and how well these foretell the rest."""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

Function = Callable[[float], float]
Trace = tuple[tuple[float, float], ...]
"""(width, absolute change of the function over it), from the coarse grid down."""

MOST_POINTS = 5
"""Points in the longest extrapolation: fourth degree."""


@dataclass(frozen=True)
class Interval:
    """A piece [left, right] of the line, with the widths and changes of the pieces that it was cut from."""

    left: float
    right: float
    trace: Trace = field(default=(), repr=False)

    @property
    def width(self) -> float:
        return self.right - self.left


class Samples:
    """A function that is called once at each place; `samples(t)` calls it, or remembers."""

    def __init__(self, function: Function) -> None:
        self.function = function
        self._values: dict[float, float] = {}
        self._places: list[float] = []

    def __call__(self, t: float) -> float:
        if t not in self._values:
            self._values[t] = self.function(t)
            insort(self._places, t)
        return self._values[t]

    def __len__(self) -> int:
        return len(self._places)

    @property
    def largest(self) -> float:
        """The largest absolute value so far."""
        return max(abs(value) for value in self._values.values())

    def points(self) -> list[tuple[float, float]]:
        """(place, value), from left to right."""
        return sorted(self._values.items())

    def change(self, interval: Interval) -> float:
        """The function at the right end less that at the left end."""
        return self(interval.right) - self(interval.left)

    def pieces(self, interval: Interval, middle: float) -> tuple[Interval, Interval]:
        """The two parts of an interval that is cut in the middle, where the function is called."""
        self(middle)
        left, right = Interval(interval.left, middle), Interval(middle, interval.right)
        return self._traced(left, interval.trace), self._traced(right, interval.trace)

    def _traced(self, piece: Interval, trace: Trace) -> Interval:
        return Interval(piece.left, piece.right, (*trace, (piece.width, abs(self.change(piece)))))

    def beside(self, start: float, side: int, spacing: float) -> list[float]:
        """`start` and known places beyond it on one side (−1 left, 1 right), at least `spacing` apart."""
        chosen = [start]
        i = bisect_left(self._places, start) + side
        while 0 <= i < len(self._places) and len(chosen) < MOST_POINTS:
            if abs(self._places[i] - chosen[-1]) >= spacing:
                chosen.append(self._places[i])
            i += side
        return chosen


def extrapolations(places: Sequence[float], values: Sequence[float], t: float) -> list[float]:
    """Values at t of the polynomials through the first 2, 3, … points (Neville)."""
    row: list[float] = []
    result = []
    for i, (place, value) in enumerate(zip(places, values, strict=True)):
        new = [value]
        for j in range(i):
            # new[j + 1] goes through the points i − j − 1 … i
            weight = (t - place) / (places[i - j - 1] - place)
            new.append(new[j] + weight * (row[j] - new[j]))
        row = new
        if i >= 1:
            result.append(row[-1])
    return result


def suspicion(samples: Samples, interval: Interval) -> float:
    """How badly the points on either side foretell the change across an interval (units of the function).

    That is the second smallest error of all extrapolations across it: the smallest may be small by chance. Where there
    are no points to extrapolate from, it is the change itself.
    """
    # Points much closer together than the interval is wide would foretell its noise, not its slope.
    spacing = interval.width / 2
    errors = []
    for start, end, side in ((interval.left, interval.right, -1), (interval.right, interval.left, 1)):
        places = samples.beside(start, side, spacing)
        foretold = extrapolations(places, [samples(place) for place in places], end)
        errors += [abs(value - samples(end)) for value in foretold]
    return sorted(errors)[min(1, len(errors) - 1)] if errors else abs(samples.change(interval))
