"""CROWN's family: the chord above (or the triangle's other side), a free lower line.

Lines of a crossing neuron l < 0 < u as in Jovanovic et al., "On the Paradox of
Certified Training" (TMLR 2022). lambda* = u/(u - l) is the slope of the chord.
"Sensitivity" says what the bounds are as functions of the weights of one layer.
"""

from __future__ import annotations

import torch
from torch import Tensor

from newrelax.relaxations.base import relaxation

GUARD = 1e-8
"""Narrowest crossing interval that gets its exact chord (auto_LiRPA uses the same).

The slope's derivative grows as 1/(u - l), so below this width it would overflow
when it is multiplied through a few layers in float32.
"""


def chord(lower: Tensor, upper: Tensor) -> tuple[Tensor, Tensor]:
    """Slope and offset of the chord: lambda* = u/(u - l), -lambda* l.

    Intervals narrower than `GUARD` are widened upwards first: the line of a wider interval still
    bounds ReLU from above, so the guard costs no soundness. It does move the place where lambda*
    has no limit from the point l = u = 0 to the edge u = 0, -GUARD < l < 0.
    With l clipped to <= 0 and u to >= 0 this is also right for stable neurons: slope 1 for
    l = 0, slope 0 for u = 0 and l <= -GUARD, offset 0 for l = 0.
    """
    upper = upper + (GUARD - (upper - lower)).relu()
    slope = upper / (upper - lower)
    return slope, -lower * slope


def chord_everywhere(lower: Tensor, upper: Tensor) -> tuple[Tensor, Tensor]:
    """The chord of crossing neurons and ReLU itself for stable ones, in one
    continuous expression, for functions that handle stable neurons."""
    return chord(lower.clamp(max=0), upper.clamp(min=0))


def soft_slope(lower: Tensor, upper: Tensor, gamma: float) -> Tensor:
    """sigma(gamma r), r = l/u - u/l: from 0 (u -> 0) to 1 (l -> 0), 1/2 at -l = u.

    Ratios are taken smaller by larger, so that nothing overflows, and both
    bounds are kept away from 0 by `GUARD`. Past a ratio of 1e6 the sigmoid is
    flat in every float type for gamma >= 1e-3, and the slope is held constant.
    """
    below, above = (-lower).clamp(min=GUARD), upper.clamp(min=GUARD)
    mostly_above = above >= below
    ratio = torch.where(mostly_above, below, above) / torch.where(mostly_above, above, below)
    ratio = ratio.clamp(min=1e-6)
    gap = 1 / ratio - ratio
    return torch.sigmoid(gamma * torch.where(mostly_above, gap, -gap))


@relaxation("CROWN", native="adaptive", chord=True)
def crown(lower: Tensor, upper: Tensor) -> tuple[Tensor | float, ...]:
    """CROWN (DeepPoly): lower x if -l <= u else 0; upper lambda*(x - l).

    Source: Zhang et al. 2018; Singh et al. 2019. The smaller triangle of the two.
    Continuity: the lower slope jumps between 0 and 1 at -l = u. Sensitivity: rational.
    """
    slope, offset = chord(lower, upper)
    return (-lower <= upper).to(lower.dtype), 0.0, slope, offset


@relaxation("CROWN-0", native="zero-lb", chord=True)
def crown_0(lower: Tensor, upper: Tensor) -> tuple[Tensor | float, ...]:
    """CROWN-0: lower 0; upper lambda*(x - l).

    Source: Jovanovic et al. 2022. Continuity: the lower line jumps from 0 to x
    at l = 0. Sensitivity: rational.
    """
    slope, offset = chord(lower, upper)
    return 0.0, 0.0, slope, offset


@relaxation("CROWN-0-C", handles_stable=True, chord=True)
def crown_0_c(lower: Tensor, upper: Tensor) -> tuple[Tensor | float, ...]:
    """CROWN-0-C: lower 0, for l >= 0 the constant l; upper lambda*(x - l).

    Source: Jovanovic et al. 2022. Continuity: continuous.
    Sensitivity: rational.
    """
    slope, offset = chord_everywhere(lower, upper)
    return 0.0, lower.clamp(min=0), slope, offset


@relaxation("CROWN-1", native="one-lb", chord=True)
def crown_1(lower: Tensor, upper: Tensor) -> tuple[Tensor | float, ...]:
    """CROWN-1: lower x; upper lambda*(x - l).

    Source: Jovanovic et al. 2022. Continuity: the lower line jumps from x to 0
    at u = 0. Sensitivity: rational.
    """
    slope, offset = chord(lower, upper)
    return 1.0, 0.0, slope, offset


@relaxation("CROWN-1-C", handles_stable=True, chord=True)
def crown_1_c(lower: Tensor, upper: Tensor) -> tuple[Tensor | float, ...]:
    """CROWN-1-C: lower x, for u <= 0 too; upper lambda*(x - l).

    Source: Jovanovic et al. 2022. Continuity: continuous.
    Sensitivity: rational.
    """
    slope, offset = chord_everywhere(lower, upper)
    return 1.0, 0.0, slope, offset


@relaxation("CROWN-0-Tria")
def crown_0_tria(lower: Tensor, upper: Tensor) -> tuple[Tensor | float, ...]:
    """CROWN-0-Tria: lower 0; upper x - l.

    Source: Jovanovic et al. 2022. Continuity: the lower line jumps at l = 0, the
    upper line at u = 0. Sensitivity: piecewise linear.
    """
    return 0.0, 0.0, 1.0, -lower


@relaxation("CROWN-0-Tria-C", handles_stable=True)
def crown_0_tria_c(lower: Tensor, upper: Tensor) -> tuple[Tensor | float, ...]:
    """CROWN-0-Tria-C: lower 0, for l >= 0 the constant l; upper x - l, for l >= 0 x.

    Source: Jovanovic et al. 2022. Continuity: continuous.
    Sensitivity: piecewise linear.
    """
    return 0.0, lower.clamp(min=0), 1.0, (-lower).clamp(min=0)


@relaxation("CROWN-1-Tria")
def crown_1_tria(lower: Tensor, upper: Tensor) -> tuple[Tensor | float, ...]:
    """CROWN-1-Tria: lower x; upper the constant u.

    Source: Jovanovic et al. 2022. Continuity: the upper line jumps at l = 0, the
    lower line at u = 0. Sensitivity: piecewise linear.
    """
    return 1.0, 0.0, 0.0, upper


@relaxation("CROWN-1-Tria-C", handles_stable=True)
def crown_1_tria_c(lower: Tensor, upper: Tensor) -> tuple[Tensor | float, ...]:
    """CROWN-1-Tria-C: lower x everywhere; upper the constant max(u, 0).

    Source: Jovanovic et al. 2022. Continuity: continuous.
    Sensitivity: piecewise linear.
    """
    return 1.0, 0.0, 0.0, upper.clamp(min=0)


@relaxation("CROWN-Soft", minimum={"gamma": 0.0}, chord=True)
def crown_soft(lower: Tensor, upper: Tensor, *, gamma: float = 1.0) -> tuple[Tensor | float, ...]:
    """CROWN-Soft: lower sigma(gamma r) x with r = l/u - u/l; upper lambda*(x - l).

    Source: Jovanovic et al. 2022. Continuity: continuous (for gamma > 0), with a
    step of width ~1/gamma around -l = u. Sensitivity: not even rational (a
    sigmoid of a rational function).
    """
    slope, offset = chord(lower, upper)
    return soft_slope(lower, upper, gamma), 0.0, slope, offset
