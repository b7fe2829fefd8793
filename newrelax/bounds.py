"""A network's outputs over boxes of inputs: certified bounds, for training and for certifying."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from newrelax.arguments import (
    UNIT_RANGE,
    DataRange,
    box,
    check_box,
    check_eps,
    check_inputs,
    check_labels,
    check_model,
    check_range,
    check_specification,
)
from newrelax.errors import UserError
from newrelax.methods.method import Method
from newrelax.network.graph import Graph, Statistics
from newrelax.network.operators.rule import Rule
from newrelax.network.rules import BUILTIN_RULES
from newrelax.network.same import check_same, check_traced
from newrelax.network.statistics import observed
from newrelax.precision import full_precision
from newrelax.propagations.base import Bounds, Ends, Layers, Problem, interval_ends
from newrelax.propagations.fusion import fused_cross_entropy
from newrelax.propagations.ibp_backward import IntervalBackwardPropagation
from newrelax.propagations.memory import Memory
from newrelax.registry import Registry
from newrelax.share import Share

__all__ = ["BoundedNetwork", "Clean", "LossBounds", "MarginBounds", "bounds", "box", "certify", "specification", "worst_logits"]

Engine = Literal["newrelax", "auto_LiRPA"]
ENGINES: tuple[Engine, ...] = get_args(Engine)
"""This project's own passes, or auto_LiRPA's `compute_bounds` over the same steps."""

NO_STATISTICS: Statistics = {}


@dataclass(frozen=True)
class MarginBounds:
    """What one call of `BoundedNetwork.bounds` found.

    margins: lower bounds of z_y − z_j over the box, j ≠ y ascending, [batch, classes − 1]; for one logit [batch, 1], of z where
    y = 1 and of −z where y = 0. Differentiable in the weights.
    layers: pre-activation bounds (lower, upper) of every ReLU in the model's order; detached unless asked for.
    """

    margins: Tensor
    layers: Layers


@dataclass(frozen=True)
class LossBounds:
    """What one call of `BoundedNetwork.cross_entropy` found.

    loss: upper bounds of the cross-entropy over the box, [batch], differentiable in the weights.
    margins: the intervals' lower bounds of z_y − z_j, detached; layers: both as in `MarginBounds`.
    """

    loss: Tensor
    margins: Tensor
    layers: Layers


@dataclass(frozen=True)
class Clean:
    """A clean pass: the model's own logits, and in training the batch norms' statistics that bounds are to be computed with."""

    logits: Tensor
    statistics: Statistics = field(default_factory=dict)


@dataclass
class Seen:
    """What a network was asked for while it was watched: the boxes that were bounded with gradients, and the last clean pass's
    statistics (None: there was no clean pass)."""

    problems: list[Problem] = field(default_factory=list)
    statistics: Statistics | None = None


def specification(y: Tensor, outputs: int, dtype: torch.dtype | None = None) -> Tensor:
    """The margin matrix: row j of example i is e_y − e_j, j ≠ y ascending; [batch, classes − 1, classes].

    For one logit, which decides by its sign: +1 where y = 1, −1 where y = 0; [batch, 1, 1].
    """
    if outputs == 1:
        return (2 * y - 1).to(dtype or torch.get_default_dtype()).view(-1, 1, 1)
    identity = torch.eye(outputs, dtype=dtype, device=y.device)
    return identity[y].unsqueeze(1) - identity[other_classes(y, outputs)]


def other_classes(y: Tensor, classes: int) -> Tensor:
    """The class of each margin column: [batch, classes − 1], all j ≠ y ascending."""
    columns = torch.arange(classes - 1, device=y.device).expand(len(y), -1)
    return columns + (columns >= y.unsqueeze(1)).long()


def worst_logits(margins: Tensor, y: Tensor) -> Tensor:
    """Worst-case logits [batch, classes]: 0 for the true class, −(lower bound of z_y − z_j) for class j."""
    logits = margins.new_zeros(len(y), margins.shape[1] + 1)
    return logits.scatter(1, other_classes(y, margins.shape[1] + 1), -margins)


class BoundedNetwork:
    """A model whose outputs are bounded with a method.

    model: [batch, *input_shape] → outputs [batch, *]. Its parameters stay its own: optimise `model.parameters()`.
    memory: bytes that back-substituted coefficients may take; by default as `newrelax.propagations.base.Memory` says.
    engine: one of `ENGINES`. operators: rules for the model's operators.

    Raises `UserError` in one line if the model has no graph, or the method no way through it.
    """

    def __init__(
        self,
        model: nn.Module,
        input_shape: Sequence[int],
        method: Method,
        *,
        memory: int | None = None,
        engine: str = "newrelax",
        operators: Sequence[Rule] = BUILTIN_RULES,
    ) -> None:
        if engine not in ENGINES:
            raise UserError(f"unknown engine {engine!r}; known: {', '.join(ENGINES)}")
        self.model, self.method, self.input_shape = model, method, tuple(input_shape)
        self.engine: Engine = "auto_LiRPA" if method.propagation.name == "forward" else engine
        self._memory = memory
        self._graph: Graph | None = None
        self._propagation = method.propagation
        self._seen: Seen | None = None
        if not method.gives_bounds:
            return
        self._graph = Graph(model, self.input_shape, operators)
        with full_precision():
            check_traced(self._graph)
        if self.engine == "auto_LiRPA":
            from newrelax.lirpa.engine import LirpaPropagation  # a user of our own passes need not have it

            self._propagation = LirpaPropagation(self._graph, method)

    @property
    def graph(self) -> Graph:
        """The model's graph; raises `UserError` for methods without bounds."""
        if self._graph is None:
            raise UserError(f"{self.method.label} gives no bounds; certify with {self.method.certify_with}")
        return self._graph

    @property
    def outputs(self) -> int:
        """How many outputs there are; 1 for a binary classifier."""
        return torch.Size(self.graph.output_shape).numel()

    @full_precision()
    def observe(self, x: Tensor) -> Clean:
        """The model's own clean pass. In training mode its batch norms' statistics come along, for the next bounds."""
        if self._graph is None or not self._graph.has_batch_norm or not self.model.training:
            return Clean(self.model(x))
        with observed(self._graph) as statistics:
            logits = self.model(x)
        if self._seen is not None:
            self._seen.statistics = statistics
        return Clean(logits, statistics)

    def __call__(self, x: Tensor) -> Tensor:
        """Clean logits."""
        return self.observe(x).logits

    @contextmanager
    def watched(self) -> Iterator[Seen]:
        """What is asked for inside gathers in what this gives, so that whoever comes after need not compute it again."""
        outside, self._seen = self._seen, Seen()
        try:
            yield self._seen
        finally:
            self._seen = outside

    def check_same(self, x: Tensor) -> None:
        """Raises `UserError` where the steps give other outputs than the model at x (evaluation mode)."""
        with full_precision():
            check_same(self.graph, x)

    @full_precision()
    def bounds(
        self,
        lower: Tensor,
        upper: Tensor,
        y: Tensor,
        *,
        beta: Share = 1.0,
        statistics: Statistics | None = None,
        attached: bool = False,
    ) -> MarginBounds:
        """Lower bounds of the margins over the boxes [lower, upper].

        lower, upper: [batch, *input_shape] in the model's input units. y: [batch], long.
        beta: weight of this method's logits against IBP's, (1 − beta)·IBP + beta·method.
        statistics: of batch norms, from `observe`; their running ones by default.
        attached: the layers' bounds keep their way back to the weights.
        """
        matrix = specification(y, self.outputs, lower.dtype)
        found = self.linear_bounds(lower, upper, matrix, beta=beta, statistics=statistics, attached=attached)
        return MarginBounds(found.lower, found.layers)

    @full_precision()
    def linear_bounds(
        self,
        lower: Tensor,
        upper: Tensor,
        matrix: Tensor,
        *,
        beta: Share = 1.0,
        statistics: Statistics | None = None,
        attached: bool = False,
    ) -> Bounds:
        """Lower bounds of matrix @ outputs over the boxes; matrix: [batch, rows, outputs]. The rest as in `bounds`."""
        problem = self.problem(lower, upper, statistics, attached=attached)
        if self._propagation.name == "interval" or beta == 1:
            return self._propagation.bounds(problem, matrix)
        low, _, layers = self._intervals(problem, matrix)
        margins = (1 - beta) * low
        if beta != 0:
            found = self._propagation.bounds(problem, matrix)
            margins, layers = margins + beta * found.lower, found.layers
        return Bounds(margins, layers)

    @full_precision()
    def cross_entropy(
        self, lower: Tensor, upper: Tensor, y: Tensor, *, beta: Share = 1.0, statistics: Statistics | None = None
    ) -> LossBounds:
        """Upper bounds of the cross-entropy over the boxes, bounded as one output (`fusion`); arguments as in `bounds`.

        beta: weight of the fused bound against IBP's, (1 − beta)·CE(IBP's worst-case logits) + beta·fused; both are
        sound, so their mean is. Raises `UserError` for methods that `can_fuse` refuses, and for one logit.
        """
        if not can_fuse(self.method):
            raise UserError(
                f"{self.method.label}: no bound of the loss as one output; CROWN-IBP, CROWN-IBP-R and their like have it"
            )
        if self.outputs == 1:
            raise UserError("one logit has one margin, whose loss is its bound: leave loss fusion out")
        problem, matrix = self.problem(lower, upper, statistics), specification(y, self.outputs, lower.dtype)
        low, high, layers = self._intervals(problem, matrix)
        loss: Tensor | float = 0.0
        if beta != 1:
            loss = (1 - beta) * F.cross_entropy(worst_logits(low, y), y, reduction="none")
        if beta != 0:

            def below(weights: Tensor) -> Tensor:
                return self._propagation.bounds(problem, weights.unsqueeze(1) @ matrix).lower.squeeze(1)

            loss = loss + beta * fused_cross_entropy(low, high, below)
        assert isinstance(loss, Tensor)
        return LossBounds(loss, low.detach(), layers)

    def problem(self, lower: Tensor, upper: Tensor, statistics: Statistics | None = None, *, attached: bool = False) -> Problem:
        """What is to be bounded: the network with the weights of this moment over the boxes; arguments as in `bounds`."""
        memory = Memory.of(self._memory, lower.device)
        problem = Problem(self.graph.network(statistics), lower, upper, self.method.lines, memory, attached)
        if self._seen is not None and torch.is_grad_enabled():
            self._seen.problems.append(problem)
        return problem

    def _intervals(self, problem: Problem, matrix: Tensor) -> tuple[Tensor, Tensor, Layers]:
        if self.engine == "auto_LiRPA":
            from newrelax.lirpa.engine import LirpaPropagation

            assert isinstance(self._propagation, LirpaPropagation)
            low, high, layers = self._propagation.intervals(problem, matrix)
            return low, high, layers
        low, high = interval_ends(problem, problem.intervals, matrix)
        return low, high, problem.layers(problem.intervals.entered)


def can_fuse(method: Method) -> bool:
    """Whether the method bounds margins by one back-substitution over interval bounds of the hidden layers."""
    return isinstance(method.propagation, IntervalBackwardPropagation)


def _bounded(
    model: nn.Module,
    x: Tensor,
    method: str | Method,
    registry: Registry | None,
    engine: str,
    memory: int | None,
    estimates: bool,
) -> BoundedNetwork:
    """The model in evaluation mode, checked to be the same function at x."""
    registry = registry or Registry.load()
    if not isinstance(method, (str, Method)):
        raise UserError(f"expected method as a name or a Method, got {type(method).__name__}")
    chosen = registry.get_method(method) if isinstance(method, str) else method
    if chosen.gives_bounds and not chosen.propagation.sound and not estimates:
        raise UserError(
            f"{chosen.label} only estimates bounds, which certifies nothing: allow_estimates=True gives its figures"
        )
    net = BoundedNetwork(model, x.shape[1:], chosen, memory=memory, engine=engine, operators=registry.operators)
    net.check_same(x)
    return net


def certify(
    model: nn.Module,
    x: Tensor,
    y: Tensor | Sequence[int],
    eps: float | Tensor,
    method: str | Method = "CROWN-IBP-R",
    data_range: DataRange = UNIT_RANGE,
    registry: Registry | None = None,
    *,
    engine: str = "newrelax",
    memory: int | None = None,
    allow_estimates: bool = False,
) -> Tensor:
    """Lower bounds of z_y − z_j, j ≠ y ascending, for every x' with |x' − x|∞ ≤ eps inside the data range.

    x: [batch, *features] in the model's input units and dtype (float32 or float64); y: classes [batch].
    eps: a radius; or one for each example [batch], each feature [*features], or both [batch, *features].
    data_range: (smallest, largest) input, numbers or tensors of features; None: the ball is not clipped.
    engine, memory: see `BoundedNetwork`. The model is bounded as in evaluation mode, and left as it was.

    Returns [batch, classes − 1], differentiable in the weights; all positive means certified. For one logit [batch, 1]: the
    lower bound of z where y = 1 and of −z where y = 0.

    Raises `UserError` for arguments, methods and models that it cannot take.
    """
    model = check_model(model)
    x = check_inputs(x, model)
    limits, radius = check_range(data_range, x), check_eps(eps, x)
    net = _bounded(model, x, method, registry, engine, memory, allow_estimates)
    if len(net.graph.output_shape) != 1:
        raise UserError(f"expected logits [batch, classes], got outputs of shape {net.graph.output_shape}: see newrelax.bounds")
    labels = check_labels(y, len(x), net.outputs).to(x.device)
    if len(x) == 0:
        return x.new_zeros(0, max(1, net.outputs - 1))
    return _or_nothing(net.bounds(*box(x, radius, limits), labels).margins)


def bounds(
    model: nn.Module,
    lower: Tensor,
    upper: Tensor,
    specification: Tensor | None = None,
    method: str | Method = "CROWN",
    *,
    registry: Registry | None = None,
    engine: str = "newrelax",
    memory: int | None = None,
    allow_estimates: bool = False,
) -> Ends:
    """Lower and upper bounds of the outputs, or of linear functions of them, for every input in [lower, upper].

    lower, upper: [batch, *features] in the model's input units and dtype. specification: [rows, outputs], or
    [batch, rows, outputs] for one of its own for each example; several axes of outputs count as one.

    Returns (lower, upper), each [batch, *outputs], or [batch, rows] with a specification; differentiable in the weights.
    A model that gives [batch] has one output, [batch, 1].

    Raises `UserError` for arguments, methods and models that it cannot take.
    """
    model = check_model(model)
    low, high = check_box(lower, upper, model)
    net = _bounded(model, (low + high) / 2, method, registry, engine, memory, allow_estimates)
    matrix = check_specification(specification, len(low), net.outputs, low)
    shape = (len(low), *(net.graph.output_shape if specification is None else matrix.shape[1:2]))
    if len(low) == 0:
        return low.new_zeros(shape), low.new_zeros(shape)
    both = _or_nothing(net.linear_bounds(low, high, torch.cat([matrix, -matrix], 1)).lower)
    below, above = both.chunk(2, dim=1)
    return below.reshape(shape), -above.reshape(shape)


def _or_nothing(lower: Tensor) -> Tensor:
    """Where bounds are not numbers, nothing is known: −∞ is a lower bound of everything."""
    return torch.where(lower.isnan(), -torch.inf, lower)
