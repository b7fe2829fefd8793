"""auto_LiRPA as an engine: the same bounds, layers and gradients as our own passes, on any network that we can trace."""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from newrelax.bounds import BoundedNetwork, MarginBounds, bounds, box, can_fuse, certify, specification
from newrelax.errors import UserError
from newrelax.methods.method import Method
from newrelax.registry import Registry
from newrelax.relaxations.base import relaxation
from newrelax.relaxations.crown import crown
from tests.support.nets import NETS, SHAPE, Net, batch, bounded, make, traced, under

REGISTRY = Registry.load()
PASSES = {"interval", "backward", "ibp+backward", "hybrid"}
SOUND = [name for name, method in REGISTRY.items() if method.sound and method.propagation.name in PASSES]
FUSIBLE = [name for name in SOUND if can_fuse(REGISTRY[name])]
EPS = 0.05

Found = tuple[MarginBounds, list[Tensor]]


def _dense(m: Net, x: Tensor) -> Tensor:
    both = torch.cat([torch.relu(m.a(x)), torch.relu(m.b(x))], 1)
    return m.out(torch.relu(m.c(both)).flatten(1))


def _difference(m: Net, x: Tensor) -> Tensor:
    return m.out(torch.relu(m.a(x) - m.b(torch.relu(m.a(x)))).flatten(1))


def _larger(m: Net, x: Tensor) -> Tensor:
    return m.out(torch.maximum(m.a(x.flatten(1)), m.b(x.flatten(1))))


def _mixed(m: Net, x: Tensor) -> Tensor:
    return m.out(torch.relu(m.b(torch.relu(m.a(x.flatten(2))).transpose(1, 2))).mean(1))


def _gated(m: Net, x: Tensor) -> Tensor:
    return m.out(torch.relu(m.a(x.flatten(1))) * torch.sigmoid(m.b(x.flatten(1))))


FURTHER: dict[str, Callable[[], nn.Module]] = {
    "max pool": lambda: make("max pool"),
    "leaky relu": lambda: nn.Sequential(
        nn.Conv2d(3, 4, 3, 2, 1), nn.LeakyReLU(2.0), nn.Flatten(), nn.Linear(64, 8), nn.LeakyReLU(0.1), nn.Linear(8, 5)
    ),
    "odd max pool": lambda: nn.Sequential(
        nn.Conv2d(3, 4, 3, 1, 1),
        nn.ReLU(),
        nn.MaxPool2d(3, 2, 1, ceil_mode=True),
        nn.Conv2d(4, 2, 3),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(18, 5),
    ),
    "overlapping average pool": lambda: nn.Sequential(
        nn.Conv2d(3, 4, 3, 1, 1), nn.ReLU(), nn.AvgPool2d(3, 2, 1), nn.Conv2d(4, 2, 3), nn.ReLU(), nn.Flatten(), nn.Linear(8, 5)
    ),
    "groups, dilation": lambda: nn.Sequential(
        nn.Conv2d(3, 4, 3, 1, 1),
        nn.ReLU(),
        nn.Conv2d(4, 4, 3, 2, 1, groups=2),
        nn.ReLU(),
        nn.Conv2d(4, 4, 3, 1, 2, dilation=2),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(64, 5),
    ),
    "concatenation": lambda: Net(
        _dense, a=nn.Conv2d(3, 2, 3, 1, 1), b=nn.Conv2d(3, 2, 1), c=nn.Conv2d(4, 3, 3, 2, 1), out=nn.Linear(48, 5)
    ),
    "difference": lambda: Net(_difference, a=nn.Conv2d(3, 3, 3, 1, 1), b=nn.Conv2d(3, 3, 1), out=nn.Linear(192, 5)),
    "maximum": lambda: Net(_larger, a=nn.Linear(192, 8), b=nn.Linear(192, 8), out=nn.Linear(8, 5)),
    "mixer": lambda: Net(_mixed, a=nn.Linear(64, 6), b=nn.Linear(3, 4), out=nn.Linear(4, 5)),
    "transposed convolution": lambda: nn.Sequential(
        nn.Conv2d(3, 4, 3, 2, 1), nn.ReLU(), nn.ConvTranspose2d(4, 2, 3, 2), nn.ReLU(), nn.Flatten(), nn.Linear(162, 5)
    ),
    "weight norm, no bias": lambda: nn.Sequential(
        nn.Flatten(), nn.utils.parametrizations.weight_norm(nn.Linear(192, 8)), nn.ReLU(), nn.Linear(8, 5, bias=False)
    ),
    "ends with relu": lambda: nn.Sequential(nn.Flatten(), nn.Linear(192, 8), nn.ReLU(), nn.Linear(8, 5), nn.ReLU()),
    "sigmoid": lambda: nn.Sequential(nn.Conv2d(3, 4, 3, 2, 1), nn.Sigmoid(), nn.Flatten(), nn.Linear(64, 5)),
    "product": lambda: Net(_gated, a=nn.Linear(192, 8), b=nn.Linear(192, 8), out=nn.Linear(8, 5)),
}
DEEP_AND_SMOOTH: dict[str, Callable[[], nn.Module]] = {
    "gelu": lambda: nn.Sequential(nn.Flatten(), nn.Linear(192, 8), nn.ReLU(), nn.Linear(8, 8), nn.GELU(), nn.Linear(8, 5)),
    "layer norm": lambda: nn.Sequential(nn.Flatten(), nn.Linear(192, 8), nn.LayerNorm(8), nn.ReLU(), nn.Linear(8, 5)),
    "softmax": lambda: nn.Sequential(nn.Flatten(), nn.Linear(192, 8), nn.ReLU(), nn.Linear(8, 5), nn.Softmax(1)),
    "tanh": lambda: nn.Sequential(nn.Flatten(), nn.Linear(192, 8), nn.Tanh(), nn.Linear(8, 5)),
}


@functools.cache
def further(name: str, dtype: torch.dtype = torch.float64) -> BoundedNetwork:
    """Traced once; see `traced`."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return BoundedNetwork((FURTHER | DEEP_AND_SMOOTH)[name]().to(dtype).eval(), SHAPE, REGISTRY["IBP"])


def both(net: BoundedNetwork, method: Method) -> tuple[Found, Found]:
    """Bounds and the gradients of all parameters by our own passes, and by auto_LiRPA."""
    x, y = batch()

    def by(engine: str) -> Found:
        bounded = under(net, method, engine=engine)
        assert bounded.engine == engine
        found = bounded.bounds(*box(x, EPS), y)
        weights = torch.linspace(0.5, 1.5, found.margins.numel(), dtype=x.dtype).view_as(found.margins)
        parameters = list(net.model.parameters())
        return found, list(torch.autograd.grad((found.margins * weights).sum(), parameters, materialize_grads=True))

    return by("newrelax"), by("auto_LiRPA")


def assert_same(one: Found, other: Found) -> None:
    torch.testing.assert_close(one[0].margins, other[0].margins, rtol=1e-9, atol=1e-9)
    assert len(one[0].layers) == len(other[0].layers)
    for ends, others in zip(one[0].layers, other[0].layers, strict=True):
        torch.testing.assert_close(ends, others, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(one[1], other[1], rtol=1e-7, atol=1e-9)


def sampled(model: nn.Module, x: Tensor, y: Tensor, count: int = 300) -> Tensor:
    """The smallest margins found at corners and inside, [batch, classes − 1]."""
    lower, upper = box(x, EPS)
    share = torch.rand((count, *x.shape), generator=torch.Generator().manual_seed(0), dtype=x.dtype)
    share[: count // 2] = share[: count // 2].round()
    with torch.no_grad():
        outputs = model((lower + share * (upper - lower)).flatten(0, 1)).view(count, len(x), -1)
    return torch.einsum("bro,nbo->nbr", specification(y, 5, x.dtype), outputs).amin(0)


@pytest.mark.parametrize(
    ("net", "name"),
    [(net, name) for net in NETS for name in SOUND if net in ("odd strides", "residual") or name in ("IBP", "CROWN", "hBox")],
)
def test_equals_our_own_passes(net: str, name: str) -> None:
    assert_same(*both(traced(net), REGISTRY[name]))


@pytest.mark.parametrize("name", ["IBP", "CROWN", "CROWN-IBP-R", "DeepZ", "hBox-Diag-C"])
@pytest.mark.parametrize("net", FURTHER)
def test_equals_our_own_passes_on_further_networks(net: str, name: str) -> None:
    assert_same(*both(further(net), REGISTRY[name]))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["float32", "float64"])
@pytest.mark.parametrize("name", ["IBP", "CROWN", "CROWN-IBP-R", "DeepZ", "hBox"])
@pytest.mark.parametrize("net", DEEP_AND_SMOOTH)
def test_smooth_functions_of_layers_are_bounded_soundly(net: str, name: str, dtype: torch.dtype) -> None:
    """Where our own passes take intervals for what enters a smooth function, too, the bounds may differ: both have to hold."""
    (x, y), bounded = batch(3, dtype), under(further(net, dtype), REGISTRY[name], engine="auto_LiRPA")
    margins = bounded.bounds(*box(x, EPS), y).margins
    assert margins.isfinite().all()
    slack = 1e-4 if dtype is torch.float32 else 1e-9
    assert (sampled(bounded.model, x, y) >= margins - slack * (1 + margins.abs())).all()
    gradients = torch.autograd.grad(margins.sum(), list(bounded.model.parameters()), allow_unused=True)
    assert all(part.isfinite().all() for part in gradients if part is not None)


@pytest.mark.parametrize("net", ["odd strides", "residual", "max pool"])
@pytest.mark.parametrize("name", FUSIBLE)
def test_the_fused_loss_is_the_same(net: str, name: str) -> None:
    x, y = batch()
    results = []
    for engine in ("newrelax", "auto_LiRPA"):
        fused = bounded(net, REGISTRY[name], engine=engine)
        found = fused.cross_entropy(*box(x, EPS), y, beta=0.7)
        gradients = torch.autograd.grad(found.loss.sum(), list(fused.model.parameters()))
        results.append([found.loss.detach(), found.margins, *found.layers[0], *gradients])
    torch.testing.assert_close(*results, rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize("beta", [0.0, 0.3, 1.0])
def test_mixing_and_its_layers_are_the_same(beta: float) -> None:
    x, y = batch()
    one, other = (
        bounded("residual", REGISTRY["CROWN-IBP"], engine=engine).bounds(*box(x, EPS), y, beta=beta)
        for engine in ("newrelax", "auto_LiRPA")
    )
    torch.testing.assert_close(one.margins, other.margins)
    assert len(other.layers) == 2
    torch.testing.assert_close(one.layers, other.layers)


def test_batch_norm_in_training_uses_the_clean_batch() -> None:
    x, y = batch(6)
    margins = []
    for engine in ("newrelax", "auto_LiRPA"):
        model = make("residual").train()
        net = BoundedNetwork(model, SHAPE, REGISTRY["CROWN-IBP-R"], engine=engine)
        clean = net.observe(x)
        margins.append(net.bounds(*box(x, EPS), y, statistics=clean.statistics).margins)
        assert model.training
    torch.testing.assert_close(*margins, rtol=1e-9, atol=1e-9)


def test_bounds_follow_the_weights() -> None:
    model, (x, y) = make("odd strides"), batch()
    net = BoundedNetwork(model, SHAPE, REGISTRY["CROWN"], engine="auto_LiRPA")
    net.bounds(*box(x, EPS), y)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(0.7)
    torch.testing.assert_close(net.bounds(*box(x, EPS), y).margins, certify(model, x, y, EPS, "CROWN"), rtol=1e-9, atol=1e-9)


def test_outputs_of_several_axes_are_bounded() -> None:
    model, (x, _) = Net(lambda m, x: torch.relu(m.a(x)), a=nn.Conv2d(3, 2, 3, 2)).double(), batch()
    low, high = bounds(model, *box(x, EPS), method="CROWN", engine="auto_LiRPA")
    assert low.shape == (3, 2, 3, 3)
    torch.testing.assert_close((low, high), bounds(model, *box(x, EPS), method="CROWN"), rtol=1e-9, atol=1e-9)


@relaxation("Flat-Tanh", activation="tanh")
def flat_tanh(lower: Tensor, upper: Tensor) -> tuple[Tensor | float, ...]:
    """Constants."""
    return 0.0, torch.tanh(lower), 0.0, torch.tanh(upper)


def test_a_relaxation_of_ones_own_is_a_bound_operator() -> None:
    net = further("tanh")
    one, other = both(net, Method.from_relaxation(flat_tanh))
    torch.testing.assert_close(one[0].margins, other[0].margins, rtol=1e-9, atol=1e-9)
    assert not torch.allclose(one[0].margins, certify(net.model, *batch(), EPS, "CROWN"))


@pytest.mark.parametrize("net", ["mlp", "residual"])
def test_forward_mode_is_auto_lirpas_alone(net: str) -> None:
    (x, y), found = batch(), bounded(net, Method("Forwards", propagation="forward", relaxation=crown))
    assert found.engine == "auto_LiRPA"
    assert (sampled(found.model, x, y) >= found.bounds(*box(x, EPS), y).margins - 1e-9).all()


@pytest.mark.parametrize("name", ["DeepZ-Cauchy", "hBox-Cauchy", "CROWN-IBP-RandomSlope"])
def test_methods_that_it_has_no_way_for_are_refused(name: str) -> None:
    with pytest.raises(UserError, match=r"auto_LiRPA has no .* propagation; leave the engine to newrelax"):
        bounded("mlp", REGISTRY[name], engine="auto_LiRPA")


def test_it_says_nothing(capfd: pytest.CaptureFixture[str]) -> None:
    x, y = batch()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        certify(make("residual"), x, y, EPS, "CROWN", engine="auto_LiRPA")
    assert capfd.readouterr() == ("", "")


def test_a_step_that_raises_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    x, y = batch()

    def broken(*_: object, **__: object) -> None:
        raise AssertionError

    net = bounded("mlp", REGISTRY["CROWN"], engine="auto_LiRPA")
    monkeypatch.setattr(net._propagation._bounded.module, "compute_bounds", broken)  # type: ignore[attr-defined]
    with pytest.raises(UserError, match="cannot pass CROWN through Sequential: AssertionError"):
        net.bounds(*box(x, EPS), y)
