"""Loss fusion: a sound bound of the cross-entropy from one row of back-substitution."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from newrelax.bounds import ENGINES, BoundedNetwork, LossBounds, box, can_fuse, certify, worst_logits
from newrelax.errors import UserError
from newrelax.propagations.fusion import _mean_exp, fused_cross_entropy
from newrelax.registry import Registry
from plugin.certification.attacks import pgd
from tests.support.nets import NETS, batch, make

REGISTRY = Registry.load()
FUSIBLE = [name for name, method in REGISTRY.items() if can_fuse(method)]
EPS = 0.05


def fused(net: nn.Module, name: str, eps: float = EPS, beta: float = 1.0, size: int = 3, **options: bool) -> LossBounds:
    x, y = batch(size)
    return BoundedNetwork(net, (3, 8, 8), REGISTRY.get_method(name), **options).cross_entropy(*box(x, eps), y, beta=beta)


def test_who_fuses() -> None:
    assert FUSIBLE == ["CROWN-IBP", "CROWN-IBP-R", "DeepZ-IBP-R", "CROWN-Soft-IBP-R"]


@pytest.mark.parametrize("eps", [0.01, 0.1, 1.0])
@pytest.mark.parametrize("name", FUSIBLE)
@pytest.mark.parametrize("net", NETS)
def test_no_point_of_the_box_has_a_larger_loss(net: str, name: str, eps: float) -> None:
    model, (x, y) = make(net), batch(4)
    lower, upper = box(x, eps)
    generator = torch.Generator().manual_seed(0)
    inside = torch.rand((200, *x.shape), generator=generator, dtype=x.dtype)
    points = [*(lower + at * (upper - lower) for at in torch.cat([inside, inside.round()]))]
    points.append(pgd(model, x, y, eps, steps=20, restarts=3, generator=generator))
    with torch.no_grad():
        found = torch.stack([F.cross_entropy(model(point), y, reduction="none") for point in points]).amax(0)
        for beta in (1.0, 0.4):
            bound = fused(model, name, eps, beta, size=4).loss
            assert (found <= bound + 1e-10 * (1 + bound)).all()


@pytest.mark.parametrize("name", FUSIBLE)
def test_exact_where_the_box_is_a_point(name: str) -> None:
    model, (x, y) = make("residual"), batch()
    torch.testing.assert_close(fused(model, name, eps=0.0).loss, F.cross_entropy(model(x), y, reduction="none"))


def test_exact_for_one_margin_of_a_linear_network() -> None:
    """Then the interval is exact, its lower end is attained, and the chord touches exp there."""
    model, (x, _) = nn.Sequential(nn.Flatten(), nn.Linear(192, 2)).double(), batch()
    y = torch.tensor([0, 1, 0])
    net = BoundedNetwork(model, (3, 8, 8), REGISTRY.get_method("CROWN-IBP-R"))
    expected = F.cross_entropy(worst_logits(net.bounds(*box(x, EPS), y).margins, y), y, reduction="none")
    torch.testing.assert_close(net.cross_entropy(*box(x, EPS), y).loss, expected)


def test_beta_goes_from_the_intervals_loss_to_the_fused_one() -> None:
    model, (x, y) = make("residual"), batch()
    ends = [fused(model, "CROWN-IBP", beta=beta).loss for beta in (0.0, 1.0)]
    margins = certify(model, x, y, EPS, "IBP")
    torch.testing.assert_close(ends[0], F.cross_entropy(worst_logits(margins, y), y, reduction="none"))
    torch.testing.assert_close(fused(model, "CROWN-IBP", beta=0.3).loss, 0.7 * ends[0] + 0.3 * ends[1])
    torch.testing.assert_close(fused(model, "CROWN-IBP").margins, margins)


def test_neither_bound_is_always_the_smaller() -> None:
    """Against the cross-entropy of nine margins that are bounded one by one."""
    model, (x, y) = make("mlp"), batch()
    differences = []
    for eps in (0.001, 0.1):
        margins = certify(model, x, y, eps, "CROWN-IBP-R")
        nine = F.cross_entropy(worst_logits(margins, y), y, reduction="none")
        differences.append(fused(model, "CROWN-IBP-R", eps).loss - nine)
    assert torch.cat(differences).min() < 0 < torch.cat(differences).max()


@pytest.mark.parametrize("net", ["odd strides", "residual", "max pool"])
@pytest.mark.parametrize("name", FUSIBLE)
def test_equals_plain_auto_lirpa(net: str, name: str) -> None:
    results = []
    for engine in ENGINES:
        model = make(net)
        found = fused(model, name, beta=0.7, engine=engine)
        found.loss.sum().backward()
        results.append([found.loss.detach(), *(p.grad for p in model.parameters())])
    for fast, slow in zip(*results, strict=True):
        torch.testing.assert_close(fast, slow, rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize("name", FUSIBLE)
@pytest.mark.parametrize("eps", [0.0, 1e-4, 0.05, 0.5])
def test_gradient_equals_finite_differences(name: str, eps: float) -> None:
    model = make("odd strides", seed=3)
    parameters = list(model.parameters())
    generator = torch.Generator().manual_seed(5)
    direction = [torch.randn(p.shape, generator=generator, dtype=p.dtype) for p in parameters]

    def value(t: float) -> float:
        with torch.no_grad():
            for p, d in zip(parameters, direction, strict=True):
                p.add_(d, alpha=t)
            result = fused(model, name, eps, beta=0.7).loss.sum()
            for p, d in zip(parameters, direction, strict=True):
                p.sub_(d, alpha=t)
        return result.item()

    fused(model, name, eps, beta=0.7).loss.sum().backward()
    slope = sum((p.grad * d).sum().item() for p, d in zip(parameters, direction, strict=True) if p.grad is not None)
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
            fused(make("mlp"), name)
