"""Matrix products in float32 by oneDNN, where the processor has AVX-512.

torch's own go to MKL, which keeps to 256 bits on processors of other makers; there these take less than half the time. They
round in another order, which a relaxation that jumps may show: so they are for steps of training, and bounds without a gradient
are what MKL makes them.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from newrelax.cpu.instructions import has_avx512

_ONEDNN = getattr(torch.ops.mkldnn, "_linear_pointwise", None) if torch.backends.mkldnn.is_available() else None
"""oneDNN's product of ordinary tensors: torch's compiler calls it, and has no public name for it."""

LEAST = 1 << 20
"""Multiplications from which a product is worth oneDNN's start, ten microseconds."""


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """`F.linear`: x Wᵀ + b for x [..., inputs], W [outputs, inputs], b [outputs] or None."""
    if not torch.is_grad_enabled() or not _is_faster(x, weight):
        return F.linear(x, weight, bias)
    found: Tensor = _Linear.apply(x, weight, bias)
    return found


def _is_faster(x: Tensor, weight: Tensor) -> bool:
    plain = x.ndim > 1 and x.device.type == "cpu" and x.dtype == weight.dtype == torch.float32
    return plain and _ONEDNN is not None and x.numel() * len(weight) >= LEAST and has_avx512()


def _product(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """`linear` in a gradient; where that has a gradient itself, as any other."""
    if torch.is_grad_enabled():
        return linear(x, weight, bias)
    return _by_onednn(x, weight, bias) if _is_faster(x, weight) else F.linear(x, weight, bias)


def _by_onednn(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    assert _ONEDNN is not None
    found: Tensor = _ONEDNN(_laid_out(x), _laid_out(weight), bias, "none", [], "")
    return found


def _laid_out(x: Tensor) -> Tensor:
    """As rows or columns without gaps, what oneDNN reads as it is."""
    return x if x.is_contiguous() or x.mT.is_contiguous() else x.contiguous()


def _operations(x: torch.Size, weight: torch.Size, *_: Any, **__: Any) -> int:
    return 2 * x.numel() * weight[0]


COUNTED: dict[Any, Any] = {} if _ONEDNN is None else {_ONEDNN: _operations}
"""Floating-point operations of oneDNN's call, for torch's counter, which does not know it."""


class _Linear(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(x, weight)
        return _by_onednn(x, weight, bias)

    @staticmethod
    def backward(ctx: Any, d: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        wants = ctx.needs_input_grad
        rows, columns = d.flatten(0, -2).t(), x.flatten(0, -2).t()
        d_weight = None
        if wants[1]:  # oneDNN copies the first of two that lie in columns
            d_weight = _product(rows, columns) if len(rows) <= len(columns) else _product(columns, rows).t()
        return _product(d, weight.t()) if wants[0] else None, d_weight, rows.sum(1) if wants[2] else None
