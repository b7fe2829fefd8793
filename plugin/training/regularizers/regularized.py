"""A loss with a regulariser beside it, which is a loss again: the loop, estimators and guards need not tell them apart."""

from __future__ import annotations

from dataclasses import replace
from typing import ClassVar

import torch
from torch import Tensor

from newrelax.errors import UserError, with_type
from newrelax.methods.method import Method
from newrelax.network.place import line_of
from plugin.training.losses.base import Batch, Learner, Loss, Term, Terms
from plugin.training.losses.given import take_terms
from plugin.training.regularizers.base import Context, Regularizer
from plugin.training.schedule import Values

TERM = "regularizer"


class Regularized(Loss):
    """loss + regulariser, shown as a term of its own. target: the radius at the ramp's end."""

    name: ClassVar[str] = "regularized"
    loss: Loss
    regularizer: Regularizer
    target: float

    @property
    def label(self) -> str:
        return self.loss.label

    def terms(self, method: Method) -> tuple[str, ...]:
        *first, worst = self.loss.terms(method)
        return (*first, TERM, worst)

    def check(self, method: Method) -> None:
        self.loss.check(method)

    def __call__(self, learner: Learner, batch: Batch, values: Values) -> Terms:
        with learner.net.watched() as seen:
            terms = take_terms(self.loss, learner, batch, values)
        penalty = self._penalty(Context(learner, batch, values, self.target, seen))
        if penalty is None:
            return terms
        size = len(batch.x)
        parts = {**terms.parts, TERM: Term(size * penalty)}
        return replace(terms, loss=terms.loss + penalty * (size / batch.total), parts=parts)

    def _penalty(self, context: Context) -> Tensor | None:
        """What the regulariser gives; a fault in somebody else's is told in one line with the place."""
        name = self.regularizer.name
        try:
            penalty: object = self.regularizer(context)
        except (UserError, torch.OutOfMemoryError):
            raise
        except Exception as problem:
            if type(self.regularizer).__module__.startswith("plugin."):
                raise
            raise UserError(f"regularizer {name}: {with_type(problem)} ({line_of(problem)})") from problem
        if penalty is None or (isinstance(penalty, Tensor) and penalty.ndim == 0):
            return penalty
        got = f"the shape {tuple(penalty.shape)}" if isinstance(penalty, Tensor) else type(penalty).__name__
        raise UserError(f"regularizer {name}: expected a scalar or None, got {got}")
