"""Max pooling of images on a CPU, whose own kernel goes window by window when channels come before places."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

PLACES = 16
"""Places of a window up to which comparing them one by one is faster; 3 to 5 times with 4 or 9 of them."""

Pair = tuple[int, ...]


def max_pool(x: Tensor, windows: Pair, kernel: Pair, stride: Pair, padding: Pair, dilation: Pair) -> tuple[Tensor, Tensor]:
    """Maxima over windows and where they lie in the flat image, as `max_pool2d` with indices gives them.

    x: [n, channels, rows, columns]; windows: how many there are along each axis. The indices, int64, have no gradient.
    """
    values, index = _MaxPool.apply(x, windows, kernel, stride, padding, dilation)
    return values, index


class _MaxPool(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, windows: Pair, kernel: Pair, stride: Pair, padding: Pair, dilation: Pair
    ) -> tuple[Tensor, Tensor]:
        (_, values), *others = _places(x, windows, kernel, stride, padding, dilation)
        from_start = torch.zeros_like(values)
        for distance, met in others:
            # the first of equal ones; in the numbers' own type, as a boolean costs a CPU 5 times more
            larger = torch.gt(met, values, out=torch.empty_like(met)).mul_(distance)
            torch.maximum(from_start, larger, out=from_start)
            values = torch.maximum(values, met)
        columns = x.shape[3]
        y, z = (torch.arange(n) * step - edge for n, step, edge in zip(windows, stride, padding, strict=True))
        index = (y * columns).unsqueeze(1) + z + from_start.to(torch.int64)
        if any(padding):  # a window of nothing but −∞ has its first place, which may lie outside
            index.clamp_(0, x.shape[2] * columns - 1)
        ctx.save_for_backward(index)
        ctx.shape = x.shape
        ctx.mark_non_differentiable(index)
        return values, index

    @staticmethod
    def backward(ctx: Any, d_values: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
        (index,) = ctx.saved_tensors
        d_x = d_values.new_zeros(ctx.shape).flatten(2)
        d_x.scatter_add_(2, index.flatten(2), d_values.flatten(2))
        return d_x.view(ctx.shape), None, None, None, None, None


def _places(
    x: Tensor, windows: Pair, kernel: Pair, stride: Pair, padding: Pair, dilation: Pair
) -> Iterator[tuple[int, Tensor]]:
    """What all windows see at each place of the kernel, [n, channels, *windows], with the place's distance in the flat image
    from the window's first one; −∞ outside the image."""
    spans = [(n - 1) * step + 1 for n, step in zip(windows, stride, strict=True)]
    ends = [span + d * (k - 1) - p for span, d, k, p in zip(spans, dilation, kernel, padding, strict=True)]
    rows, columns = x.shape[2:]
    edges = (padding[1], max(0, ends[1] - columns), padding[0], max(0, ends[0] - rows))
    framed = F.pad(x, edges, value=-math.inf) if any(edges) else x
    for down in range(0, kernel[0] * dilation[0], dilation[0]):
        for right in range(0, kernel[1] * dilation[1], dilation[1]):
            met = framed[:, :, down : down + spans[0] : stride[0], right : right + spans[1] : stride[1]]
            yield down * columns + right, met.contiguous()
