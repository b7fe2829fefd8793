"""A network's certified loss and margin bounds as closures over its weights."""

from __future__ import annotations

import copy
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from newrelax.bounds import MarginBounds, box, worst_logits
from newrelax.methods.method import Method
from plugin.analysis.weights import WeightSpace
from plugin.certification.bounding import Bounding

STATEFUL = (nn.modules.batchnorm._BatchNorm, nn.modules.dropout._DropoutNd)
"""Modules that behave differently in training mode."""


class CertifiedLoss:
    """The certified loss of a copy of a model on a fixed batch, as a function of the copy's weights.

    The copy behaves as in evaluation and is in `dtype`; the model itself is never touched, nor are random streams.
    loss(): mean cross-entropy of the worst-case logits (nats). margins(): lower bounds of z_y − z_j, [batch, classes − 1].
    layers(): pre-activation bounds of every ReLU, each [batch, ...]. beta: share of the method's logits, the rest IBP's.
    fused: the loss is the cross-entropy's own bound (newrelax.fusion); margins and layers stay the method's.
    """

    def __init__(
        self,
        model: nn.Module,
        method: Method,
        x: Tensor,
        y: Tensor,
        eps: float,
        *,
        beta: float = 1.0,
        fused: bool = False,
        data_range: tuple[float, float] = (0.0, 1.0),
        dtype: torch.dtype = torch.float64,
        input_shape: Sequence[int] | None = None,
        bounding: Bounding | None = None,
    ) -> None:
        self.model = copy.deepcopy(model).to(dtype).eval()
        for parameter in self.model.parameters():
            parameter.grad = None
        if not any(isinstance(m, STATEFUL) for m in self.model.modules()):
            # Random slopes are drawn in training mode only, and auto_LiRPA's own passes give gradients in it only.
            self.model.train()
        self.method, self.beta, self.fused = method, beta, fused
        self.x, self.y, self.eps = x.to(dtype), y, eps
        named = [(n, p) for n, p in self.model.named_parameters() if p.requires_grad]
        self.names = tuple(n for n, _ in named)
        self.parameters = tuple(p for _, p in named)
        self._box = box(self.x, eps, data_range)
        # Tracing may draw random numbers; leaving the context puts the streams back.
        with WeightSpace(self.parameters):
            self.network = (bounding or Bounding()).network(self.model, tuple(input_shape or x.shape[1:]), method)

    def bounds(self) -> MarginBounds:
        return self.network.bounds(*self._box, self.y, beta=self.beta)

    def margins(self) -> Tensor:
        return self.bounds().margins

    def loss(self) -> Tensor:
        if self.fused:
            return self.network.cross_entropy(*self._box, self.y, beta=self.beta).loss.mean()
        return functional.cross_entropy(worst_logits(self.margins(), self.y), self.y)

    def layers(self) -> tuple[tuple[Tensor, Tensor], ...]:
        return self.bounds().layers
