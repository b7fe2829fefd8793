"""Examples behind other axes, folded into them, next to constants: what the front end does with where they lie."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from newrelax import Registry, bounds, certify
from newrelax.bounds import BoundedNetwork
from newrelax.network.layout import Layout
from tests.support.nets import Net, under

REGISTRY = Registry.load()
LAYOUTS = [
    Layout(),
    Layout(1),
    Layout(2),
    Layout(0, 4),
    Layout(1, 4),
    Layout(0, 4, 2),
    Layout(1, 4, 4),
    Layout(2, 6, 3),
    Layout(alone=True),
]


@pytest.mark.parametrize("layout", LAYOUTS, ids=str)
def test_native_and_canonical_are_inverse(layout: Layout) -> None:
    shape = (1,) if layout.alone else (2, 3, 5) if layout.multiple == 1 else (layout.multiple, 2, 3)
    x = torch.arange(7 * math.prod(shape)).view(7, *shape)
    native = layout.native(x)
    assert tuple(native.shape) == layout.sizes(shape, 7)
    assert torch.equal(layout.canonical(native), x)
    assert layout.shape(layout.sizes(shape)) == shape
    # every axis but the examples' own is where it is said to be
    for dim, size in enumerate(native.shape):
        axis = layout.axis_of(dim, shape)
        assert layout.axis_of(dim - native.ndim, shape) == axis
        if axis is None:
            assert dim == layout.axis
        else:
            assert x.shape[axis] == size


@pytest.mark.parametrize("order", [(0, 1, 2), (1, 0, 2), (1, 2, 0)])
@pytest.mark.parametrize("sizes", [(-1, 6), (6, -1), (2, -1, 3), (3, -1, 2), (-1,)])
def test_a_view_keeps_examples_apart_or_says_that_it_does_not(order: tuple[int, ...], sizes: tuple[int, ...]) -> None:
    """Against a tensor that holds the numbers of its examples."""
    n, shape = 5, (2, 3)
    axis = order.index(0)
    before = Layout(axis)
    x = torch.arange(n).view(n, 1, 1).expand(n, *shape)
    viewed = before.native(x).reshape(sizes)
    places = [i for i, size in enumerate(sizes) if size == -1]
    one = tuple(before.native(x[:1]).reshape(sizes).shape)
    found = before.after_view(shape, places[0], one)
    if found is not None:
        apart = found.canonical(viewed)
        assert all(bool((apart[i] == i).all()) for i in range(n))
    else:
        guesses = [Layout(places[0], one[places[0]], k) for k in range(1, one[places[0]] + 1) if one[places[0]] % k == 0]
        assert not any(all(bool((g.canonical(viewed)[i] == i).all()) for i in range(n)) for g in guesses)


def _ends(net: nn.Module, x: Tensor, eps: float, method: str) -> tuple[Tensor, Tensor]:
    return bounds(net.eval(), x - eps, x + eps, method=method)


def test_intervals_of_softmax_are_exact() -> None:
    """The least share: the logit at its lower end, all others at their upper ones."""
    net = Net(lambda m, x: torch.softmax(x, 1))
    x = torch.randn(4, 5, dtype=torch.float32)
    lower, upper = _ends(net, x, 0.3, "IBP")
    for i in range(5):
        step = torch.full((5,), 0.3)
        step[i] = -0.3
        assert torch.allclose(lower[:, i], torch.softmax(x + step, 1)[:, i], atol=1e-6)
        assert torch.allclose(upper[:, i], torch.softmax(x - step, 1)[:, i], atol=1e-6)


@pytest.mark.parametrize("method", ["IBP", "CROWN", "CROWN-IBP-R", "DeepZ", "hBox", "IBP-Widen"])
@pytest.mark.parametrize("radius", [0.1, 30.0])
def test_normalisations_over_wide_boxes_have_bounds(method: str, radius: float) -> None:
    """float32 loses the ε under a root next to variances of a thousand; the network does not."""
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Linear(6, 8), nn.LayerNorm(8), nn.ReLU(), nn.Linear(8, 8), nn.RMSNorm(8), nn.Softmax(1), nn.Linear(8, 3)
    )
    x = torch.randn(3, 6)
    lower, upper = _ends(net, x, radius, method)
    assert lower.isfinite().all()
    assert upper.isfinite().all()
    points = x + radius * (2 * torch.rand(500, *x.shape) - 1).sign()
    with torch.no_grad():
        values = net(points.flatten(0, 1)).unflatten(0, points.shape[:2])
    scale = 1 + float(upper.detach().abs().max())
    assert bool((values >= lower - 1e-5 * scale).all())
    assert bool((values <= upper + 1e-5 * scale).all())


@pytest.mark.parametrize("method", ["CROWN", "CROWN-IBP-R", "DeepZ", "hBox"])
def test_bounds_next_to_large_numbers_are_below(method: str) -> None:
    """An upper line of exp over a wide interval is huge; what is left of its difference must not certify anything."""
    torch.manual_seed(0)
    net = Net(lambda m, x: torch.exp(x * m.k) @ m.w, k=torch.rand(6) + 0.5, w=torch.rand(6, 2))
    x = torch.zeros(1, 6)
    bounded = BoundedNetwork(net, (6,), REGISTRY[method])
    for scale in torch.linspace(90, 150, 40):
        net.k.fill_(float(scale))
        lower = bounded.linear_bounds(x - 0.5, x + 0.5, torch.eye(2)[None]).lower
        assert bool((lower <= net(x) + 1e-3).all())


def test_parts_that_compute_with_more_digits() -> None:
    """A float32 network with a float64 part: bounds compute in float32 throughout."""

    class Part(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b, self.c = nn.Linear(6, 8), nn.Linear(8, 8, dtype=torch.float64), nn.Linear(8, 3)

        def forward(self, x: Tensor) -> Tensor:
            return self.c(torch.relu(self.b(torch.relu(self.a(x)).double())).float())

    lower = certify(Part().eval(), torch.rand(2, 6), torch.tensor([0, 1]), 0.01, method="CROWN")
    assert lower.dtype == torch.float32
    assert lower.isfinite().all()


@pytest.mark.parametrize("equation", ["btf,bsf->bts", "...f,...f->...", "bij,bjk->bik", "bi,bj->bij", "btf,btf->b"])
def test_contractions_of_two_steps(equation: str) -> None:
    left = equation.split(",")[0]
    shape = (2, 4) if len(left.replace("...", "xx")) == 3 else (4,)
    if equation == "bij,bjk->bik":
        function = lambda m, x: torch.einsum(equation, m.a(x), m.b(x).transpose(1, 2)).flatten(1)  # noqa: E731
    else:
        function = lambda m, x: torch.einsum(equation, m.a(x), m.b(x)).reshape(x.shape[0], -1)  # noqa: E731
    torch.manual_seed(0)
    net, x = Net(function, a=nn.Linear(4, 3), b=nn.Linear(4, 3)), torch.rand(3, *shape)
    points = x + 0.05 * (2 * torch.rand(100, *x.shape) - 1)
    with torch.no_grad():
        values = net(points.flatten(0, 1)).unflatten(0, points.shape[:2])
    traced, outputs = BoundedNetwork(net.eval(), x.shape[1:], REGISTRY["IBP"]), torch.eye(values.shape[2]).expand(3, -1, -1)
    for method in ("IBP", "CROWN", "DeepZ"):
        bounded = under(traced, REGISTRY[method])
        for sign in (1, -1):
            lower = bounded.linear_bounds(x - 0.05, x + 0.05, sign * outputs).lower
            assert bool((sign * values >= lower - 1e-5).all())
