"""Networks and numbers that once gave wrong bounds, or none: each with what is true by hand or by sampling."""

from __future__ import annotations

import math
import time
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from newrelax.branching.leaf import encoded, solve
from newrelax.branching.neurons import Neurons
from newrelax.branching.root import back_substituted, optimised
from newrelax.branching.unsafe import Unsafe
from plugin.certification.properties import decide
from plugin.formats.property import Case, Conjunction, Property
from tests.newrelax.branching.test_minimum import problem_of


def linear(rows: list[list[float]], bias: list[float]) -> nn.Linear:
    layer = nn.Linear(len(rows[0]), len(rows)).double()
    with torch.no_grad():
        layer.weight.copy_(torch.tensor(rows))
        layer.bias.copy_(torch.tensor(bias))
    return layer


def asked(inputs: int, outputs: int, rows: list[list[float]], limit: list[float], reach: float = 1.0) -> Property:
    end = torch.full((inputs,), reach).double()
    unsafe = Conjunction(torch.tensor(rows).double().view(-1, outputs), torch.tensor(limit).double())
    return Property(inputs, outputs, (Case(-end, end, (unsafe,)),))


def test_small_coefficients_of_wide_inputs_count() -> None:
    """1 − 5e-10·Σx over [0, 1e8]¹² falls to 0.4; the solver itself drops coefficients below 1e-9."""
    model = linear([[-5e-10] * 12], [1.0])
    problem = problem_of(model, torch.zeros(12).double(), torch.full((12,), 1e8).double())
    encoding = encoded(problem)
    assert encoding is not None
    found = solve(encoding, Unsafe.either(torch.ones(1, 1).double()), 10)
    assert found.bound == pytest.approx(0.4, abs=1e-6)
    assert solve(encoding, Unsafe.either(torch.ones(1, 1).double(), torch.tensor([0.6]).double()), 10, above=1e-4).bound < 0


class Exploding(nn.Module):
    """exp of what exceeds every number, and a ReLU beside it."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.last = linear([[2000.0] * 12] * 3, [0.0] * 3), nn.Linear(12, 3).double(), nn.Linear(6, 1).double()

    def forward(self, x: Tensor) -> Tensor:
        return self.last(torch.cat([self.a(x).exp(), self.b(x).relu()], 1))


def test_what_is_no_number_proves_nothing() -> None:
    torch.manual_seed(0)
    problem = problem_of(Exploding().eval(), -torch.ones(12).double(), torch.ones(12).double())
    unsafe = Unsafe.either(torch.ones(1, 1).double())
    before, _ = back_substituted(problem, unsafe.matrix.unsqueeze(0))
    assert Neurons().minimum(problem, unsafe, before, seconds=2).bound == -math.inf
    assert decide(Exploding().eval(), (12,), asked(12, 1, [[1.0]], [0.0]), 2).verdict != "unsat"


@pytest.mark.parametrize("method", ["DeepZ", "hBox", "CROWN-0", "CROWN"])
def test_optimised_ends_hold_for_any_relaxation(method: str) -> None:
    torch.manual_seed(1)
    model = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 6), nn.ReLU(), nn.Linear(6, 1)).double().eval()
    problem = problem_of(model, -torch.ones(4).double(), torch.ones(4).double(), method)
    before, _ = back_substituted(problem, torch.ones(1, 1, 1).double())
    low, high = optimised(problem, before, 20, math.inf)[3][0]
    points = 2 * torch.rand(50_000, 4, generator=torch.Generator().manual_seed(0)).double() - 1
    second = model[2](torch.relu(model[0](points)))
    assert (second >= low - 1e-9).all()
    assert (second <= high + 1e-9).all()


class Calls(nn.Module):
    """A function of some layers."""

    def __init__(self, function: Callable[[Tensor], Tensor], *layers: nn.Module) -> None:
        super().__init__()
        self.layers, self.function = nn.ModuleList(layers), function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x)


def parallel(inputs: int) -> nn.Module:
    """Two branches whose ReLUs are no ancestors of each other."""
    a, b, last = nn.Linear(inputs, 5).double(), nn.Linear(inputs, 5).double(), nn.Linear(10, 1).double()
    return Calls(lambda x: last(torch.cat([a(x).relu(), b(x).relu()], 1)), a, b, last).eval()


def both_signs(inputs: int) -> nn.Module:
    """Two ReLUs on one step."""
    a, last = nn.Linear(inputs, 5).double(), nn.Linear(5, 1).double()
    return Calls(lambda x: last(a(x).relu() + torch.relu(-2 * a(x))), a, last).eval()


def product(inputs: int) -> nn.Module:
    a, b, last = nn.Linear(inputs, 3).double(), nn.Linear(inputs, 3).double(), nn.Linear(3, 1).double()
    return Calls(lambda x: last(a(x).relu() * b(x)), a, b, last).eval()


@pytest.mark.parametrize(
    ("build", "inputs"), [(parallel, 12), (both_signs, 12), (product, 3)], ids=["branches", "two on one step", "product"]
)
def test_legal_networks_are_answered(build: Callable[[int], nn.Module], inputs: int) -> None:
    """A limit a little below the sampled minimum is never called met without a point, one above it always is."""
    torch.manual_seed(0)
    model = build(inputs)
    points = 2 * torch.rand(100_000, inputs, generator=torch.Generator().manual_seed(0)).double() - 1
    least = model(points).min().item()
    below = decide(model, (inputs,), asked(inputs, 1, [[1.0]], [least - 2.0]), 20)
    assert below.verdict in ("unsat", "unknown", "timeout")
    assert decide(model, (inputs,), asked(inputs, 1, [[1.0]], [least]), 20).verdict == "sat"


def test_a_conjunction_that_needs_both_rows_where_nothing_crosses() -> None:
    """y₀ = 1 + x·0.01 and y₁ = −y₀: y₀ ≤ 1.9 and y₁ ≤ −2.1 exclude each other, though each row alone is met somewhere."""
    model = nn.Sequential(
        linear([[0.01] * 12] * 2, [1.0, 1.0]), nn.ReLU(), linear([[1.0, 1.0], [-1.0, -1.0]], [0.0, 0.0])
    ).eval()
    assert decide(model, (12,), asked(12, 2, [[1.0, 0.0], [0.0, 1.0]], [1.99, -2.01]), 20).verdict == "unsat"
    straight = linear([[1.0, 1.0], [-1.0, -1.0]], [0.0, 0.0]).eval()
    assert decide(straight, (2,), asked(2, 2, [[1.0, 0.0], [0.0, 1.0]], [-0.5, -0.5]), 20).verdict == "unsat"


def test_a_conjunction_without_rows_is_always_met() -> None:
    model = linear([[1.0, 1.0]], [0.0]).eval()
    assert decide(model, (2,), asked(2, 1, [], []), 5).verdict == "sat"


def test_what_the_solver_had_no_time_for_stays_open() -> None:
    """LeakyReLUs are the solver's: a search that goes on gives it its time again."""
    torch.manual_seed(0)
    layers = [nn.Linear(12, 60), nn.LeakyReLU(0.1), nn.Linear(60, 60), nn.LeakyReLU(0.1), nn.Linear(60, 1)]
    model = nn.Sequential(*layers).double().eval()
    problem = problem_of(model, -torch.ones(12).double(), torch.ones(12).double())
    unsafe = Unsafe.either(torch.ones(1, 1).double())
    before, _ = back_substituted(problem, unsafe.matrix.unsqueeze(0))
    search = Neurons().search(problem, unsafe, before)
    assert not search.run(0.01).proven
    began = time.monotonic()
    assert not search.run(1.0).proven
    assert time.monotonic() - began > 0.5  # it went on, and did not call the case closed


def test_deadlines_hold_for_many_cases() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(12, 30), nn.ReLU(), nn.Linear(30, 30), nn.ReLU(), nn.Linear(30, 1)).double().eval()
    case = asked(12, 1, [[1.0]], [-2.0]).cases[0]
    began = time.monotonic()
    decide(model, (12,), Property(12, 1, (case,) * 200), 1.0)
    assert time.monotonic() - began < 6.0
