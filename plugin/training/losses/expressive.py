"""Losses between the attack's and the certified one, by one parameter (De Palma et al., "Expressive Losses", ICLR 2024).

They differ in what is mixed: losses (`mtl.py`), margins (`cc.py`), or logarithms of losses (`exp.py`). All lie between their
ends, which they reach: at α = 0 adversarial training, at α = 1 certified training.
"""

from __future__ import annotations

from torch import Tensor

from newrelax.bounds import Clean
from newrelax.methods.method import Method
from plugin.settings.table import setting
from plugin.training.losses.attacking import PGD, Attacking, logits_at
from plugin.training.losses.base import Batch, Learner, Terms, Worst, measured
from plugin.training.losses.certified import bounded, certified_term, certified_worst, needs_bounds, worst_name
from plugin.training.losses.mixed import mixed
from plugin.training.schedule import Values


class Expressive(Attacking):
    """A mixture of the attack's worst case and the certified one; a subclass says which by `mixture`."""

    alpha: float = setting("Share of the certified worst case, the rest being the attack's.", 0.5, ge=0, le=1)

    def mixture(self, attacked: Tensor, margins: Tensor, y: Tensor) -> Tensor:
        """The worst case's loss of each input, [batch].

        attacked: logits [batch, classes] at the attack's points. margins: lower bounds of z_y − z_j, [batch, classes − 1].
        """
        raise NotImplementedError

    def terms(self, method: Method) -> tuple[str, ...]:
        ends = (PGD,) if self.alpha < 1 else ()
        return ("natural", *ends, *((worst_name(method),) if self.alpha > 0 else ()))

    def check(self, method: Method) -> None:
        if self.alpha > 0:
            needs_bounds(self, method)

    def __call__(self, learner: Learner, batch: Batch, values: Values) -> Terms:
        def worst(clean: Clean | None) -> Worst:
            # The ends are what they are called, so that what counts nothing is not computed, and draws no random numbers.
            if self.alpha == 0:
                return self.adversarial_worst(learner, batch, values)
            if self.alpha == 1:
                return certified_worst(learner, batch, values, clean)
            attacked = logits_at(learner, self.attacked(learner, batch, values), clean)
            bounds = bounded(learner, learner.box(batch.x, values.eps), batch.y, values, clean)
            parts = {PGD: measured(attacked, batch.y), worst_name(learner.method): certified_term(bounds.margins, batch.y)}
            return Worst(self.mixture(attacked, bounds.margins, batch.y).sum(), parts, bounds.layers)

        return mixed(learner, batch, values, worst)
