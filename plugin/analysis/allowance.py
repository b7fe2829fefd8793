"""How much time measuring may take beside training."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager


class Allowance:
    """A share of the training time, in percent, that measuring may use up, but never ahead of time.

    spent: seconds of measuring so far, those before an interruption included. clock: in seconds.
    """

    def __init__(self, percent: float, spent: float = 0.0, clock: Callable[[], float] = time.perf_counter) -> None:
        self.percent, self.spent, self.last = percent, spent, 0.0
        self._clock = clock

    def covers(self, cost: float, training: float) -> bool:
        """Whether `cost` more seconds fit after `training` seconds of training."""
        return self.spent + cost <= self.percent / 100 * training

    @contextmanager
    def spending(self) -> Iterator[None]:
        """Counts the time spent inside; `last` is what the latest took."""
        started = self._clock()
        try:
            yield
        finally:
            self.last = self._clock() - started
            self.spent += self.last
