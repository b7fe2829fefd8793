"""IBP: [l, u] layer by layer."""

from __future__ import annotations

from torch import Tensor

from newrelax.propagations.base import Bounds, Problem, Propagation, interval_ends, interval_pass


class IntervalPropagation(Propagation):
    """Intervals throughout; relaxations such as IBP-Widen replace them before each activation."""

    name = "interval"
    recipe = "IBP"
    batch = 1000

    def bounds(self, problem: Problem, specification: Tensor) -> Bounds:
        plain = problem.relaxations.widen is None
        found = problem.intervals if plain else interval_pass(problem, widened=True)
        return Bounds(interval_ends(problem, found, specification)[0], problem.layers(found.entered))
