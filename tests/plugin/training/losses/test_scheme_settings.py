"""Losses between the attack and the bound: every method and engine, batch norm, one logit, pieces, autocast, attacks."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import plugin
from newrelax.bounds import BoundedNetwork, box
from plugin.training.loop import train
from plugin.training.losses import Batch, Learner, attacking, latent, read_loss
from tests.plugin.training.losses.small import EPS, SCHEMES, VALUES, learner_of, points, small, terms_of
from tests.support.tiny_runs import REGISTRY, tiny_state


@pytest.mark.parametrize("method", ["IBP", "CROWN-IBP-R", "DeepZ", "CROWN", "hBox"])
@pytest.mark.parametrize("scheme", SCHEMES)
def test_every_scheme_trains_over_every_method(scheme: str, method: str) -> None:
    loss = f"{scheme}:steps=2"
    state = tiny_state(method, loss=loss, epochs=2, warmup=0, ramp=1, limit_train=20, kappa=(0.5, 0.5))
    before = copy.deepcopy(state.model.state_dict())
    seen: list[Any] = []
    train(state, [Watch(seen)])
    assert any(not torch.equal(tensor, before[name]) for name, tensor in state.model.state_dict().items())
    assert all(torch.isfinite(tensor).all() for tensor in state.model.state_dict().values())
    assert set(seen[-1]) == set(state.loss.terms(state.method))


class Watch(plugin.Callback):
    """Keeps the names of each step's terms."""

    def __init__(self, seen: list[Any]) -> None:
        self.seen = seen

    def on_step(self, state: Any, info: Any) -> None:
        self.seen.append(tuple(info.terms.parts))


@pytest.mark.parametrize("method", ["IBP", "CROWN-IBP", "CROWN", "DeepZ"])
def test_taps_goes_on_from_the_same_box_with_either_engine(method: str) -> None:
    x, y = points()
    found = []
    for engine in ("newrelax", "auto_LiRPA"):
        net = BoundedNetwork(small().train(), (5,), REGISTRY.get_method(method), engine=engine)
        loss = terms_of("TAPS", Learner(net), x, y, VALUES._replace(beta=1.0)).loss
        found.append([loss, *torch.autograd.grad(loss, list(net.model.parameters()))])
    for ours, theirs in zip(*found, strict=True):
        torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize("scheme", SCHEMES)
def test_with_batch_norm_only_the_clean_pass_is_counted(scheme: str) -> None:
    x, y = points(classes=3)
    buffers = []
    for loss in (f"{scheme}:steps=2", "certified"):
        model = small(normalised=True).train()
        learner = learner_of(model, (5,))
        terms_of(loss, learner, x, y).loss.backward()
        assert model.training
        assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in model.parameters())
        buffers.append({name: buffer.clone() for name, buffer in model.named_buffers()})
    assert all(torch.equal(buffer, buffers[1][name]) for name, buffer in buffers[0].items())


def test_with_batch_norm_the_attacks_logits_are_of_the_function_that_is_bounded() -> None:
    """So that the bounds hold for them: with statistics of their own the points would meet another network."""
    model = small(normalised=True).train()
    x, y = points()
    learner = learner_of(model, (5,), "IBP")
    clean = learner.net.observe(x)
    lower, upper = box(x, EPS)
    bounds = learner.net.bounds(lower, upper, y, statistics=clean.statistics)
    for point in (lower, upper):
        logits = attacking.logits_at(learner, point, clean)
        margins = (logits.gather(1, y[:, None]) - logits)[torch.arange(3) != y[:, None]].view_as(bounds.margins)
        assert (margins >= bounds.margins - 1e-9).all()


@pytest.mark.parametrize("scheme", SCHEMES)
def test_one_logit_is_two_of_which_one_is_zero(scheme: str) -> None:
    x, y = points(classes=2)
    one, two = small(1), small(2)
    two.load_state_dict({**one.state_dict(), **{k: torch.cat([0 * v, v]) for k, v in one[-1].state_dict(prefix="6.").items()}})
    found = [terms_of(f"{scheme}:steps=3", learner_of(model, (5,), "IBP"), x, y) for model in (one, two)]
    assert found[0].loss.item() == pytest.approx(found[1].loss.item(), rel=1e-9)
    assert [term.right for term in found[0].parts.values()] == [term.right for term in found[1].parts.values()]


@pytest.mark.parametrize("scheme", SCHEMES)
def test_pieces_of_a_batch_add_up(scheme: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attacking, "pgd", lambda model, x, y, eps, **_: (x + eps / 2).clamp(0, 1))
    monkeypatch.setattr(
        latent.Latent,
        "attacked",
        lambda self, y, *_: (0.3 * self.lower + 0.7 * self.upper).detach().unsqueeze(1).expand(-1, 2, -1),
    )
    learner, (x, y) = learner_of(small(), (5,)), points()
    made = read_loss(scheme, REGISTRY)
    whole = made(learner, Batch.whole(x, y), VALUES)
    pieces = [made(learner, Batch(x[part], y[part], len(x)), VALUES) for part in (slice(0, 2), slice(2, 7))]
    assert sum(piece.loss.item() for piece in pieces) == pytest.approx(whole.loss.item(), rel=1e-9)
    for name in whole.parts:
        assert sum(piece[name].loss.item() for piece in pieces) == pytest.approx(whole[name].loss.item(), rel=1e-9)


@pytest.mark.parametrize("scheme", SCHEMES)
def test_autocast_around_changes_nothing(scheme: str) -> None:
    x, y = points()
    loss = plugin.CertifiedLoss(small().float(), "CROWN-IBP", (5,), loss=f"{scheme}:steps=2")

    def value() -> Tensor:
        torch.manual_seed(5)
        found: Tensor = loss(x.float(), y, eps=EPS, kappa=0.5).loss
        return found

    plain = value()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(value(), plain)


def test_attack_settings_reach_the_attack(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[float, dict[str, Any]]] = []

    def recorded(model: nn.Module, x: Tensor, y: Tensor, eps: float, **given: Any) -> Tensor:
        seen.append((eps, given))
        return x

    monkeypatch.setattr(attacking, "pgd", recorded)
    learner, (x, y) = learner_of(small(), (5,)), points()
    for name in ("adversarial", "MTL", "CC", "Exp", "SABR", "STAPS"):
        terms_of(f"{name}:steps=3,restarts=2,radius=2,step_size=0.5", learner, x, y)
    assert len(seen) == 6
    for eps, given in seen:
        assert eps == pytest.approx(2 * EPS)
        assert (given["steps"], given["restarts"]) == (3, 2)
        assert given["step_size"] == pytest.approx(0.5 * 2 * EPS)
