"""The hybrid zonotope: one noise symbol for each input feature, one interval for each neuron (hBox)."""

from __future__ import annotations

from torch import Tensor

from newrelax.propagations.base import Bounds, Problem, Propagation
from newrelax.propagations.linear_pass import LinearPass, Mode


class HybridPropagation(Propagation):
    """Σ|eᵢ| over the input's symbols is a row sum of a linear map, which back-substitution gives; the rest goes forward."""

    name = "hybrid"
    needs_parallel = True
    recipe = "hBox"

    def bounds(self, problem: Problem, specification: Tensor) -> Bounds:
        return LinearPass(problem, Mode(hybrid=True)).bounds(specification)
