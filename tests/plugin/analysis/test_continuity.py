"""Continuity against functions whose jumps are known: 100 random draws of each kind, in float64 and float32."""

import math
import random
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import pytest
import torch
from torch import Tensor

from plugin.analysis.bisection import scan_line
from plugin.analysis.continuity import continuity
from plugin.analysis.directions import default_directions, random_directions, weight_direction
from plugin.analysis.events import causes

DRAWS = 100
JUMP = 1e-4
Function = Callable[[float], float]


class Drawn(NamedTuple):
    function: Function
    jumps: tuple[float, ...] = ()


def smooth(rng: random.Random) -> Drawn:
    rates = [rng.uniform(0.5, 5) for _ in range(3)]
    phases = [rng.uniform(0, 6) for _ in range(3)]
    return Drawn(lambda t: 2 + sum(math.sin(r * t + p) for r, p in zip(rates, phases, strict=False)))


def jump(rng: random.Random) -> Drawn:
    f = smooth(rng).function
    place = rng.uniform(-0.9, 0.9) / math.sqrt(2)
    return Drawn(lambda t: f(t) + (JUMP if t > place else 0.0), (place,))


def falling_jump(rng: random.Random) -> Drawn:
    """The slope hides the jump from whoever looks at changes only."""
    f, places = jump(rng)
    return Drawn(lambda t: f(t) - 3 * t, places)


def kinks(rng: random.Random) -> Drawn:
    f = smooth(rng).function
    bends = [(rng.uniform(-1, 1), rng.gauss(0, 1)) for _ in range(20)]
    return Drawn(lambda t: f(t) + sum(b * abs(t - place) for place, b in bends))


def steep(rng: random.Random, steepest: float = 9) -> Drawn:
    f = smooth(rng).function
    place, rate = rng.uniform(-0.9, 0.9), 10 ** rng.uniform(1, steepest)
    return Drawn(lambda t: f(t) + math.tanh(rate * (t - place)))


def ramp(rng: random.Random, steepest: float = 9) -> Drawn:
    f = smooth(rng).function
    place, rate = rng.uniform(-0.9, 0.9), 10 ** rng.uniform(1, steepest)
    return Drawn(lambda t: f(t) + min(1.0, max(-1.0, rate * (t - place))))


def root(rng: random.Random) -> Drawn:
    """Infinitely steep, and continuous."""
    f = smooth(rng).function
    place = rng.uniform(-0.9, 0.9)
    return Drawn(lambda t: f(t) + math.copysign(math.sqrt(abs(t - place)), t - place))


class Case(NamedTuple):
    name: str
    draw: Callable[[random.Random], Drawn]
    budget: int


CASES = [
    Case("smooth", smooth, 120),
    Case("jump of 1e-4", jump, 320),
    Case("jump against the slope", falling_jump, 320),
    Case("kinks", kinks, 120),
    Case("steep", steep, 200),
    Case("ramp", ramp, 200),
    Case("root", root, 200),
]


@pytest.mark.parametrize("case", CASES, ids=[c.name for c in CASES])
def test_float64(case: Case) -> None:
    for seed in range(DRAWS):
        f, places = case.draw(random.Random(seed))
        scan = scan_line(f, -1.0, 1.0, narrowest=1.4e-14, budget=case.budget)
        assert [round(j.at, 9) for j in scan.jumps] == [round(p, 9) for p in places], f"draw {seed}"
        for found in scan.jumps:
            assert abs(found.change) == pytest.approx(JUMP, rel=1e-3)
            assert found.width <= 2.8e-14
        assert scan.resolution < 1e-12
        assert scan.evaluations <= case.budget + 10


@pytest.mark.parametrize("case", CASES, ids=[c.name for c in CASES])
def test_float32(case: Case) -> None:
    """Points and values rounded to float32; slopes above size / narrowest cannot be told from jumps there."""
    draw = {"steep": lambda r: steep(r, 3.5), "ramp": lambda r: ramp(r, 3.5)}.get(case.name, case.draw)
    narrowest = 64 * 2.0**-23
    for seed in range(DRAWS):
        f, places = draw(random.Random(seed))
        scan = scan_line(
            lambda t: float(np.float32(f(float(np.float32(t))))),
            -1.0,
            1.0,
            narrowest=narrowest,
            budget=case.budget,
            epsilon=2.0**-23,
        )
        assert len(scan.jumps) == len(places), f"draw {seed}"
        for found, place in zip(scan.jumps, places, strict=False):
            assert abs(found.at - place) <= 2 * narrowest
        assert 1e-6 < scan.resolution < JUMP


def test_noise_is_no_jump() -> None:
    """Rounding noise of any size sets the resolution, and stays below it."""
    for seed in range(DRAWS):
        rng = random.Random(seed)
        size = 10 ** rng.uniform(-12, -3)
        f = smooth(rng).function
        scan = scan_line(lambda t: f(t) + rng.gauss(0, size), -1.0, 1.0, narrowest=1.4e-14, budget=120)
        assert not scan.jumps
        assert 3 * size < scan.resolution < 100 * size


def test_every_evenly_spaced_jump_is_found() -> None:
    """IBP-Round's law l − w·(ceil(F·l) − F·l): F jumps of w per unit."""
    for rate in (1, 10, 40):
        scan = scan_line(
            lambda t: t - 0.5 * (math.ceil(rate * (t + 0.37)) - rate * (t + 0.37)),
            -1.0,
            1.0,
            narrowest=1.4e-14,
            budget=150 * rate + 400,
        )
        assert len(scan.jumps) == 2 * rate
        assert all(abs(j.change) == pytest.approx(0.5, rel=1e-6) for j in scan.jumps)


def quadratic(w: Tensor, v: Tensor) -> Tensor:
    return (w.square().sum() + v.sum()).sin() + 2


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=["float64", "float32"])
def test_on_parameters(dtype: torch.dtype) -> None:
    """Verdict, and nothing left behind: parameters bit for bit, .grad and random stream untouched."""
    generator = torch.Generator().manual_seed(3)
    w = torch.randn(4, 3, generator=generator, dtype=torch.float64).to(dtype).requires_grad_()
    v = torch.randn(4, generator=generator, dtype=torch.float64).to(dtype).requires_grad_()
    threshold = float(w.detach()[0, 0]) * 1.0123456789

    def jumping() -> Tensor:
        return quadratic(w, v) + JUMP * (w[0, 0] > threshold)

    before = [w.detach().clone(), v.detach().clone()]
    state = torch.get_rng_state()
    torch.rand(1)
    moved = torch.get_rng_state()
    torch.set_rng_state(state)
    torch.rand(1)
    for loss, expected in ((lambda: quadratic(w, v), True), (jumping, False)):
        directions = [*random_directions([w, v], 2, seed=1), weight_direction([w, v], 0, 0)]
        found = continuity(loss, [w, v], directions, budget=900)
        assert found.continuous is expected
        assert found.largest_jump * found.loss == pytest.approx(0 if expected else JUMP, rel=0.05)
        assert found.narrowest_change < 1000 * torch.finfo(dtype).eps or not expected
    assert all(torch.equal(a, b) for a, b in zip(before, (w, v), strict=False))
    assert w.grad is None
    assert v.grad is None
    assert torch.equal(torch.get_rng_state(), moved)


def test_a_random_loss_is_a_fixed_function() -> None:
    """Common random numbers: a loss that draws is compared with itself, not with another draw."""
    w = torch.randn(5, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    found = continuity(lambda: (w * torch.rand(5, dtype=torch.float64)).sum() + 3, [w], random_directions([w], 2), budget=200)
    assert found.continuous
    assert found.resolution < 1e-11


def test_the_parameters_come_back_after_an_error() -> None:
    w = torch.ones(3, dtype=torch.float64)
    calls = iter(range(20))

    def failing() -> Tensor:
        if next(calls) > 10:
            raise RuntimeError("no more")
        return w.sum()

    with pytest.raises(RuntimeError, match="no more"):
        continuity(failing, [w], random_directions([w], 1))
    assert torch.equal(w, torch.ones(3, dtype=torch.float64))


def test_refuses_what_cannot_be_measured() -> None:
    w = torch.ones(3, dtype=torch.float64)
    with pytest.raises(ValueError, match="at least one direction"):
        continuity(w.sum, [w], [])
    with pytest.raises(ValueError, match="budget of at least"):
        continuity(w.sum, [w], random_directions([w], 1), budget=10)
    with pytest.raises(ValueError, match="finite loss"):
        continuity(lambda: w.sum() * float("nan"), [w], random_directions([w], 1))


def test_causes_name_layer_neuron_and_event() -> None:
    lower = torch.tensor([[-1.0, -1e-9, -2.0]], dtype=torch.float64)
    upper = torch.tensor([[1.0 - 1e-9, 2.0, 3.0]], dtype=torch.float64)
    deep = (torch.zeros(1, 2) - 1, torch.zeros(1, 2) + 1)
    after = (torch.tensor([[-1.0, 1e-9, -2.0]], dtype=torch.float64), upper)
    (cause,) = causes([(lower, upper), deep], [after, (deep[0] - 0.5, deep[1])])
    assert (cause.layer, cause.neuron, cause.event) == (0, 1, "l = 0")
    (cause,) = causes([(lower, upper), deep], [(lower, upper + 2e-9), deep])
    assert (cause.layer, cause.neuron, cause.event) == (0, 0, "-l = u")
    (cause,) = causes([(lower, upper), deep], [(lower, upper), (deep[0] - 0.5, deep[1])])
    assert (cause.layer, cause.neuron) == (0, -1)
    assert "another condition" in cause.event


def test_default_directions_are_relative_weight_changes() -> None:
    w = torch.randn(6, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64).requires_grad_()
    b = torch.zeros(6, dtype=torch.float64).requires_grad_()
    directions = default_directions(lambda: (w.sum(1) + b).square().sum(), [w, b], step=[torch.ones_like(w), b.detach()])
    assert [d.name.split("[")[0] for d in directions] == [
        "random 1",
        "random 2",
        "random 3",
        "gradient",
        "last step",
        "weight 0",
        "weight 0",
    ][: len(directions)]
    for d in directions[:3]:
        torch.testing.assert_close(d.tensors[0].norm(dim=1), w.detach().norm(dim=1))
    for d in directions[3:5]:
        assert d.norm() == pytest.approx(float(w.detach().norm()))
