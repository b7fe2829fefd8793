"""CROWN-IBP (R): hidden layers by intervals, only the specification by back-substitution."""

from __future__ import annotations

from torch import Tensor

from newrelax.propagations.base import Bounds, Problem, Propagation
from newrelax.propagations.linear_pass import LinearPass, Mode


class IntervalBackwardPropagation(Propagation):
    """One interval pass, one back-substitution."""

    name = "ibp+backward"
    recipe = "CROWN-IBP-R"
    batch = 200

    def bounds(self, problem: Problem, specification: Tensor) -> Bounds:
        return LinearPass(problem, Mode(problem.intervals)).bounds(specification)
