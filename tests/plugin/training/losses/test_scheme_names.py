"""Losses between the attack and the bound: their spellings, their terms' names, and what is refused."""

from __future__ import annotations

import pytest

from newrelax import UserError
from plugin.training.losses import read_loss
from tests.plugin.training.losses.small import SCHEMES, learner_of, points, small, terms_of
from tests.support.tiny_runs import REGISTRY


@pytest.mark.parametrize(
    ("spelling", "label"),
    [
        ("MTL", "MTL:alpha=0.5,steps=10"),
        ("CC:alpha=0.25,steps=3", "CC:alpha=0.25,steps=3"),
        ("SABR", "SABR:lambda=0.4,steps=10"),
        ("SABR:lambda=0.7,radius=2", "SABR:lambda=0.7,steps=10,radius=2.0"),
        ("TAPS:split=2,restarts=3", "TAPS:split=2,weight=5.0,connector=0.5,steps=10,restarts=3"),
        ("adversarial", "adversarial:steps=10"),
    ],
)
def test_labels_are_spellings_that_are_read_back(spelling: str, label: str) -> None:
    made = read_loss(spelling, REGISTRY)
    assert made.label == label
    assert read_loss(label, REGISTRY) == made


@pytest.mark.parametrize(
    ("spelling", "message"),
    [
        ("MTL:alpha=1.5", r"alpha: expected in \[0, 1\], got 1.5"),
        ("SABR:lambda=0", r"lambda: expected in \(0, 1\], got 0"),
        ("SABR:lambda_=0.5", "unknown parameter of loss SABR 'lambda_'; did you mean lambda"),
        ("TAPS:radius=2", "unknown parameter of loss TAPS 'radius'"),
        ("sabr", "unknown loss 'sabr'; did you mean SABR"),
    ],
)
def test_wrong_spellings_are_one_line(spelling: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        read_loss(spelling, REGISTRY)


@pytest.mark.parametrize("scheme", SCHEMES)
def test_a_method_without_bounds_is_refused(scheme: str) -> None:
    with pytest.raises(UserError, match=f"--loss {scheme} needs bounds, and natural gives none"):
        read_loss(scheme, REGISTRY).check(REGISTRY.get_method("natural"))


def test_a_split_that_the_network_does_not_have_is_refused() -> None:
    learner, (x, y) = learner_of(small(), (5,)), points()
    with pytest.raises(UserError, match=r"expected a split of 1 to 2 activation layers .*, got 3"):
        terms_of("TAPS:split=3", learner, x, y)


@pytest.mark.parametrize(
    ("loss", "method", "names"),
    [
        ("MTL", "CROWN-IBP", ("natural", "pgd", "certified")),
        ("MTL:alpha=0", "PGD", ("natural", "pgd")),
        ("Exp:alpha=1", "IBP", ("natural", "certified")),
        ("CC", "DeepZ-Cauchy:k=3", ("natural", "pgd", "estimated")),
        ("SABR", "IBP", ("natural", "small_box")),
        ("TAPS", "IBP", ("natural", "latent", "certified")),
        ("STAPS", "IBP", ("natural", "latent", "small_box")),
    ],
)
def test_terms_say_what_they_measure(loss: str, method: str, names: tuple[str, ...]) -> None:
    made, chosen = read_loss(loss, REGISTRY), REGISTRY.get_method(method)
    made.check(chosen)
    assert made.terms(chosen) == names
