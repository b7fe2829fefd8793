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


@pytest.mark.parametrize("stride", [(1, 1), (2, 1)], ids=lambda s: f"stride {s}")
@pytest.mark.parametrize(("channels", "avx512"), [(1, False), (1, True), (3, False)], ids=str)
def test_weight_gradient_is_the_convolutions(
    channels: int, avx512: bool, stride: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cpu, "has_avx512", lambda: avx512)
    monkeypatch.setattr(pieces, "CACHE", 4096)
    x, weight = drawn(IMAGES, channels, *SIZE).detach(), drawn(5, channels, 3, 4)
    value = F.conv2d(x, weight, None, stride, (1, 2))
    slope = drawn(*value.shape, seed=3).detach()
    (wanted,) = torch.autograd.grad(value, weight, slope)
    torch.testing.assert_close(cpu.weight_gradient(x, slope, weight.detach(), stride, (1, 2)), wanted, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("avx512", [False, True], ids=["AVX2", "AVX-512"])
@pytest.mark.parametrize("stride", [(1, 1), (2, 2)], ids=lambda s: f"stride {s}")
@pytest.mark.parametrize("channels", [1, 3, 6], ids=lambda c: f"{c} channels")
def test_the_operator_is_the_convolution_whichever_kernels_it_takes(
    channels: int, stride: Pair, avx512: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cpu, "has_avx512", lambda: avx512)
    weight, bias = (drawn(*shape).float().detach().requires_grad_() for shape in ((5, channels, 3, 3), (5,)))
    x = drawn(IMAGES, channels, *SIZE, seed=1).float().detach()
    operator = Convolution(weight, bias, SIZE, stride, (1, 1), (1, 1), 1)
    value = F.conv2d(x, weight, bias, stride, (1, 1))
    a = torch.randn(value.shape, generator=torch.Generator().manual_seed(2))

    torch.testing.assert_close(operator.value(x), value, rtol=1e-5, atol=1e-5)
    (back,) = operator.transpose(a)
    assert torch.isclose((back * x).sum(), (operator.linear(x) * a).sum(), rtol=1e-4, atol=1e-4)
