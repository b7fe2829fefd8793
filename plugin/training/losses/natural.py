"""Training without a worst case."""

from __future__ import annotations

from typing import ClassVar

from newrelax.methods.method import Method
from plugin.training.losses.base import Batch, Learner, Loss, Terms, Worst
from plugin.training.losses.mixed import mixed
from plugin.training.schedule import Values


class Natural(Loss):
    """Cross-entropy of the clean inputs."""

    name: ClassVar[str] = "natural"

    def terms(self, method: Method) -> tuple[str, ...]:
        return ("natural",)

    def __call__(self, learner: Learner, batch: Batch, values: Values) -> Terms:
        def none(_: object) -> Worst:
            raise AssertionError("natural training has no worst case")

        return mixed(learner, batch, values._replace(kappa=1.0), none)
