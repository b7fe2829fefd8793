"""Losses between the attack and the bound: their ends bit for bit, and their values."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from newrelax import certify
from plugin.certification.attacks import pgd
from plugin.certification.region import Region
from plugin.training.loop import train
from plugin.training.losses import Batch, latent
from plugin.training.losses.certified import certified_loss
from plugin.training.losses.sabr import SABR
from tests.plugin.training.losses.small import EPS, VALUES, learner_of, points, small, terms_of
from tests.support.tiny_runs import tiny_state


def weights_after(loss: str, **given: Any) -> dict[str, Tensor]:
    state = tiny_state("CROWN-IBP", loss=loss, **given)
    train(state)
    return state.model.state_dict()


@pytest.mark.parametrize(
    ("loss", "same"),
    [
        ("MTL:alpha=1", "certified"),
        ("CC:alpha=1", "certified"),
        ("Exp:alpha=1", "certified"),
        ("SABR:lambda=1", "certified"),
        ("TAPS:split=0", "certified"),
        ("STAPS:split=0,lambda=0.3,steps=2", "SABR:lambda=0.3,steps=2"),
        ("STAPS:lambda=1,steps=2", "TAPS:steps=2"),
        ("MTL:alpha=0,steps=2", "adversarial:steps=2"),
        ("CC:alpha=0,steps=2", "adversarial:steps=2"),
        ("Exp:alpha=0,steps=2", "adversarial:steps=2"),
    ],
)
def test_at_its_end_a_scheme_trains_what_it_ends_in_bit_for_bit(loss: str, same: str) -> None:
    found, expected = weights_after(loss), weights_after(same)
    assert all(torch.equal(tensor, expected[name]) for name, tensor in found.items())


@pytest.mark.parametrize("loss", ["MTL:alpha=0.5,steps=2", "SABR:lambda=0.5,steps=2", "TAPS:steps=2"])
def test_inside_it_trains_something_else(loss: str) -> None:
    found, ends = weights_after(loss), [weights_after(end) for end in ("certified", "adversarial:steps=2")]
    assert all(any(not torch.equal(tensor, end[name]) for name, tensor in found.items()) for end in ends)


@pytest.mark.parametrize("name", ["MTL", "CC", "Exp"])
def test_expressive_losses_rise_from_the_attack_to_the_bound(name: str) -> None:
    learner, (x, y) = learner_of(small(), (5,)), points()
    alphas = [0, 1e-6, 0.2, 0.5, 0.8, 1 - 1e-6, 1]
    losses = [terms_of(f"{name}:alpha={alpha}", learner, x, y, VALUES._replace(kappa=0.0)).loss.item() for alpha in alphas]
    assert losses == sorted(losses)
    assert losses[1] == pytest.approx(losses[0], rel=1e-4)
    assert losses[-2] == pytest.approx(losses[-1], rel=1e-4)
    assert losses[0] < losses[3] < losses[-1]


def test_terms_are_those_of_a_direct_computation() -> None:
    model, (x, y) = small(), points()
    learner, alpha = learner_of(model, (5,), "IBP"), 0.3
    torch.manual_seed(5)
    logits = model(pgd(model, x, y, EPS, steps=10))
    margins = certify(model, x, y, EPS, "IBP")
    met = (logits.gather(1, y[:, None]) - logits)[torch.arange(3) != y[:, None]].view_as(margins)
    adversarial, certified = F.cross_entropy(logits, y, reduction="none"), certified_loss(margins, y, reduction="none")
    mixed = {
        "MTL": alpha * certified + (1 - alpha) * adversarial,
        "CC": certified_loss(alpha * margins + (1 - alpha) * met, y, reduction="none"),
        "Exp": (alpha * certified.log() + (1 - alpha) * adversarial.log()).exp(),
    }
    for name, expected in mixed.items():
        terms = terms_of(f"{name}:alpha={alpha}", learner, x, y)
        assert tuple(terms.parts) == ("natural", "pgd", "certified")
        assert terms["pgd"].loss.item() == pytest.approx(adversarial.sum().item(), rel=1e-9)
        assert terms["certified"].loss.item() == pytest.approx(certified.sum().item(), rel=1e-9)
        assert terms["certified"].right == (margins > 0).all(1).sum()
        natural = F.cross_entropy(model(x), y).item()
        assert terms.loss.item() == pytest.approx(0.25 * natural + 0.75 * expected.mean().item(), rel=1e-9), name


@pytest.mark.parametrize("share", [0.01, 0.4, 0.999])
@pytest.mark.parametrize("radius", [1.0, 3.0])
def test_the_small_box_lies_in_the_ball_around_the_attacks_point(share: float, radius: float) -> None:
    model, (x, y) = small(), points()
    ranges = torch.zeros(5, dtype=torch.float64), torch.tensor([1.0, 2.0, 0.5, 1.0, 4.0], dtype=torch.float64)
    learner = learner_of(model, (5,), region=Region.by("range", ranges))
    x = x * ranges[1]
    made = SABR(lambda_=share, radius=radius)
    torch.manual_seed(5)
    low, high = made.small_box(learner, Batch.whole(x, y), VALUES)
    torch.manual_seed(5)
    attacked = pgd(model, x, y, radius * EPS, steps=10, region=learner.region)
    lower, upper = learner.box(x, EPS)
    assert (lower <= low).all()
    assert (high <= upper).all()
    torch.testing.assert_close(high - low, share * (upper - lower))
    met = torch.minimum(torch.maximum(attacked, lower), upper)
    reach = (1 - share) * (upper - lower) / 2  # how far from the ball's middle a small box may be moved
    inside = (met - (lower + upper) / 2).abs() <= reach
    torch.testing.assert_close(((low + high) / 2)[inside], met[inside])


def test_taps_multiplies_the_bounds_and_an_estimate_below_them() -> None:
    learner, (x, y) = learner_of(small(), (5,), "IBP"), points()
    for loss in ("TAPS", "TAPS:split=2", "TAPS:weight=1"):
        terms = terms_of(loss, learner, x, y, VALUES._replace(kappa=0.0))
        assert tuple(terms.parts) == ("latent", "certified")
        assert terms["latent"].loss < terms["certified"].loss
        one = [terms_of(loss, learner, x[i : i + 1], y[i : i + 1], VALUES._replace(kappa=0.0)) for i in range(len(x))]
        for each in one:
            assert each.loss.item() == pytest.approx((each["latent"].loss * each["certified"].loss).item(), rel=1e-9)


def test_an_attack_in_the_last_linear_layer_finds_its_minimum() -> None:
    """Behind the last ReLU the margins are linear: their smallest values over the box are the intervals' own bounds."""
    learner, (x, y) = learner_of(small(), (5,), "IBP"), points()
    bounds = learner.net.bounds(*learner.box(x, EPS), y)
    end = learner_of(learner.model[-1], (6,)).net.graph.network()
    last = latent.Latent(*(each.relu() for each in bounds.layers[-1]), end)
    torch.manual_seed(5)
    torch.testing.assert_close(last.margins(last.attacked(y, 20, 0.2, 1), y, 0.5), bounds.margins)
