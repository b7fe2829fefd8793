"""What a regulariser is: a scalar that a step minimises beside its loss, made from what the loss has bounded."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from newrelax.bounds import Seen
from newrelax.propagations.base import Problem
from newrelax.share import DeviceShare, Share
from plugin.settings.nouns import Noun
from plugin.training.losses.base import Batch, Learner
from plugin.training.schedule import Values

LEAST = 1e-3
"""Where a loss bounds nothing (natural warm-up), boxes are looked at with at least this part of the radius to come."""


@dataclass(frozen=True)
class Context:
    """A step as a regulariser sees it, after the loss has been computed.

    target: the radius at the ramp's end. seen: what the loss asked the network for.
    """

    learner: Learner
    batch: Batch
    values: Values
    target: float
    seen: Seen

    @property
    def remaining(self) -> Share:
        """The part of the radius that is still to come, 1 − ε/ε_target: 0 from the ramp's end on.

        For `==`, `*` and `1 - …` only, like κ: then `--capture` can record the step, in which it equals no number.
        """
        eps = self.values.eps
        return DeviceShare(1 - eps / self.target) if isinstance(eps, Tensor) else 1 - eps / self.target

    def problem(self) -> Problem:
        """The boxes that the loss bounded last, or, where it bounded none, those of radius ε around the batch.

        `problem.intervals` are the intervals of every step, differentiable in the weights; where the loss has computed them,
        they are not computed again.
        """
        if self.seen.problems:
            return self.seen.problems[-1]
        eps, least = self.values.eps, LEAST * self.target
        box = self.learner.box(self.batch.x, eps.clamp(min=least) if isinstance(eps, Tensor) else max(eps, least))
        return self.learner.net.problem(*box, self.seen.statistics)


class Regularizer(Noun):
    """A scalar beside the loss; one file each. Its parameters are the class's fields (`plugin.settings.table.setting`).

    A subclass has a `name`, a docstring whose first line `--regularizer list` shows, and the method below.
    """

    name: ClassVar[str]

    def __call__(self, context: Context) -> Tensor | None:
        """A scalar, the mean over the batch's inputs, with its weight; None where it has nothing to say."""
        raise NotImplementedError
