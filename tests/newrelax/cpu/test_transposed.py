"""Transposed convolutions with a CPU's own kernels, by phases and by blocks: they and their gradients are those of `conv2d`."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from newrelax.cpu import convolution, pieces, transposed

Pair = tuple[int, int]
IMAGES = 7
SIZE = (9, 10)


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64, requires_grad=True)


@pytest.mark.parametrize("avx512", [False, True], ids=["AVX2", "AVX-512"])
@pytest.mark.parametrize("padding", [(0, 0), (1, 1), (0, 2)], ids=lambda p: f"padding {p}")
@pytest.mark.parametrize("stride", [(1, 1), (2, 2), (1, 2), (3, 3)], ids=lambda s: f"stride {s}")
@pytest.mark.parametrize("kernel", [(4, 4), (3, 2), (1, 1), (2, 5), (5, 5), (6, 3)], ids=lambda k: f"kernel {k}")
@pytest.mark.parametrize("channels", [1, 3, 6, 17], ids=lambda c: f"{c} channels")
def test_transpose_is_the_gradient_of_the_convolution(
    channels: int, kernel: Pair, stride: Pair, padding: Pair, avx512: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(convolution, "has_avx512", lambda: avx512)
    monkeypatch.setattr(pieces, "CACHE", 4096)  # a few images at a time, and a piece that is not full
    weight = drawn(5, channels, *kernel)
    image = torch.zeros(IMAGES, channels, *SIZE, dtype=torch.float64, requires_grad=True)
    output = F.conv2d(image, weight, stride=stride, padding=padding)
    a, weights_of_sum = drawn(*output.shape, seed=1), drawn(*image.shape, seed=2).detach()

    (expected,) = torch.autograd.grad((output * a).sum(), image, create_graph=True)
    found = transposed.transpose(a, weight, stride, padding, SIZE)

    expected_gradients, gradients = (torch.autograd.grad((y * weights_of_sum).sum(), (a, weight)) for y in (expected, found))
    torch.testing.assert_close([found, *gradients], [expected, *expected_gradients], rtol=1e-9, atol=1e-9)
