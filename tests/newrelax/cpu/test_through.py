"""Coefficients through lines, a piece at a time: equal to the formula, whatever the pieces."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from newrelax.cpu import pieces
from newrelax.cpu.through import through


def by_formula(a: Tensor, low: Tensor | None, up: Tensor, gap: Tensor) -> tuple[Tensor, Tensor]:
    """A⁺·lower slope − A⁻·upper slope and ΣA⁺·gap; for parallel lines A·slope and Σ|A|·gap."""
    if low is None:
        return a * up.unsqueeze(1), (a.abs() * gap.unsqueeze(1)).sum(2)
    plus, minus = a.clamp(min=0), (-a).clamp(min=0)
    return plus * low.unsqueeze(1) - minus * up.unsqueeze(1), (plus * gap.unsqueeze(1)).sum(2)


@pytest.mark.parametrize("parallel", [False, True], ids=["two lines", "parallel lines"])
@pytest.mark.parametrize("shared", [False, True], ids=["own coefficients", "shared coefficients"])
@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("cache", [1 << 20, 600, 40], ids=["whole", "examples", "rows"])
def test_equal_to_the_formula(cache: int, batch: int, shared: bool, parallel: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pieces, "CACHE", cache)
    generator = torch.Generator().manual_seed(0)
    a, low, up, gap = (
        torch.randn(*shape, dtype=torch.float64, generator=generator, requires_grad=True)
        for shape in ((1 if shared else batch, 7, 5), (batch, 5), (batch, 5), (batch, 5))
    )
    lower = None if parallel else low
    found, wanted = through(a, lower, up, gap), by_formula(a, lower, up, gap)
    inputs = [a, up, gap] if parallel else [a, low, up, gap]
    for one, other in zip(found, wanted, strict=True):
        assert one is not None
        torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-12)
    weights = [torch.randn(part.shape, dtype=part.dtype, generator=generator) for part in wanted]

    def slopes(parts: tuple[Tensor | None, ...]) -> tuple[Tensor, ...]:
        total = sum(((w * p).sum() for w, p in zip(weights, parts, strict=True) if p is not None), torch.zeros(()))
        return torch.autograd.grad(total, inputs)

    torch.testing.assert_close(slopes(found), slopes(wanted), rtol=1e-12, atol=1e-12)
