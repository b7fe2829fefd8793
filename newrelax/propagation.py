"""How lines become bounds: interval, back-substitution and hybrid passes over a `Graph`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from .affine import Affine, Linear
from .graph import Add, Graph, Relu
from .relaxation import Lines, Relaxation
from .substitution import ReluLines, substitute
from .windows import Windows

Intervals = dict[int, tuple[Tensor, Tensor]]  # ReLU step → pre-activation (lower, upper)


def interval_step(graph: Graph, index: int, center: dict[int, Tensor], radius: dict[int, Tensor]) -> None:
    """Centre and radius of an affine or additive step from those of its inputs; ReLUs are the caller's."""
    step = graph.steps[index]
    operands = step.inputs
    if isinstance(step.operator, Add):
        center[index] = center[operands[0]] + center[operands[1]]
        radius[index] = radius[operands[0]] + radius[operands[1]]
    else:
        center[index] = step.operator.value(center[operands[0]])
        radius[index] = step.operator.magnitude(radius[operands[0]])


@dataclass
class IntervalPass:
    """Centres and radii of every step (the last one left out: margins merge into it) and the ReLUs' intervals."""

    center: dict[int, Tensor]
    radius: dict[int, Tensor]
    intervals: Intervals = field(default_factory=dict)

    def detached(self) -> IntervalPass:
        center, radius = ({index: value.detach() for index, value in part.items()} for part in (self.center, self.radius))
        return IntervalPass(center, radius, {i: (low.detach(), high.detach()) for i, (low, high) in self.intervals.items()})


def interval_pass(graph: Graph, lower: Tensor, upper: Tensor, relaxation: Relaxation | None = None) -> IntervalPass:
    """IBP in centre–radius form; `relaxation.widen` (IBP-Widen, IBP-Round) applies before each ReLU."""
    widen = relaxation.widen if relaxation is not None else None
    found = IntervalPass({-1: 0.5 * (lower + upper)}, {-1: 0.5 * (upper - lower)})
    for index, step in enumerate(graph.steps[:-1]):
        if isinstance(step.operator, Relu):
            c, r = found.center[step.inputs[0]], found.radius[step.inputs[0]]
            low, high = c - r, c + r
            found.intervals[index] = (low, high)
            if widen is not None:
                low, high = widen(low, high)
            low, high = low.relu(), high.relu()
            found.center[index], found.radius[index] = 0.5 * (high + low), 0.5 * (high - low)  # a CPU divides slowly
        else:
            interval_step(graph, index, found.center, found.radius)
    return found


def matvec(matrix: Tensor, values: Tensor) -> Tensor:
    """Each example's matrix, [batch, rows, n], times its values, [batch, n]; [batch, rows]."""
    return (matrix @ values.unsqueeze(2)).squeeze(2)


def margin_intervals(graph: Graph, found: IntervalPass, matrix: Tensor) -> tuple[Tensor, Tensor]:
    """Lower and upper bounds of matrix @ logits from an interval pass, each [batch, margins].

    matrix: the margin matrix, [batch, margins, classes]; merged into the last linear layer.
    """
    last = graph.steps[-1]
    if isinstance(last.operator, Linear):
        c, r = found.center[last.inputs[0]], found.radius[last.inputs[0]]
        center = matvec(matrix, last.operator.value(c))
        spread = matvec((matrix @ last.operator.weight).abs(), r)
    else:
        interval_step(graph, len(graph.steps) - 1, found.center, found.radius)
        center = matvec(matrix, found.center[len(graph.steps) - 1])
        spread = matvec(matrix.abs(), found.radius[len(graph.steps) - 1])
    return center - spread, center + spread


def chunk_memory(device: torch.device) -> int:
    """Bytes of coefficients that go through a network together unless the user sets another limit.

    256 MiB, or, to keep a GPU busy, a 64th of its memory; the gradient needs several times as much.
    """
    least = 1 << 28
    return least if device.type != "cuda" else max(least, torch.cuda.get_device_properties(device).total_memory // 64)


class LinearPass:
    """Bounds of layers and margins by back-substitution, for one batch of boxes.

    hidden: "interval" (IBP + backward), "backward" (each layer by back-substitution) or "hybrid" (the input's
    noise symbols by back-substitution, all others as an interval β). parallel, chord: of the relaxation; found: the
    interval pass, for "interval". Where upper lines are chords its centres serve as the reference: a chord gives half
    of u at the centre of [l, u]. memory: bytes of coefficients from which on they are cut into pieces, which are computed
    again for the gradient; `chunk_memory` by default.
    """

    def __init__(
        self,
        graph: Graph,
        lower: Tensor,
        upper: Tensor,
        relaxation: Relaxation,
        *,
        hidden: str,
        parallel: bool,
        chord: bool = False,
        found: IntervalPass | None = None,
        slopes: Mapping[int, Tensor] | None = None,
        memory: int | None = None,
    ) -> None:
        self._graph, self._relaxation, self._hidden, self._parallel = graph, relaxation, hidden, parallel
        self._slopes = slopes or {}
        self._memory = chunk_memory(lower.device) if memory is None else memory
        self._lines: dict[int, ReluLines] = {}
        self._radius = (upper - lower) / 2  # of the box at `graph.origin`
        for step in graph.steps[: graph.origin + 1]:
            self._radius = step.operator.magnitude(self._radius)
        self.intervals: Intervals = {} if found is None else found.intervals
        self._reference: dict[int, Tensor] = {-1: (lower + upper) / 2}
        self._free: dict[int, tuple[Tensor, Tensor] | None] = {-1: (lower, upper)}
        self._beta: dict[int, Tensor | None] = {-1: None}
        if found is not None and chord:
            self._reference = dict(found.center)
            for index in self.intervals:
                before = self._reference[graph.steps[index].inputs[0]]
                self._lines[index] = ReluLines.below(self._lines_of(index), before, self._reference[index])
            return
        for index in range(len(graph.steps) - 1):
            self._advance(index)

    def _lines_of(self, index: int) -> Lines:
        """The lines of a ReLU step whose intervals are known."""
        low, high = self.intervals[index]
        lines = self._relaxation(low, high)
        if index in self._slopes:
            crossing = (low < 0) & (high > 0)
            lines = lines._replace(lower_slope=torch.where(crossing, self._slopes[index], lines.lower_slope))
        return lines

    def _advance(self, index: int) -> None:
        step, reference = self._graph.steps[index], self._reference
        sources = step.inputs
        if isinstance(step.operator, Relu):
            source = sources[0]
            if index not in self.intervals:
                self.intervals[index] = self._layer_bounds(source)
            lines = self._lines_of(index)
            self._lines[index], reference[index] = ReluLines.at(lines, reference[source], self._parallel)
            if self._hidden == "hybrid":
                gap = self._lines[index].gap.view_as(reference[source])
                beta = self._beta[source]
                self._beta[index] = gap if beta is None else torch.addcmul(gap, lines.lower_slope.abs(), beta)
            return
        if isinstance(step.operator, Add):
            reference[index] = reference[sources[0]] + reference[sources[1]]
            betas = [self._beta.get(s) for s in sources]
            self._beta[index] = betas[0] if betas[1] is None else betas[1] if betas[0] is None else betas[0] + betas[1]
            return
        reference[index] = step.operator.value(reference[sources[0]])
        beta = self._beta.get(sources[0])
        self._beta[index] = None if beta is None else step.operator.magnitude(beta)
        self._free[index] = self._free_bounds(index)

    def _free_bounds(self, index: int) -> tuple[Tensor, Tensor] | None:
        """Exact bounds from interval steps: before the first ReLU, through at most one operator that mixes features."""
        step = self._graph.steps[index]
        before = self._free.get(step.inputs[0])
        if self._hidden == "interval" or before is None:
            return None
        if not step.operator.diagonal and self._mixed(step.inputs[0]):
            return None
        if not self._parallel:
            return step.operator.ends(*before)
        low, high = before
        center, radius = step.operator.value((low + high) / 2), step.operator.magnitude((high - low) / 2)
        return center - radius, center + radius

    def _mixed(self, index: int) -> bool:
        while index >= 0:
            step = self._graph.steps[index]
            if not isinstance(step.operator, Affine) or not step.operator.diagonal:
                return True
            index = step.inputs[0]
        return False

    def _layer_bounds(self, index: int) -> tuple[Tensor, Tensor]:
        """Bounds (lower, upper) of step `index`, each like its reference."""
        center = self._reference[index]
        free = self._free.get(index)
        if free is not None:
            return free
        below = self._from_identity(index, 1).view_as(center)
        if self._parallel:
            return center - below, center + below
        return center - below, center + self._from_identity(index, -1).view_as(center)

    def _from_identity(self, index: int, sign: int) -> Tensor:
        """How far below sign·z̄ of step `index` the bounds lie, [batch, neurons]; in windows where that saves work."""
        shape, windows = self._graph.steps[index].shape, Windows.of(self._graph, index)
        count, batch = torch.Size(shape).numel() if windows is None else shape[0], len(self._radius)
        identity = torch.eye(count, dtype=self._radius.dtype, device=self._radius.device) * sign
        if windows is None:
            return self._spread(index, identity.view(1, count, *shape))
        lines, radius = windows.cut(self._lines, {i: self._graph.steps[i].shape for i in self._lines}, self._radius)
        last = len(windows.graph.steps) - 1
        found = self._in_pieces(windows.graph, last, identity.view(1, count, count, 1, 1), lines, radius)
        found = found.view(batch, -1, count).transpose(1, 2).reshape(batch, -1)
        beta = self._beta.get(index) if self._hidden == "hybrid" else None
        return found if beta is None else found + beta.flatten(1)

    def _in_pieces(
        self, graph: Graph, start: int, coefficients: Tensor, lines: Mapping[int, ReluLines], radius: Tensor
    ) -> Tensor:
        """`substitute`, in chunks of specs that keep within the memory."""
        specs, gaps = coefficients.shape[1], self._hidden != "hybrid"
        chunk = max(1, self._memory // (len(radius) * graph.widest[start] * coefficients.element_size()))
        if chunk >= specs:
            return substitute(graph, start, coefficients, lines, radius, count_gaps=gaps)

        def found(piece: Tensor) -> Tensor:
            return substitute(graph, start, piece, lines, radius, count_gaps=gaps)

        again = partial(checkpoint, found, use_reentrant=False, preserve_rng_state=False)
        call = again if torch.is_grad_enabled() else found
        return torch.cat([call(piece) for piece in coefficients.split(chunk, dim=1)], dim=1)

    def _spread(self, start: int, coefficients: Tensor) -> Tensor:
        """How far below C·z̄ the bounds of coefficients C lie, [batch, specs]."""
        total = self._in_pieces(self._graph, start, coefficients, self._lines, self._radius)
        if self._hidden != "hybrid" or self._beta[start] is None:
            return total
        beta, size = self._beta[start].flatten(1), coefficients.flatten(2).abs()
        return total + (beta @ size[0].t() if size.shape[0] == 1 else matvec(size, beta))

    def lower_bounds(self, specification: Tensor) -> Tensor:
        """Lower bounds of specification @ logits, [batch, specs]; merged into the last linear layer.

        specification: [batch, specs, classes].
        """
        last = len(self._graph.steps) - 1
        step = self._graph.steps[last]
        source = step.inputs[0]
        if isinstance(step.operator, Linear):
            logits = step.operator.value(self._reference[source])
            start, coefficients = source, specification @ step.operator.weight
        else:
            self._advance(last)
            logits, start, coefficients = self._reference[last], last, specification
        return matvec(specification, logits) - self._spread(start, coefficients)


def layers_in_order(graph: Graph, intervals: Intervals) -> Sequence[tuple[Tensor, Tensor]]:
    return tuple((intervals[i][0].detach(), intervals[i][1].detach()) for i in graph.relus if i in intervals)
