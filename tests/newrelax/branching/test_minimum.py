"""Branch and bound against brute force, by boxes and by neurons."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from newrelax import Registry
from newrelax.branching.boxes import Boxes
from newrelax.branching.neurons import Neurons
from newrelax.branching.root import back_substituted, optimised
from newrelax.branching.unsafe import Unsafe
from newrelax.exact.minimum import Minimum
from newrelax.network.graph import Graph
from newrelax.network.rules import BUILTIN_RULES
from newrelax.propagations.base import Problem
from newrelax.propagations.memory import Memory
from tests.newrelax.exact import brute_force
from tests.newrelax.exact.test_program import Branchy, small_network

SEARCHES = ["boxes", "neurons"]
FUNCTION = torch.tensor([[1.0, -1.0, 0.0]]).double()


def problem_of(model: nn.Module, lower: Tensor, upper: Tensor, method: str = "CROWN") -> Problem:
    """lower, upper: [*shape]."""
    network = Graph(model.requires_grad_(False), lower.shape, BUILTIN_RULES).network()
    lines = Registry.load().get_method(method).lines
    return Problem(network, lower.unsqueeze(0), upper.unsqueeze(0), lines, Memory.of(None, lower.device))


def searched(by: str, problem: Problem, unsafe: Unsafe, method: str = "CROWN", **limits: float) -> Minimum:
    if by == "boxes":
        return Boxes(Registry.load().get_method(method).propagation, clearance=0.0).minimum(problem, unsafe, **limits)
    before, _ = back_substituted(problem, unsafe.matrix.unsqueeze(0))
    return Neurons(clearance=0.0).minimum(problem, unsafe, before, **limits)


def small_box(seed: int) -> tuple[Tensor, Tensor]:
    center = torch.rand(3, generator=torch.Generator().manual_seed(seed)).double()
    return center - 1.0, center + 1.0


@pytest.mark.parametrize("by", SEARCHES)
@pytest.mark.parametrize("seed", [*range(5), *(pytest.param(seed, marks=pytest.mark.slow) for seed in range(5, 200))])
def test_small_networks_by_brute_force(seed: int, by: str) -> None:
    model, (lower, upper) = small_network(seed), small_box(seed)
    found = searched(by, problem_of(model, lower, upper), Unsafe.either(FUNCTION))
    expected = brute_force.minimum(model, lower.numpy(), upper.numpy(), FUNCTION[0].numpy())
    assert found.proven
    assert found.bound == pytest.approx(expected, abs=1e-6)
    assert found.point is not None
    assert (model(found.point) @ FUNCTION[0]).item() == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("by", SEARCHES)
@pytest.mark.parametrize("method", ["IBP", "DeepZ", "CROWN", "hBox"])
def test_any_relaxation_ends_at_the_same_minimum(method: str, by: str) -> None:
    if by == "neurons" and method == "IBP":
        pytest.skip("lines of intervals are constants: branching on neurons takes a relaxation with slopes")
    model, (lower, upper) = small_network(3), small_box(3)
    found = searched(by, problem_of(model, lower, upper, method), Unsafe.either(FUNCTION), method, seconds=60)
    expected = brute_force.minimum(model, lower.numpy(), upper.numpy(), FUNCTION[0].numpy())
    assert found.bound == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("by", SEARCHES)
def test_a_conjunction_is_the_largest_of_its_rows(by: str) -> None:
    """Of two functions the larger one counts: its least value, found by sampling, is at least the bound and close to it."""
    model, (lower, upper) = small_network(7), small_box(7)
    unsafe = Unsafe.any_of([(torch.tensor([[1.0, -1, 0], [0, -1, 1]]).double(), torch.tensor([0.1, -0.2]).double())])
    found = searched(by, problem_of(model, lower, upper), unsafe, seconds=60)
    points = lower + (upper - lower) * torch.rand(200_000, 3, generator=torch.Generator().manual_seed(0)).double()
    sampled = unsafe.worth(model(points)).min().item()
    assert found.bound <= sampled + 1e-9
    assert sampled - found.bound < 0.05
    assert found.value == pytest.approx(found.bound, abs=1e-5)


@pytest.mark.parametrize("by", SEARCHES)
@pytest.mark.parametrize("shift", [0.2, -0.2], ids=["above", "below"])
def test_only_asked_whether_it_can_fall_to_zero(shift: float, by: str) -> None:
    model, (lower, upper) = small_network(4), small_box(4)
    least = brute_force.minimum(model, lower.numpy(), upper.numpy(), FUNCTION[0].numpy())
    with torch.no_grad():
        model[-1].bias[0] += shift - least
    found = searched(by, problem_of(model, lower, upper), Unsafe.either(FUNCTION), above=1e-7, below=0.0)
    assert (found.bound >= 1e-7) == (shift > 0)
    assert (found.value <= 0) == (shift < 0)


def test_other_bends_than_relus_are_left_to_the_program() -> None:
    torch.manual_seed(1)
    model = Branchy().double().eval()
    x = torch.rand(1, 4, 4).double()
    problem = problem_of(model, x - 0.3, x + 0.3)
    unsafe = Unsafe.either(torch.tensor([[1.0, 0.0, -1.0]]).double())
    found = searched("neurons", problem, unsafe, seconds=60)
    points = x + 0.6 * torch.rand(2000, 1, 4, 4, generator=torch.Generator().manual_seed(0)).double() - 0.3
    assert (model(points) @ unsafe.matrix[0]).min() >= found.bound - 1e-6
    assert found.value == pytest.approx(found.bound, abs=1e-5)


@pytest.mark.parametrize("by", SEARCHES)
def test_a_search_that_ends_early_still_bounds(by: str) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 40), nn.ReLU(), nn.Linear(40, 40), nn.ReLU(), nn.Linear(40, 3)).double().eval()
    lower, upper = -torch.ones(6).double(), torch.ones(6).double()
    found = searched(by, problem_of(model, lower, upper), Unsafe.either(FUNCTION), seconds=0.3)
    points = 2 * torch.rand(20_000, 6, generator=torch.Generator().manual_seed(0)).double() - 1
    assert not found.proven
    assert -math.inf < found.bound <= (model(points) @ FUNCTION[0]).min().item()
    assert found.bound <= found.value


def test_optimised_ends_hold_and_are_tighter() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 20), nn.ReLU(), nn.Linear(20, 20), nn.ReLU(), nn.Linear(20, 3)).double().eval()
    lower, upper = -torch.ones(6).double(), torch.ones(6).double()
    problem = problem_of(model, lower, upper)
    before, _ = back_substituted(problem, FUNCTION.unsqueeze(0))
    again = optimised(problem, before, 20, math.inf)
    points = 2 * torch.rand(20_000, 6, generator=torch.Generator().manual_seed(0)).double() - 1
    second = model[2](torch.relu(model[0](points)))
    low, high = again[3][0]
    assert (second >= low - 1e-9).all()
    assert (second <= high + 1e-9).all()
    assert (low >= before[3][0][0]).all()
    assert (high - low).mean() < 0.97 * (before[3][0][1] - before[3][0][0]).mean()
