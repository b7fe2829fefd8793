"""CROWN: the bounds of every layer, and the specification's, by substituting lines backwards to the input."""

from __future__ import annotations

from torch import Tensor

from newrelax.propagations.base import Bounds, Problem, Propagation
from newrelax.propagations.linear_pass import LinearPass, Mode


class BackwardPropagation(Propagation):
    """Every layer by back-substitution. With parallel lines this is exactly the zonotope (DeepZ)."""

    name = "backward"
    recipe = "CROWN"

    def bounds(self, problem: Problem, specification: Tensor) -> Bounds:
        return LinearPass(problem, Mode()).bounds(specification)
