"""Convolutions that a CPU's own kernels are slow at: from few channels (an image's), and transposed ones.

A convolution is given by (weight, stride, padding); dilation and groups are 1. Transposed convolutions go by phases of the
stride, or as shifted sums, with the gradients of `conv2d`, which cost less than those of either.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.grad import conv2d_weight

from newrelax.cpu.pieces import pieces

SUMMED = 1 << 21
"""Bytes of coefficients that shifted sums take at a time."""

FEW = 4
"""An image's channels up to which convolutions with a stride are these, and transposed ones take all phases at once."""

TAPS = 32
"""Channels times places of the kernel up to which shifted sums are faster than `conv_transpose2d`."""

Pair = tuple[int, ...]


def sliding(x: Tensor, size: Pair, stride: Pair) -> Tensor:
    """All windows of rows × columns `size` into images [n, channels, …]: a view, [n, channels, rows, columns, *size].

    `F.unfold` copies them two to four times slower, and on a GPU image by image.
    """
    return x.unfold(2, size[0], stride[0]).unfold(3, size[1], stride[1])


def patches(x: Tensor, kernel: Pair, stride: Pair, padding: Pair) -> Tensor:
    """What each place of the kernel meets, [n, channels, *kernel, *output size]: a view of padded images."""
    rows, columns = padding
    windows = sliding(F.pad(x, (columns, columns, rows, rows)), kernel, stride)
    return windows.permute(0, 1, 4, 5, 2, 3)


def convolve(x: Tensor, weight: Tensor, bias: Tensor | None, stride: Pair, padding: Pair) -> Tensor:
    """A convolution as a product with the image's patches: without AVX-512 the weights' gradient then takes half the time."""
    met = patches(x, tuple(weight.shape[2:]), stride, padding)
    found: Tensor = (weight.flatten(1) @ met.flatten(4).flatten(1, 3)).unflatten(2, met.shape[4:])
    return found if bias is None else found + bias.view(-1, 1, 1)


def transposes_faster(weight: Tensor, stride: Pair) -> bool:
    """Whether `transpose` is faster than `conv_transpose2d`."""
    return stride != (1, 1) or weight[0].numel() <= TAPS


def transpose(a: Tensor, weight: Tensor, stride: Pair, padding: Pair, size: Pair) -> Tensor:
    """The transposed convolution of a, [n, outputs, …], to images of rows × columns `size`."""
    found: Tensor = _Transpose.apply(a, weight, stride, padding, size)
    return found


def _by_phases(a: Tensor, weight: Tensor, stride: Pair, padding: Pair, size: Pair) -> Tensor:
    """The transposed convolution as a plain convolution for each phase of the stride, with just the kernel's places of it.

    Rows y with (y + padding) mod stride = r meet the kernel's rows r, r + stride, …; up to four times faster than
    `conv_transpose2d`. With few channels all phases are channels of one convolution.
    """
    mixed = _all_phases(a, weight, stride) if weight.shape[1] <= FEW else None
    image = a.new_zeros(len(a), weight.shape[1], *size)
    for down in range(stride[0]):
        rows = _Phase.of(down, stride[0], padding[0], weight.shape[2], size[0], a.shape[2])
        for right in range(stride[1]):
            columns = _Phase.of(right, stride[1], padding[1], weight.shape[3], size[1], a.shape[3])
            if rows is None or columns is None:
                continue
            if mixed is not None:
                met, skipped = mixed[:, :, down, right], (rows.start, columns.start)
            else:
                part = weight[:, :, down :: stride[0], right :: stride[1]].flip(2, 3).transpose(0, 1)
                whole = (max(rows.before, rows.after, 0), max(columns.before, columns.after, 0))
                met, skipped = F.conv2d(a, part, padding=whole), (whole[0] - rows.before, whole[1] - columns.before)
            met = met[:, :, skipped[0] : skipped[0] + rows.count, skipped[1] : skipped[1] + columns.count]
            image[:, :, rows.places(stride[0]), columns.places(stride[1])] = met
    return image


def _all_phases(a: Tensor, weight: Tensor, stride: Pair) -> Tensor:
    """What each phase of the stride gives, [n, channels, *stride, …], from the first place that any coefficient reaches."""
    outputs, channels, *kernel = weight.shape
    taps = [-(-k // s) for k, s in zip(kernel, stride, strict=True)]
    full = F.pad(weight, (0, taps[1] * stride[1] - kernel[1], 0, taps[0] * stride[0] - kernel[0]))
    phases = full.view(outputs, channels, taps[0], stride[0], taps[1], stride[1]).permute(1, 3, 5, 0, 2, 4)
    mixed = F.conv2d(a, phases.reshape(-1, outputs, *taps).flip(2, 3), padding=(taps[0] - 1, taps[1] - 1))
    return mixed.view(len(a), channels, *stride, *mixed.shape[2:])


@dataclass(frozen=True)
class _Phase:
    """One phase along an axis: its first place in the image and how many are reached; the last coefficient that reaches the
    first of them; how many coefficients are missing before the first and after the last."""

    first: int
    count: int
    start: int
    before: int
    after: int

    @classmethod
    def of(cls, phase: int, stride: int, padding: int, kernel: int, size: int, coefficients: int) -> _Phase | None:
        """None where nothing falls into it."""
        taps = len(range(phase, kernel, stride))
        first = (phase - padding) % stride
        start = (first + padding - phase) // stride
        count = min(len(range(first, size, stride)), coefficients + taps - 1 - start)
        if taps == 0 or count <= 0:
            return None
        return cls(first, count, start, taps - 1 - start, start + count - coefficients)

    def places(self, stride: int) -> slice:
        return slice(self.first, self.first + (self.count - 1) * stride + 1, stride)


def _by_sums(a: Tensor, weight: Tensor, padding: Pair, size: Pair) -> Tensor:
    """The transposed convolution at stride 1 as a product with the kernel's places, added up where each of them lies.

    With few channels 2 to 3 times faster than `conv_transpose2d`, and closer to the truth.
    """
    outputs, channels, *kernel = weight.shape
    rows, columns = (n + k - 1 for n, k in zip(a.shape[2:], kernel, strict=True))
    (top, left), (height, width) = padding, size
    places = weight.permute(2, 3, 1, 0).reshape(-1, outputs)
    image = a.new_empty(len(a), channels, height, width)
    for i in pieces(a, SUMMED):
        own = a[i].flatten(2)
        parts = (places.expand(len(own), -1, -1) @ own).view(len(own), *kernel, channels, *a.shape[2:])
        full = a.new_zeros(len(own), channels, max(rows, top + height), max(columns, left + width))
        for down in range(kernel[0]):
            for right in range(kernel[1]):
                full[:, :, down : down + a.shape[2], right : right + a.shape[3]] += parts[:, down, right]
        image[i] = full[:, :, top : top + height, left : left + width]
    return image


class _Transpose(torch.autograd.Function):
    """By phases or sums, with the gradients of `conv2d`."""

    @staticmethod
    def forward(ctx: Any, a: Tensor, weight: Tensor, stride: Pair, padding: Pair, size: Pair) -> Tensor:
        ctx.save_for_backward(a, weight)
        ctx.stride, ctx.padding = stride, padding
        if stride == (1, 1):
            return _by_sums(a, weight, padding, size)
        return _by_phases(a, weight, stride, padding, size)

    @staticmethod
    def backward(ctx: Any, d_image: Tensor) -> tuple[Tensor | None, ...]:
        (a, weight), stride, padding = ctx.saved_tensors, ctx.stride, ctx.padding
        d_a = None
        if ctx.needs_input_grad[0]:
            d_a = F.conv2d(d_image, weight, None, stride, padding)
        if not ctx.needs_input_grad[1]:
            return d_a, None, None, None, None
        if weight.shape[1] > 1 or stride == (1, 1):
            return d_a, conv2d_weight(d_image, weight.shape, a, stride, padding), None, None, None
        # Without AVX-512 a CPU's own kernel takes twice the time for one channel. A few images' patches at a time.
        d_weight = torch.zeros_like(weight)
        for i in pieces(a):
            met = patches(d_image[i], tuple(weight.shape[2:]), stride, padding).flatten(4).flatten(1, 3)
            d_weight += (a[i].flatten(2) @ met.mT).sum(0).view_as(weight)
        return d_a, d_weight, None, None, None
