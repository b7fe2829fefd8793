"""What a loss is: named terms of a batch, and the scalar made of them that a step minimises."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor, nn

from newrelax.bounds import BoundedNetwork
from newrelax.methods.method import Method
from newrelax.propagations.base import Layers
from plugin.certification.classification import cross_entropy, predictions
from plugin.certification.region import Region
from plugin.settings.nouns import Noun
from plugin.training.schedule import Values


class Term(NamedTuple):
    """One part of a loss on a batch: its sum over the inputs, and how many of them it calls right (None: it cannot tell)."""

    loss: Tensor
    right: Tensor | None = None


class Batch(NamedTuple):
    """Inputs x [batch, …] with classes y [batch].

    total: the size of the whole batch, when this is a piece of it; the pieces' losses add up to the batch's. observe: measure
    what the loss does not need, too (crossing neurons, accuracies of terms that are weighted with 0).
    """

    x: Tensor
    y: Tensor
    total: int
    observe: bool = False

    @classmethod
    def whole(cls, x: Tensor, y: Tensor, *, observe: bool = False) -> Batch:
        return cls(x, y, len(x), observe)


@dataclass(frozen=True)
class Terms:
    """The terms of a step by their names, and `loss`, the scalar to minimise.

    What was skipped is absent. crossing: per ReLU layer the share of neurons that cross (a vector), where the step was asked to
    observe and had bounds.
    """

    loss: Tensor
    parts: Mapping[str, Term] = field(default_factory=dict)
    crossing: Tensor | None = None

    def __getitem__(self, name: str) -> Term:
        return self.parts[name]

    def detached(self) -> Terms:
        """The same without the way back to the weights, which would hold on to the whole step."""
        parts = {name: Term(part.loss.detach(), part.right) for name, part in self.parts.items()}
        return Terms(self.loss.detach(), parts, self.crossing)


@dataclass(frozen=True)
class Learner:
    """The network that learns, as a loss sees it: its clean pass, its bounds, and the region that they speak of."""

    net: BoundedNetwork
    region: Region = field(default_factory=Region)
    normalised_by_batch: bool = field(init=False)

    def __post_init__(self) -> None:
        batch_norm = any(isinstance(m, nn.modules.batchnorm._BatchNorm) for m in self.net.model.modules())
        object.__setattr__(self, "normalised_by_batch", batch_norm)

    @property
    def method(self) -> Method:
        return self.net.method

    @property
    def model(self) -> nn.Module:
        return self.net.model

    def box(self, x: Tensor, eps: float | Tensor) -> tuple[Tensor, Tensor]:
        """The smallest and the largest inputs of the region around x."""
        return self.region.box(x, eps)


class Loss(Noun):
    """What training minimises; one file each. Its parameters are the class's fields (`plugin.settings.table.setting`).

    A subclass has a `name`, a docstring whose first line `--loss list` shows, and the two methods below; that is all that
    training, the meters, TensorBoard, the console, `metrics.jsonl` and the analysis need.
    """

    name: ClassVar[str]

    def terms(self, method: Method) -> tuple[str, ...]:
        """The names of its terms with that method, in the order in which they are shown; the last one is the worst case's."""
        raise NotImplementedError

    def __call__(self, learner: Learner, batch: Batch, values: Values) -> Terms:
        """The terms of a batch, each a sum over its inputs, and the scalar to minimise."""
        raise NotImplementedError

    def check(self, method: Method) -> None:
        """Raises UserError where the loss does not go with the method."""


def measured(logits: Tensor, y: Tensor) -> Term:
    """Cross-entropy of logits [batch, classes], and how many are right."""
    return Term(cross_entropy(logits, y, reduction="sum"), (predictions(logits.detach()) == y).sum())


def l1_norm(model: nn.Module) -> Tensor | None:
    """Σ|w| over the trained weights (not the biases) of the linear and convolutional layers; None without any."""
    layers = [m for m in model.modules() if isinstance(m, (nn.Linear, nn.modules.conv._ConvNd))]
    weights = [layer.weight for layer in layers if layer.weight.requires_grad]
    return torch.stack([weight.abs().sum() for weight in weights]).sum() if weights else None


def crossing_shares(layers: Layers) -> Tensor | None:
    """Per ReLU layer the share of neurons whose bounds have 0 inside; None without bounds."""
    if not layers:
        return None
    return torch.stack([((lower < 0) & (upper > 0)).float().mean() for lower, upper in layers]).detach()


class Worst(NamedTuple):
    """The worst case: its loss, summed over the inputs; the terms that it is made of; bounds of the ReLU layers, if any."""

    loss: Tensor
    parts: Mapping[str, Term]
    layers: Layers = ()

    @classmethod
    def of(cls, name: str, term: Term, layers: Layers = ()) -> Worst:
        """A worst case that is one term."""
        return cls(term.loss, {name: term}, layers)
