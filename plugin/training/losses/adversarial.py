"""Adversarial training: the worst case is what an attack finds (Madry et al., 2018)."""

from __future__ import annotations

from typing import ClassVar

from newrelax.bounds import Clean
from newrelax.methods.method import Method
from plugin.certification.attacks import pgd
from plugin.settings.table import setting
from plugin.training.losses.base import Batch, Learner, Loss, Terms, Worst, measured
from plugin.training.losses.mixed import mixed
from plugin.training.schedule import Values


class Adversarial(Loss):
    """κ·natural + (1 − κ)·cross-entropy at the points that PGD finds."""

    name: ClassVar[str] = "adversarial"
    steps: int = setting("Steps of the attack.", 10, ge=1)

    def terms(self, method: Method) -> tuple[str, ...]:
        return ("natural", "pgd")

    def __call__(self, learner: Learner, batch: Batch, values: Values) -> Terms:
        def worst(_: Clean | None) -> Worst:
            x, y = batch.x, batch.y
            return Worst(
                measured(learner.net(pgd(learner.model, x, y, values.eps, steps=self.steps, region=learner.region)), y)
            )

        return mixed(learner, batch, values, "pgd", worst)
