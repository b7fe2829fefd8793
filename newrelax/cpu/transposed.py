"""Transposed convolutions of images in float32 as plain ones, which a CPU's own kernels are two to eight times faster at.

A convolution is given by (weight, stride, padding); dilation and groups are 1. With coefficient i, pixel y = s·i + k − padding
meets the kernel's place k; so pixels whose y + padding leaves the same rest modulo s, or a multiple of it, are a plain
convolution of the coefficients. The gradients are those of `conv2d`.
"""

from __future__ import annotations

from math import isqrt
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from newrelax.cpu.convolution import Pair, sliding, weight_gradient
from newrelax.cpu.pieces import pieces

PIECE = 1 << 21
"""Bytes of coefficients, or of their image, that are taken at a time: the image is written pixel by pixel of a block, and stays
in the cache meanwhile."""

VECTOR = 16
"""Channels that a convolution computes together."""

FEW = 4
"""An image's channels up to which a convolution of each would leave a vector empty."""


def is_faster(weight: Tensor, stride: Pair) -> bool:
    """Whether `transpose` is faster than `conv_transpose2d`."""
    return stride != (1, 1) or weight.shape[1] <= FEW


def transpose(a: Tensor, weight: Tensor, stride: Pair, padding: Pair, size: Pair) -> Tensor:
    """The transposed convolution of a, [n, outputs, …], to images of rows × columns `size`."""
    found: Tensor = _Transpose.apply(a, weight, stride, padding, size)
    return found


class _Transpose(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, a: Tensor, weight: Tensor, stride: Pair, padding: Pair, size: Pair) -> Tensor:
        ctx.save_for_backward(a, weight)
        ctx.stride, ctx.padding = stride, padding
        image = a.new_empty(len(a), weight.shape[1], *size)
        rows, columns = (_Axis(*axis) for axis in zip(weight.shape[2:], stride, padding, size, a.shape[2:], strict=True))
        fill = _by_blocks if _fits_blocks(weight, stride) else _by_phases
        for i in pieces(max(a, image, key=Tensor.numel), PIECE):
            fill(image[i].zero_(), a[i], weight, rows, columns)
        return image

    @staticmethod
    def backward(ctx: Any, d_image: Tensor) -> tuple[Tensor | None, ...]:
        (a, weight), stride, padding, wants = ctx.saved_tensors, ctx.stride, ctx.padding, ctx.needs_input_grad
        d_a = F.conv2d(d_image, weight, None, stride, padding) if wants[0] else None
        d_weight = weight_gradient(d_image, a, weight, stride, padding) if wants[1] else None
        return d_a, d_weight, None, None, None


class _Axis(NamedTuple):
    """One axis of a transposed convolution: places of the kernel, stride and padding, pixels, coefficients."""

    kernel: int
    stride: int
    padding: int
    size: int
    coefficients: int

    @property
    def taps(self) -> int:
        """The most coefficients that a pixel meets."""
        return -(-self.kernel // self.stride)

    def lie(self, rest: int, block: int, ahead: int, outputs: int) -> tuple[slice, slice]:
        """Where pixels with (y + padding + ahead) mod block = rest lie in the image, and in that many outputs, the first of
        which is pixel y = rest − padding − ahead."""
        skipped = self.padding + ahead
        first = (rest - skipped) % block
        start = (first + skipped - rest) // block
        count = max(0, min(len(range(first, self.size, block)), outputs - start))
        return slice(first, first + count * block, block), slice(start, start + count)


def _by_phases(image: Tensor, a: Tensor, weight: Tensor, rows: _Axis, columns: _Axis) -> None:
    """A convolution for each phase of the stride, with just the kernel's places of it."""
    for down in range(min(rows.stride, rows.kernel)):
        for right in range(min(columns.stride, columns.kernel)):
            part = weight[:, :, down :: rows.stride, right :: columns.stride].flip(2, 3).transpose(0, 1)
            found = F.conv2d(a, part, padding=(part.shape[2] - 1, part.shape[3] - 1))
            y, from_y = rows.lie(down, rows.stride, 0, found.shape[2])
            x, from_x = columns.lie(right, columns.stride, 0, found.shape[3])
            image[:, :, y, x] = found[:, :, from_y, from_x]


def _fits_blocks(weight: Tensor, stride: Pair) -> bool:
    """Whether blocks are faster than phases: all phases have as many places of the kernel, or too few channels each."""
    channels, *kernel = weight.shape[1:]
    even = all(k % s == 0 for k, s in zip(kernel, stride, strict=True))
    return channels <= (VECTOR if even else FEW)


def _by_blocks(image: Tensor, a: Tensor, weight: Tensor, rows: _Axis, columns: _Axis) -> None:
    """One convolution to blocks of pixels, whose pixels are its channels: as many as fill a vector."""
    channels = weight.shape[1]
    high, wide = (_Block.of(axis, isqrt(VECTOR // channels)) for axis in (rows, columns))
    windows = sliding(F.pad(weight, (*wide.frame, *high.frame)), (high.pixels, wide.pixels), (rows.stride, columns.stride))
    kernel = windows.flip(2, 3).permute(1, 4, 5, 0, 2, 3).flatten(0, 2)
    found = F.conv2d(a, kernel, stride=(high.coefficients, wide.coefficients), padding=(high.margin, wide.margin))
    found = found.unflatten(1, (channels, high.pixels, wide.pixels))
    for down in range(high.pixels):
        y, from_y = rows.lie(down, high.pixels, high.ahead, found.shape[4])
        for right in range(wide.pixels):
            x, from_x = columns.lie(right, wide.pixels, wide.ahead, found.shape[5])
            image[:, :, y, x] = found[:, :, down, right, from_y, from_x]


class _Block(NamedTuple):
    """A block of pixels along an axis.

    pixels, coefficients: how long it is. margin: coefficients that the convolution takes to be 0 on either side. ahead: pixels
    of the first block before the first that a coefficient reaches. frame: zeros before and after the kernel, whose windows of
    a block's length then are the convolution's.
    """

    pixels: int
    coefficients: int
    margin: int
    ahead: int
    frame: tuple[int, int]

    @classmethod
    def of(cls, axis: _Axis, side: int) -> _Block:
        """The block of `side` pixels or one stride."""
        kernel, stride, padding, size, coefficients = axis
        step = max(1, side // stride)
        frame = stride * (step - 1), stride * (axis.taps - 1 + step) - kernel
        wanted = min(padding + size, stride * (coefficients - 1) + kernel)
        extra = 0
        while stride * (step * ((coefficients + axis.taps - 1 + 2 * extra) // step) - extra) < wanted:
            extra += 1
        return cls(stride * step, step, axis.taps - 1 + extra, stride * extra, frame)
