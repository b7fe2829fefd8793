"""The mixed-integer program against brute force, and against the network itself."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from newrelax import Registry, UserError
from newrelax.exact.encoding import Encoding, encode
from newrelax.exact.program import CLEARANCE, minimum
from newrelax.network.graph import Graph
from newrelax.network.rules import BUILTIN_RULES
from newrelax.propagations.base import Problem
from newrelax.propagations.linear_pass import LinearPass, Mode
from newrelax.propagations.memory import Memory
from tests.newrelax.exact import brute_force


def encoded(model: nn.Module, lower: torch.Tensor, upper: torch.Tensor) -> Encoding:
    """With CROWN's bounds; lower, upper: [*shape]."""
    network = Graph(model, lower.shape, BUILTIN_RULES).network()
    lines = Registry.load().get_method("CROWN").lines
    low, high = lower.unsqueeze(0), upper.unsqueeze(0)
    with torch.no_grad():
        found = LinearPass(Problem(network, low, high, lines, Memory.of(None, low.device)), Mode())
        found.lower_bounds(torch.eye(math.prod(network.steps[-1].shape), dtype=low.dtype).unsqueeze(0))
        return encode(network, low, high, found.before)


def small_network(seed: int) -> nn.Sequential:
    """Up to twelve ReLUs in one to three layers."""
    draw = torch.Generator().manual_seed(seed)
    widths = [[5], [8], [4, 4], [6, 6], [4, 4, 4], [3, 2, 4]][int(torch.randint(6, (1,), generator=draw))]
    torch.manual_seed(seed)
    layers: list[nn.Module] = []
    before = 3
    for width in widths:
        layers += [nn.Linear(before, width), nn.ReLU()]
        before = width
    return nn.Sequential(*layers, nn.Linear(before, 3)).double().eval()


@pytest.mark.parametrize("seed", [*range(6), *(pytest.param(seed, marks=pytest.mark.slow) for seed in range(6, 200))])
def test_small_networks_by_brute_force(seed: int) -> None:
    model = small_network(seed)
    center = torch.rand(3, generator=torch.Generator().manual_seed(seed)).double()
    lower, upper = center - 1.0, center + 1.0
    function = torch.tensor([1.0, -1.0, 0.0]).double()
    found = minimum(encoded(model, lower, upper), function)
    expected = brute_force.minimum(model, lower.numpy(), upper.numpy(), function.numpy())
    assert found.proven
    assert found.bound == pytest.approx(expected, abs=1e-6)
    assert found.point is not None
    assert (model(found.point) @ function).item() == pytest.approx(expected, abs=1e-5)


class Branchy(nn.Module):
    """A convolution, a skip connection, an average, a leaky ReLU, a clamp and an absolute value."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.last = nn.Conv2d(1, 2, 3, padding=1), nn.Conv2d(2, 2, 1), nn.Linear(8, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h = nn.functional.leaky_relu(self.first(x), 0.2)
        h = torch.clamp(h + self.second(h).abs(), -0.3, 0.4)
        return self.last(nn.functional.avg_pool2d(h, 2).flatten(1))


def test_the_encoding_is_the_network_at_points() -> None:
    """At a point of the box the variables of the crossing ReLUs are their values, and the outputs' form is the output."""
    torch.manual_seed(0)
    model = Branchy().double().eval()
    x = torch.rand(1, 4, 4).double()
    encoding = encoded(model, x - 0.2, x + 0.2)
    assert encoding.crossing > 5
    for _ in range(20):
        point = (x + 0.4 * torch.rand_like(x) - 0.2).flatten()
        variables = point
        for units in encoding.units:
            variables = torch.cat([variables, torch.relu(units.pre.matrix.T @ variables + units.pre.constant)])
        outputs = encoding.outputs.matrix.T @ variables + encoding.outputs.constant
        assert torch.allclose(outputs, model(point.view(1, 1, 4, 4))[0], atol=1e-10)


def test_no_point_is_below_the_minimum_and_one_is_at_it() -> None:
    torch.manual_seed(1)
    model = Branchy().double().eval()
    x = torch.rand(1, 4, 4).double()
    function = torch.tensor([1.0, 0.0, -1.0]).double()
    found = minimum(encoded(model, x - 0.3, x + 0.3), function)
    points = x + 0.6 * torch.rand(2000, 1, 4, 4).double() - 0.3
    assert (model(points) @ function).min() >= found.bound - 1e-6
    assert found.point is not None
    assert (model(found.point.view(1, 1, 4, 4)) @ function).item() == pytest.approx(found.value, abs=1e-5)


@pytest.mark.parametrize("shift", [0.5, -0.5], ids=["above", "below"])
def test_only_asked_whether_it_can_fall_to_zero(shift: float) -> None:
    """Cheaper than the minimum: a function that stays above is infeasible, one that does not gives a point."""
    model = small_network(3)
    lower, upper = torch.zeros(3).double(), torch.ones(3).double()
    function = torch.tensor([1.0, -1.0, 0.0]).double()
    encoding = encoded(model, lower, upper)
    least = minimum(encoding, function).bound
    with torch.no_grad():
        model[-1].bias[0] += shift - least  # the minimum is now at shift
    found = minimum(encoded(model, lower, upper), function, above=CLEARANCE)
    assert (found.bound >= CLEARANCE) == (shift > 0)
    assert (found.point is not None) == (shift < 0)


def test_a_time_limit_leaves_it_open() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(20, 60), nn.ReLU(), nn.Linear(60, 60), nn.ReLU(), nn.Linear(60, 2)).double().eval()
    found = minimum(
        encoded(model, -torch.ones(20).double(), torch.ones(20).double()), torch.tensor([1.0, -1.0]).double(), seconds=0.2
    )
    assert not found.proven


def test_what_is_not_made_of_relus_is_refused() -> None:
    with pytest.raises(UserError, match="gelu.* is not made of ReLUs"):
        encoded(
            nn.Sequential(nn.Linear(2, 2), nn.GELU(), nn.Linear(2, 2)).double().eval(),
            torch.zeros(2).double(),
            torch.ones(2).double(),
        )


def test_nothing_reaches_standard_output(capfd: pytest.CaptureFixture[str]) -> None:
    model = small_network(4)
    minimum(encoded(model, -torch.ones(3).double(), torch.ones(3).double()), torch.tensor([1.0, -1.0, 0.0]).double())
    assert capfd.readouterr().out == ""
