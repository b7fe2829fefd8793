"""Properties of small networks against brute force: boxes for few inputs, neurons for many, and what no time is left for."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from newrelax import UserError
from plugin.certification.properties import Answer, decide
from plugin.formats.property import Case, Conjunction, Property
from tests.newrelax.exact import brute_force
from tests.newrelax.exact.test_program import small_network

MANY = 12
"""Inputs of the wide networks: more than those whose box is halved."""


def asked(lower: Tensor, upper: Tensor, *conjunctions: tuple[list[list[float]], list[float]]) -> Property:
    unsafe = tuple(Conjunction(torch.tensor(m).double(), torch.tensor(limit).double()) for m, limit in conjunctions)
    return Property(len(lower), 3, (Case(lower.double(), upper.double(), unsafe),))


def wide(seed: int) -> nn.Sequential:
    torch.manual_seed(seed)
    layers = [nn.Linear(MANY, 5), nn.ReLU(), nn.Linear(5, 4), nn.ReLU(), nn.Linear(4, 3)]
    return nn.Sequential(*layers).double().eval()


def least(model: nn.Sequential, lower: Tensor, upper: Tensor, row: list[float]) -> float:
    return brute_force.minimum(model, lower.numpy(), upper.numpy(), torch.tensor(row).double().numpy())


@pytest.mark.parametrize("shift", [0.01, -0.01], ids=["unsat", "sat"])
@pytest.mark.parametrize("inputs", [3, MANY])
@pytest.mark.parametrize("seed", range(2))
def test_verdicts_are_those_of_brute_force(seed: int, inputs: int, shift: float) -> None:
    """z₀ − z₁ ≤ limit, where the limit lies a little below or above the true minimum."""
    model = small_network(seed) if inputs == 3 else wide(seed)
    lower, upper = -torch.ones(inputs).double(), torch.ones(inputs).double()
    row = [1.0, -1.0, 0.0]
    limit = least(model, lower, upper, row) - shift
    answer = decide(model, (inputs,), asked(lower, upper, ([row], [limit])), 60)
    assert answer.verdict == ("unsat" if shift > 0 else "sat")
    if answer.point is not None:
        assert ((answer.point >= lower) & (answer.point <= upper)).all()
        assert (model(answer.point) @ torch.tensor(row).double()).item() <= limit


def test_any_conjunction_is_enough_and_all_its_rows_are_needed() -> None:
    model, lower, upper = small_network(1), -torch.ones(3).double(), torch.ones(3).double()
    points = lower + 2 * torch.rand(50_000, 3, generator=torch.Generator().manual_seed(0)).double()
    z = model(points)
    low, high = z[:, 0].min().item(), z[:, 0].max().item()
    never = ([[1.0, 0, 0]], [low - 1.0])
    both = ([[1.0, 0, 0], [-1.0, 0, 0]], [low + 0.1, -(high - 0.1)])  # each alone is met, together they are not
    assert decide(model, (3,), asked(lower, upper, never, both), 60).verdict == "unsat"
    met = ([[1.0, 0, 0]], [low + 0.1])
    assert decide(model, (3,), asked(lower, upper, never, both, met), 60).verdict == "sat"


def test_each_case_has_a_box_of_its_own() -> None:
    """A case that holds everywhere does not answer for one that fails."""
    model, lower, upper = small_network(2), -torch.ones(3).double(), torch.ones(3).double()
    limit = model(torch.zeros(1, 3).double())[0, 0].item()
    unsafe = (Conjunction(torch.tensor([[1.0, 0, 0]]).double(), torch.tensor([limit - 1e-3]).double()),)
    origin = Case(torch.zeros(3).double(), torch.zeros(3).double(), unsafe)
    whole = Case(lower, upper, unsafe)
    assert decide(model, (3,), Property(3, 3, (origin,)), 60).verdict == "unsat"
    assert decide(model, (3,), Property(3, 3, (origin, whole)), 60).verdict == "sat"


def test_without_time_it_says_so() -> None:
    torch.manual_seed(0)
    layers = [nn.Linear(6, 60), nn.ReLU(), nn.Linear(60, 60), nn.ReLU(), nn.Linear(60, 3)]
    model = nn.Sequential(*layers).double().eval()
    lower, upper = -torch.ones(6).double(), torch.ones(6).double()
    points = 2 * torch.rand(20_000, 6, generator=torch.Generator().manual_seed(0)).double() - 1
    limit = (model(points)[:, 0] - model(points)[:, 1]).min().item() - 0.1
    answer = decide(model, (6,), asked(lower, upper, ([[1.0, -1.0, 0.0]], [limit])), 0.01)
    assert answer.verdict == "timeout"
    assert answer.note


def test_the_network_answers_for_itself_in_its_own_precision() -> None:
    """A float32 network's counterexample is one as float32 computes it."""
    model = small_network(4).float()
    lower, upper = -torch.ones(3), torch.ones(3)
    limit = least(model.double(), lower.double(), upper.double(), [1.0, -1.0, 0.0]) + 1e-3
    answer: Answer = decide(model.float(), (3,), asked(lower, upper, ([[1.0, -1.0, 0.0]], [limit])), 60)
    assert answer.verdict == "sat"
    assert answer.point is not None
    assert answer.point.dtype == torch.float32
    assert (model(answer.point[None])[0] @ torch.tensor([1.0, -1.0, 0.0])).item() <= limit


def test_a_property_of_another_network_is_refused() -> None:
    lower, upper = -torch.ones(4), torch.ones(4)
    with pytest.raises(UserError, match="4 inputs"):
        decide(small_network(0), (3,), asked(lower, upper, ([[1.0, 0, 0]], [0.0])), 1)


def test_networks_without_relus_are_searched_by_boxes() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(2, 6), nn.Tanh(), nn.Linear(6, 3)).double().eval()
    lower, upper = -torch.ones(2).double(), torch.ones(2).double()
    grid = torch.cartesian_prod(torch.linspace(-1, 1, 201).double(), torch.linspace(-1, 1, 201).double())
    low = model(grid)[:, 0].min().item()
    assert decide(model, (2,), asked(lower, upper, ([[1.0, 0, 0]], [low - 0.01])), 60).verdict == "unsat"
    assert decide(model, (2,), asked(lower, upper, ([[1.0, 0, 0]], [low + 0.01])), 60).verdict == "sat"
    assert math.isfinite(low)
