"""Convolutions from one channel, which a CPU's own kernels are slow at without AVX-512.

A convolution is given by (weight, stride, padding); dilation and groups are 1.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.grad import conv2d_weight

from newrelax.cpu.instructions import has_avx512
from newrelax.cpu.pieces import pieces

Pair = tuple[int, ...]


def sliding(x: Tensor, size: Pair, stride: Pair) -> Tensor:
    """All windows of rows × columns `size` into images [n, channels, …]: a view, [n, channels, rows, columns, *size].

    `F.unfold` copies them two to four times slower, and on a GPU image by image.
    """
    return x.unfold(2, size[0], stride[0]).unfold(3, size[1], stride[1])


def slow_from_one_channel() -> bool:
    """Whether the weight's gradient of a convolution from one channel takes longer than a product with the image's patches.

    Without AVX-512 it takes 3 to 8 times as long; with it the product does 2 to 4 times.
    """
    return not has_avx512()


def patches(x: Tensor, kernel: Pair, stride: Pair, padding: Pair) -> Tensor:
    """What each place of the kernel meets, [n, channels·rows·columns of the kernel, places of the output]."""
    rows, columns = padding
    windows = sliding(F.pad(x, (columns, columns, rows, rows)), kernel, stride)
    return windows.permute(0, 1, 4, 5, 2, 3).flatten(4).flatten(1, 3)


def convolve(x: Tensor, weight: Tensor, bias: Tensor | None, stride: Pair, padding: Pair) -> Tensor:
    """A convolution as a product with the image's patches."""
    rows, columns = (
        (n + 2 * p - k) // s + 1 for n, p, k, s in zip(x.shape[2:], padding, weight.shape[2:], stride, strict=True)
    )
    met = patches(x, tuple(weight.shape[2:]), stride, padding)
    found: Tensor = (weight.flatten(1).expand(len(x), -1, -1) @ met).unflatten(2, (rows, columns))
    return found if bias is None else found + bias.view(-1, 1, 1)


def weight_gradient(x: Tensor, d: Tensor, weight: Tensor, stride: Pair, padding: Pair) -> Tensor:
    """Of d · conv2d(x, weight), in the weight."""
    if weight.shape[1] > 1 or not slow_from_one_channel():
        found: Tensor = conv2d_weight(x, weight.shape, d, stride, padding)
        return found
    found = torch.zeros_like(weight)
    for i in pieces(d):  # a few images' patches at a time
        met = patches(x[i], tuple(weight.shape[2:]), stride, padding)
        found += (d[i].flatten(2) @ met.mT).sum(0).view_as(weight)
    return found
