"""Adversarial training: the worst case is what an attack finds (Madry et al., 2018)."""

from __future__ import annotations

from typing import ClassVar

from newrelax.methods.method import Method
from plugin.training.losses.attacking import PGD, Attacking
from plugin.training.losses.base import Batch, Learner, Terms
from plugin.training.losses.mixed import mixed
from plugin.training.schedule import Values


class Adversarial(Attacking):
    """κ·natural + (1 − κ)·cross-entropy at the points that PGD finds."""

    name: ClassVar[str] = "adversarial"

    def terms(self, method: Method) -> tuple[str, ...]:
        return ("natural", PGD)

    def __call__(self, learner: Learner, batch: Batch, values: Values) -> Terms:
        return mixed(learner, batch, values, lambda _: self.adversarial_worst(learner, batch, values))
