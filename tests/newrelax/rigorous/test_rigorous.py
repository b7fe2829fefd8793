"""Rigorous bounds hold for runs in any order of summation and for the real-valued network; plain ones do not."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from newrelax import Registry, UserError, certify
from newrelax.rigorous import RigorousNetwork
from newrelax.rigorous.plan import Plan
from tests.newrelax.rigorous import runs
from tests.support import nets
from tests.support.nets import Net

REGISTRY = Registry.load()
METHODS = ["IBP", "CROWN-IBP-R", "CROWN", "DeepZ", "alpha-CROWN:steps=3"]


def rigorous(model: nn.Module, shape: tuple[int, ...], method: str = "CROWN") -> RigorousNetwork:
    return RigorousNetwork(model, shape, REGISTRY.get_method(method))


def mixed(seed: int, inputs: int = 24, scale: float = 1.0) -> nn.Sequential:
    """Three layers with weights of both signs."""
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Linear(inputs, 40), nn.ReLU(), nn.Linear(40, 30), nn.ReLU(), nn.Linear(30, 4)).eval()
    for parameter in model.parameters():
        parameter.requires_grad_(False).mul_(scale)
    return model


def absorbing() -> nn.Sequential:
    """x + 2²⁴ − 2²⁴ against 0.9: class 0 in real numbers wherever x > 0.9, but float32 knows x + 2²⁴ to the nearest two."""
    model = nn.Sequential(nn.Linear(1, 1), nn.ReLU(), nn.Linear(1, 2)).eval()
    with torch.no_grad():
        model[0].weight.fill_(1.0)
        model[0].bias.fill_(2.0**24)
        model[2].weight.copy_(torch.tensor([[1.0], [0.0]]))
        model[2].bias.copy_(torch.tensor([-(2.0**24), 0.9]))
    return model


@pytest.mark.parametrize("method", ["CROWN", "CROWN-IBP-R", "alpha-CROWN:steps=3"])
def test_a_plain_certificate_that_the_network_itself_breaks_is_not_given(method: str) -> None:
    model, x, eps = absorbing(), torch.tensor([[2.0]]), 1.05
    inside = torch.tensor([[0.96]])
    assert (inside - x).abs() < eps
    assert runs.exactly(model, inside[0].numpy())[0] > runs.exactly(model, inside[0].numpy())[1]
    assert model(inside).argmax() == 1  # float32's answer is wrong
    assert certify(model, x, [0], eps, method, None) > 0  # and yet it is certified
    margin = rigorous(model, (1,), method).margins(x - eps, x + eps, torch.tensor([0]))
    assert model(inside)[0, 0] - model(inside)[0, 1] >= margin
    assert margin <= 0


@pytest.mark.parametrize("order", runs.ORDERS)
@pytest.mark.parametrize("seed", range(3))
def test_every_order_of_summation_stays_within_the_bounds_of_a_point(order: str, seed: int) -> None:
    """At a single point, bounds are nothing but the allowance for rounding."""
    model = mixed(seed)
    points = torch.rand(4, 24, generator=torch.Generator().manual_seed(seed)) * 2 - 1
    run, _ = rigorous(model, (24,), "IBP").run(points, points)
    lower, upper = (end.numpy() for end in run.ends[len(model) - 1])
    for i, point in enumerate(points.numpy()):
        found = runs.run(model, point, runs.ORDERS[order])
        assert (lower[i] <= found).all()
        assert (found <= upper[i]).all()
        exact = runs.exactly(model, point)
        assert all(
            Fraction(float(low)) <= value <= Fraction(float(high))
            for low, value, high in zip(lower[i], exact, upper[i], strict=True)
        )
    assert (upper - lower).max() < 1e-3


def test_without_the_noise_orders_would_leave_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Plan, "rounding", lambda self, counts, size, largest: torch.zeros_like(size))
    model, point = mixed(0), torch.rand(1, 24, generator=torch.Generator().manual_seed(0))
    run, _ = rigorous(model, (24,), "IBP").run(point, point)
    lower, upper = (end[0].numpy() for end in run.ends[len(model) - 1])
    found = [runs.run(model, point[0].numpy(), order) for order in runs.ORDERS.values()]
    assert any((values < lower).any() or (values > upper).any() for values in found)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("seed", range(3))
def test_margins_hold_over_a_box_in_every_order(method: str, seed: int) -> None:
    model, draw = mixed(seed), torch.Generator().manual_seed(seed)
    x, eps = torch.rand(1, 24, generator=draw), 0.02
    lower, upper = x - eps, x + eps
    margins = rigorous(model, (24,), method).margins(lower, upper, torch.tensor([1]))[0].numpy()
    corners = torch.where(torch.rand(6, 24, generator=draw) < 0.5, lower, upper)
    inside = lower + (upper - lower) * torch.rand(3, 24, generator=draw)
    for point in torch.minimum(torch.cat([corners, inside]), upper).numpy():
        exact = runs.exactly(model, point)
        assert all(exact[1] - exact[j] >= Fraction(float(m)) for j, m in zip((0, 2, 3), margins, strict=True))
        for order in ("one by one", "by size", "shuffled"):
            found = runs.run(model, point, runs.ORDERS[order]).astype(np.float64)
            assert (found[1] - found[[0, 2, 3]] >= margins).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("seed", range(5))
def test_float64_margins_never_exceed_rational_ones(dtype: torch.dtype, seed: int) -> None:
    """Layers that are not bent: the least value over the box is that of rational arithmetic, to the last digit."""
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Linear(6, 9), nn.Linear(9, 3)).to(dtype).eval()
    x = torch.rand(1, 6).to(dtype)
    lower, upper = x - 0.25, x + 0.25
    (first, offset, _), (second, last, _) = runs.layers(model)
    rows = _rational(second) @ _rational(first)
    constants = _rational(second) @ _rational(offset) + _rational(last)
    low, high = _rational(lower[0].numpy()), _rational(upper[0].numpy())
    margins = rigorous(model, (6,)).margins(lower, upper, torch.tensor([0]))[0].tolist()
    for j, margin in zip((1, 2), margins, strict=True):
        row = rows[0] - rows[j]
        exact = constants[0] - constants[j] + np.where(row > 0, row * low, row * high).sum()
        assert 0 < exact - Fraction(margin) < (1e-5 if dtype == torch.float32 else 1e-10)


def _rational(values: np.ndarray) -> np.ndarray:
    return np.vectorize(lambda value: Fraction(float(value)), otypes=[object])(values)


def many_operators(self: Net, x: Tensor) -> Tensor:
    """Leaky ReLU, clamp, absolute value, a larger of two, a transposed convolution, means, concatenation."""
    h = F.leaky_relu(self.conv(x), 0.2)
    h = torch.clamp(h + self.norm(self.mix(h)).abs(), -0.3, 0.7)
    h = torch.cat([torch.maximum(h, 0.3 - h), F.hardsigmoid(h)], 1)
    h = F.avg_pool2d(F.pad(self.up(h), (1, 1, 0, 0), value=0.1), 2).mean(3)
    return self.out(torch.relu(h * 0.7 - 0.1).flatten(1))


def net_of_many() -> nn.Module:
    torch.manual_seed(0)
    layers = {"conv": nn.Conv2d(3, 4, 3, stride=2), "mix": nn.Conv2d(4, 4, 1), "norm": nn.BatchNorm2d(4)}
    return Net(many_operators, up=nn.ConvTranspose2d(8, 3, 2, stride=2), out=nn.Linear(9, 5), **layers).eval()


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("name", [*nets.NETS, "max pool", "many operators"])
def test_margins_hold_for_every_covered_operator(name: str, method: str) -> None:
    model = net_of_many() if name == "many operators" else nets.make(name, torch.float32)
    x, y = nets.batch(2, torch.float32)
    lower, upper = x - 0.02, x + 0.02
    margins = rigorous(model, (3, 8, 8), method).margins(lower, upper, y)
    plain = certify(model, x, y, 0.02, method, None)
    assert (margins > plain - 0.05 * (1 + plain.abs())).all()
    draw = torch.Generator().manual_seed(0)
    for _ in range(20):
        points = torch.where(torch.rand(x.shape, generator=draw) < 0.5, lower, upper)
        for again in (model, *([] if name == "many operators" else [nets.make(name)])):
            logits = again(points.to(next(again.parameters()).dtype)).detach().double()
            others = torch.stack([torch.cat([row[:k], row[k + 1 :]]) for row, k in zip(logits, y, strict=True)])
            assert (logits.gather(1, y[:, None]) - others >= margins).all()


@pytest.mark.parametrize("scale", [1.0, 1e14])
def test_what_may_overflow_is_not_certified(scale: float) -> None:
    model, x = mixed(0, scale=scale), torch.rand(1, 24)
    margins = rigorous(model, (24,)).margins(x, x, model(x).argmax(1))
    assert bool(margins.isfinite().all()) == (scale == 1.0)
    assert not bool(margins.isnan().any())


def weight_norm() -> nn.Module:
    return nn.Sequential(nn.utils.parametrizations.weight_norm(nn.Linear(24, 4)))


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: nn.Sequential(nn.Linear(24, 4), nn.GELU()), "aten.gelu.default has no rigorous bounds of its rounding"),
        (lambda: Net(lambda net, x: (x * x.flip(1)).relu()), "aten.mul.Tensor has no rigorous bounds"),
        (lambda: Net(lambda net, x: x.softmax(1)), "has no rigorous bounds"),
        (
            lambda: Net(lambda net, x: F.interpolate(x.unsqueeze(1), 30, mode="linear").flatten(1)),
            "aten.upsample_linear1d.* has no rigorous bounds",
        ),
        (weight_norm, "computes a constant from the weights, whose rounding has no rigorous bounds"),
    ],
    ids=["GELU", "product", "softmax", "interpolation", "weight norm"],
)
def test_what_the_theorem_does_not_cover_is_refused(build: Callable[[], nn.Module], message: str) -> None:
    with pytest.raises(UserError, match=message) as refusal:
        rigorous(build().eval(), (24,))
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize("method", ["natural", "DeepZ-Cauchy"])
def test_methods_that_certify_nothing_are_refused(method: str) -> None:
    with pytest.raises(UserError, match="gives no sound bounds"):
        rigorous(mixed(0), (24,), method)
