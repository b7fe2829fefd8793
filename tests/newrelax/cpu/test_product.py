"""Products by oneDNN: values and gradients are torch's of `linear`, however the matrices lie in memory."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from newrelax.cpu import product
from newrelax.cpu.product import linear

LAYOUTS: dict[str, Callable[[Tensor], Tensor]] = {
    "rows": lambda x: x.contiguous(),
    "columns": lambda x: x.mT.contiguous().mT,
    "every other row": lambda x: torch.stack([x, -x], -2).flatten(-3, -2)[..., ::2, :],
    "every other column": lambda x: torch.stack([x, -x], -1).flatten(-2)[..., ::2],
    "a part": lambda x: F.pad(x, (1, 2, 1, 2))[..., 1:-2, 1:-2],
}


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.fixture(autouse=True)
def always(monkeypatch: pytest.MonkeyPatch) -> None:
    if not product.COUNTED:
        pytest.skip("this torch has no oneDNN")
    monkeypatch.setattr(product, "LEAST", 1)
    monkeypatch.setattr(product, "has_avx512", lambda: True)


@pytest.mark.parametrize("of_weight", LAYOUTS)
@pytest.mark.parametrize("of_x", LAYOUTS)
@pytest.mark.parametrize(("shape", "outputs"), [((7, 5), 3), ((7, 5), 11), ((2, 3, 5), 4), ((1, 5), 1)], ids=str)
@pytest.mark.parametrize("with_bias", [False, True], ids=["no bias", "bias"])
def test_linear_is_torchs(shape: tuple[int, ...], outputs: int, with_bias: bool, of_x: str, of_weight: str) -> None:
    x, weight = LAYOUTS[of_x](drawn(*shape)), LAYOUTS[of_weight](drawn(outputs, shape[-1], seed=1))
    bias = drawn(outputs, seed=2) if with_bias else None
    inputs = [part.requires_grad_() for part in (x, weight, bias) if part is not None]
    found, wanted = linear(x, weight, bias), F.linear(x, weight, bias)
    slope = drawn(*wanted.shape, seed=3)
    torch.testing.assert_close(
        [found, *torch.autograd.grad(found, inputs, slope)],
        [wanted, *torch.autograd.grad(wanted, inputs, slope)],
        rtol=1e-5,
        atol=1e-5,
    )


def test_x_that_is_repeated() -> None:
    x, weight = drawn(1, 5).expand(6, 5), drawn(4, 5, seed=1)
    torch.testing.assert_close(linear(x, weight), F.linear(x, weight), rtol=1e-5, atol=1e-5)


def test_gradients_have_gradients() -> None:
    x, weight = drawn(6, 5).requires_grad_(), drawn(4, 5, seed=1).requires_grad_()

    def curvature(of: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
        (slope,) = torch.autograd.grad(of(x, weight).pow(3).sum(), x, create_graph=True)
        (found,) = torch.autograd.grad(slope.pow(2).sum(), weight)
        return found

    torch.testing.assert_close(curvature(linear), curvature(F.linear), rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16], ids=str)
def test_other_types_go_to_torch(dtype: torch.dtype) -> None:
    x, weight = drawn(6, 5).to(dtype), drawn(4, 5, seed=1).to(dtype)
    assert torch.equal(linear(x, weight), F.linear(x, weight))


def test_without_a_gradient_torch_does_it() -> None:
    x, weight = drawn(60, 50), drawn(40, 50, seed=1).requires_grad_()
    with torch.no_grad():
        assert torch.equal(linear(x, weight), F.linear(x, weight))


def test_without_avx512_torch_does_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(product, "has_avx512", lambda: False)
    x, weight = drawn(60, 50), drawn(40, 50, seed=1)
    assert torch.equal(linear(x, weight), F.linear(x, weight))
    assert not product._is_faster(x, weight)


def test_its_operations_are_counted() -> None:
    x, weight = drawn(2, 6, 5).requires_grad_(), drawn(4, 5, seed=1).requires_grad_()
    with FlopCounterMode(display=False, custom_mapping=product.COUNTED) as counter:
        linear(x, weight).sum().backward()
    assert counter.get_total_flops() == 3 * 2 * (2 * 6) * 5 * 4
