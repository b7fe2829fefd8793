"""Finding the jumps of a function of one variable with few evaluations.

An interval [a, b] is judged by how well the points outside it foretell the change across it: f(b) extrapolated from
a and points left of it, f(a) extrapolated from b and points right of it, by polynomials of a few degrees; the
suspicion is the smallest error among them. Halving an interval divides the suspicion by 2 at a kink and by 4 or more
where f is smooth, but leaves it alone at a jump, however steep f is around it; a jump *beside* the interval spoils one
side only. So always halving the most suspicious interval flattens kinks and curvature until the jumps stand out, and
then runs down to them. What is left at the narrowest width the float type allows is held against the slopes beside it:
only a change that these slopes cannot explain is a jump.
"""

from __future__ import annotations

import heapq
import itertools
from bisect import bisect_left, insort
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from plugin.analysis.records import Jump, LineScan

NOISE_FACTOR = 32.0
"""A change below this many standard deviations of the rounding noise is never called a jump. Some hundred
differences are looked at per line, so 6 would do for Gaussian noise; rounding has heavier tails."""
SLOPE_FACTOR = 10.0
"""A jump leaves the range of the changes over six intervals beside it, equally wide, by at least this factor."""
ROUNDED_WIDTH = 0.1
"""The narrowest interval, some ten roundings of the position wide, is wider or narrower than said by up to this share."""
NOISE_SITES = 4
SPLIT = 0.45
"""Where an interval is cut: not in the middle, for the same reason as the jitter of the grid."""
JITTER = 0.6
GOLDEN = 0.6180339887498949
MAX_POINTS = 5
"""Points in the longest extrapolation: fourth degree."""
RESERVE = (0.5, 64)
"""Evaluations kept to halve the most suspicious intervals alone, one by one, down to the narrowest width: this share of
the budget, this many at most. One descent takes 50. On a certified loss with kinks everywhere, the last resort finds
a jump on every line that has any, from 100 evaluations on."""


@dataclass
class _Interval:
    left: float
    right: float
    trace: tuple[tuple[float, float], ...] = field(default=(), repr=False)


_Heap = list[tuple[float, int, _Interval]]


def _extrapolate(ts: Sequence[float], fs: Sequence[float], t: float) -> list[float]:
    """Values at t of the polynomials through the first 2, 3, … points (Neville)."""
    row: list[float] = []
    result = []
    for i, (ti, fi) in enumerate(zip(ts, fs, strict=False)):
        new = [fi]
        for j in range(i):
            # new[j + 1] goes through the points i - j - 1 … i
            weight = (t - ti) / (ts[i - j - 1] - ti)
            new.append(new[j] + weight * (row[j] - new[j]))
        row = new
        if i >= 1:
            result.append(row[-1])
    return result


class _Search:
    def __init__(self, function: Callable[[float], float], narrowest: float) -> None:
        self.function = function
        self.narrowest = narrowest
        self.known: dict[float, float] = {}
        self.sorted: list[float] = []
        self.resolution = 0.0
        self.jumps: list[Jump] = []
        self.settled: list[_Interval] = []
        self.floor_change = 0.0
        self._order = itertools.count()
        self.heap: _Heap = []

    @property
    def used(self) -> int:
        return len(self.known)

    def value(self, t: float) -> float:
        if t not in self.known:
            self.known[t] = self.function(t)
            insort(self.sorted, t)
        return self.known[t]

    def push(self, heap: _Heap, interval: _Interval) -> None:
        heapq.heappush(heap, (-self.suspicion(interval), next(self._order), interval))

    def pop(self, heap: _Heap) -> tuple[float, _Interval]:
        """The most suspicious interval; suspicions are brought up to date with the points known by now."""
        while True:
            stale, _, interval = heapq.heappop(heap)
            fresh = self.suspicion(interval)
            if not heap or fresh >= -heap[0][0] or fresh >= -stale:
                return fresh, interval
            heapq.heappush(heap, (-fresh, next(self._order), interval))

    def _beside(self, start: float, side: int, spacing: float) -> list[float]:
        """`start` and points beyond it on one side (-1 left, 1 right), at least `spacing` apart."""
        points = [start]
        i = bisect_left(self.sorted, start) + side
        while 0 <= i < len(self.sorted) and len(points) < MAX_POINTS:
            if abs(self.sorted[i] - points[-1]) >= spacing:
                points.append(self.sorted[i])
            i += side
        return points

    def suspicion(self, interval: _Interval) -> float:
        """Smallest error of the extrapolations across the interval from either side (units of the function)."""
        a, b = interval.left, interval.right
        # Points much closer together than the interval is wide would foretell its noise, not its slope.
        spacing = (b - a) / 2
        errors = []
        for start, end, side in ((a, b, -1), (b, a, 1)):
            points = self._beside(start, side, spacing)
            errors += [abs(p - self.known[end]) for p in _extrapolate(points, [self.known[p] for p in points], end)]
        return sorted(errors)[1] if errors else abs(self.known[b] - self.known[a])

    def measure_noise(self, nodes: list[float], epsilon: float) -> None:
        """Rounding noise from second differences at the narrowest spacing, where slope and curvature are nothing."""
        sites = []
        for site in range(NOISE_SITES):
            t = nodes[1 + (len(nodes) - 2) * site // NOISE_SITES]
            f = [self.known[t], *(self.function(t + j * self.narrowest) for j in (1, 2, 3))]
            sites.append(sum((f[i] - 2 * f[i + 1] + f[i + 2]) ** 2 / 6 for i in (0, 1)) / 2)
        # A jump may sit in one of the sites; noise sits in all of them.
        kept = sorted(sites)[:-1]
        sigma = (sum(kept) / len(kept)) ** 0.5
        self.resolution = NOISE_FACTOR * max(sigma, epsilon * max(abs(v) for v in self.known.values()))

    def halve(self, interval: _Interval, heap: _Heap) -> None:
        """Replace an interval by its halves, or hold it against its surroundings when it is narrow enough."""
        a, b = interval.left, interval.right
        middle = a + (b - a) * SPLIT
        if b - a <= 2 * self.narrowest or not a < middle < b:
            self.settle(interval)
            return
        self.value(middle)
        for lo, hi in ((a, middle), (middle, b)):
            change = abs(self.value(hi) - self.value(lo))
            self.push(heap, _Interval(lo, hi, (*interval.trace, (hi - lo, change))))

    def settle(self, interval: _Interval) -> None:
        """Jump or steep slope: compare the change over the narrowest interval with the slopes beside it."""
        a, b = interval.left, interval.right
        self.settled.append(interval)
        change = self.value(b) - self.value(a)
        self.floor_change = max(self.floor_change, abs(change))
        spacing = b - a
        left = [self.value(a - j * spacing) for j in range(4)]
        right = [self.value(b + j * spacing) for j in range(4)]
        beside = [left[i] - left[i + 1] for i in range(3)] + [right[i + 1] - right[i] for i in range(3)]
        middle, spread = (max(beside) + min(beside)) / 2, max(beside) - min(beside)
        # The noise in the six changes is counted once, in the resolution; a rounded position moves a slope's change.
        spread = max(0.0, spread - self.resolution / 4)
        if abs(change - middle) > SLOPE_FACTOR * spread + self.resolution + ROUNDED_WIDTH * abs(middle):
            self.jumps.append(Jump(a + spacing / 2, spacing, change - middle, interval.trace))

    def drain(self, heap: _Heap, limit: int) -> float:
        """Halve the most suspicious interval until the limit of evaluations, or until nothing stands above noise.

        Returns the largest suspicion left.
        """
        while heap:
            suspicion, interval = self.pop(heap)
            if suspicion <= self.resolution or self.used >= limit:
                heapq.heappush(heap, (-suspicion, next(self._order), interval))
                return suspicion
            self.halve(interval, heap)
        return 0.0

    def descend(self, interval: _Interval, limit: int) -> bool:
        """Halve an interval, and always the more suspicious half of it; the other halves go back to the heap.

        True when that ended at the narrowest width or with nothing above the noise, False at the limit of evaluations.
        """
        while self.used < limit:
            halves: _Heap = []
            settled = len(self.settled)
            self.halve(interval, halves)
            if len(self.settled) > settled:
                return True
            (_, _, interval), other = sorted(halves)
            heapq.heappush(self.heap, other)
            if self.suspicion(interval) <= self.resolution:
                self.push(self.heap, interval)
                return True
        self.push(self.heap, interval)
        return False

    def refine(self, limit: int) -> None:
        """Halve the widest intervals until the limit of evaluations."""
        widest = [(-(i.right - i.left), n, i) for _, n, i in self.heap]
        heapq.heapify(widest)
        self.heap = []
        while widest and self.used < limit:
            width, _, interval = widest[0]
            if -width <= 8 * self.narrowest:
                break
            heapq.heappop(widest)
            halves: _Heap = []
            self.halve(interval, halves)
            for _, n, half in halves:
                heapq.heappush(widest, (half.left - half.right, n, half))
        for _, _, interval in widest:
            self.push(self.heap, interval)


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
    """Scan [start, stop] for jumps of a function.

    narrowest: the smallest step in t that the function can resolve. budget: evaluations allowed, overshot by a few.
    grid: intervals of the coarse grid. epsilon: relative rounding error of one evaluation, a floor for the measured
    noise. Raises ValueError when the line is empty, too short for the grid, or the budget does not cover the grid, or
    the function is not finite on the grid.
    """
    fixed = 3 * NOISE_SITES + 1
    if not stop > start:
        raise ValueError(f"expected start < stop, got [{start}, {stop}]")
    if budget < grid + fixed:
        raise ValueError(f"expected a budget of at least {grid + fixed} evaluations for {grid} intervals, got {budget}")
    step = (stop - start) / grid
    # On an even grid, a function with evenly spaced jumps looks smooth to an extrapolation: spread the inner nodes.
    shift = [0.0] + [JITTER * ((i * GOLDEN) % 1.0 - 0.5) for i in range(1, grid)]
    if step <= 4 * narrowest:
        raise ValueError(f"expected a line longer than {4 * grid} x {narrowest:g}, got {stop - start:g}")
    search = _Search(function, narrowest)
    nodes = [start + (i + shift[i]) * step for i in range(grid)] + [stop]
    values = [search.value(t) for t in nodes]
    bad = [t for t, v in zip(nodes, values, strict=False) if v != v or abs(v) == float("inf")]
    if bad:
        raise ValueError(f"expected a finite loss, got {search.known[bad[0]]} at t = {bad[0]:g}; take a shorter line")
    search.measure_noise(nodes, epsilon)
    for i in range(grid):
        search.push(
            search.heap, _Interval(nodes[i], nodes[i + 1], ((nodes[i + 1] - nodes[i], abs(values[i + 1] - values[i])),))
        )
    limit = budget - fixed
    main = limit - round(min(limit * RESERVE[0], RESERVE[1]))
    unexplored = search.drain(search.heap, main)
    if search.used < main:
        # Nothing suspicious is left, but a slope may have cancelled a jump by chance: look again from other points.
        search.refine((search.used + limit) // 2)
        unexplored = search.drain(search.heap, limit)
    followed = 0
    while search.heap and search.used < limit:
        suspicion, interval = search.pop(search.heap)
        if suspicion <= search.resolution:
            followed += 1
            break
        followed += search.descend(interval, limit)
    trace: tuple[tuple[float, float], ...] = ()
    if not search.jumps:
        deepest = [i for _, _, i in search.heap] + search.settled
        trace = max((i.trace for i in deepest), key=len, default=())
        # A smooth line never gets down to the narrowest width: look there once, where it is steepest.
        i = max(range(grid), key=lambda k: abs(values[k + 1] - values[k]))
        search.floor_change = max(search.floor_change, abs(search.value(nodes[i] + 2 * narrowest) - values[i]))
    points = sorted(search.known.items())
    return LineScan(
        direction=name,
        start=start,
        stop=stop,
        t=tuple(t for t, _ in points),
        values=tuple(v for _, v in points),
        jumps=tuple(sorted(search.jumps, key=lambda j: -abs(j.change))),
        resolution=search.resolution,
        unexplored=unexplored if unexplored > search.resolution else 0.0,
        narrowest_change=search.floor_change,
        narrowest=2 * narrowest,
        evaluations=search.used + 3 * NOISE_SITES,
        trace=trace,
        followed=followed,
    )
