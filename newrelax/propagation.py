"""How lines become bounds: interval, back-substitution and hybrid passes over a `Graph`.

All of them use one form of back-substitution. Take any forward pass z̄ through the network in which every affine
step is exact and every ReLU is replaced by the midpoint of its two lines at z̄. With A the coefficients that
arrive at a ReLU whose lines have slopes s_lo, s_up and, at z̄, half the gap h = (upper − lower)/2 ≥ 0,

    C·f(x') ≥ C·z̄_out − Σ_ReLUs |A|·h − |A_input|·radius,      A ← A·(s_lo+s_up)/2 + |A|·(s_lo−s_up)/2,

for every x' in the box with centre x̄. No bias is carried: all of them are in z̄. With parallel lines the second
term of the update vanishes, and lower and upper bounds come from the same coefficients: the zonotope.

A pass whose ReLUs give other values than those midpoints serves as well, if + Σ A·(midpoint − value) is added: after an
interval pass its centres are such values, and no pass of its own is needed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from .graph import Add, Affine, Graph, Linear, Relu
from .relaxation import Lines, Relaxation

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
    found = IntervalPass({-1: (lower + upper) / 2}, {-1: (upper - lower) / 2})
    for index, step in enumerate(graph.steps[:-1]):
        if isinstance(step.operator, Relu):
            c, r = found.center[step.inputs[0]], found.radius[step.inputs[0]]
            low, high = c - r, c + r
            found.intervals[index] = (low, high)
            if widen is not None:
                low, high = widen(low, high)
            low, high = low.relu(), high.relu()
            found.center[index], found.radius[index] = (high + low) / 2, (high - low) / 2
        else:
            interval_step(graph, index, found.center, found.radius)
    return found


def margin_intervals(graph: Graph, found: IntervalPass, y: Tensor, others: Tensor) -> tuple[Tensor, Tensor]:
    """Lower and upper bounds of the margins z_y − z_j from an interval pass, each [batch, classes − 1].

    The margin matrix is merged into the last linear layer.
    """
    last = graph.steps[-1]
    if isinstance(last.operator, Linear):
        c, r = found.center[last.inputs[0]], found.radius[last.inputs[0]]
        weight = last.operator.weight
        logits = last.operator.value(c)
        spread = torch.bmm((weight[y].unsqueeze(1) - weight[others]).abs(), r.unsqueeze(2)).squeeze(2)
        center = logits.gather(1, y.unsqueeze(1)) - logits.gather(1, others)
        return center - spread, center + spread
    interval_step(graph, len(graph.steps) - 1, found.center, found.radius)
    c, r = found.center[len(graph.steps) - 1], found.radius[len(graph.steps) - 1]
    low, high = c - r, c + r
    own = y.unsqueeze(1)
    return low.gather(1, own) - high.gather(1, others), high.gather(1, own) - low.gather(1, others)


class _RelaxStep(torch.autograd.Function):
    """(A, slope mean, slope half-difference, half-gap) → (A·mean + |A|·half, Σ|A|·gap), element-wise work fused.

    a: [batch or 1, specs, n]; mean, half, gap: [batch, n]. Gradients by hand: autograd would keep four
    tensors of A's size per ReLU.
    """

    @staticmethod
    def forward(ctx: Any, a: Tensor, mean: Tensor, half: Tensor | None, gap: Tensor | None) -> tuple[Tensor, Tensor]:
        ctx.save_for_backward(a, mean, half, gap)
        out = a * mean.unsqueeze(1)
        if half is None and gap is None:
            return out, a.new_zeros(())
        size = a.abs()
        if half is not None:
            out.addcmul_(size, half.unsqueeze(1))
        loss = a.new_zeros(()) if gap is None else (size @ gap.unsqueeze(2)).squeeze(2)
        return out, loss

    @staticmethod
    def backward(ctx: Any, d_out: Tensor, d_loss: Tensor) -> tuple[Tensor | None, ...]:
        a, mean, half, gap = ctx.saved_tensors
        batched = a.shape[0] == d_out.shape[0]
        size = a.abs() if half is not None or gap is not None else None
        d_mean = (d_out * a).sum(1) if ctx.needs_input_grad[1] else None
        d_half = d_gap = d_a = None
        if half is not None and ctx.needs_input_grad[2]:
            d_half = (d_out * size).sum(1)
        if gap is not None and ctx.needs_input_grad[3]:
            d_gap = torch.bmm(d_loss.unsqueeze(1), size.expand_as(d_out)).squeeze(1)
        if ctx.needs_input_grad[0]:
            d_a = d_out * mean.unsqueeze(1)
            if size is not None:
                if half is None:
                    signed = d_loss.unsqueeze(2) * gap.unsqueeze(1)
                else:
                    signed = d_out * half.unsqueeze(1)
                    if gap is not None:
                        signed.addcmul_(d_loss.unsqueeze(2), gap.unsqueeze(1))
                d_a.addcmul_(signed, a.sign())
            if not batched:
                d_a = d_a.sum(0, keepdim=True)
        return d_a, d_mean, d_half, d_gap


class _Around(torch.autograd.Function):
    """(Lines, reference) → slope mean and half-difference, half the gap and the midpoint at the reference; one shape all.

    Gradients by hand: these passes over neurons, not arithmetic, are what cheap bounds of small networks cost.
    """

    @staticmethod
    def forward(
        ctx: Any, lower_slope: Tensor, lower_offset: Tensor, upper_slope: Tensor, upper_offset: Tensor, reference: Tensor
    ) -> tuple[Tensor, ...]:
        mean, middle = torch.lerp(lower_slope, upper_slope, 0.5), torch.lerp(lower_offset, upper_offset, 0.5)
        half, gap = lower_slope - mean, upper_offset - middle
        gap.addcmul_(half, reference, value=-1)
        middle.addcmul_(mean, reference)
        ctx.save_for_backward(mean, half, reference)
        return mean, half, gap, middle

    @staticmethod
    def backward(ctx: Any, d_mean: Tensor, d_half: Tensor, d_gap: Tensor, d_middle: Tensor) -> tuple[Tensor | None, ...]:
        mean, half, reference = ctx.saved_tensors
        needed = ctx.needs_input_grad
        d_mean, d_half = torch.addcmul(d_mean, d_middle, reference), torch.addcmul(d_half, d_gap, reference, value=-1)
        return (
            (d_mean + d_half).mul_(0.5) if needed[0] else None,
            (d_middle - d_gap).mul_(0.5) if needed[1] else None,
            (d_mean - d_half).mul_(0.5) if needed[2] else None,
            (d_middle + d_gap).mul_(0.5) if needed[3] else None,
            (d_middle * mean).addcmul_(d_gap, half, value=-1) if needed[4] else None,
        )


@dataclass(frozen=True)
class ReluLines:
    """A ReLU step's lines around the reference point: slope mean and half-difference, half-gap, each [batch, n]."""

    mean: Tensor
    half: Tensor | None  # None: parallel lines
    gap: Tensor
    shift: Tensor | None = None  # the lines' midpoint minus the reference's next value; None: they are the same

    @classmethod
    def at(cls, lines: Lines, reference: Tensor, parallel: bool) -> tuple[ReluLines, Tensor]:
        """The lines around a reference pre-activation, and the midpoint there (the reference's next value)."""
        if parallel:
            slope = lines.lower_slope
            gap = (lines.upper_offset - lines.lower_offset) / 2
            middle = slope * reference + (lines.upper_offset + lines.lower_offset) / 2
            return cls(slope.flatten(1), None, gap.flatten(1)), middle
        mean, half, gap, middle = _Around.apply(*lines, reference)
        return cls(mean.flatten(1), half.flatten(1), gap.flatten(1)), middle


def substitute(
    graph: Graph,
    start: int,
    coefficients: Tensor,
    lines: Mapping[int, ReluLines],
    radius: Tensor,
    *,
    count_gaps: bool = True,
) -> Tensor:
    """|A_input|·radius + Σ|A|·h of coefficients substituted back from the output of step `start`; [batch, specs].

    coefficients: [batch or 1, specs, *shape of the step]. `count_gaps=False` leaves Σ|A|·h out (hybrid propagation
    carries it forward).
    """
    pending: dict[int, Tensor] = {start: coefficients}
    total: Tensor | float = 0.0

    def pass_on(index: int, a: Tensor) -> None:
        pending[index] = pending[index] + a if index in pending else a

    for index in range(start, -1, -1):
        a = pending.pop(index, None)
        if a is None:
            continue
        step = graph.steps[index]
        match step.operator:
            case Relu():
                relu = lines[index]
                gap = relu.gap if count_gaps else None
                out, loss = _RelaxStep.apply(a.flatten(2), relu.mean, relu.half, gap)
                total = total + loss
                if relu.shift is not None:
                    total = total - (a.flatten(2) @ relu.shift.unsqueeze(2)).squeeze(2)
                pass_on(step.inputs[0], out.view(*out.shape[:2], *a.shape[2:]))
            case Add():
                for source in step.inputs:
                    pass_on(source, a)
            case affine:
                pass_on(step.inputs[0], affine.transpose(a.flatten(0, 1)).unflatten(0, a.shape[:2]))
    at_input = pending[-1].flatten(2).abs()
    r = radius.flatten(1)
    spread = (r @ at_input[0].t()) if at_input.shape[0] == 1 else (at_input @ r.unsqueeze(2)).squeeze(2)
    return total + spread


class LinearPass:
    """Bounds of layers and margins by back-substitution, for one batch of boxes.

    hidden: "interval" (IBP + backward; `found` has the intervals, and its centres are the reference), "backward" (each
    layer by back-substitution) or "hybrid" (the input's noise symbols by back-substitution, all others as an interval β).
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
        found: IntervalPass | None = None,
        slopes: Mapping[int, Tensor] | None = None,
        memory: int = 1 << 29,
    ) -> None:
        self._graph, self._relaxation, self._hidden, self._parallel = graph, relaxation, hidden, parallel
        self._slopes = slopes or {}
        self._memory = memory
        self._lines: dict[int, ReluLines] = {}
        self._input_radius = (upper - lower) / 2
        self.intervals: Intervals = {}
        self._reference: dict[int, Tensor] = {-1: (lower + upper) / 2}
        self._free: dict[int, tuple[Tensor, Tensor] | None] = {-1: (lower, upper)}
        self._beta: dict[int, Tensor | None] = {-1: None}
        if found is not None:
            self.intervals, self._reference = found.intervals, dict(found.center)
            for index, interval in found.intervals.items():
                self._set_lines(index, interval)
            return
        for index in range(len(graph.steps) - 1):
            self._advance(index)

    def _set_lines(self, index: int, interval: tuple[Tensor, Tensor]) -> tuple[Lines, Tensor]:
        """A ReLU step's lines, and their midpoint at the reference."""
        low, high = interval
        lines = self._relaxation(low, high)
        if index in self._slopes:
            crossing = (low < 0) & (high > 0)
            lines = lines._replace(lower_slope=torch.where(crossing, self._slopes[index], lines.lower_slope))
        around, middle = ReluLines.at(lines, self._reference[self._graph.steps[index].inputs[0]], self._parallel)
        if index in self._reference:
            around = replace(around, shift=(middle - self._reference[index]).flatten(1))
        self._lines[index] = around
        return lines, middle

    def _advance(self, index: int) -> None:
        step, reference = self._graph.steps[index], self._reference
        sources = step.inputs
        if isinstance(step.operator, Relu):
            source = sources[0]
            if index not in self.intervals:
                self.intervals[index] = self._layer_bounds(source)
            lines, reference[index] = self._set_lines(index, self.intervals[index])
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
        count = center[0].numel()
        shape = self._graph.steps[index].shape
        identity = torch.eye(count, dtype=center.dtype, device=center.device).view(1, count, *shape)
        below = self.spread(index, identity).view_as(center)
        if self._parallel:
            return center - below, center + below
        above = self.spread(index, -identity).view_as(center)
        return center - below, center + above

    def spread(self, start: int, coefficients: Tensor) -> Tensor:
        """How far below C·z̄ the bound lies, [batch, specs]; in chunks of specs that keep within the memory."""
        batch, specs = self._input_radius.shape[0], coefficients.shape[1]
        widest = max([self._input_radius[0].numel(), *(int(torch.Size(s.shape).numel()) for s in self._graph.steps[: start + 1])])
        chunk = max(1, self._memory // (batch * widest * coefficients.element_size()))
        if chunk >= specs:
            return self._spread(start, coefficients)
        pieces = []
        for piece in coefficients.split(chunk, dim=1):
            if torch.is_grad_enabled():
                pieces.append(checkpoint(self._spread, start, piece, use_reentrant=False, preserve_rng_state=False))
            else:
                pieces.append(self._spread(start, piece))
        return torch.cat(pieces, dim=1)

    def _spread(self, start: int, coefficients: Tensor) -> Tensor:
        hybrid = self._hidden == "hybrid"
        total = substitute(self._graph, start, coefficients, self._lines, self._input_radius, count_gaps=not hybrid)
        if not hybrid or self._beta[start] is None:
            return total
        beta, size = self._beta[start].flatten(1), coefficients.flatten(2).abs()
        return total + ((beta @ size[0].t()) if size.shape[0] == 1 else (size @ beta.unsqueeze(2)).squeeze(2))

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
        return (specification @ logits.unsqueeze(2)).squeeze(2) - self.spread(start, coefficients)


def layers_in_order(graph: Graph, intervals: Intervals) -> Sequence[tuple[Tensor, Tensor]]:
    return tuple((intervals[i][0].detach(), intervals[i][1].detach()) for i in graph.relus if i in intervals)
