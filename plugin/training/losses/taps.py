"""TAPS: bounds through the first part of a network, an attack inside the box that they give through the rest of it
(Mao et al., "Connecting Certified and Adversarial Training", NeurIPS 2023)."""

from __future__ import annotations

from typing import ClassVar

from newrelax.bounds import Clean
from newrelax.methods.method import Method
from newrelax.network.cut import cut
from newrelax.network.operators.base import Elementwise
from newrelax.propagations.base import Ends
from plugin.settings.table import setting
from plugin.training.losses.attacking import Searching
from plugin.training.losses.base import Batch, Learner, Term, Terms, Worst
from plugin.training.losses.certified import bounded, certified_loss, certified_term, needs_bounds, worst_name
from plugin.training.losses.latent import Latent
from plugin.training.losses.mixed import mixed
from plugin.training.schedule import Values

LATENT = "latent"
"""What the term of the attack inside the network is called."""


class TAPS(Searching):
    """κ·natural + (1 − κ)·certified · cross-entropy of the worst margins that an attack inside the network finds.

    The product is taken input by input, so that pieces of a batch add up.
    """

    name: ClassVar[str] = "TAPS"
    split: int = setting("Activation layers left to the attack, counted from the end; at 0 there is none.", 1, ge=0)
    weight: float = setting("Of the attack's gradient beside the bounds'.", 5.0, gt=0)
    connector: float = setting("Share of the box, from each end, in which points move with that end.", 0.5, gt=0, le=1)

    def region(self, learner: Learner, batch: Batch, values: Values) -> Ends:
        """The inputs that are bounded, (lower, upper)."""
        return learner.box(batch.x, values.eps)

    def box_name(self, method: Method) -> str:
        """What the bounds' term is called."""
        return worst_name(method)

    def terms(self, method: Method) -> tuple[str, ...]:
        return ("natural", *((LATENT,) if self.split else ()), self.box_name(method))

    def check(self, method: Method) -> None:
        needs_bounds(self, method)

    def __call__(self, learner: Learner, batch: Batch, values: Values) -> Terms:
        def worst(clean: Clean | None) -> Worst:
            y, box, name = batch.y, self.region(learner, batch, values), self.box_name(learner.method)
            bounds = bounded(learner, box, y, values, clean, attached=self.split > 0)
            certified = certified_term(bounds.margins, y)
            if self.split == 0:
                return Worst.of(name, certified, bounds.layers)
            inside = self.inside(learner, box, bounds.layers, clean)
            estimates = inside.margins(inside.attacked(y, self.steps, self.stride, self.restarts), y, self.connector)
            latent = certified_loss(estimates, y, reduction="none")
            term = Term(latent.detach().sum(), (estimates.detach() > 0).all(dim=1).sum())
            latent = latent.detach() + self.weight * (latent - latent.detach())
            loss = (certified_loss(bounds.margins, y, reduction="none") * latent).sum()
            return Worst(loss, {LATENT: term, name: certified}, bounds.layers)

        return mixed(learner, batch, values, worst)

    def inside(self, learner: Learner, box: Ends, layers: tuple[Ends, ...], clean: Clean | None) -> Latent:
        """The box at the cut, which the layer's own bounds give, and the network from there on.

        Raises:
            UserError: the network has no such cut.
        """
        network = learner.net.graph.network(None if clean is None else clean.statistics)
        found = cut(network, self.split)
        if found.layer is None:
            return Latent(*box, found.rest)
        low, high = layers[found.layer]
        operator = network.steps[found.step].operator
        assert isinstance(operator, Elementwise)
        return Latent(*operator.image(low, high), found.rest)
