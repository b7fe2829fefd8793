"""Random graphs of every operator: a short piece of what `python -m newrelax.checks.random_graphs` does at length."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor

from newrelax.checks import random_graphs
from newrelax.checks.random_graphs import EACH, METHODS, NAMES, OPERATORS, Findings, examine, plan, unknown_names
from newrelax.checks.samples import WITHOUT
from newrelax.checks.steps import check_steps
from newrelax.network.interval import Interval
from newrelax.network.network import Network, Step, Structure
from newrelax.network.operators.base import Operator
from newrelax.network.operators.elementwise import Relu
from newrelax.network.operators.linear import Linear

# a drawn convolution may have an even kernel and "same" padding; torch says that this copies its input
pytestmark = pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel lengths:UserWarning")

ROUND = plan(-(-len(NAMES) // OPERATORS), 0)
"""The first graphs of the long run: every operator once."""


@pytest.mark.parametrize("number", range(len(ROUND)))
def test_no_point_beyond_a_bound(number: int) -> None:
    seed, names = ROUND[number]
    findings = Findings()
    chosen = tuple(METHODS[(3 * number + k) % len(METHODS)] for k in range(3))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        examine(seed, names, chosen, 3000, findings)
    assert findings.failures == []
    assert findings.points >= 2900
    assert findings.steps > 0


@pytest.mark.slow
def test_a_longer_run() -> None:
    findings = random_graphs.run(200_000, per_graph=4)
    assert findings.failures == []
    assert min(findings.operators[name] for name in NAMES) >= EACH


def test_every_operator_is_drawn_often_enough() -> None:
    """Each that has a rule, but for those that no trace holds, is in 20 graphs of the long run, and in one of these."""
    assert unknown_names() == []
    assert all(reason for reason in WITHOUT.values())
    drawn = Counter(name for _, names in plan(None, 0) for name in set(names))
    assert min(drawn[name] for name in NAMES) >= EACH
    assert {name for _, names in ROUND for name in names} == set(NAMES)


def test_the_same_seed_draws_the_same() -> None:
    seed, names = ROUND[0]
    first, second = (random_graphs.draw(names, torch.Generator().manual_seed(seed)) for _ in range(2))
    x = torch.rand(2, *first.shape, dtype=torch.float64)
    assert first.names == second.names == list(names)
    assert torch.equal(first(x), second(x))


# The checks themselves see what is wrong


@dataclass(frozen=True)
class _WrongTranspose(Linear):
    def transpose(self, a: Tensor) -> tuple[Tensor, ...]:
        return (2 * a @ self.weight,)


@dataclass(frozen=True)
class _WrongMagnitude(Linear):
    def magnitude(self, *radius: Tensor) -> Tensor:
        return self.linear(*radius)


@dataclass(frozen=True)
class _WrongFlag(Linear):
    pointwise = injective = True


@dataclass(frozen=True)
class _Narrow(Relu):
    def interval(self, *x: Interval) -> Interval:
        found = super().interval(*x)
        return Interval(found.center, 0.5 * found.radius)


@dataclass(frozen=True)
class _Wide(Relu):
    def interval(self, *x: Interval) -> Interval:
        found = super().interval(*x)
        return Interval(found.center, 2 * found.radius + 0.1)


_WEIGHT, _BIAS = torch.tensor([[1.0, -2.0], [0.5, 3.0]], dtype=torch.float64), torch.ones(2, dtype=torch.float64)


@pytest.mark.parametrize(
    ("operator", "said"),
    [
        (Linear(_WEIGHT, _BIAS), []),
        (Relu(), []),
        (_WrongTranspose(_WEIGHT, _BIAS), ["adjoint"]),
        (_WrongMagnitude(_WEIGHT, _BIAS), ["magnitude", "outside"]),
        (_WrongFlag(_WEIGHT, _BIAS), ["pointwise", "injective"]),
        (_Narrow(), ["outside"]),
        (_Wide(), ["wider"]),
    ],
)
def test_steps_that_break_their_contract_are_found(operator: Operator, said: list[str]) -> None:
    steps = [Step(operator, (-1,), (2,))]
    network = Network(tuple(steps), (2,), Structure(steps, (2,)))
    lower = torch.full((1, 2), -1.0, dtype=torch.float64)
    found = check_steps(network, lower, -lower, torch.Generator().manual_seed(0))
    assert all(any(part in text for text in found) for part in said)
    assert bool(found) == bool(said)
