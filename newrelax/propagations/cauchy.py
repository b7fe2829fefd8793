"""Cauchy estimates of zonotope bounds, for networks whose exact zonotope does not fit in memory.

A sum Σ|eᵢ| of noise coefficients is the scale of Σ eᵢ·Rᵢ with independent standard Cauchy Rᵢ, and the median of
k such |projections| estimates it (Li et al. 2007; Wong et al., NeurIPS 2018; Mirman et al., ICML 2018). The
result is an estimate: it can lie on either side of the true bound, so it is never a certificate.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from newrelax.network.operators.base import Affine, Nonlinear
from newrelax.network.operators.linear import Linear
from newrelax.propagations.base import Bounds, Ends, Problem, Propagation, matvec


def _cauchy(k: int, like: Tensor) -> Tensor:
    return torch.empty((k, *like.shape[1:]), dtype=like.dtype, device=like.device).cauchy_()


def _estimate(projections: Tensor) -> Tensor:
    return projections.abs().median(dim=0).values


@dataclass(frozen=True)
class CauchyPropagation(Propagation):
    """DeepZ-Cauchy: every nonlinear step adds new noise symbols, so new projections. k: how many projections."""

    k: int = 50

    name: ClassVar[str] = "cauchy"
    needs_parallel: ClassVar[bool] = True
    sound: ClassVar[bool] = False
    recipe: ClassVar[str] = "DeepZ"
    hybrid: ClassVar[bool] = False

    def bounds(self, problem: Problem, specification: Tensor) -> Bounds:
        network, k, batch = problem.network, self.k, len(problem.lower)
        last = network.last
        radius = (problem.upper - problem.lower) / 2
        center: dict[int, Tensor] = {-1: (problem.lower + problem.upper) / 2}
        projected: dict[int, Tensor] = {-1: _cauchy(k, radius).unsqueeze(1) * radius}  # [k, batch, *shape]
        noise: dict[int, Tensor] = {-1: torch.zeros_like(radius)}
        entered: dict[int, Ends] = {}

        for index, step in enumerate(network.steps):
            operator, sources = step.operator, step.inputs
            if isinstance(operator, Nonlinear):
                spread = [_estimate(projected[i]) + noise[i] for i in sources]
                ends = tuple((center[i] - s, center[i] + s) for i, s in zip(sources, spread, strict=True))
                entered[index] = ends[0]
                enclosure, center[index] = operator.enclose(ends, tuple(center[i] for i in sources), problem.relaxations, True)
                gap = enclosure.gap
                projected[index] = enclosure.carry(*(projected[i] for i in sources))
                carried = tuple(noise[i] for i in sources)
                noise[index] = enclosure.grown(*carried) if self.hybrid else enclosure.carry_size(*carried)
                if not self.hybrid:
                    projected[index] = projected[index] + _cauchy(k, gap).unsqueeze(1) * gap
                continue
            assert isinstance(operator, Affine)
            center[index] = operator.value(*(center[i] for i in sources))
            moved = operator.linear(*(projected[i].flatten(0, 1) for i in sources))
            projected[index] = moved.unflatten(0, (k, batch))
            if index == last and isinstance(operator, Linear):  # merged: the specification's own weights, in absolute value
                noise[index] = matvec((specification @ operator.weight).abs(), noise[sources[0]])
            else:
                noise[index] = operator.magnitude(*(noise[i] for i in sources))
        merged = isinstance(network.steps[last].operator, Linear)
        own = noise[last] if merged else matvec(specification.abs(), noise[last].flatten(1))
        spread_of_rows = (specification @ projected[last].flatten(2).permute(1, 2, 0)).permute(2, 0, 1)
        lower = matvec(specification, center[last].flatten(1)) - _estimate(spread_of_rows) - own
        return Bounds(lower, problem.layers(entered))


@dataclass(frozen=True)
class HybridCauchyPropagation(CauchyPropagation):
    """hBox-Cauchy: nonlinear steps' noise is carried as an interval, only the input's symbols are projected."""

    name: ClassVar[str] = "cauchy-hybrid"
    recipe: ClassVar[str] = "hBox"
    hybrid: ClassVar[bool] = True
