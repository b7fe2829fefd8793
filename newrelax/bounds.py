"""A model seen through a convex relaxation: certified lower bounds of its margins."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .errors import UserError
from .fusion import can_fuse, fused_cross_entropy
from .method import Method
from .precision import full_precision
from .registry import Registry

if TYPE_CHECKING:
    from .graph import Graph
    from .plain import PlainBounds
    from .propagation import IntervalPass, LinearPass
    from .random_slope import Slopes


@dataclass(frozen=True)
class MarginBounds:
    """What one call of `BoundedNetwork.bounds` found.

    margins: lower bounds of z_y − z_j over the box, j ≠ y ascending; [batch, classes − 1], differentiable in the weights.
    layers: pre-activation bounds (lower, upper) of every ReLU in the model's order, detached.
    """

    margins: Tensor
    layers: tuple[tuple[Tensor, Tensor], ...]


@dataclass(frozen=True)
class LossBounds:
    """What one call of `BoundedNetwork.cross_entropy` found.

    loss: upper bounds of the cross-entropy over the box, [batch], differentiable in the weights.
    margins: the intervals' lower bounds of z_y − z_j, detached; layers: both as in `MarginBounds`.
    """

    loss: Tensor
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


def is_at(share: float | Tensor, end: float) -> bool:
    """Whether a share is at that end, so that work can be skipped. One on the device counts as in between: nobody asks."""
    return not isinstance(share, Tensor) and share == end


class BoundedNetwork:
    """A model whose margins are bounded with a method.

    model: [batch, *input_shape] → logits [batch, classes]. Its parameters stay its own: optimise
    `model.parameters()`. In training mode, `net(x)` fixes the batch-norm statistics that the next `bounds` uses,
    so call it first, with the clean batch.

    memory: bytes that one chunk of back-substituted coefficients may take; `propagation.chunk_memory` by default.
    plain: leave everything to auto_LiRPA's `compute_bounds`; by default that happens only for graphs that `graph.Graph`
    does not know.

    Raises `UserError` if auto_LiRPA cannot trace the model, or the method has no way through its graph.
    """

    def __init__(
        self, model: nn.Module, input_shape: Sequence[int], method: Method, *, memory: int | None = None, plain: bool = False
    ) -> None:
        # imported at first use: where auto_LiRPA is missing, a command line says so in one line
        from .graph import Graph, UnsupportedGraph
        from .plain import PlainBounds, check_same, trace

        self.model, self.method, self.input_shape = model, method, tuple(input_shape)
        self._memory = memory
        self._plain: PlainBounds | None = None
        self._graph: Graph | None = None
        if not method.gives_bounds:
            return
        relaxation = method.relaxation
        self._parallel = relaxation is not None and relaxation.parallel
        self._chord = relaxation is not None and relaxation.chord and not self._parallel
        if method.propagation in ("hybrid", "cauchy", "cauchy-hybrid") and not self._parallel:
            raise UserError(f"{method.label}: {method.propagation} propagation needs parallel lines (return one slope for both)")
        bounded, sample, logits = trace(model, input_shape, method)
        self.classes = int(bounded[bounded.final_name].output_shape[-1])
        if not plain and method.propagation != "forward":
            try:
                self._graph = Graph.of(bounded, self.input_shape)
                with torch.no_grad():
                    check_same(self._graph.forward(sample), logits, model)
                return
            except UnsupportedGraph as unsupported:
                if method.propagation in ("cauchy", "cauchy-hybrid") or method.random_slopes:
                    raise UserError(f"{method.label} cannot pass the operator {unsupported} of this model") from unsupported
        self._plain = PlainBounds(model, bounded, method)

    @full_precision()
    def __call__(self, x: Tensor) -> Tensor:
        """Clean logits."""
        if self._plain is not None:
            return self._plain.forward(x)
        if self._graph is None or not self._graph.has_batch_norm:
            return self.model(x)
        if self.model.training:
            return self._graph.forward(x, training=True)
        self._graph.use_running_statistics()
        return self.model(x)

    @full_precision()
    def bounds(self, lower: Tensor, upper: Tensor, y: Tensor, *, beta: float | Tensor = 1.0) -> MarginBounds:
        """Lower bounds of the margins over the boxes [lower, upper].

        lower, upper: [batch, *input_shape] in the model's input units. y: [batch], long.
        beta: weight of this method's logits against IBP's, (1 − beta)·IBP + beta·method.
        """
        from .cauchy import estimated_margins
        from .propagation import interval_pass, layers_in_order, margin_intervals

        if self._plain is not None:
            return self._plain_bounds(lower, upper, y, beta)
        if self._graph is None:
            raise UserError(f"{self.method.label} gives no bounds; certify with {self.method.certify_with}")
        if not self.model.training:
            self._graph.use_running_statistics()
        graph, method, matrix = self._graph, self.method, specification(y, self.classes, lower.dtype)
        if method.propagation in ("cauchy", "cauchy-hybrid"):
            margins, intervals = estimated_margins(
                graph, lower, upper, matrix, method.relaxation, k=method.k, hybrid=method.propagation == "cauchy-hybrid"
            )
            return MarginBounds(margins, layers_in_order(graph, intervals))
        found = None
        if method.propagation in ("interval", "ibp+backward") or not is_at(beta, 1.0):
            found = interval_pass(graph, lower, upper, method.relaxation if method.propagation == "interval" else None)
        if method.propagation == "interval":
            return MarginBounds(margin_intervals(graph, found, matrix)[0], layers_in_order(graph, found.intervals))
        margins: Tensor | float = 0.0
        intervals = found.intervals if found is not None else {}
        if not is_at(beta, 1.0):
            margins = (1 - beta) * margin_intervals(graph, found, matrix)[0]
        if not is_at(beta, 0.0):
            slopes = None
            if method.random_slopes and self.model.training:
                slopes = self._random_slopes(lower, upper, y, matrix, found)
            linear = self._linear_pass(lower, upper, found, slopes)
            margins = margins + beta * linear.lower_bounds(matrix)
            intervals = linear.intervals
        return MarginBounds(margins, layers_in_order(graph, intervals))

    @full_precision()
    def cross_entropy(self, lower: Tensor, upper: Tensor, y: Tensor, *, beta: float | Tensor = 1.0) -> LossBounds:
        """Upper bounds of the cross-entropy over the boxes, bounded as one output (`fusion`); arguments as in `bounds`.

        beta: weight of the fused bound against IBP's, (1 − beta)·CE(IBP's worst-case logits) + beta·fused; both are
        sound, so their mean is. Raises `UserError` for methods that `can_fuse` refuses.
        """
        from .propagation import interval_pass, layers_in_order, margin_intervals

        if not can_fuse(self.method):
            raise UserError(f"{self.method.label}: no bound of the loss as one output; CROWN-IBP, CROWN-IBP-R and their like have it")
        matrix, below = specification(y, self.classes, lower.dtype), None
        if self._plain is not None:
            both = self._plain.margins(lower, upper, torch.cat([matrix, -matrix], 1), ibp=True)
            low, negated_high = both.chunk(2, dim=1)
            high, layers = -negated_high, self._plain.layers()
            below = partial(self._plain.margins, lower, upper)
        else:
            if not self.model.training:
                self._graph.use_running_statistics()
            found = interval_pass(self._graph, lower, upper)
            low, high = margin_intervals(self._graph, found, matrix)
            layers = layers_in_order(self._graph, found.intervals)
            if not is_at(beta, 0.0):
                below = self._linear_pass(lower, upper, found, None).lower_bounds
        loss: Tensor | float = 0.0
        if not is_at(beta, 1.0):
            loss = (1 - beta) * F.cross_entropy(worst_logits(low, y), y, reduction="none")
        if not is_at(beta, 0.0):
            loss = loss + beta * fused_cross_entropy(low, high, lambda w: below(w.unsqueeze(1) @ matrix).squeeze(1))
        return LossBounds(loss, low.detach(), layers)

    def _linear_pass(
        self, lower: Tensor, upper: Tensor, found: IntervalPass | None, slopes: Mapping[int, Tensor] | None
    ) -> LinearPass:
        from .propagation import LinearPass

        hidden = {"ibp+backward": "interval"}.get(self.method.propagation, self.method.propagation)
        return LinearPass(
            self._graph, lower, upper, self.method.relaxation, hidden=hidden, memory=self._memory,
            parallel=self._parallel, chord=self._chord, found=found if hidden == "interval" else None, slopes=slopes,
        )  # fmt: skip

    def _random_slopes(self, lower: Tensor, upper: Tensor, y: Tensor, matrix: Tensor, found: IntervalPass) -> Slopes:
        from .random_slope import moved_slopes

        fixed = found.detached()

        def loss_of(slopes: Slopes) -> Tensor:
            margins = self._linear_pass(lower, upper, fixed, slopes).lower_bounds(matrix)
            return F.cross_entropy(worst_logits(margins, y), y)

        return moved_slopes({index: tuple(low.shape) for index, (low, _) in fixed.intervals.items()}, lower, loss_of)

    def _plain_bounds(self, lower: Tensor, upper: Tensor, y: Tensor, beta: float | Tensor) -> MarginBounds:
        matrix = specification(y, self.classes, lower.dtype)
        margins: Tensor | float = 0.0
        if not is_at(beta, 1.0):
            margins = (1 - beta) * self._plain.margins(lower, upper, matrix, ibp=True)
        if not is_at(beta, 0.0):
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
