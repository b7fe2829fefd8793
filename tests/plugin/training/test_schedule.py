"""ε, κ, β and the learning rate, step by step."""

import itertools

import pytest

from plugin.training.schedule import Schedule
from tests.support.tiny_runs import resolved

PAPER = Schedule(
    warmup=10, ramp=100, eps=(0.0, 0.3), kappa=(1.0, 0.0), beta=(1.0, 0.0), lr=1e-3, lr_decay=0.1, milestones=(130, 190)
)


@pytest.mark.parametrize(
    ("step", "eps", "kappa", "beta", "lr"),
    [
        pytest.param(0, 0.0, 1.0, 1.0, 1e-3, id="first step"),
        pytest.param(9, 0.0, 1.0, 1.0, 1e-3, id="end of the warm-up"),
        pytest.param(10, 0.0, 1.0, 1.0, 1e-3, id="start of the ramp"),
        pytest.param(35, 0.075, 0.75, 0.75, 1e-3, id="a quarter of the ramp"),
        pytest.param(60, 0.15, 0.5, 0.5, 1e-3, id="half of the ramp"),
        pytest.param(110, 0.3, 0.0, 0.0, 1e-3, id="end of the ramp"),
        pytest.param(129, 0.3, 0.0, 0.0, 1e-3, id="before the first milestone"),
        pytest.param(130, 0.3, 0.0, 0.0, 1e-4, id="first milestone"),
        pytest.param(500, 0.3, 0.0, 0.0, 1e-5, id="after the last milestone"),
    ],
)
def test_paper_phases(step: int, eps: float, kappa: float, beta: float, lr: float) -> None:
    assert PAPER.values(step) == pytest.approx((eps, kappa, beta, lr), abs=1e-12)


def test_ends_are_exact() -> None:
    # κ == 1 and κ == 0 decide what is computed at all: "nearly" would not do.
    for ramp in range(1, 50):
        schedule = Schedule(3, ramp, (0.001, 0.03451), (0.9, 0.1), (0.7, 0.3), 1.0, 0.1, ())
        assert schedule.values(3 + ramp) == (0.03451, 0.1, 0.3, 1.0)
        assert schedule.values(3)[:3] == (0.001, 0.9, 0.7)


def test_warm_up_is_natural_training_whatever_kappa_is() -> None:
    schedule = Schedule(5, 5, (0.01, 0.3), (0.5, 0.5), (1.0, 1.0), 1.0, 0.1, ())
    assert schedule.values(4)[:2] == (0.0, 1.0)
    assert schedule.values(5)[:2] == (0.01, 0.5)


def test_no_ramp_jumps_to_the_end() -> None:
    schedule = Schedule(0, 0, (0.0, 0.3), (1.0, 0.5), (1.0, 0.0), 1.0, 0.1, ())
    assert schedule.values(0)[:3] == (0.3, 0.5, 0.0)


def test_ramp_is_monotonic() -> None:
    steps = [PAPER.values(step) for step in range(250)]
    assert all(a.eps <= b.eps and a.kappa >= b.kappa and a.beta >= b.beta for a, b in itertools.pairwise(steps))


@pytest.mark.parametrize(
    ("step", "factor"),
    [
        pytest.param(50, 1, id="end of the ramp"),
        pytest.param(69, 1, id="just before the first halving"),
        pytest.param(70, 0.5, id="first halving"),
        pytest.param(90, 0.25, id="second halving"),
    ],
)
def test_halved_after_the_ramp(step: int, factor: float) -> None:
    schedule = Schedule(0, 50, (0.0, 0.3), (1.0, 0.0), (1.0, 1.0), 1e-3, 0.1, (), halve_every=20)
    assert schedule.values(step).lr == pytest.approx(1e-3 * factor)


@pytest.mark.parametrize("epochs", [20, 7, 200])
def test_epochs_scale_the_whole_schedule(epochs: int) -> None:
    config = resolved("CROWN-IBP", dataset="mnist", model="CONV", epochs=epochs)
    schedule = Schedule.from_config(config, steps_per_epoch=600)
    assert schedule.warmup == round(600 * epochs * 10 / 200)
    assert schedule.ramp == round(600 * epochs * 50 / 200)
    assert schedule.milestones == (round(600 * epochs * 130 / 200), round(600 * epochs * 190 / 200))
    assert schedule.beta == (1.0, 0.0)
    assert schedule.eps == (0.0, 0.3)
