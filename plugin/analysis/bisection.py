"""Finding the jumps of a function of one variable with few evaluations.

An interval [a, b] is judged by how well the points outside it foretell the change across it: f(b) extrapolated from
a and points left of it, f(a) extrapolated from b and points right of it, by polynomials of a few degrees; the
suspicion is one of the smallest errors among them. Halving an interval divides the suspicion by 2 at a kink and by 4 or
more where f is smooth, but leaves it alone at a jump, however steep f is around it; a jump *beside* the interval spoils
one side only. So always halving the most suspicious interval flattens kinks and curvature until the jumps stand out, and
then runs down to them. What is left at the narrowest width the float type allows is held against the slopes beside it:
only a change that these slopes cannot explain is a jump.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import pairwise

from plugin.analysis.judgement import (
    NOISE_SITES,
    NOISE_STEPS,
    SETTLED_STEPS,
    Limits,
    Verdict,
    change_where_steepest,
    judge,
    resolution,
)
from plugin.analysis.records import LineScan
from plugin.analysis.samples import Interval, Samples, Trace, suspicion
from plugin.analysis.suspects import Suspects

SPLIT = 0.45
"""Where an interval is cut: not in the middle, for the same reason as the jitter of the grid."""
JITTER = 0.6
"""The inner nodes of the grid are moved by up to half of this share of its step: on an even grid, a function with evenly
spaced jumps looks smooth to an extrapolation."""
GOLDEN = 0.6180339887498949
"""Multiples of the golden ratio, modulo 1, lie evenly and never repeat: the moves of the grid's nodes."""
REFINED_STEPS = 8
"""An interval of up to this many narrowest steps is not cut for its width alone."""
SHORTEST_STEPS = 4
"""The grid's intervals are longer than this many narrowest steps."""
RESERVED_SHARE, RESERVED_MOST = 0.5, 64
"""Evaluations kept to halve the most suspicious intervals alone, one by one, down to the narrowest width: this share of
the budget, this many at most. One descent takes 50. On a certified loss with kinks everywhere, the last resort finds
a jump on every line that has any, from 100 evaluations on."""


def scan_line(
    function: Callable[[float], float],
    start: float,
    stop: float,
    *,
    narrowest: float,
    budget: int = 200,
    grid: int = 16,
    epsilon: float = 2.3e-16,
    name: str = "",
) -> LineScan:
    """Scans [start, stop] for jumps of a function.

    Args:
        narrowest: the smallest step in t that the function can resolve.
        budget: evaluations allowed, overshot by a few.
        grid: intervals of the coarse grid.
        epsilon: relative rounding error of one evaluation, a floor for the measured noise.
        name: of the line, for the record.

    Raises:
        ValueError: the line is empty or too short for the grid, the budget does not cover the grid, or the function is
            not finite on the grid.
    """
    fixed = NOISE_STEPS * NOISE_SITES + 1
    if not stop > start:
        raise ValueError(f"expected start < stop, got [{start}, {stop}]")
    if budget < grid + fixed:
        raise ValueError(f"expected a budget of at least {grid + fixed} evaluations for {grid} intervals, got {budget}")
    if (stop - start) / grid <= SHORTEST_STEPS * narrowest:
        raise ValueError(f"expected a line longer than {SHORTEST_STEPS * grid} x {narrowest:g}, got {stop - start:g}")
    samples = Samples(function)
    nodes = grid_nodes(start, stop, grid)
    check_finite(samples, nodes)
    limits = Limits(narrowest, resolution(samples, nodes, narrowest, epsilon))
    search = _Search(samples, limits, nodes)
    unexplored, followed = search.run(budget - fixed)
    jumps = [verdict.jump for verdict in search.verdicts if verdict.jump is not None]
    trace: Trace = () if jumps else search.deepest_trace()
    changes = [abs(verdict.change) for verdict in search.verdicts]
    if not jumps:
        # A smooth line never gets down to the narrowest width: look there once, where it is steepest.
        changes.append(abs(change_where_steepest(samples, nodes, SETTLED_STEPS * narrowest)))
    points = samples.points()
    return LineScan(
        direction=name,
        start=start,
        stop=stop,
        t=tuple(t for t, _ in points),
        values=tuple(value for _, value in points),
        jumps=tuple(sorted(jumps, key=lambda jump: -abs(jump.change))),
        resolution=limits.resolution,
        unexplored=unexplored if unexplored > limits.resolution else 0.0,
        narrowest_change=max(changes, default=0.0),
        narrowest=SETTLED_STEPS * narrowest,
        evaluations=len(samples) + NOISE_STEPS * NOISE_SITES,
        trace=trace,
        followed=followed,
    )


def grid_nodes(start: float, stop: float, grid: int) -> list[float]:
    """The ends of `grid` intervals, unevenly spaced."""
    step = (stop - start) / grid
    moves = [0.0] + [JITTER * ((i * GOLDEN) % 1.0 - 0.5) for i in range(1, grid)]
    return [start + (i + move) * step for i, move in enumerate(moves)] + [stop]


def check_finite(samples: Samples, nodes: Sequence[float]) -> None:
    """Raises ValueError where the function is not finite on the grid, all of which is called."""
    bad = [(t, value) for t, value in [(t, samples(t)) for t in nodes] if not math.isfinite(value)]
    if bad:
        raise ValueError(f"expected a finite loss, got {bad[0][1]} at t = {bad[0][0]:g}; take a shorter line")


class _Search:
    """The intervals of a line that wait to be halved, and the verdicts on those that became as narrow as can be."""

    def __init__(self, samples: Samples, limits: Limits, nodes: Sequence[float]) -> None:
        self._samples, self._limits = samples, limits
        self._suspects = Suspects(self._suspicion)
        self.verdicts: list[Verdict] = []
        for left, right in pairwise(nodes):
            interval = Interval(left, right)
            self._suspects.push(Interval(left, right, ((interval.width, abs(samples.change(interval))),)))

    def run(self, limit: int) -> tuple[float, int]:
        """Searches until the limit of evaluations: the largest suspicion left, and how many were followed to their end."""
        main = limit - round(min(limit * RESERVED_SHARE, RESERVED_MOST))
        unexplored = self._drain(main)
        if len(self._samples) < main:
            # Nothing suspicious is left, but a slope may have cancelled a jump by chance: look again from other points.
            self._refine((len(self._samples) + limit) // 2)
            unexplored = self._drain(limit)
        return unexplored, self._follow(limit)

    def deepest_trace(self) -> Trace:
        """Of the interval that was cut most often."""
        intervals = [*self._suspects, *(verdict.interval for verdict in self.verdicts)]
        return max((interval.trace for interval in intervals), key=len, default=())

    def _suspicion(self, interval: Interval) -> float:
        return suspicion(self._samples, interval)

    def _halves(self, interval: Interval) -> tuple[Interval, ...]:
        """An interval in two, or judged and gone when it is narrow enough."""
        middle = interval.left + interval.width * SPLIT
        narrow = interval.width <= SETTLED_STEPS * self._limits.narrowest
        if narrow or not interval.left < middle < interval.right:
            self.verdicts.append(judge(self._samples, interval, self._limits))
            return ()
        return self._samples.pieces(interval, middle)

    def _drain(self, limit: int) -> float:
        """Halves the most suspicious interval until the limit of evaluations, or until nothing stands above noise.

        The result is the largest suspicion left.
        """
        while self._suspects:
            largest, interval = self._suspects.pop()
            if largest <= self._limits.resolution or len(self._samples) >= limit:
                self._suspects.push(interval)
                return largest
            for half in self._halves(interval):
                self._suspects.push(half)
        return 0.0

    def _refine(self, limit: int) -> None:
        """Halves the widest intervals until the limit of evaluations."""
        widest = self._suspects.ranked_by(lambda interval: interval.width)
        while widest and len(self._samples) < limit and widest.largest > REFINED_STEPS * self._limits.narrowest:
            _, interval = widest.pop()
            for half in self._suspects.sorted(self._halves(interval)):
                widest.push(half)
        self._suspects = Suspects(self._suspicion)
        for interval in widest:
            self._suspects.push(interval)

    def _follow(self, limit: int) -> int:
        """Halves the most suspicious intervals one by one, each down to its end: how many came to it."""
        followed = 0
        while self._suspects and len(self._samples) < limit:
            largest, interval = self._suspects.pop()
            if largest <= self._limits.resolution:
                return followed + 1
            followed += self._descend(interval, limit)
        return followed

    def _descend(self, interval: Interval, limit: int) -> bool:
        """Halves an interval, and always the more suspicious half of it; the other halves wait with the rest.

        True when that ended at the narrowest width or with nothing above the noise, False at the limit of evaluations.
        """
        while len(self._samples) < limit:
            halves = self._suspects.sorted(self._halves(interval))
            if not halves:
                return True
            interval, other = halves
            self._suspects.push(other)
            if self._suspicion(interval) <= self._limits.resolution:
                self._suspects.push(interval)
                return True
        self._suspects.push(interval)
        return False
