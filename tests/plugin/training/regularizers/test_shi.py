"""Shi et al.'s regulariser: its figures by hand, its gradient, its place beside any loss."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from newrelax.errors import UserError
from newrelax.network.interval import Interval
from newrelax.network.modes import evaluating
from newrelax.registry import Registry
from plugin.models.architectures import Normalize
from plugin.models.build import build
from plugin.training.finite import Step, first_offender
from plugin.training.loop import TrainState
from plugin.training.losses.base import Batch, Terms
from plugin.training.regularizers import Context, Regularized, Regularizer, list_regularizers, read_regularizer
from plugin.training.regularizers.shi import balance, tightness
from plugin.training.schedule import Values
from tests.support.tiny_runs import resolved, tiny_state

SHI = "shi:weight=0.5,tolerance=0.5"


def interval(*ends: tuple[float, float]) -> Interval:
    lower, upper = torch.tensor(ends, dtype=torch.float64).T
    return Interval.between(lower, upper)


@pytest.mark.parametrize(
    ("radius", "expected"),
    [(1.0, 0.0), (2.0, 0.0), (4.0, 0.5), (1e9, 1.0)],
    ids=["as wide", "twice as wide", "four times", "without end"],
)
def test_tightness(radius: float, expected: float) -> None:
    """relu(0.5 − 1/radius)/0.5 where the input's half-width is 1."""
    assert float(tightness(interval((-1, 1)), interval((-radius, radius)), 0.5)) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("ends", "expected"),
    [
        # centres 2 and −2: q_mean = 1, q_var = 1
        ([(1, 3), (-3, -1)], 0.0),
        # centres 1 and −8, mean −3.5: q_mean = 1/8, q_var = 20.25/20.25; (0.5 − 0.125)/0.5
        ([(0.5, 1.5), (-9, -7)], 0.75),
        # centres 1, −1, −3, mean −1: q_mean = 1/4, q_var = 4/4: (0.5 − 0.25)/0.5
        ([(0.5, 1.5), (-1.5, -0.5), (-4, -2)], 0.5),
        ([(1, 3), (-1, 2)], 0.0),
        ([(-3, -1), (-2, 2)], 0.0),
    ],
    ids=["balanced", "few active", "three", "none inactive", "none active"],
)
def test_balance(ends: list[tuple[float, float]], expected: float) -> None:
    assert float(balance(interval(*ends), 0.5)) == pytest.approx(expected)


@pytest.mark.parametrize("ends", [[(1.0, 3.0), (-1.0, 2.0)], [(-3.0, -1.0), (-2.0, 2.0)]], ids=["none inactive", "none active"])
def test_balance_without_a_ratio_has_a_finite_gradient(ends: list[tuple[float, float]]) -> None:
    lower, upper = (end.requires_grad_() for end in torch.tensor(ends).T.clone())
    (gradient,) = torch.autograd.grad(balance(Interval.between(lower, upper), 0.5), lower)
    assert torch.isfinite(gradient).all()


def state(method: str = "IBP", **given: Any) -> TrainState:
    return tiny_state(method, **{"regularizer": SHI, **given})


def whole(run: TrainState) -> Batch:
    return Batch.whole(run.dataset.train_x, run.dataset.train_y)


def terms(run: TrainState, values: Values, batch: Batch | None = None) -> Terms:
    return run.loss(run.learner, batch or whole(run), values)


def plain(run: TrainState) -> Regularized:
    assert isinstance(run.loss, Regularized)
    return run.loss


@pytest.mark.parametrize("method", ["IBP", "CROWN-IBP", "CROWN-IBP-R", "DeepZ", "CROWN", "hBox"])
@pytest.mark.parametrize("kappa", [0.0, 0.5, 1.0])
def test_it_stands_beside_any_method_and_fades_as_eps_rises(method: str, kappa: float) -> None:
    run = state(method)
    target = run.config.train_eps
    for eps, share in ((target / 4, 0.75), (target / 2, 0.5)):
        values = Values(eps, kappa, 0.5, 1e-3)
        alone, beside = plain(run).loss(run.learner, whole(run), values), terms(run, values)
        assert tuple(beside.parts) == (*alone.parts, "regularizer")
        added = float((beside.loss - alone.loss).detach())
        assert added == pytest.approx(float(beside["regularizer"].loss.detach()) / len(run.dataset.train_y), rel=1e-4)
        assert added == pytest.approx(share * unfaded(run, eps), rel=1e-4)
    after = terms(run, Values(target, kappa, 0.5, 1e-3))
    assert "regularizer" not in after.parts


def unfaded(run: TrainState, eps: float) -> float:
    """λ (L_tightness + L_relu) from plain bounds, layer by layer."""
    x = run.dataset.train_x
    lower, upper = run.learner.box(x, eps)
    std = next(module.std for module in run.model.modules() if isinstance(module, Normalize))
    first = Interval.between(lower / std, upper / std)
    entered = run.learner.net.problem(lower, upper).intervals.entered.values()
    boxes = [Interval.between(low, high) for low, high in entered]
    parts = [tightness(first, box, 0.5) + balance(box, 0.5) for box in boxes]
    return float(0.5 * torch.stack(parts).mean().detach())


def test_the_losss_intervals_are_not_computed_again(monkeypatch: pytest.MonkeyPatch) -> None:
    import newrelax.propagations.base as base

    passes = []
    original = base.interval_pass
    monkeypatch.setattr(base, "interval_pass", lambda *given, **named: passes.append(1) or original(*given, **named))
    run = state()
    terms(run, Values(0.05, 0.5, 1.0, 1e-3))
    assert len(passes) == 1


@pytest.mark.parametrize("eps", [0.0, 0.04], ids=["warm-up", "ramp"])
def test_its_gradient_is_the_difference_quotients(eps: float) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 6), nn.ReLU(), nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 10)).double()
    run = state(model=model)
    x, y = run.dataset.train_x[:8].double(), run.dataset.train_y[:8]
    values = Values(eps, 1.0, 1.0, 1e-3)

    def penalty() -> Tensor:
        return terms(run, values, Batch.whole(x, y))["regularizer"].loss

    weight = model[1].weight
    (gradient,) = torch.autograd.grad(penalty(), weight)
    assert gradient.abs().max() > 0
    direction, step = torch.randn_like(weight), 1e-7
    with torch.no_grad():
        weight += step * direction
        above = penalty()
        weight -= 2 * step * direction
        below = penalty()
    assert float((above - below) / (2 * step)) == pytest.approx(float((gradient * direction).sum()), rel=1e-4)


def test_pieces_of_a_batch_add_up_by_their_sizes() -> None:
    run = state()
    x, y = run.dataset.train_x, run.dataset.train_y
    values = Values(0.05, 0.0, 1.0, 1e-3)
    twice = terms(run, values, Batch(x, y, 2 * len(x)))
    assert float(twice.loss.detach()) == pytest.approx(float(terms(run, values).loss.detach()) / 2)


def test_batch_norms_statistics_are_taken_once() -> None:
    """Of the loss's own clean pass: a second one would move the running ones again."""
    means = []
    for regularizer in (SHI, None):
        run = state(model=build("CNN7", (1, 8, 8), 10, (0.5,), (0.25,), seed=0), regularizer=regularizer)
        run.model.train()
        terms(run, Values(0.0, 1.0, 1.0, 1e-3))
        means.append(next(module.running_mean for module in run.model.modules() if isinstance(module, nn.BatchNorm2d)))
    one, other = means
    assert one is not None and other is not None
    assert one.any()
    assert torch.equal(one, other)


class Weights(Regularizer):
    """Half the squared weights."""

    name = "squares"
    weight: float = 1.0

    def __call__(self, context: Context) -> Tensor:
        return self.weight * sum(((w**2).sum() / 2 for w in context.learner.model.parameters()), torch.zeros(()))


class Broken(Regularizer):
    """Fails."""

    name = "broken"
    how: str = "raises"

    def __call__(self, context: Context) -> Any:
        if self.how == "raises":
            raise ZeroDivisionError("by nothing")
        return torch.zeros(3) if self.how == "vector" else 1.0


def test_a_plugin_brings_one() -> None:
    registry = Registry((), extensions=(("mine.py", Weights),))
    assert "squares:weight=1.0            Half the squared weights.  [mine.py]" in list_regularizers(registry)
    assert read_regularizer("squares:weight=2", registry).label == "squares:weight=2.0"


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ("raises", r"regularizer broken: ZeroDivisionError: by nothing \(line \d+ of test_shi.py"),
        ("vector", r"regularizer broken: expected a scalar or None, got the shape \(3,\)"),
        ("number", "regularizer broken: expected a scalar or None, got float"),
    ],
)
def test_a_fault_in_ones_own_is_told_in_one_line(how: str, message: str) -> None:
    run = state()
    broken = plain(run).model_copy(update={"regularizer": Broken(how=how)})
    with pytest.raises(UserError, match=message):
        broken(run.learner, whole(run), Values(0.05, 0.0, 1.0, 1e-3))


@pytest.mark.parametrize(
    ("method", "spelling", "message"),
    [
        ("IBP", "shy", r"unknown regularizer 'shy'; did you mean shi\? \(known: shi\)"),
        ("IBP", "shi:tolerance=2", r"tolerance: expected in \(0, 1\], got 2"),
        ("IBP", "shi:lambda=2", "unknown parameter of regularizer shi 'lambda'"),
        ("PGD", "shi", "--regularizer looks at bounds, and PGD gives none"),
    ],
    ids=["name", "range", "parameter", "no bounds"],
)
def test_what_it_refuses(method: str, spelling: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        resolved(method, regularizer=spelling)


def test_the_guard_repeats_a_regularised_step() -> None:
    run = state()
    x = run.dataset.train_x.clone()
    x[0] = torch.nan
    with evaluating(run.model):
        assert first_offender(run.learner, run.loss, Step(0, x, run.dataset.train_y, Values(0.05, 0.5, 1.0, 1e-3))) == (
            "the input itself"
        )
