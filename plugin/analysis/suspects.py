"""Intervals in the order in which they are to be halved."""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Callable, Iterable, Iterator

from plugin.analysis.samples import Interval


class Suspects:
    """Intervals, the one with the largest rank first, and of equal ones the one that came first.

    The rank of an interval may change while it waits, as more becomes known; it is asked for again when its turn comes.
    """

    def __init__(self, rank: Callable[[Interval], float]) -> None:
        self._rank = rank
        self._heap: list[tuple[float, int, Interval]] = []
        self._order = itertools.count()

    def ranked_by(self, rank: Callable[[Interval], float]) -> Suspects:
        """The same intervals in another order; of equal ones the first is still the one that came first."""
        other = Suspects(rank)
        other._order = self._order
        other._heap = [(-rank(interval), n, interval) for _, n, interval in self._heap]
        heapq.heapify(other._heap)
        return other

    def __bool__(self) -> bool:
        return bool(self._heap)

    def __iter__(self) -> Iterator[Interval]:
        """All intervals, in no order that means anything."""
        return (interval for _, _, interval in self._heap)

    @property
    def largest(self) -> float:
        """The rank of the first, as it was when it came."""
        return -self._heap[0][0]

    def sorted(self, intervals: Iterable[Interval]) -> list[Interval]:
        """The intervals in this order, without taking them up."""
        return sorted(intervals, key=lambda interval: -self._rank(interval))

    def push(self, interval: Interval) -> None:
        """Takes an interval up."""
        heapq.heappush(self._heap, (-self._rank(interval), next(self._order), interval))

    def pop(self) -> tuple[float, Interval]:
        """Takes out the first interval, with its present rank."""
        while True:
            stale, _, interval = heapq.heappop(self._heap)
            rank = self._rank(interval)
            if not self._heap or rank >= self.largest or rank >= -stale:
                return rank, interval
            heapq.heappush(self._heap, (-rank, next(self._order), interval))
