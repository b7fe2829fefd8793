"""Max pooling with a CPU's own kernel: values, places and gradients are torch's."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from newrelax.cpu.pooling import max_pool

Pair = tuple[int, int]


def images(kind: str) -> Tensor:
    drawn = torch.randn(3, 2, 9, 11, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    return {"numbers": drawn, "ties": drawn.relu().round(), "below zero": drawn - 10}[kind]


@pytest.mark.parametrize("kind", ["numbers", "ties", "below zero"])
@pytest.mark.parametrize("ceil_mode", [False, True], ids=["floor", "ceil"])
@pytest.mark.parametrize(
    ("kernel", "stride", "padding", "dilation"),
    [
        ((2, 2), (2, 2), (0, 0), (1, 1)),
        ((3, 3), (2, 2), (1, 1), (1, 1)),
        ((3, 2), (1, 3), (1, 0), (1, 1)),
        ((2, 3), (2, 1), (0, 1), (3, 2)),
        ((1, 1), (1, 1), (0, 0), (1, 1)),
        ((1, 1), (2, 2), (0, 0), (1, 1)),
        ((4, 4), (4, 4), (2, 2), (1, 1)),
    ],
    ids=str,
)
def test_equals_torch(kernel: Pair, stride: Pair, padding: Pair, dilation: Pair, ceil_mode: bool, kind: str) -> None:
    x = images(kind).requires_grad_()
    wanted, places = F.max_pool2d(x, kernel, stride, padding, dilation, ceil_mode, return_indices=True)
    found, index = max_pool(x, tuple(wanted.shape[2:]), kernel, stride, padding, dilation)
    assert torch.equal(found, wanted)
    assert torch.equal(index, places)
    slope = torch.randn(wanted.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    (gradient,), (expected,) = (torch.autograd.grad(y, x, slope) for y in (found, wanted))
    torch.testing.assert_close(gradient, expected, rtol=1e-12, atol=1e-12)


def test_a_window_without_a_number_has_a_place_in_the_image() -> None:
    x = torch.full((1, 1, 4, 4), -math.inf)
    values, index = max_pool(x, (3, 3), (3, 3), (2, 2), (1, 1), (1, 1))
    assert torch.equal(values, torch.full((1, 1, 3, 3), -math.inf))
    assert index.min() >= 0
    assert index.max() < 16


def test_what_is_not_a_number_stays_so() -> None:
    x = torch.zeros(1, 1, 4, 4)
    x[0, 0, 1, 2] = math.nan
    values, _ = max_pool(x, (2, 2), (2, 2), (2, 2), (0, 0), (1, 1))
    assert torch.equal(values.isnan(), torch.tensor([[[[False, True], [False, False]]]]))
