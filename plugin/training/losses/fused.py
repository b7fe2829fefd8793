"""Loss fusion: the cross-entropy is bounded as one output, not margin by margin (newrelax/propagations/fusion.py)."""

from __future__ import annotations

import math
from typing import ClassVar

from newrelax.bounds import Clean, can_fuse
from newrelax.errors import UserError
from newrelax.methods.method import Method
from plugin.training.losses.base import Batch, Learner, Loss, Term, Terms, Worst
from plugin.training.losses.certified import needs_bounds, worst_name
from plugin.training.losses.mixed import mixed
from plugin.training.schedule import Values


class Fused(Loss):
    """κ·natural + (1 − κ)·the cross-entropy's own upper bound: CROWN-IBP and its like, at an IBP step's cost.

    An input counts as right when its loss (below log 2) or the intervals' margins prove it.
    """

    name: ClassVar[str] = "fused"

    def terms(self, method: Method) -> tuple[str, ...]:
        return ("natural", worst_name(method))

    def check(self, method: Method) -> None:
        needs_bounds(self, method)
        if not can_fuse(method):
            raise UserError(
                f"--loss fused (--loss-fusion) bounds CROWN-IBP's loss with one row of back-substitution: {method.name} has no "
                "such row; CROWN-IBP, CROWN-IBP-R and their like have it"
            )

    def __call__(self, learner: Learner, batch: Batch, values: Values) -> Terms:
        def worst(clean: Clean | None) -> Worst:
            statistics = None if clean is None else clean.statistics
            lower, upper = learner.box(batch.x, values.eps)
            bounds = learner.net.cross_entropy(lower, upper, batch.y, beta=values.beta, statistics=statistics)
            right = (bounds.loss.detach() < math.log(2)) | (bounds.margins > 0).all(dim=1)
            return Worst.of(worst_name(learner.method), Term(bounds.loss.sum(), right.sum()), bounds.layers)

        return mixed(learner, batch, values, worst)
