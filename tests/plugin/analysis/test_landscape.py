"""Losses along their gradient whose values, gradients and angles are known."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from plugin.analysis.landscape import STEPS, landscape

LR = 0.02


def weights(*values: float) -> list[nn.Parameter]:
    return [nn.Parameter(torch.tensor([value], dtype=torch.float64)) for value in values]


def test_a_bowl() -> None:
    """loss = |w|²/2: descent goes to (1 − p·lr)w, where the gradient is as much shorter and points the same way."""
    params = weights(3.0, 4.0)
    found = landscape(lambda: sum((p.square().sum() for p in params), torch.zeros(())) / 2, params, learning_rate=LR)
    shares = [1 - p * LR for p in STEPS]
    assert found.gradient_norm == pytest.approx(5)
    assert found.losses == pytest.approx([12.5 * share**2 for share in shares])
    assert found.spread == pytest.approx(shares[0] ** 2 - shares[-1] ** 2)
    assert found.difference == pytest.approx(STEPS[-1] * LR)
    assert found.cosine == pytest.approx(1)


@pytest.mark.parametrize(("start", "passed"), [pytest.param(0.025, 8, id="soon"), pytest.param(1.0, 0, id="never")])
def test_beyond_a_kink_the_gradient_is_the_opposite_one(start: float, passed: int) -> None:
    """loss = |w|, in steps of lr/2: the kink is passed at the third, or never."""
    params = weights(start)
    found = landscape(lambda: params[0].abs().sum(), params, learning_rate=LR)
    assert found.cosine == pytest.approx((len(STEPS) - 2 * passed) / len(STEPS))
    assert found.difference == pytest.approx(2.0 if passed else 0.0)


def test_a_flat_loss_has_no_spread_and_no_difference() -> None:
    params = weights(1.0)
    found = landscape(lambda: 0 * params[0].sum() + 2, params, learning_rate=LR)
    assert (found.spread, found.difference, found.cosine) == (0, 0, 0)


def test_weights_gradients_and_random_streams_stay() -> None:
    params = weights(0.3, -0.7)
    before, stream = [p.detach().clone() for p in params], torch.get_rng_state()

    def noisy() -> Tensor:
        return (params[0] * params[1] * torch.rand(())).sum()

    first, again = (landscape(noisy, params, learning_rate=LR) for _ in range(2))
    assert first == again
    assert torch.equal(torch.get_rng_state(), stream)
    assert all(torch.equal(p, b) and p.grad is None for p, b in zip(params, before, strict=True))
