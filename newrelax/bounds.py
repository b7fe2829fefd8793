"""A model seen through a convex relaxation: certified lower bounds of its margins."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from .errors import UserError
from .method import Method
from .plain import PlainBounds
from .registry import Registry


@dataclass(frozen=True)
class MarginBounds:
    """What one call of `BoundedNetwork.bounds` found.

    margins: lower bounds of z_y − z_j over the box, j ≠ y ascending; [batch, classes − 1], differentiable in the weights.
    layers: pre-activation bounds (lower, upper) of every ReLU in the model's order, detached.
    """

    margins: Tensor
    layers: tuple[tuple[Tensor, Tensor], ...]


def box(x: Tensor, eps: float | Tensor, data_range: tuple[float, float] = (0.0, 1.0)) -> tuple[Tensor, Tensor]:
    """The L∞ ball of radius eps (in input units) around x, clipped to the data range: (lower, upper), each like x."""
    low, high = data_range
    return (x - eps).clamp(min=low, max=high), (x + eps).clamp(min=low, max=high)


def specification(y: Tensor, classes: int, dtype: torch.dtype | None = None) -> Tensor:
    """The margin matrix: row j of example i is e_y − e_j, j ≠ y ascending; [batch, classes − 1, classes]."""
    identity = torch.eye(classes, dtype=dtype, device=y.device)
    return identity[y].unsqueeze(1) - identity[other_classes(y, classes)]


def other_classes(y: Tensor, classes: int) -> Tensor:
    """The class of each margin column: [batch, classes − 1], all j ≠ y ascending."""
    columns = torch.arange(classes - 1, device=y.device).expand(len(y), -1)
    return columns + (columns >= y.unsqueeze(1)).long()


def worst_logits(margins: Tensor, y: Tensor) -> Tensor:
    """Worst-case logits [batch, classes]: 0 for the true class, −(lower bound of z_y − z_j) for class j."""
    logits = margins.new_zeros(len(y), margins.shape[1] + 1)
    return logits.scatter(1, other_classes(y, margins.shape[1] + 1), -margins)


class BoundedNetwork:
    """A model whose margins are bounded with a method.

    model: pixels [batch, *input_shape] → logits [batch, classes]. Its parameters stay its own: optimise
    `model.parameters()`. In training mode, `net(x)` fixes the batch-norm statistics that the next `bounds` uses,
    so call it first, with the clean batch.

    Raises `UserError` if auto_LiRPA cannot trace the model.
    """

    def __init__(
        self, model: nn.Module, input_shape: Sequence[int], method: Method, *, bound_memory: int | None = None
    ) -> None:
        self.model = model
        self.method = method
        self.input_shape = tuple(input_shape)
        self._plain = PlainBounds(model, input_shape, method) if method.propagation not in ("none", "attack") else None

    def __call__(self, x: Tensor) -> Tensor:
        """Clean logits."""
        return self.model(x) if self._plain is None else self._plain.forward(x)

    def bounds(self, lower: Tensor, upper: Tensor, y: Tensor, *, beta: float = 1.0) -> MarginBounds:
        """Lower bounds of the margins over the boxes [lower, upper].

        lower, upper: [batch, *input_shape] in the model's input units. y: [batch], long.
        beta: weight of this method's logits against IBP's, (1 − beta)·IBP + beta·method.
        """
        if self._plain is None:
            raise UserError(f"{self.method.label} gives no bounds; certify with {self.method.certify_with}")
        matrix = specification(y, self._plain.classes, lower.dtype)
        if beta == 1.0:
            margins = self._plain.margins(lower, upper, matrix)
        else:
            margins = (1 - beta) * self._plain.margins(lower, upper, matrix, ibp=True)
            if beta != 0.0:
                margins = margins + beta * self._plain.margins(lower, upper, matrix)
        return MarginBounds(margins, self._plain.layers())


def certify(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    eps: float,
    method: str | Method = "CROWN-IBP-R",
    data_range: tuple[float, float] = (0.0, 1.0),
    registry: Registry | None = None,
) -> Tensor:
    """Lower bounds of z_y − z_j, j ≠ y ascending, for every x' with |x' − x|∞ ≤ eps inside the data range.

    x: [batch, ...] in the model's input units and dtype (float32 or float64); y: [batch].
    Returns [batch, classes − 1], differentiable in the weights; all positive means certified.

    Raises `UserError` for an unknown method or a model that auto_LiRPA cannot trace.
    """
    if isinstance(method, str):
        method = (registry or Registry.load()).get_method(method)
    return BoundedNetwork(model, x.shape[1:], method).bounds(*box(x, eps, data_range), y).margins
