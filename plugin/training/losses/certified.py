"""The certified loss: cross-entropy of the worst logits that the method's bounds allow."""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor

from newrelax.bounds import Clean, MarginBounds, worst_logits
from newrelax.errors import UserError
from newrelax.methods.method import Method
from newrelax.propagations.base import Ends
from plugin.certification.classification import cross_entropy
from plugin.training.losses.base import Batch, Learner, Loss, Term, Terms, Worst
from plugin.training.losses.mixed import mixed
from plugin.training.schedule import Values


class Certified(Loss):
    """κ·natural + (1 − κ)·cross-entropy of the worst logits within the bounds of the margins."""

    name: ClassVar[str] = "certified"

    def terms(self, method: Method) -> tuple[str, ...]:
        return ("natural", worst_name(method))

    def check(self, method: Method) -> None:
        needs_bounds(self, method)

    def __call__(self, learner: Learner, batch: Batch, values: Values) -> Terms:
        def worst(clean: Clean | None) -> Worst:
            return certified_worst(learner, batch, values, clean)

        return mixed(learner, batch, values, worst)


def certified_worst(learner: Learner, batch: Batch, values: Values, clean: Clean | None) -> Worst:
    """The cross-entropy of the worst logits in the region."""
    bounds = bounded(learner, learner.box(batch.x, values.eps), batch.y, values, clean)
    return Worst.of(worst_name(learner.method), certified_term(bounds.margins, batch.y), bounds.layers)


def bounded(
    learner: Learner, box: Ends, y: Tensor, values: Values, clean: Clean | None, *, attached: bool = False
) -> MarginBounds:
    """The method's bounds over boxes (lower, upper), each [batch, …], with the clean pass's statistics.

    attached: the layers' bounds keep their way back to the weights.
    """
    statistics = None if clean is None else clean.statistics
    return learner.net.bounds(*box, y, beta=values.beta, statistics=statistics, attached=attached)


def certified_term(margins: Tensor, y: Tensor) -> Term:
    """The cross-entropy of the worst logits, and how many inputs keep all margins; margins: [batch, classes − 1]."""
    return Term(certified_loss(margins, y, reduction="sum"), (margins.detach() > 0).all(dim=1).sum())


def certified_loss(margins: Tensor, y: Tensor, reduction: str = "mean") -> Tensor:
    """Cross-entropy of the worst-case logits.

    margins: lower bounds of z_y − z_j, [batch, classes − 1]; y: [batch].
    """
    return cross_entropy(worst_logits(margins, y), y, reduction=reduction)


def worst_name(method: Method) -> str:
    """What a bounded worst case is called: certified, or estimated where the bounds are not sound."""
    return "certified" if method.sound else "estimated"


def needs_bounds(loss: Loss, method: Method) -> None:
    """Raises UserError for a method without bounds."""
    if not method.gives_bounds:
        raise UserError(f"--loss {loss.name} needs bounds, and {method.label} gives none: choose another --method or --loss")
