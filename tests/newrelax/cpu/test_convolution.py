"""Transposed convolutions with a CPU's own kernels: values and gradients are autograd's of `conv2d`."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from newrelax.cpu import pieces
from newrelax.network.operators.convolution import Convolution

Pair = tuple[int, int]
IMAGES = 7


def convolution(weight: Tensor, size: Pair, stride: Pair, padding: Pair) -> Convolution:
    return Convolution(weight, None, size, stride, padding, (1, 1), 1)


@pytest.mark.parametrize("padding", [(0, 0), (1, 1), (0, 2)], ids=lambda p: f"padding {p}")
@pytest.mark.parametrize("stride", [(2, 2), (1, 2), (3, 3)], ids=lambda s: f"stride {s}")
@pytest.mark.parametrize("kernel", [(4, 4), (3, 2), (1, 1), (2, 5)], ids=lambda k: f"kernel {k}")
@pytest.mark.parametrize("channels", [1, 3, 6], ids=lambda c: f"{c} channels")
def test_transpose_is_the_gradient_of_the_convolution(
    channels: int, kernel: Pair, stride: Pair, padding: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pieces, "CACHE", 4096)  # a few images at a time, and a piece that is not full
    draw, size = torch.Generator().manual_seed(0), (9, 10)
    weight = torch.randn(5, channels, *kernel, generator=draw, dtype=torch.float64, requires_grad=True)
    image = torch.zeros(IMAGES, channels, *size, dtype=torch.float64, requires_grad=True)
    output = F.conv2d(image, weight, stride=stride, padding=padding)
    a = torch.randn(output.shape, generator=draw, dtype=torch.float64, requires_grad=True)
    weights_of_sum = torch.randn(image.shape, generator=draw, dtype=torch.float64)

    (expected,) = torch.autograd.grad((output * a).sum(), image, create_graph=True)
    (found,) = convolution(weight, size, stride, padding).transpose(a)

    expected_gradients, gradients = (torch.autograd.grad((y * weights_of_sum).sum(), (a, weight)) for y in (expected, found))
    torch.testing.assert_close([found, *gradients], [expected, *expected_gradients], rtol=1e-9, atol=1e-9)
