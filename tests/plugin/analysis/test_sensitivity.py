"""Orders against polynomials of known degree and piecewise-linear functions: 100 random draws of each."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from plugin.analysis.directions import random_directions, single_weights
from plugin.analysis.order import CURVED, INERT, LADDERS, LINEAR, UNRESOLVED, classify
from plugin.analysis.sensitivity import sensitivity

DRAWS = 100
BOUNDS = 10


def polynomial(degree: int, generator: torch.Generator) -> Callable[[Tensor], Tensor]:
    mix = torch.randn(BOUNDS, 20, generator=generator, dtype=torch.float64)
    factors = torch.randn(BOUNDS, degree, generator=generator, dtype=torch.float64)
    return lambda w: sum(factors[:, k - 1] * (mix.to(w) @ w.flatten() / 4).double() ** k for k in range(1, degree + 1)).to(w)


def rational(_: int, generator: torch.Generator) -> Callable[[Tensor], Tensor]:
    """Quotients u/(u − l), what back-substitution puts into bounds."""
    up = torch.rand(BOUNDS, 20, generator=generator, dtype=torch.float64) + 0.1
    low = torch.rand(BOUNDS, 20, generator=generator, dtype=torch.float64) + 0.1

    def bounds(w: Tensor) -> Tensor:
        u, l = up.to(w) @ w.flatten().square() + 1, low.to(w) @ w.flatten().abs() + 1
        return u / (u + l)

    return bounds


def piecewise_linear(pieces: int, generator: torch.Generator) -> Callable[[Tensor], Tensor]:
    mix = torch.randn(BOUNDS, pieces, 20, generator=generator, dtype=torch.float64)
    offset = torch.randn(BOUNDS, pieces, generator=generator, dtype=torch.float64)
    return lambda w: (torch.einsum("bpi,i->bp", mix.to(w), w.flatten()) / 4 - offset.to(w)).relu().sum(1)


def measured(
    make: Callable[[int, torch.Generator], Callable[[Tensor], Tensor]],
    size: int,
    seed: int,
    dtype: torch.dtype,
    weights: int = 3,
):
    generator = torch.Generator().manual_seed(seed)
    w = torch.randn(4, 5, generator=generator, dtype=torch.float64).to(dtype)
    bounds = make(size, generator)
    return sensitivity(lambda: bounds(w).sum(), [w], [], bounds=lambda: bounds(w), weights_per_parameter=weights, seed=seed)


@pytest.mark.parametrize("degree", [2, 3, 4, 5])
def test_degree_of_polynomials(degree: int) -> None:
    for seed in range(DRAWS):
        found = measured(polynomial, degree, seed, torch.float64, weights=1)
        assert (found.order, found.insensitive) == (degree, False), f"draw {seed}"


@pytest.mark.parametrize("pieces", [5, 10, 100])
def test_piecewise_linear_is_order_one(pieces: int) -> None:
    for seed in range(DRAWS):
        found = measured(piecewise_linear, pieces, seed, torch.float64)
        assert (found.order, found.curved_share, found.insensitive) == (1, 0.0, True), f"draw {seed}"


def test_quotients_have_no_low_order() -> None:
    for seed in range(DRAWS):
        found = measured(rational, 0, seed, torch.float64, weights=1)
        assert found.order >= 3, f"draw {seed}"
        assert found.insensitive is False
        assert found.curved_share > 0.5


@pytest.mark.parametrize(
    ("make", "size", "insensitive"),
    [(piecewise_linear, 10, True), (polynomial, 2, False), (polynomial, 3, False)],
    ids=["piecewise linear", "quadratic", "cubic"],
)
def test_float32(make: Callable, size: int, insensitive: bool) -> None:
    for seed in range(DRAWS):
        assert measured(make, size, seed, torch.float32, weights=3 if insensitive else 1).insensitive is insensitive, (
            f"draw {seed}"
        )


def test_kinds_of_single_bounds() -> None:
    """A kink on the spot is not called curved, a bound that does not depend on the weight is not called straight."""

    def bounds(t: float) -> Tensor:
        x = torch.tensor(t, dtype=torch.float64)
        kinds = [x.abs() + 1, (x > 0).double(), x.square() + x, 5 + 0 * x, (x - 0.01).relu() + x]
        return torch.stack(kinds + [k * x + 1 for k in range(1, 8)])

    shape = classify(bounds, 1.0, LADDERS[torch.float64])
    assert shape.kind.tolist() == [UNRESOLVED, UNRESOLVED, CURVED, INERT] + [LINEAR] * 8


def test_slopes_and_the_unpredicted_share() -> None:
    """loss = |w|²/2 at w: slope along d = w is |w|²; a step s leaves |s|²/2 of w·s + |s|²/2 unpredicted."""
    w = torch.full((2, 2), 3.0, dtype=torch.float64, requires_grad=True)
    step = [torch.full((2, 2), -0.1, dtype=torch.float64)]
    (direction,) = random_directions([w.detach().abs()], 1)
    found = sensitivity(lambda: w.square().sum() / 2, [w], [direction], step=step, names=["w"])
    along = float((direction.tensors[0] * w.detach()).sum())
    assert found.slope == pytest.approx(abs(along), rel=1e-9)
    assert found.relative_slope == pytest.approx(abs(along) / 18, rel=1e-9)
    assert found.step_change == pytest.approx(-1.2 + 0.02, rel=1e-9)
    assert found.unpredicted == pytest.approx(0.02 / 1.18, rel=1e-6)
    assert [name for name, _ in found.layer_slopes] == ["w"]
    assert w.grad is None
    assert torch.equal(w.detach(), torch.full((2, 2), 3.0, dtype=torch.float64))


def test_a_short_budget_covers_every_parameter_first() -> None:
    params = [torch.randn(3, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(i)) for i in range(3)]
    found = sensitivity(
        lambda: sum(p.sum() for p in params), params, [], bounds=lambda: torch.stack([p.sum() for p in params]), budget=60
    )
    assert [w.parameter for w in found.weights] == [0, 1, 2]


def test_too_little_resolved_gives_no_verdict() -> None:
    w = torch.ones(2, 2, dtype=torch.float64)
    assert sensitivity(w.sum, [w], [], weights_per_parameter=1).insensitive is None


def test_weights_are_drawn_by_their_size() -> None:
    """Weights that regularisation has all but removed say nothing about the network."""
    w = torch.full((10, 100), 1e-9)
    w[3] = 1.0
    assert all(300 <= index < 400 for _, index in single_weights([w, torch.ones(7)], 20, seed=1))
