"""Batch norms' statistics on a clean batch, taken from the model's own forward pass.

In training the bounds of a network with batch norm use the clean batch's mean and variance, with gradients. They are needed
beside the outputs, so batch normalisation is computed here while the model runs; every other operation is the model's own.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode

from newrelax.network.graph import Graph, Statistics


@contextmanager
def observed(graph: Graph) -> Iterator[Statistics]:
    """While the model of the graph runs inside, the statistics of its batch norms gather in what this gives."""
    observer = _Observer(graph.batch_norm_buffers())
    with observer:
        yield observer.statistics


class _Observer(TorchFunctionMode):
    """Computes batch normalisation in training mode, and keeps mean and variance."""

    def __init__(self, running_means: Sequence[Tensor]) -> None:
        super().__init__()
        self._left = list(enumerate(running_means))
        self.statistics: dict[int, tuple[Tensor, Tensor]] = {}

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is not F.batch_norm:
            return func(*args, **(kwargs or {}))
        return self._batch_norm(*args, **(kwargs or {}))

    def _batch_norm(
        self,
        input: Tensor,
        running_mean: Tensor | None,
        running_var: Tensor | None,
        weight: Tensor | None = None,
        bias: Tensor | None = None,
        training: bool = False,
        momentum: float = 0.1,
        eps: float = 1e-5,
    ) -> Tensor:
        number = next((n for n, mean in self._left if mean is running_mean), None)
        if not training or number is None or running_mean is None or running_var is None:
            return F.batch_norm(input, running_mean, running_var, weight, bias, training, momentum, eps)
        self._left = [(n, mean) for n, mean in self._left if n != number]
        axes = [0, *range(2, input.ndim)]
        variance, mean = torch.var_mean(input, axes, correction=0)
        self.statistics[number] = mean, variance
        with torch.no_grad():
            count = input.numel() / input.shape[1]
            unbiased = variance * (count / max(count - 1, 1))
            running_mean.lerp_(mean, momentum)
            running_var.lerp_(unbiased, momentum)
        scale = (variance + eps).rsqrt()
        scale = scale if weight is None else weight * scale
        shift = -mean * scale if bias is None else bias - mean * scale
        shape = (1, -1) + (1,) * (input.ndim - 2)
        return scale.view(shape) * input + shift.view(shape)
