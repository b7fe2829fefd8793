"""The parallelograms: DeepZ, its variants, and hBox's, which share their lines.

Lines of a crossing neuron l < 0 < u as in Jovanovic et al., "On the Paradox of
Certified Training" (TMLR 2022). Back-substitution of parallel lines gives the
zonotope's bounds exactly: a noise symbol of size (upper - lower offset)/2 per
neuron. The hBox methods push the same lines through the hybrid zonotope.
"""

from __future__ import annotations

import torch
from torch import Tensor

from newrelax.relaxations.base import relaxation
from newrelax.relaxations.crown import chord, soft_slope


@relaxation("DeepZ", native="same-slope", parallel=True)
def deepz(lower: Tensor, upper: Tensor) -> tuple[Tensor | float, ...]:
    """DeepZ (CAP, Fast-Lin, Neurify): lower lambda* x; upper lambda*(x - l).

    Source: Singh et al. 2018; Wong and Kolter 2018; Weng et al. 2018.
    lambda* = u/(u - l). Continuity: continuous. Sensitivity: rational.
    """
    slope, offset = chord(lower, upper)
    return slope, 0.0, slope, offset


@relaxation("DeepZ-Box", parallel=True)
def deepz_box(lower: Tensor, upper: Tensor) -> tuple[Tensor | float, ...]:
    """DeepZ-Box: lower 0; upper the constant u.

    Source: Jovanovic et al. 2022; with hybrid propagation this is hBox (Mirman
    et al. 2018). Continuity: both lines jump to x at l = 0.
    Sensitivity: piecewise linear.
    """
    return 0.0, 0.0, 0.0, upper


@relaxation("DeepZ-Diag", parallel=True)
def deepz_diag(lower: Tensor, upper: Tensor) -> tuple[Tensor | float, ...]:
    """DeepZ-Diag: lower x; upper x - l.

    Source: Jovanovic et al. 2022. Continuity: both lines jump to 0 at u = 0.
    Sensitivity: piecewise linear.
    """
    return 1.0, 0.0, 1.0, -lower


@relaxation("DeepZ-Diag-C", handles_stable=True, parallel=True)
def deepz_diag_c(lower: Tensor, upper: Tensor) -> tuple[Tensor | float, ...]:
    """DeepZ-Diag-C: lower x; upper x - l, for u <= 0 too; x itself for l >= 0.

    Source: Jovanovic et al. 2022. Continuity: continuous.
    Sensitivity: piecewise linear.
    """
    return 1.0, 0.0, 1.0, (-lower).clamp(min=0)


@relaxation("DeepZ-Switch", parallel=True)
def deepz_switch(lower: Tensor, upper: Tensor) -> tuple[Tensor | float, ...]:
    """DeepZ-Switch: DeepZ-Diag if -l <= u, else DeepZ-Box.

    Source: Jovanovic et al. 2022. The smaller parallelogram of the two.
    Continuity: both slopes jump at -l = u only. Sensitivity: piecewise linear.
    """
    slope = (-lower <= upper).to(lower.dtype)
    return slope, 0.0, slope, torch.minimum(-lower, upper)


@relaxation("DeepZ-Soft", minimum={"gamma": 0.0}, parallel=True)
def deepz_soft(lower: Tensor, upper: Tensor, *, gamma: float = 1.0) -> tuple[Tensor | float, ...]:
    """DeepZ-Soft: slope s = sigma(gamma r), r = l/u - u/l; lower s x; upper s x + max(u - u s, -l s).

    Source: Jovanovic et al. 2022. u - u s is the larger offset for s <= lambda*,
    -l s for s > lambda*. Continuity: continuous (for gamma > 0).
    Sensitivity: not even rational (a sigmoid of a rational function).
    """
    slope = soft_slope(lower, upper, gamma)
    return slope, 0.0, slope, torch.maximum(upper - upper * slope, -lower * slope)
