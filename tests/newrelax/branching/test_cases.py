"""Bounds of cases: no input with the signs of a case is worth less than its bound, whatever slopes and multipliers."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from newrelax.branching.bounder import Bounder
from newrelax.branching.cases import Cases
from newrelax.branching.root import back_substituted
from newrelax.branching.unsafe import Unsafe
from tests.newrelax.branching.test_minimum import problem_of


class Skip(nn.Module):
    """A convolution, a skip connection and two ReLU steps, one of which stands on the other."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.last = nn.Conv2d(1, 2, 3, padding=1), nn.Conv2d(2, 2, 3, padding=1), nn.Linear(32, 3)

    def forward(self, x: Tensor) -> Tensor:
        h = torch.relu(self.first(x))
        h = torch.relu(h + self.second(h))
        return self.last(h.flatten(1))

    def signs(self, x: Tensor) -> list[Tensor]:
        """Pre-activations of both ReLU steps, flat."""
        z = self.first(x)
        h = torch.relu(z)
        return [z.flatten(1), (h + self.second(h)).flatten(1)]


@pytest.mark.parametrize("steps", [0, 15], ids=["as given", "after ascent"])
@pytest.mark.parametrize("seed", range(3))
def test_no_input_of_a_case_is_worth_less(seed: int, steps: int) -> None:
    torch.manual_seed(seed)
    model = Skip().double().eval()
    x = torch.rand(1, 4, 4).double()
    problem = problem_of(model, x - 0.4, x + 0.4)
    unsafe = Unsafe.either(torch.tensor([[1.0, -1.0, 0.0]]).double())
    before, _ = back_substituted(problem, unsafe.matrix.unsqueeze(0))
    bounder = Bounder(problem, unsafe, before)
    cases = bounder.whole
    draw = torch.Generator().manual_seed(seed)
    for _ in range(3):  # eight cases, told apart by neurons of their own
        loss = torch.where(cases.crossing, torch.rand(cases.signs.shape, generator=draw), -1.0)
        neuron = loss.argmax(1)
        cases = bounder.refreshed(cases.split(neuron), neuron.repeat(2))
    given = Cases(**{name: getattr(cases, name) for name in Cases.__dataclass_fields__})
    given.multipliers.copy_(0.1 * torch.rand(given.multipliers.shape, generator=draw).double())
    given.slopes.copy_(torch.rand(given.slopes.shape, generator=draw).double())
    bounded = bounder.settled(given, steps, float("inf"))
    points = x + 0.8 * torch.rand(5000, 1, 4, 4, generator=draw).double() - 0.4
    pre = torch.cat([part[:, layer.at] for part, layer in zip(model.signs(points), bounder.layers, strict=True)], 1)
    worth = unsafe.worth(model(points))
    met = 0
    for i in range(len(bounded)):
        inside = ((pre * bounded.signs[i]) >= 0).all(1)
        met += int(inside.sum())
        assert (worth[inside] >= bounder.bound(bounded)[i] - 1e-9).all()
        assert (pre[inside] >= bounded.lower[i] - 1e-9).all()
        assert (pre[inside] <= bounded.upper[i] + 1e-9).all()
    assert met >= len(points)  # the cases cover the box


def test_ascent_is_never_worse_and_multipliers_help() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 12), nn.ReLU(), nn.Linear(12, 12), nn.ReLU(), nn.Linear(12, 3)).double().eval()
    problem = problem_of(model, -torch.ones(4).double(), torch.ones(4).double())
    unsafe = Unsafe.either(torch.tensor([[1.0, -1.0, 0.0]]).double())
    before, _ = back_substituted(problem, unsafe.matrix.unsqueeze(0))
    bounder = Bounder(problem, unsafe, before)
    whole = bounder.bounded(bounder.whole, 20, float("inf"))
    halves = whole.split(bounder.look(whole).loss.argmax(1))
    found = bounder.bounded(halves, 20, float("inf"))
    assert (bounder.bound(whole) >= bounder.bound(bounder.whole)).all()
    assert (bounder.bound(found) >= bounder.bound(whole)).all()
    assert (found.multipliers > 0).any()
