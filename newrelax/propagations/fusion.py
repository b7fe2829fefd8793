"""Loss fusion: the cross-entropy over a box, bounded as one output instead of one margin at a time.

With the margins m_j = z_y − z_j the cross-entropy is log S, S = 1 + Σ_j exp(−m_j). Let intervals give
l_j ≤ m_j ≤ u_j. exp(−m) is convex, so on [l_j, u_j] it lies below its chord,

    exp(−m_j) ≤ exp(−l_j) − w_j·(m_j − l_j),        w_j = (exp(−l_j) − exp(−u_j)) / (u_j − l_j) ≥ 0,

and S lies below 1 + Σ_j exp(−l_j) + Σ_j w_j·l_j − Σ_j w_j·m_j: linear in the logits, one row. One back-substitution
bounds Σ_j w_j·m_j from below by some v, and as the logarithm is monotone

    CE ≤ log(1 + Σ_j exp(−l_j) + Σ_j w_j·l_j − v)

for every point of the box. That is an upper bound of the same robust cross-entropy as CE(worst-case logits), and
another one: there, each margin is at its own worst point of the box, here all of them are at the same point, but
exp is replaced by a chord. Neither is always the smaller. With one margin (two classes) this one is the larger,
wherever l ≤ v/w ≤ u. Both are exact where the box is a point, and the intervals' own v = Σ_j w_j·l_j gives exactly IBP's
CE(worst-case logits). A bound below log 2 certifies: then every exp(−m_j) < 1.

Source: Xu et al., "Automatic Perturbation Analysis for Scalable Certified Robustness and Beyond" (NeurIPS 2020), "loss
fusion".
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor


def fused_cross_entropy(low: Tensor, high: Tensor, lower_bound: Callable[[Tensor], Tensor]) -> Tensor:
    """Upper bounds of the cross-entropy, [batch], differentiable in all that they are made of.

    low, high: interval bounds of the margins z_y − z_j, [batch, classes − 1].
    lower_bound: weights w ≥ 0, [batch, classes − 1] → lower bounds of Σ_j w_j·(z_y − z_j), [batch].
    """
    # All terms are divided by exp(shift), the largest of them; the bound does not depend on it.
    shift = (-low).amax(1, keepdim=True).clamp(min=0).detach()
    largest = (-low - shift).exp()
    weights = largest * _mean_exp(high - low)
    total = (-shift).exp().squeeze(1) + largest.sum(1) + (weights * low).sum(1) - lower_bound(weights)
    # Positive but for rounding, which is as large as the terms' own; raising an upper bound keeps it one.
    return shift.squeeze(1) + total.clamp(min=torch.finfo(total.dtype).eps).log()


def _mean_exp(t: Tensor) -> Tensor:
    """(1 − exp(−t))/t, the mean of exp(−s) over 0 ≤ s ≤ t, for t ≥ 0: 1 at 0, gradients exact to rounding."""
    near = t < 0.1
    small, large = torch.where(near, t, 0.0), torch.where(near, 1.0, t)
    series = torch.ones_like(t)
    for n in range(10, 1, -1):  # 1 − t/2·(1 − t/3·(1 − …)); what is left out is below 1e-17
        series = 1 - small / n * series
    return torch.where(near, series, -torch.expm1(-large) / large)
