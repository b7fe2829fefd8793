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
        parts = [_block(weight, rows, columns)] if _fits_blocks(weight, stride) else _phases(weight, rows, columns)
        reached = sum(part.pixels for part in parts) == rows.size * columns.size
        for i in pieces(max(a, image, key=Tensor.numel)):
            piece = image[i] if reached else image[i].zero_()
            for part in parts:
                part.write(a[i], piece)
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

    def lie(self, rest: int, block: int, ahead: int, outputs: int) -> _Places:
        """Where pixels with (y + padding + ahead) mod block = rest lie in the image, and in that many outputs, the first of
        which is pixel y = rest − padding − ahead."""
        skipped = self.padding + ahead
        first = (rest - skipped) % block
        start = (first + skipped - rest) // block
        count = max(0, min(len(range(first, self.size, block)), outputs - start))
        return _Places(slice(first, first + count * block, block), slice(start, start + count))


class _Places(NamedTuple):
    """Every so many pixels of an axis, and the outputs of a convolution that they are."""

    pixels: slice
    outputs: slice

    @property
    def number(self) -> int:
        return int(self.outputs.stop - self.outputs.start)


class _Part(NamedTuple):
    """A plain convolution of the coefficients whose outputs' channels are the image's, for each pixel of a block.

    rows, columns: where each of the block's pixels lie.
    """

    kernel: Tensor
    stride: Pair
    padding: Pair
    rows: list[_Places]
    columns: list[_Places]

    @property
    def pixels(self) -> int:
        """How many of an image's it gives."""
        return sum(places.number for places in self.rows) * sum(places.number for places in self.columns)

    def write(self, a: Tensor, image: Tensor) -> None:
        """Coefficients a into an image."""
        found = F.conv2d(a, self.kernel, None, self.stride, self.padding)
        found = found.unflatten(1, (image.shape[1], len(self.rows), len(self.columns)))
        for down, row in enumerate(self.rows):
            line, outputs = image[:, :, row.pixels], found[:, :, down, :, row.outputs]
            for right, column in enumerate(self.columns):
                line[:, :, :, column.pixels] = outputs[:, :, right, :, column.outputs]


def _phases(weight: Tensor, rows: _Axis, columns: _Axis) -> list[_Part]:
    """A convolution for each phase of the stride, with just the kernel's places of it."""
    found = []
    for down in range(min(rows.stride, rows.kernel)):
        for right in range(min(columns.stride, columns.kernel)):
            kernel = weight[:, :, down :: rows.stride, right :: columns.stride].flip(2, 3).transpose(0, 1)
            high, wide = kernel.shape[2:]
            row = rows.lie(down, rows.stride, 0, rows.coefficients + high - 1)
            column = columns.lie(right, columns.stride, 0, columns.coefficients + wide - 1)
            found.append(_Part(kernel, (1, 1), (high - 1, wide - 1), [row], [column]))
    return found


def _fits_blocks(weight: Tensor, stride: Pair) -> bool:
    """Whether blocks are faster than phases: all phases have as many places of the kernel, or too few channels each."""
    channels, *kernel = weight.shape[1:]
    even = all(k % s == 0 for k, s in zip(kernel, stride, strict=True))
    return channels <= (VECTOR if even else FEW)


def _block(weight: Tensor, rows: _Axis, columns: _Axis) -> _Part:
    """One convolution to blocks of pixels: as many as fill a vector."""
    high, wide = (_Block.of(axis, isqrt(VECTOR // weight.shape[1])) for axis in (rows, columns))
    windows = sliding(F.pad(weight, (*wide.frame, *high.frame)), (high.pixels, wide.pixels), (rows.stride, columns.stride))
    kernel = windows.flip(2, 3).permute(1, 4, 5, 0, 2, 3).flatten(0, 2)
    return _Part(
        kernel,
        (high.coefficients, wide.coefficients),
        (high.margin, wide.margin),
        high.places(rows, kernel.shape[2]),
        wide.places(columns, kernel.shape[3]),
    )


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

    def places(self, axis: _Axis, kernel: int) -> list[_Places]:
        """Of each of its pixels, in the outputs of a convolution with a kernel of that many places."""
        outputs = (axis.coefficients + 2 * self.margin - kernel) // self.coefficients + 1
        return [axis.lie(rest, self.pixels, self.ahead, outputs) for rest in range(self.pixels)]
