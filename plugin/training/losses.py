"""What training minimises: κ·CE(natural) + (1 − κ)·CE(worst case) + λ₁·Σ|weights| (paper, "Training")."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from torch import Tensor, nn

from newrelax.bounds import BoundedNetwork, Clean, box, is_at, worst_logits
from newrelax.methods.method import Method
from newrelax.propagations.base import Attack
from plugin.certification.attacks import pgd
from plugin.certification.classification import cross_entropy, predictions
from plugin.training.schedule import Values


class Measured(NamedTuple):
    """One loss on a batch: the sum of its cross-entropies and the number of inputs it calls right."""

    loss: Tensor
    right: Tensor


class Terms(NamedTuple):
    """The parts of a step's loss. ``natural`` and ``worst`` are absent where they were skipped.

    ``loss`` is the scalar to minimise. ``crossing`` holds, per ReLU layer, the share of neurons
    that cross (a vector), when the step was asked to observe and had bounds.
    """

    loss: Tensor
    natural: Measured | None
    worst: Measured | None
    crossing: Tensor | None

    def detached(self) -> Terms:
        """The same without the way back to the weights, which would hold on to the whole step."""
        natural, worst = (part and Measured(part.loss.detach(), part.right) for part in (self.natural, self.worst))
        return Terms(self.loss.detach(), natural, worst, self.crossing)


def certified_loss(margins: Tensor, y: Tensor, reduction: str = "mean") -> Tensor:
    """Cross-entropy of the worst-case logits.

    ``margins``: lower bounds of z_y − z_j, [batch, classes − 1]; ``y``: [batch].
    """
    return cross_entropy(worst_logits(margins, y), y, reduction=reduction)


def l1_norm(model: nn.Module) -> Tensor | None:
    """Σ|w| over the trained weights (not the biases) of the linear and convolutional layers; None without any."""
    layers = [m for m in model.modules() if isinstance(m, (nn.Linear, nn.modules.conv._ConvNd))]
    weights = [layer.weight for layer in layers if layer.weight.requires_grad]
    return torch.stack([weight.abs().sum() for weight in weights]).sum() if weights else None


@dataclass(frozen=True)
class Objective:
    """The training loss of one method on one network.

    ``pgd_steps`` is used by adversarial training only, whose worst case is an attack's logits.
    ``fused``: the worst case's cross-entropy is bounded as one output (newrelax.fusion), not margin
    by margin; an input then counts as right when its loss (below log 2) or IBP's margins prove it.
    """

    net: BoundedNetwork
    method: Method
    l1: float = 0.0
    pgd_steps: int = 10
    fused: bool = False
    normalised_by_batch: bool = field(init=False)

    def __post_init__(self) -> None:
        batch_norm = any(isinstance(m, nn.modules.batchnorm._BatchNorm) for m in self.net.model.modules())
        object.__setattr__(self, "normalised_by_batch", batch_norm)

    def __call__(self, x: Tensor, y: Tensor, values: Values, *, total: int | None = None, observe: bool = False) -> Terms:
        """The loss of inputs ``x`` [batch, …] with classes ``y`` [batch].

        ``total``: the size of the whole batch when ``x`` is a piece of it; the pieces' losses then
        add up to the batch's, save for L1, which :meth:`penalty` gives once. ``observe``: measure
        what the loss does not need, too.
        """
        total = len(x) if total is None else total
        loss = x.new_zeros(())
        natural = worst = crossing = clean = None
        if not is_at(values.kappa, 0.0) or self.normalised_by_batch:
            # With batch norm the bounds are computed with the clean pass's statistics.
            clean = self.net.observe(x)
            natural = _measure(clean.logits, y)
            if not is_at(values.kappa, 0.0):
                loss = loss + _like(values.kappa, loss) * natural.loss / total
        elif observe:
            with torch.no_grad():
                natural = _measure(self.net(x), y)
        if not is_at(values.kappa, 1.0):
            worst, crossing = self._worst(x, y, values, clean, observe)
            loss = loss + _like(1 - values.kappa, loss) * worst.loss / total
        return Terms(loss, natural, worst, crossing)

    def penalty(self) -> Tensor | None:
        """λ₁·Σ|weights|, or None when λ₁ is 0 or there are no weights."""
        norm = l1_norm(self.net.model) if self.l1 > 0 else None
        return None if norm is None else self.l1 * norm

    def _worst(
        self, x: Tensor, y: Tensor, values: Values, clean: Clean | None, observe: bool
    ) -> tuple[Measured, Tensor | None]:
        if isinstance(self.method.propagation, Attack):
            attacked = pgd(self.net.model, x, y, values.eps, steps=self.pgd_steps)
            return _measure(self.net(attacked), y), None
        lower, upper = box(x, values.eps)
        statistics = None if clean is None else clean.statistics
        if self.fused:
            bounds = self.net.cross_entropy(lower, upper, y, beta=values.beta, statistics=statistics)
            loss, right = bounds.loss.sum(), (bounds.loss.detach() < math.log(2)) | (bounds.margins > 0).all(dim=1)
        else:
            bounds = self.net.bounds(lower, upper, y, beta=values.beta, statistics=statistics)
            loss, right = certified_loss(bounds.margins, y, reduction="sum"), (bounds.margins.detach() > 0).all(dim=1)
        worst = Measured(loss, right.sum())
        return worst, _crossing_shares(bounds.layers) if observe else None


def _measure(logits: Tensor, y: Tensor) -> Measured:
    return Measured(cross_entropy(logits, y, reduction="sum"), (predictions(logits.detach()) == y).sum())


def _like(share: float | Tensor, loss: Tensor) -> float | Tensor:
    """The share in the loss's precision, to which a product with a number rounds it as well."""
    return share.to(loss.dtype) if isinstance(share, Tensor) else share


def _crossing_shares(layers: tuple[tuple[Tensor, Tensor], ...]) -> Tensor | None:
    if not layers:
        return None
    return torch.stack([((lower < 0) & (upper > 0)).float().mean() for lower, upper in layers]).detach()
