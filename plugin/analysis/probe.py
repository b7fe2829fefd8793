"""A network's loss and margin bounds on a fixed batch, as closures over its weights."""

from __future__ import annotations

import copy
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from newrelax.bounds import MarginBounds
from newrelax.methods.method import Method
from plugin.analysis.weights import WeightSpace
from plugin.certification.bounding import Bounding
from plugin.certification.region import Region
from plugin.training.losses.base import Batch, Learner, Loss
from plugin.training.losses.certified import Certified
from plugin.training.schedule import Values

STATEFUL = (nn.modules.batchnorm._BatchNorm, nn.modules.dropout._DropoutNd)
"""Modules that behave differently in training mode."""


@dataclass(frozen=True)
class Analysed:
    """What is analysed on a network: a method's bounds in a region, and the loss whose worst case is made of them.

    beta: share of the method's logits, the rest being IBP's.
    """

    method: Method
    loss: Loss = field(default_factory=Certified)
    region: Region = field(default_factory=Region)
    bounding: Bounding = field(default_factory=Bounding)
    beta: float = 1.0

    @property
    def term(self) -> str:
        """The name of the term that is analysed, the loss's last: its worst case."""
        return self.loss.terms(self.method)[-1]


class Probe:
    """The analysed loss of a copy of a model on a fixed batch, as a function of the copy's weights.

    The copy behaves as in evaluation and is in `dtype`; the model itself is never touched, nor are random streams.
    loss(): the mean of the analysed term (nats). margins(): lower bounds of z_y − z_j, [batch, classes − 1].
    layers(): pre-activation bounds of every ReLU, each [batch, ...].
    """

    def __init__(
        self, model: nn.Module, analysed: Analysed, x: Tensor, y: Tensor, eps: float, *, dtype: torch.dtype = torch.float64
    ) -> None:
        self.model = copy.deepcopy(model).to(dtype).eval()
        for parameter in self.model.parameters():
            parameter.grad = None
        if not any(isinstance(m, STATEFUL) for m in self.model.modules()):
            # Random slopes are drawn in training mode only, and auto_LiRPA's own passes give gradients in it only.
            self.model.train()
        self.analysed, self.eps = analysed, eps
        self.x, self.y = x.to(dtype), y
        named = [(n, p) for n, p in self.model.named_parameters() if p.requires_grad]
        self.names = tuple(n for n, _ in named)
        self.parameters = tuple(p for _, p in named)
        region = analysed.region.to(x.device, dtype)
        # Tracing may draw random numbers; leaving the context puts the streams back.
        with WeightSpace(self.parameters):
            network = analysed.bounding.network(self.model, tuple(x.shape[1:]), analysed.method)
        self._learner = Learner(network, region)
        self._box = region.box(self.x, eps)

    @property
    def method(self) -> Method:
        return self.analysed.method

    def bounds(self) -> MarginBounds:
        return self._learner.net.bounds(*self._box, self.y, beta=self.analysed.beta)

    def margins(self) -> Tensor:
        return self.bounds().margins

    def loss(self) -> Tensor:
        values = Values(eps=self.eps, kappa=0.0, beta=self.analysed.beta, lr=0.0)
        terms = self.analysed.loss(self._learner, Batch.whole(self.x, self.y), values)
        return terms[self.analysed.term].loss / len(self.y)

    def layers(self) -> tuple[tuple[Tensor, Tensor], ...]:
        return self.bounds().layers
