"""Gradients of losses with an attack in them: finite differences with the attack's points held."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from plugin.certification.attacks import pgd
from plugin.training.losses import Learner, attacking, latent
from tests.plugin.training.losses.small import EPS, learner_of, points, small, terms_of


@pytest.mark.parametrize(
    "loss", [*(f"{name}:alpha=0.4" for name in ("MTL", "CC", "Exp")), "SABR", "TAPS:weight=1", "STAPS:weight=1"]
)
@pytest.mark.parametrize("method", ["IBP", "CROWN-IBP", "CROWN"])
def test_gradients_are_finite_differences_with_the_attacks_points_held(
    loss: str, method: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, (x, y) = small(), points()
    learner = learner_of(model, (5,), method)
    held = hold_points(monkeypatch, learner, loss, x, y)
    terms = terms_of(loss, learner, x, y)
    parameters = list(model.parameters())
    gradients = torch.autograd.grad(terms.loss, parameters)
    held()
    step = 1e-6
    generator = torch.Generator().manual_seed(0)
    for _ in range(8):
        directions = [torch.randn(p.shape, generator=generator, dtype=p.dtype) for p in parameters]
        ends = []
        for sign in (1, -1):
            with torch.no_grad():
                for parameter, direction in zip(parameters, directions, strict=True):
                    parameter += sign * step * direction
            ends.append(terms_of(loss, learner, x, y).loss.item())
            with torch.no_grad():
                for parameter, direction in zip(parameters, directions, strict=True):
                    parameter -= sign * step * direction
        foretold = sum((g * d).sum().item() for g, d in zip(gradients, directions, strict=True))
        assert (ends[0] - ends[1]) / (2 * step) == pytest.approx(foretold, rel=1e-5, abs=1e-7)


def hold_points(patch: pytest.MonkeyPatch, learner: Learner, loss: str, x: Tensor, y: Tensor) -> Callable[[], None]:
    """Holds what attacks find at these weights; what is returned makes points move with their box as the connector says."""
    attacked = pgd(learner.model, x, y, EPS, steps=3, generator=torch.Generator().manual_seed(0))
    patch.setattr(attacking, "pgd", lambda *_, **__: attacked)
    ends: list[Tensor] = []
    shares: list[Tensor] = []
    original, found = latent.connected, latent.Latent.attacked
    inside: list[Tensor] = []

    def once(self: latent.Latent, *given: Any) -> Tensor:
        if not inside:
            inside.append(found(self, *given))
        return inside[0]

    def connected(at: Tensor, lower: Tensor, upper: Tensor, connector: float) -> Tensor:
        low, high = (end.detach().clone().expand_as(at).requires_grad_() for end in (lower, upper))
        shares[:] = torch.autograd.grad(original(at, low, high, connector).sum(), (low, high))
        ends[:] = lower.detach(), upper.detach()
        return original(at, lower, upper, connector)

    patch.setattr(latent.Latent, "attacked", once)
    patch.setattr(latent, "connected", connected)

    def moving(at: Tensor, lower: Tensor, upper: Tensor, _: float) -> Tensor:
        return at + shares[0] * (lower - ends[0]) + shares[1] * (upper - ends[1])

    return lambda: patch.setattr(latent, "connected", moving)


def test_the_weight_is_of_the_attacks_gradient_alone() -> None:
    model, (x, y) = small(), points()
    learner = learner_of(model, (5,), "IBP")
    found = [terms_of(f"TAPS:weight={weight}", learner, x, y) for weight in (1, 3, 5)]
    assert len({terms.loss.item() for terms in found}) == 1
    one, three, five = (torch.cat([g.flatten() for g in torch.autograd.grad(t.loss, list(model.parameters()))]) for t in found)
    torch.testing.assert_close(five - three, three - one)
    assert (three - one).abs().max() > 1e-3


@pytest.mark.parametrize(
    ("point", "with_lower", "with_upper"),
    [(0.0, 1, 0), (0.25, 0.5, 0), (0.5, 0, 0), (0.75, 0, 0.5), (1.0, 0, 1)],
    ids=["lower end", "a quarter", "middle", "three quarters", "upper end"],
)
def test_points_move_with_the_end_that_they_are_near(point: float, with_lower: float, with_upper: float) -> None:
    lower, upper = torch.zeros(1, requires_grad=True), torch.ones(1, requires_grad=True)
    moving = latent.connected(torch.tensor([point]), lower, upper, 0.5)
    assert moving.item() == point
    assert [g.item() for g in torch.autograd.grad(moving.sum(), (lower, upper))] == [with_lower, with_upper]


def test_a_point_of_a_box_without_width_moves_with_both_ends() -> None:
    lower, upper = torch.ones(1, requires_grad=True), torch.ones(1, requires_grad=True)
    moving = latent.connected(torch.ones(1), lower, upper, 0.5)
    assert [g.item() for g in torch.autograd.grad(moving.sum(), (lower, upper))] == [0.5, 0.5]


def test_a_loss_that_has_rounded_to_nothing_has_no_infinite_gradient() -> None:
    model = small()
    with torch.no_grad():
        model[-1].bias += torch.tensor([200.0, 0, 0])
    x, _ = points()
    terms = terms_of("Exp:alpha=0.5", learner_of(model, (5,)), x, torch.zeros(len(x), dtype=torch.long))
    gradients = torch.autograd.grad(terms.loss, list(model.parameters()))
    assert all(torch.isfinite(gradient).all() for gradient in gradients)
