"""SABR: bounds of a small box inside the ball, around what an attack finds (Müller et al., ICLR 2023)."""

from __future__ import annotations

from typing import ClassVar

import torch

from newrelax.bounds import Clean
from newrelax.methods.method import Method
from newrelax.propagations.base import Ends
from plugin.settings.table import setting
from plugin.training.losses.attacking import Attacking
from plugin.training.losses.base import Batch, Learner, Terms, Worst
from plugin.training.losses.certified import bounded, certified_term, needs_bounds, worst_name
from plugin.training.losses.mixed import mixed
from plugin.training.schedule import Values

SMALL_BOX = "small_box"
"""What the term of a small box's bounds is called: they say nothing of the rest of the ball."""


class Boxed(Attacking):
    """A loss that bounds the network in small boxes around what the attack finds."""

    lambda_: float = setting("Width of the small box, as a share of the ball's; at 1 it is the ball.", 0.4, gt=0, le=1)

    def small_box(self, learner: Learner, batch: Batch, values: Values) -> Ends:
        """The small boxes (lower, upper), each [batch, …]: moved into the region where they would stick out of it."""
        lower, upper = learner.box(batch.x, values.eps)
        if self.lambda_ == 1:
            return lower, upper
        half = self.lambda_ * (upper - lower) / 2
        centre = torch.clamp(self.attacked(learner, batch, values), lower + half, upper - half)
        return torch.maximum(centre - half, lower), torch.minimum(centre + half, upper)

    def box_name(self, method: Method) -> str:
        """What the bounds' term is called."""
        return worst_name(method) if self.lambda_ == 1 else SMALL_BOX


class SABR(Boxed):
    """κ·natural + (1 − κ)·cross-entropy of the worst logits within a small box around the attack's point."""

    name: ClassVar[str] = "SABR"

    def terms(self, method: Method) -> tuple[str, ...]:
        return ("natural", self.box_name(method))

    def check(self, method: Method) -> None:
        needs_bounds(self, method)

    def __call__(self, learner: Learner, batch: Batch, values: Values) -> Terms:
        def worst(clean: Clean | None) -> Worst:
            bounds = bounded(learner, self.small_box(learner, batch, values), batch.y, values, clean)
            return Worst.of(self.box_name(learner.method), certified_term(bounds.margins, batch.y), bounds.layers)

        return mixed(learner, batch, values, worst)
