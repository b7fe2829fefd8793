"""Convolutions with a CPU's own kernels: values and gradients are torch's of `conv2d`."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from newrelax.cpu import convolution as cpu
from newrelax.cpu import pieces
from newrelax.network.operators.convolution import Convolution

Pair = tuple[int, int]
IMAGES = 7
SIZE = (9, 10)


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64, requires_grad=True)


@pytest.mark.parametrize("padding", [(0, 0), (1, 1), (0, 2)], ids=lambda p: f"padding {p}")
@pytest.mark.parametrize("stride", [(1, 1), (2, 2), (1, 2), (3, 3)], ids=lambda s: f"stride {s}")
@pytest.mark.parametrize("kernel", [(4, 4), (3, 2), (1, 1), (2, 5)], ids=lambda k: f"kernel {k}")
@pytest.mark.parametrize("channels", [1, 3, 6], ids=lambda c: f"{c} channels")
def test_transpose_is_the_gradient_of_the_convolution(
    channels: int, kernel: Pair, stride: Pair, padding: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pieces, "CACHE", 4096)  # a few images at a time, and a piece that is not full
    monkeypatch.setattr(cpu, "SUMMED", 4096)
    weight = drawn(5, channels, *kernel)
    image = torch.zeros(IMAGES, channels, *SIZE, dtype=torch.float64, requires_grad=True)
    output = F.conv2d(image, weight, stride=stride, padding=padding)
    a, weights_of_sum = drawn(*output.shape, seed=1), drawn(*image.shape, seed=2).detach()

    (expected,) = torch.autograd.grad((output * a).sum(), image, create_graph=True)
    found = cpu.transpose(a, weight, stride, padding, SIZE)

    expected_gradients, gradients = (torch.autograd.grad((y * weights_of_sum).sum(), (a, weight)) for y in (expected, found))
    torch.testing.assert_close([found, *gradients], [expected, *expected_gradients], rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("with_bias", [False, True], ids=["no bias", "bias"])
@pytest.mark.parametrize("stride", [(1, 1), (2, 1)], ids=lambda s: f"stride {s}")
def test_convolve_is_the_convolution(stride: Pair, with_bias: bool) -> None:
    x, weight, bias = drawn(IMAGES, 1, *SIZE).detach(), drawn(5, 1, 3, 4), drawn(5, seed=1) if with_bias else None
    inputs = [weight] if bias is None else [weight, bias]
    found, wanted = cpu.convolve(x, weight, bias, stride, (1, 2)), F.conv2d(x, weight, bias, stride, (1, 2))
    slope = drawn(*wanted.shape, seed=3).detach()
    torch.testing.assert_close(
        [found, *torch.autograd.grad(found, inputs, slope)],
        [wanted, *torch.autograd.grad(wanted, inputs, slope)],
        rtol=1e-12,
        atol=1e-12,
    )


@pytest.mark.parametrize("stride", [(1, 1), (2, 2)], ids=lambda s: f"stride {s}")
@pytest.mark.parametrize("channels", [1, 3, 6], ids=lambda c: f"{c} channels")
def test_the_operator_is_the_convolution_whichever_kernels_it_takes(channels: int, stride: Pair) -> None:
    weight, bias = (drawn(*shape).float().detach().requires_grad_() for shape in ((5, channels, 3, 3), (5,)))
    x = drawn(IMAGES, channels, *SIZE, seed=1).float().detach()
    operator = Convolution(weight, bias, SIZE, stride, (1, 1), (1, 1), 1)
    value = F.conv2d(x, weight, bias, stride, (1, 1))
    a = torch.randn(value.shape, generator=torch.Generator().manual_seed(2))

    torch.testing.assert_close(operator.value(x), value, rtol=1e-5, atol=1e-5)
    (back,) = operator.transpose(a)
    assert torch.isclose((back * x).sum(), (operator.linear(x) * a).sum(), rtol=1e-4, atol=1e-4)
