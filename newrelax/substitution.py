"""Back-substitution: how far below a reference pass the bounds of any linear function of a step can lie.

Take any forward pass z̄ through the network in which every affine step is exact and every ReLU gives a value v between
its two lines at z̄. With A the coefficients that arrive at a ReLU,

    C·f(x') ≥ C·z̄_out − Σ_ReLUs (A⁺·(v − lower) + A⁻·(upper − v)) − |A_input|·radius,
    A ← A⁺·lower slope − A⁻·upper slope        (A = A⁺ − A⁻),

for every x' in the box with centre x̄. No bias is carried: all of them are in z̄. Two choices of v leave one product:
the upper line (the sum is A⁺·(upper − lower)), and, for parallel lines, their middle (|A|·(upper − lower)/2), whose
coefficients give lower and upper bounds at once: the zonotope.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from .cache import pieces
from .graph import Add, Graph, Relu
from .relaxation import Lines


class _ThroughRelu(torch.autograd.Function):
    """(A, lower slope, upper slope, gap) → (A⁺·lower slope − A⁻·upper slope, ΣA⁺·gap).

    Without lower slope, for parallel lines: (A·slope, Σ|A|·gap). Without gap its sum is left out.
    a: [batch or 1, specs, n]; slopes and gap: [batch, n]. Gradients by hand, a few samples at a time: autograd would keep
    four tensors of A's size per ReLU.
    """

    @staticmethod
    def forward(ctx: Any, a: Tensor, low: Tensor | None, up: Tensor, gap: Tensor | None) -> tuple[Tensor, Tensor]:
        ctx.save_for_backward(a, low, up, gap)
        out = a.new_empty(len(up), *a.shape[1:])
        loss = a.new_zeros(()) if gap is None else a.new_empty(out.shape[:2])
        for i in pieces(out):
            own = _of(a, i)
            torch.mul(own, up[i].unsqueeze(1), out=out[i])
            if low is None and gap is None:
                continue
            size = _size(own, low)
            if low is not None:
                out[i].addcmul_(size, (low[i] - up[i]).unsqueeze(1))
            if gap is not None:
                torch.sum(size * gap[i].unsqueeze(1), 2, out=loss[i])
        return out, loss

    @staticmethod
    def backward(ctx: Any, d_out: Tensor, d_loss: Tensor) -> tuple[Tensor | None, ...]:
        a, low, up, gap = ctx.saved_tensors
        d_a = torch.empty_like(d_out) if ctx.needs_input_grad[0] else None
        d_low = torch.empty_like(up) if ctx.needs_input_grad[1] else None
        d_up, d_gap = torch.empty_like(up), None if gap is None else torch.empty_like(gap)
        for i in pieces(d_out):
            own, d = _of(a, i), d_out[i]
            size = None if low is None and gap is None else _size(own, low)
            torch.sum((own if low is None else own - size) * d, 1, out=d_up[i])
            if d_low is not None:
                torch.sum(size * d, 1, out=d_low[i])
            if gap is not None:
                d_gap[i] = (d_loss[i].unsqueeze(1) @ size).squeeze(1)
            if d_a is None:
                continue
            torch.mul(d, up[i].unsqueeze(1), out=d_a[i])
            if size is None:
                continue
            if low is None:
                d_size = d_loss[i].unsqueeze(2) * gap[i].unsqueeze(1)
            else:
                d_size = d * (low[i] - up[i]).unsqueeze(1)
                if gap is not None:
                    d_size.addcmul_(d_loss[i].unsqueeze(2), gap[i].unsqueeze(1))
            d_a[i].addcmul_(d_size, own.sign() if low is None else size.sign_())
        return None if d_a is None else d_a.sum_to_size(a.shape), d_low, d_up, d_gap


def _of(a: Tensor, samples: slice) -> Tensor:
    return a if len(a) == 1 else a[samples]


def _size(a: Tensor, low: Tensor | None) -> Tensor:
    return a.abs() if low is None else a.clamp(min=0)


class _Reach(torch.autograd.Function):
    """Σ|A|·radius of coefficients a [batch or 1, specs, *features] at a box, radius [batch, *features]; [batch, specs]."""

    @staticmethod
    def forward(ctx: Any, a: Tensor, radius: Tensor) -> Tensor:
        ctx.save_for_backward(a, radius)
        if a.shape[0] == 1:
            return radius.flatten(1) @ a[0].abs().flatten(1).t()
        return (a.abs() * radius.unsqueeze(1)).flatten(2).sum(2)

    @staticmethod
    def backward(ctx: Any, d_out: Tensor) -> tuple[Tensor, Tensor | None]:
        a, radius = ctx.saved_tensors
        d_a = a.sign()
        if a.shape[0] == 1:
            d_a.mul_((d_out.t() @ radius.flatten(1)).view_as(a))
        else:
            d_a.mul_(radius.unsqueeze(1)).mul_(d_out.view(*d_out.shape, *[1] * (a.ndim - 2)))
        d_radius = None
        if ctx.needs_input_grad[1]:
            d_radius = (d_out.unsqueeze(1) @ a.abs().flatten(2)).view_as(radius)
        return d_a, d_radius


@dataclass(frozen=True)
class ReluLines:
    """A ReLU step's lines around the reference point; each [batch, n].

    low, up: their slopes (low is None: parallel). gap: between the lines at the reference, halved where they are parallel.
    """

    low: Tensor | None
    up: Tensor
    gap: Tensor

    @classmethod
    def at(cls, lines: Lines, reference: Tensor, parallel: bool) -> tuple[ReluLines, Tensor]:
        """The lines around a reference pre-activation, and the reference's next value."""
        if parallel:
            gap = 0.5 * (lines.upper_offset - lines.lower_offset)
            middle = lines.lower_slope * reference + 0.5 * (lines.upper_offset + lines.lower_offset)
            return cls(None, lines.lower_slope.flatten(1), gap.flatten(1)), middle
        high = lines.upper_slope * reference + lines.upper_offset
        return cls.below(lines, reference, high), high

    @classmethod
    def below(cls, lines: Lines, reference: Tensor, high: Tensor) -> ReluLines:
        """The lines around a reference pre-activation, where the upper one is at `high`."""
        gap = high - lines.lower_slope * reference - lines.lower_offset
        return cls(lines.lower_slope.flatten(1), lines.upper_slope.flatten(1), gap.flatten(1))


def substitute(
    graph: Graph,
    start: int,
    coefficients: Tensor,
    lines: Mapping[int, ReluLines],
    radius: Tensor,
    *,
    count_gaps: bool = True,
) -> Tensor:
    """How far below C·z̄ the bounds of coefficients C at the output of step `start` lie; [batch, specs].

    coefficients: [batch or 1, specs, *shape of the step]. radius: of the box at `graph.origin`. `count_gaps=False` leaves the
    ReLUs' part out (hybrid propagation carries it forward). What does not depend on the sample (up to the first ReLU) is
    computed once.
    """
    pending = {start: coefficients}
    total: Tensor | float = 0.0
    for index in range(start, graph.origin, -1):
        a = pending.pop(index, None)
        if a is None:
            continue
        step = graph.steps[index]
        if isinstance(step.operator, Relu):
            relu = lines[index]
            out, loss = _ThroughRelu.apply(a.flatten(2), relu.low, relu.up, relu.gap if count_gaps else None)
            total, a = total + loss, out.view(*out.shape[:2], *a.shape[2:])
        elif not isinstance(step.operator, Add):
            a = step.operator.transpose(a.flatten(0, 1)).unflatten(0, a.shape[:2])
        for source in step.inputs:
            pending[source] = pending[source] + a if source in pending else a
    return total + _Reach.apply(pending[graph.origin], radius)
