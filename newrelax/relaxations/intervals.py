"""Intervals: IBP, and the two that are loose on purpose.

An interval relaxation replaces [l, u] before each ReLU by a wider one and keeps
two constants, max(l', 0) and max(u', 0). Jovanovic et al., "On the Paradox of
Certified Training" (TMLR 2022), use the wider ones to ask how much pure
looseness hurts, and how much jumps do.
"""

from __future__ import annotations

import torch
from torch import Tensor

from newrelax.relaxations.base import relaxation


def widened(lower: Tensor, upper: Tensor, *, omega: float) -> tuple[Tensor, Tensor]:
    """[l - omega, u + omega]; omega is in units of the pre-activation."""
    return lower - omega, upper + omega


def rounded(lower: Tensor, upper: Tensor, *, omega: float, F: float) -> tuple[Tensor, Tensor]:
    """[l - omega(ceil(F l) - F l), u + omega(F u - floor(F u))]: F jumps per unit.

    Written with ceil(F l)/F - l, the difference of two close numbers, which floating point gives exactly.
    F l itself rounds, and next to a whole number that difference may come out below 0: the clamp
    keeps [l, u] inside.
    """
    below = (torch.ceil(lower * F) / F - lower).clamp(min=0)
    above = (upper - torch.floor(upper * F) / F).clamp(min=0)
    return lower - omega * F * below, upper + omega * F * above


def _constants(lower: Tensor, upper: Tensor) -> tuple[Tensor | float, ...]:
    return 0.0, lower.clamp(min=0), 0.0, upper.clamp(min=0)


@relaxation("IBP", handles_stable=True, propagation="interval", parallel=True)
def ibp(lower: Tensor, upper: Tensor) -> tuple[Tensor | float, ...]:
    """IBP (Box): lower the constant max(l, 0); upper the constant max(u, 0).

    Source: Gowal et al. 2018; Mirman et al. 2018. Continuity: continuous.
    Sensitivity: piecewise linear.
    """
    return _constants(lower, upper)


@relaxation(
    "IBP-Widen",
    handles_stable=True,
    propagation="interval",
    parallel=True,
    interval=widened,
    minimum={"omega": 0.0},
)
def ibp_widen(lower: Tensor, upper: Tensor, *, omega: float = 0.5) -> tuple[Tensor | float, ...]:
    """IBP-Widen: the constants max(l - omega, 0) and max(u + omega, 0).

    Source: Jovanovic et al. 2022. Continuity: continuous.
    Sensitivity: piecewise linear.
    """
    return _constants(*widened(lower, upper, omega=omega))


@relaxation(
    "IBP-Round",
    handles_stable=True,
    propagation="interval",
    parallel=True,
    interval=rounded,
    minimum={"omega": 0.0, "F": 1e-6},
)
def ibp_round(lower: Tensor, upper: Tensor, *, omega: float = 0.5, F: float = 10.0) -> tuple[Tensor | float, ...]:
    """IBP-Round: max(l - omega(ceil(F l) - F l), 0) and max(u + omega(F u - floor(F u)), 0).

    Source: Jovanovic et al. 2022. Continuity: jumps of size omega wherever F l
    or F u is a whole number, F per unit. Sensitivity: piecewise linear.
    """
    return _constants(*rounded(lower, upper, omega=omega, F=F))
