"""Cauchy estimates of zonotope bounds, for networks whose exact zonotope does not fit in memory.

A sum Σ|eᵢ| of noise coefficients is the scale of Σ eᵢ·Rᵢ with independent standard Cauchy Rᵢ, and the median of
k such |projections| estimates it (Li et al. 2007; Wong et al., NeurIPS 2018; Mirman et al., ICML 2018). The
result is an estimate: it can lie on either side of the true bound, so it is never a certificate.
"""

from __future__ import annotations

import torch
from torch import Tensor

from .affine import Linear
from .graph import Add, Graph, Relu
from .propagation import Intervals, matvec
from .relaxation import Relaxation
from .substitution import ReluLines


def _cauchy(k: int, like: Tensor) -> Tensor:
    return torch.empty((k, *like.shape[1:]), dtype=like.dtype, device=like.device).cauchy_()


def estimated_margins(
    graph: Graph, lower: Tensor, upper: Tensor, matrix: Tensor, relaxation: Relaxation, *, k: int, hybrid: bool
) -> tuple[Tensor, Intervals]:
    """Estimated lower bounds of matrix @ logits, and the ReLUs' (estimated) pre-activation bounds.

    hybrid=False (DeepZ-Cauchy): every ReLU adds new noise symbols, so new projections. hybrid=True (hBox-Cauchy): the
    ReLUs' noise is carried as an interval, only the input's symbols are projected. matrix: the margin matrix, [batch,
    margins, classes]. k: number of projections.
    """
    batch, last = len(lower), len(graph.steps) - 1
    radius = (upper - lower) / 2
    center: dict[int, Tensor] = {-1: (lower + upper) / 2}
    projected: dict[int, Tensor] = {-1: _cauchy(k, radius).unsqueeze(1) * radius}  # [k, batch, *shape]
    beta: dict[int, Tensor] = {-1: torch.zeros_like(radius)}
    intervals: Intervals = {}

    def estimate(projections: Tensor) -> Tensor:
        return projections.abs().median(dim=0).values

    for index, step in enumerate(graph.steps):
        source = step.inputs[0]
        match step.operator:
            case Relu():
                spread = estimate(projected[source]) + beta[source]
                intervals[index] = center[source] - spread, center[source] + spread
                lines = relaxation(*intervals[index])
                relu, center[index] = ReluLines.at(lines, center[source], parallel=True)
                gap = relu.gap.view_as(center[source])
                projected[index] = projected[source] * lines.lower_slope
                if hybrid:
                    beta[index] = lines.lower_slope.abs() * beta[source] + gap
                else:
                    projected[index] = projected[index] + _cauchy(k, gap).unsqueeze(1) * gap
                    beta[index] = beta[source]
            case Add():
                for values in (center, projected, beta):
                    values[index] = values[source] + values[step.inputs[1]]
            case affine:
                center[index] = affine.value(center[source])
                projected[index] = affine.linear(projected[source].flatten(0, 1)).unflatten(0, (k, batch))
                if index < last or not isinstance(affine, Linear):
                    beta[index] = affine.magnitude(beta[source])
                else:  # merged: the margins' own weights, in absolute value
                    beta[index] = matvec((matrix @ affine.weight).abs(), beta[source])
    own = beta[last] if isinstance(graph.steps[last].operator, Linear) else matvec(matrix.abs(), beta[last])
    noise = (matrix @ projected[last].permute(1, 2, 0)).permute(2, 0, 1)
    return matvec(matrix, center[last]) - estimate(noise) - own, intervals
