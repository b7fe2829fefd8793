"""Shi et al., "Fast Certified Robust Training with Short Warmup" (NeurIPS 2021), section 4.3: tight and balanced intervals."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from newrelax.network.interval import Interval
from newrelax.network.operators.elementwise import Relu
from newrelax.propagations.base import Problem
from plugin.settings.table import setting
from plugin.training.regularizers.base import Context, Regularizer


class Shi(Regularizer):
    """Keeps intervals from growing layer by layer, and active and inactive ReLUs in balance, while ε rises.

    weight · (1 − ε/ε_target) · (tightness + balance), each the mean over the ReLU layers.
    """

    name: ClassVar[str] = "shi"
    weight: float = setting("λ, at ε = 0; falls to 0 as ε rises.", 0.5, ge=0)
    tolerance: float = setting("τ: the ratios that are good enough.", 0.5, gt=0, le=1)

    def __call__(self, context: Context) -> Tensor | None:
        if context.remaining == 0 or self.weight == 0:
            return None
        problem = context.problem()
        first, boxes = problem.intervals.steps[problem.network.structure.origin], entering_relus(problem)
        if not boxes:
            return None
        parts = [tightness(first, box, self.tolerance) + balance(box, self.tolerance) for box in boxes]
        return context.remaining * (self.weight * torch.stack(parts).mean())


def entering_relus(problem: Problem) -> list[Interval]:
    """The intervals before each ReLU, each [batch, *shape of the layer], in the network's order."""
    steps = problem.network.steps
    relus = [steps[i] for i in problem.network.structure.layers if isinstance(steps[i].operator, Relu)]
    return [problem.intervals.steps[step.inputs[0]] for step in relus]


def tightness(first: Interval, box: Interval, tolerance: float) -> Tensor:
    """relu(τ − mean δ₀ / mean δ)/τ: how much wider the layer's intervals are than the normalised input's, a scalar."""
    return (tolerance - first.radius.mean() / box.radius.mean().clamp(min=1e-12)).relu() / tolerance


def balance(box: Interval, tolerance: float) -> Tensor:
    """[relu(τ − r_mean) + relu(τ − r_var)]/τ, a scalar: what always active neurons have, to what always inactive ones have.

    r = min(q, 1/q), q the ratio of the centres' sums or of their squared distances from the mean centre. Without active or
    without inactive neurons there is no ratio, and nothing that a gradient could change.
    """
    active, inactive = (box.lower > 0).to(box.center), (box.upper < 0).to(box.center)
    distance = (box.center - box.center.mean()).square()
    means = _ratio((box.center * active).sum(), -(box.center * inactive).sum())
    variances = _ratio((distance * active).sum(), (distance * inactive).sum())
    return ((tolerance - means).relu() + (tolerance - variances).relu()) / tolerance


def _ratio(one: Tensor, other: Tensor) -> Tensor:
    """min(q, 1/q) of two scalars; 1 where one of them is 0."""
    exists = (one > 0) & (other > 0)
    ratio = torch.where(exists, one, 1) / torch.where(exists, other, 1)  # no division by 0 that a gradient would go through
    return torch.minimum(ratio, 1 / ratio)
