"""Loss fusion: a sound bound of the cross-entropy from one row of back-substitution.

Against auto_LiRPA's own passes: `tests/newrelax/lirpa/test_lirpa_engine.py`.
"""

from __future__ import annotations

import functools
import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from newrelax.bounds import BoundedNetwork, LossBounds, box, can_fuse, worst_logits
from newrelax.errors import UserError
from newrelax.propagations.fusion import _mean_exp, fused_cross_entropy
from newrelax.registry import Registry
from plugin.certification.attacks import pgd
from tests.support.nets import NETS, SHAPE, batch, bounded, traced

REGISTRY = Registry.load()
FUSIBLE = [name for name, method in REGISTRY.items() if can_fuse(method)]
EPS = 0.05


def fused(net: str, name: str, eps: float = EPS, beta: float = 1.0, size: int = 3, seed: int = 0) -> LossBounds:
    x, y = batch(size)
    return bounded(net, REGISTRY.get_method(name), seed=seed).cross_entropy(*box(x, eps), y, beta=beta)


def margins(net: str, name: str, eps: float = EPS) -> Tensor:
    x, y = batch()
    return bounded(net, REGISTRY[name]).bounds(*box(x, eps), y).margins


@functools.cache
def largest_loss(net: str, eps: float) -> Tensor:
    """The largest cross-entropy met at corners, inside, and where an attack ends, [batch]."""
    model, (x, y) = traced(net).model, batch(4)
    lower, upper = box(x, eps)
    generator = torch.Generator().manual_seed(0)
    inside = torch.rand((200, *x.shape), generator=generator, dtype=x.dtype)
    points = lower + torch.cat([inside, inside.round()]) * (upper - lower)
    attacked = pgd(model, x, y, eps, steps=20, restarts=3, generator=generator)
    points = torch.cat([points, attacked[None]])
    with torch.no_grad():
        logits = model(points.flatten(0, 1))
    return F.cross_entropy(logits, y.repeat(len(points)), reduction="none").view(len(points), -1).amax(0)


def test_who_fuses() -> None:
    assert FUSIBLE == ["CROWN-IBP", "CROWN-IBP-R", "DeepZ-IBP-R", "CROWN-Soft-IBP-R"]


@pytest.mark.parametrize("eps", [0.01, 0.1, 1.0])
@pytest.mark.parametrize("name", FUSIBLE)
@pytest.mark.parametrize("net", NETS)
def test_no_point_of_the_box_has_a_larger_loss(net: str, name: str, eps: float) -> None:
    for beta in (1.0, 0.4):
        bound = fused(net, name, eps, beta, size=4).loss
        assert (largest_loss(net, eps) <= bound + 1e-10 * (1 + bound)).all()


@pytest.mark.parametrize("name", FUSIBLE)
def test_exact_where_the_box_is_a_point(name: str) -> None:
    model, (x, y) = traced("residual").model, batch()
    torch.testing.assert_close(fused("residual", name, eps=0.0).loss, F.cross_entropy(model(x), y, reduction="none"))


def test_exact_for_one_margin_of_a_linear_network() -> None:
    """Then the interval is exact, its lower end is attained, and the chord touches exp there."""
    model, (x, _) = nn.Sequential(nn.Flatten(), nn.Linear(192, 2)).double(), batch()
    y = torch.tensor([0, 1, 0])
    net = BoundedNetwork(model, SHAPE, REGISTRY.get_method("CROWN-IBP-R"))
    expected = F.cross_entropy(worst_logits(net.bounds(*box(x, EPS), y).margins, y), y, reduction="none")
    torch.testing.assert_close(net.cross_entropy(*box(x, EPS), y).loss, expected)


def test_beta_goes_from_the_intervals_loss_to_the_fused_one() -> None:
    _, y = batch()
    ends = [fused("residual", "CROWN-IBP", beta=beta).loss for beta in (0.0, 1.0)]
    intervals = margins("residual", "IBP")
    torch.testing.assert_close(ends[0], F.cross_entropy(worst_logits(intervals, y), y, reduction="none"))
    torch.testing.assert_close(fused("residual", "CROWN-IBP", beta=0.3).loss, 0.7 * ends[0] + 0.3 * ends[1])
    torch.testing.assert_close(fused("residual", "CROWN-IBP").margins, intervals)


def test_neither_bound_is_always_the_smaller() -> None:
    """Against the cross-entropy of nine margins that are bounded one by one."""
    _, y = batch()
    differences = []
    for eps in (0.001, 0.1):
        nine = F.cross_entropy(worst_logits(margins("mlp", "CROWN-IBP-R", eps), y), y, reduction="none")
        differences.append(fused("mlp", "CROWN-IBP-R", eps).loss - nine)
    assert torch.cat(differences).min() < 0 < torch.cat(differences).max()


@pytest.mark.parametrize("name", FUSIBLE)
@pytest.mark.parametrize("eps", [0.0, 1e-4, 0.05, 0.5])
def test_gradient_equals_finite_differences(name: str, eps: float) -> None:
    parameters = list(traced("odd strides", seed=3).model.parameters())
    generator = torch.Generator().manual_seed(5)
    direction = [torch.randn(p.shape, generator=generator, dtype=p.dtype) for p in parameters]

    def loss() -> Tensor:
        return fused("odd strides", name, eps, beta=0.7, seed=3).loss.sum()

    @torch.no_grad()
    def value(t: float) -> float:
        before = [p.clone() for p in parameters]
        for p, d in zip(parameters, direction, strict=True):
            p.add_(d, alpha=t)
        result = loss()
        for p, old in zip(parameters, before, strict=True):
            p.copy_(old)
        return result.item()

    gradients = torch.autograd.grad(loss(), parameters, materialize_grads=True)
    slope = sum((g * d).sum().item() for g, d in zip(gradients, direction, strict=True))
    h = 1e-7
    assert (value(h) - value(-h)) / (2 * h) == pytest.approx(slope, rel=1e-4, abs=1e-5)


def test_mean_of_exp() -> None:
    t = torch.cat([torch.zeros(1), torch.logspace(-12, 3, 61)]).double().requires_grad_()
    value = _mean_exp(t)
    (slope,) = torch.autograd.grad(value.sum(), t)
    for at, found, found_slope in zip(t.tolist(), value.tolist(), slope.tolist(), strict=True):
        expected = -math.expm1(-at) / at if at else 1.0
        assert found == pytest.approx(expected, rel=1e-13)
        # −∫ s·exp(−ts) ds, which the closed form loses to cancellation for small t
        expected = (math.exp(-at) * (1 + at) - 1) / at**2 if at > 0.1 else -0.5 + at / 3 - at**2 / 8 + at**3 / 30
        assert found_slope == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("scale", [1e-6, 1.0, 100.0, 1e4])
def test_extreme_margins_stay_finite(scale: float) -> None:
    low = (scale * torch.tensor([[-1.0, 0.5], [2.0, 3.0], [-3.0, -2.0]])).requires_grad_()
    high = (low + scale).detach().requires_grad_()

    def attained(weights: Tensor) -> Tensor:  # every margin at its upper end, by another order of the sums
        return (weights * high).flip(1).sum(1)

    loss = fused_cross_entropy(low, high, attained)
    loss.sum().backward()
    assert loss.isfinite().all()
    assert low.grad.isfinite().all()
    assert high.grad.isfinite().all()
    at_high = F.cross_entropy(worst_logits(high, torch.zeros(3).long()), torch.zeros(3).long(), reduction="none")
    assert (loss >= at_high * (1 - 1e-5) - 1e-5).all()


def test_others_are_refused() -> None:
    for name in ("IBP", "CROWN", "hBox", "CROWN-IBP-RandomSlope"):
        with pytest.raises(UserError, match=f"{name}: no bound of the loss as one output"):
            fused("mlp", name)
