"""What losses with an attack in them share: the attack's settings, its points, and the loss there."""

from __future__ import annotations

from torch import Tensor

from newrelax.bounds import Clean
from plugin.certification.attacks import pgd
from plugin.settings.table import setting
from plugin.training.losses.base import Batch, Learner, Loss, Worst, measured
from plugin.training.schedule import Values

PGD = "pgd"
"""What the term of an attack's points is called."""


class Searching(Loss):
    """A loss that looks for bad points of boxes by signed gradient steps."""

    steps: int = setting("Steps of the attack.", 10, ge=1)
    restarts: int = setting("Random starts of the attack.", 1, ge=1, quiet=True)
    step_size: float | None = setting("Of the attack, in half-widths of its box.", None, said="2.5/steps", gt=0, quiet=True)

    @property
    def stride(self) -> float:
        """The step's size in half-widths of the box."""
        return 2.5 / self.steps if self.step_size is None else self.step_size


class Attacking(Searching):
    """A loss that attacks the inputs."""

    radius: float = setting("The attack's own radius, as a multiple of ε.", 1.0, gt=0, quiet=True)

    def attacked(self, learner: Learner, batch: Batch, values: Values) -> Tensor:
        """The points that PGD finds, [batch, …]; in evaluation mode, with batch norm's running statistics."""
        eps = self.radius * values.eps
        size = None if self.step_size is None else self.step_size * learner.region.radius(eps)
        return pgd(
            learner.model,
            batch.x,
            batch.y,
            eps,
            steps=self.steps,
            step_size=size,
            restarts=self.restarts,
            region=learner.region,
        )

    def adversarial_worst(self, learner: Learner, batch: Batch, values: Values) -> Worst:
        """Cross-entropy at the points that PGD finds: all of adversarial training's worst case (Madry et al., 2018)."""
        return Worst.of(PGD, measured(learner.net(self.attacked(learner, batch, values)), batch.y))


def logits_at(learner: Learner, points: Tensor, clean: Clean | None) -> Tensor:
    """The logits of other points of the batch, [batch, classes], of the same function that is bounded.

    With batch norm that is the one with the clean pass's statistics; the points' own would change the running ones, too.
    """
    if clean is None or not clean.statistics:
        return learner.net(points)
    return learner.net.graph.network(clean.statistics).forward(points)
