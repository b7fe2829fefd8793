"""Coefficients through lines: the element-wise heart of back-substitution, with gradients by hand."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from newrelax.cpu.pieces import pieces, row_pieces


def through(a: Tensor, low: Tensor | None, up: Tensor, gap: Tensor | None) -> tuple[Tensor, Tensor | None]:
    """(A, lower slope, upper slope, gap) → (A⁺·lower slope − A⁻·upper slope, ΣA⁺·gap), with A = A⁺ − A⁻.

    Without lower slope, for parallel lines: (A·slope, Σ|A|·gap). Without gap its sum is None.
    a: [batch or 1, rows, n]; slopes and gap: [batch, n].
    """
    out, loss = _Through.apply(a, low, up, gap)
    return out, None if gap is None else loss


class _Through(torch.autograd.Function):
    """(A, lower slope, upper slope, gap) → (A⁺·lower slope − A⁻·upper slope, ΣA⁺·gap).

    Without lower slope, for parallel lines: (A·slope, Σ|A|·gap). Without gap its sum is left out.
    a: [batch or 1, specs, n]; slopes and gap: [batch, n]. Gradients by hand, a few samples at a time: autograd would keep
    four tensors of A's size per step.
    """

    @staticmethod
    def forward(ctx: Any, a: Tensor, low: Tensor | None, up: Tensor, gap: Tensor | None) -> tuple[Tensor, Tensor]:
        ctx.save_for_backward(a, low, up, gap)
        out = a.new_empty(len(up), *a.shape[1:])
        loss = a.new_zeros(()) if gap is None else a.new_empty(out.shape[:2])
        for i, j in row_pieces(out):
            own = _of(a, i, len(up))[:, j]
            torch.mul(own, up[i].unsqueeze(1), out=out[i, j])
            if low is None and gap is None:
                continue
            size = _size(own, low)
            if low is not None:
                out[i, j].addcmul_(size, (low[i] - up[i]).unsqueeze(1))
            if gap is not None:
                torch.sum(size.mul_(gap[i].unsqueeze(1)), 2, out=loss[i, j])
        return out, loss

    @staticmethod
    def backward(ctx: Any, d_out: Tensor, d_loss: Tensor) -> tuple[Tensor | None, ...]:
        a, low, up, gap = ctx.saved_tensors
        d_a = torch.empty_like(d_out) if ctx.needs_input_grad[0] else None
        d_low = torch.empty_like(up) if ctx.needs_input_grad[1] else None
        d_up, d_gap = torch.empty_like(up), None if gap is None else torch.empty_like(gap)
        for i in pieces(d_out):
            own, d = _of(a, i, len(up)), d_out[i]
            size = None if low is None and gap is None else _size(own, low)
            if size is not None and d_gap is not None:
                d_gap[i] = (d_loss[i].unsqueeze(1) @ size).squeeze(1)
            if size is not None and low is not None:
                below = torch.sum(size.mul_(d), 1)
                if d_low is not None:
                    d_low[i] = below
            product = torch.mul(own, d, out=size)
            torch.sum(product, 1, out=d_up[i])
            if low is not None:
                d_up[i] -= below
            if d_a is None:
                continue
            if low is None:
                torch.mul(d, up[i].unsqueeze(1), out=d_a[i])
                if gap is not None:
                    d_a[i].addcmul_(d_loss[i].unsqueeze(2) * gap[i].unsqueeze(1), own.sign())
                continue
            torch.mul(d, (low[i] - up[i]).unsqueeze(1), out=d_a[i])
            if gap is not None:
                d_a[i].addcmul_(d_loss[i].unsqueeze(2), gap[i].unsqueeze(1))
            _where_positive(d_a[i], own).addcmul_(d, up[i].unsqueeze(1))
        return None if d_a is None else d_a.sum_to_size(a.shape), d_low, d_up, d_gap


def _where_positive(x: Tensor, a: Tensor) -> Tensor:
    """x, in its place, with zeros where a is not above zero: ReLU's gradient, in one pass."""
    found: Tensor = torch.ops.aten.threshold_backward.grad_input(x, a, 0, grad_input=x)
    return found


def _of(a: Tensor, samples: slice, batch: int) -> Tensor:
    return a.expand(batch, -1, -1)[samples]


def _size(a: Tensor, low: Tensor | None) -> Tensor:
    return a.abs() if low is None else a.clamp(min=0)
