"""Every relaxation's lines: against NumPy, on soundness, on gradients."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import pytest
import torch
from torch import Tensor

from newrelax import Registry, Relaxation, UserError, relaxation
from newrelax.relaxations.base import Lines

BUILTIN = Registry.load()


class Row(NamedTuple):
    """A relaxation and its four numbers for one neuron, derived apart from the code.

    `crossing(l, u)`, `active(l, u)` and `inactive(l, u)` give lower slope, lower
    offset, upper slope, upper offset; the last two default to ReLU itself.
    """

    spec: str
    crossing: Callable[[float, float], tuple[float, float, float, float]]
    active: Callable[[float, float], tuple[float, float, float, float]] = lambda l, u: (1, 0, 1, 0)
    inactive: Callable[[float, float], tuple[float, float, float, float]] = lambda l, u: (0, 0, 0, 0)


def line_through(x0: float, y0: float, x1: float, y1: float) -> tuple[float, float]:
    slope = (y1 - y0) / (x1 - x0)
    return slope, y0 - slope * x0


def logistic(value: float) -> float:
    return 1 / (1 + math.exp(-value)) if value > -700 else 0.0


def over(slope: float, lower: float, upper: float) -> float:
    """Smallest offset with which a line of this slope stays above ReLU on [l, u]."""
    return max(-slope * lower, 0.0, upper - slope * upper)


def chord(l: float, u: float) -> tuple[float, float]:
    return line_through(l, 0, u, u)


def soft(gamma: float, l: float, u: float) -> float:
    return logistic(gamma * (l / u - u / l))


def box(l: float, u: float) -> tuple[float, float, float, float]:
    return 0, max(l, 0), 0, max(u, 0)


def switch(l: float, u: float) -> tuple[float, float, float, float]:
    return (1, 0, 1, -l) if -l <= u else (0, 0, 0, u)


def round_out(omega: float, f: float, l: float, u: float) -> tuple[float, float, float, float]:
    return box(l - omega * (math.ceil(f * l) - f * l), u + omega * (f * u - math.floor(f * u)))


def everywhere(lines: Callable[[float, float], tuple[float, float, float, float]]) -> tuple:
    return lines, lines, lines


ROWS = (
    Row("IBP", *everywhere(box)),
    Row("CROWN", lambda l, u: (1.0 if -l <= u else 0.0, 0, *chord(l, u))),
    Row("CROWN-0", lambda l, u: (0, 0, *chord(l, u))),
    Row("CROWN-0-C", lambda l, u: (0, 0, *chord(l, u)), lambda l, u: (0, l, 1, 0)),
    Row("CROWN-1", lambda l, u: (1, 0, *chord(l, u))),
    Row("CROWN-1-C", lambda l, u: (1, 0, *chord(l, u)), inactive=lambda l, u: (1, 0, 0, 0)),
    Row("CROWN-0-Tria", lambda l, u: (0, 0, 1, -l)),
    Row(
        "CROWN-0-Tria-C",
        lambda l, u: (0, 0, 1, -l),
        lambda l, u: (0, l, 1, 0),
        lambda l, u: (0, 0, 1, -l),
    ),
    Row("CROWN-1-Tria", lambda l, u: (1, 0, 0, u)),
    Row(
        "CROWN-1-Tria-C",
        lambda l, u: (1, 0, 0, u),
        lambda l, u: (1, 0, 0, u),
        lambda l, u: (1, 0, 0, 0),
    ),
    Row("CROWN-Soft:gamma=1", lambda l, u: (soft(1, l, u), 0, *chord(l, u))),
    Row("CROWN-Soft:gamma=0.25", lambda l, u: (soft(0.25, l, u), 0, *chord(l, u))),
    Row("CROWN-Soft-IBP-R", lambda l, u: (soft(10, l, u), 0, *chord(l, u))),
    Row("DeepZ", lambda l, u: (u / (u - l), 0, *chord(l, u))),
    Row("DeepZ-IBP-R", lambda l, u: (u / (u - l), 0, *chord(l, u))),
    Row("DeepZ-Box", lambda l, u: (0, 0, 0, u)),
    Row("DeepZ-Diag", lambda l, u: (1, 0, 1, -l)),
    Row("DeepZ-Diag-C", lambda l, u: (1, 0, 1, -l), inactive=lambda l, u: (1, 0, 1, -l)),
    Row("DeepZ-Switch", switch),
    Row(
        "DeepZ-Soft:gamma=1",
        lambda l, u: (soft(1, l, u), 0, soft(1, l, u), over(soft(1, l, u), l, u)),
    ),
    Row("hBox", lambda l, u: (0, 0, 0, u)),
    Row("hBox-Diag", lambda l, u: (1, 0, 1, -l)),
    Row("hBox-Diag-C", lambda l, u: (1, 0, 1, -l), inactive=lambda l, u: (1, 0, 1, -l)),
    Row("hBox-Switch", switch),
    Row("hBox-DeepZ", lambda l, u: (u / (u - l), 0, *chord(l, u))),
    Row("IBP-Widen:omega=0.5", *everywhere(lambda l, u: box(l - 0.5, u + 0.5))),
    Row("IBP-Widen:omega=2", *everywhere(lambda l, u: box(l - 2, u + 2))),
    Row("IBP-Round:omega=0.5,F=10", *everywhere(lambda l, u: round_out(0.5, 10, l, u))),
    Row("IBP-Round:omega=1,F=3", *everywhere(lambda l, u: round_out(1, 3, l, u))),
)
BY_SPEC = pytest.mark.parametrize("row", ROWS, ids=lambda row: row.spec)


def lines_of(spec: str) -> Relaxation:
    value = BUILTIN.get_method(spec).relaxation
    assert value is not None
    return value


def random_bounds(count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Crossing, active and inactive intervals over six orders of magnitude."""
    rng = np.random.default_rng(seed)
    size = 10.0 ** rng.uniform(-4, 2, (2, count))
    kind = rng.integers(0, 4, count)
    lower = np.where(kind == 2, size[0], -size[0])
    upper = np.where(kind == 2, size[0] + size[1], size[1])
    lower = np.where(kind == 3, -size[0] - size[1], lower)
    upper = np.where(kind == 3, -size[1], upper)
    return lower, upper


def test_every_builtin_relaxation_has_a_row() -> None:
    specs = {BUILTIN.get_method(row.spec).name for row in ROWS}
    shared = {"CROWN-IBP", "CROWN-IBP-R", "CROWN-IBP-RandomSlope", "alpha-CROWN", "DeepZ-Cauchy", "hBox-Cauchy"}
    expected = {method.name for method in BUILTIN.values() if method.relaxation is not None}
    assert specs | shared == expected
    assert all(BUILTIN[name].relaxation in {lines_of(row.spec) for row in ROWS} for name in shared)


@BY_SPEC
def test_lines_equal_an_independent_derivation(row: Row) -> None:
    lower, upper = random_bounds(400, seed=7)
    expected = np.array(
        [(row.active if l >= 0 else row.inactive if u <= 0 else row.crossing)(l, u) for l, u in zip(lower, upper, strict=True)]
    )
    for dtype, tolerance in ((torch.float64, 1e-11), (torch.float32, 2e-4)):
        bounds = torch.tensor(lower, dtype=dtype), torch.tensor(upper, dtype=dtype)
        if dtype == torch.float32 and "IBP-Round" in row.spec:
            continue  # float32 rounds l across a jump; the float64 comparison stands
        got = torch.stack(lines_of(row.spec)(*bounds), dim=1)
        np.testing.assert_allclose(got.numpy(), expected, rtol=tolerance, atol=tolerance)


BOUNDARY = (0.0, 1e-30, 1e-12, 1e-8, 1e-4, 1.0, 1 + 1e-6, 1e4, 1e30)


def hard_bounds(dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """All pairs of the boundary's numbers with both signs, and others of all sizes, [pairs] each; the smaller one first."""
    draw = torch.Generator().manual_seed(13)
    ends = torch.tensor(BOUNDARY, dtype=torch.float64)
    pairs = torch.cartesian_prod(torch.cat([ends, -ends]), torch.cat([ends, -ends]))
    sizes = torch.cat(
        [
            10 ** (24 * torch.rand(1000, 2, generator=draw, dtype=torch.float64) - 12),
            10 * torch.rand(1000, 2, generator=draw, dtype=torch.float64),
        ]
    )
    signs = torch.randint(2, sizes.shape, generator=draw) * 2 - 1
    first, second = torch.cat([pairs, sizes * signs]).to(dtype).unbind(1)
    return torch.minimum(first, second), torch.maximum(first, second)


@BY_SPEC
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_lines_enclose_relu(row: Row, dtype: torch.dtype) -> None:
    lower, upper = (end.requires_grad_() for end in hard_bounds(dtype))
    share = torch.rand(len(lower), generator=torch.Generator().manual_seed(17), dtype=dtype)
    lines = lines_of(row.spec)(lower, upper)
    for name, part in lines._asdict().items():
        assert part.isfinite().all(), name
        if part.requires_grad:
            for gradient in torch.autograd.grad(part.sum(), (lower, upper), retain_graph=True, allow_unused=True):
                assert gradient is None or gradient.isfinite().all(), name
    # Four rounded operations on numbers no larger than these.
    scale = torch.maximum(lower.abs(), upper.abs())
    slack = 8 * torch.finfo(dtype).eps * scale
    for x in (lower, upper, lower + share * (upper - lower), torch.zeros_like(lower)):
        x = torch.minimum(torch.maximum(x, lower), upper)
        y = x.clamp(min=0)
        assert (lines.lower_slope * x + lines.lower_offset <= y + slack).all()
        assert (lines.upper_slope * x + lines.upper_offset >= y - slack).all()


@BY_SPEC
def test_gradients_equal_finite_differences(row: Row) -> None:
    lower_values, upper_values = random_bounds(300, seed=11)
    # Away from jumps and kinks: the step below must not cross one.
    away = np.abs(lower_values + upper_values) > 1e-2
    away &= np.minimum(np.abs(lower_values), np.abs(upper_values)) > 1e-2
    for cut in (0.1, 1 / 3):
        for value in (lower_values, upper_values):
            away &= np.abs(value / cut - np.round(value / cut)) > 1e-3
    lower = torch.tensor(lower_values[away], requires_grad=True)
    upper = torch.tensor(upper_values[away], requires_grad=True)
    weights = torch.tensor([0.7, 1.3, -0.9, 0.4], dtype=torch.float64)

    def total(l: torch.Tensor, u: torch.Tensor) -> torch.Tensor:
        # The offsets and slopes weighed together, one number per neuron.
        return (weights[:, None] * torch.stack(lines_of(row.spec)(l, u))).sum(0)

    value = total(lower, upper)
    if not value.requires_grad:
        pytest.fail("the lines of a relaxation depend on the bounds")
    got = torch.autograd.grad(value.sum(), (lower, upper), materialize_grads=True)
    step = 1e-6 * torch.minimum(lower.detach().abs(), upper.detach().abs())
    with torch.no_grad():
        by_lower = (total(lower + step, upper) - total(lower - step, upper)) / (2 * step)
        by_upper = (total(lower, upper + step) - total(lower, upper - step)) / (2 * step)
    for analytic, numeric in zip(got, (by_lower, by_upper), strict=True):
        torch.testing.assert_close(analytic, numeric, rtol=2e-3, atol=2e-4)


@pytest.mark.parametrize(
    "row",
    [row for row in ROWS if lines_of(row.spec).widen is not None],
    ids=lambda row: row.spec,
)
def test_interval_relaxations_widen_the_interval(row: Row) -> None:
    widen = lines_of(row.spec).widen
    assert widen is not None
    lower, upper = (torch.tensor(bound) for bound in random_bounds(1000, seed=3))
    wider_lower, wider_upper = widen(lower, upper)
    assert (wider_lower <= lower).all()
    assert (wider_upper >= upper).all()
    assert ((wider_lower < lower) | (wider_upper > upper)).any()


def test_stable_neurons_never_reach_the_function() -> None:
    @relaxation("Fragile")
    def fragile(lower: torch.Tensor, upper: torch.Tensor) -> tuple:
        slope = 1 / (upper - lower)
        return 0.0, 0.0, 1.0 + 0 * slope, -lower

    lower = torch.tensor([0.0, 2.0, -3.0, -1.0], requires_grad=True)
    upper = torch.tensor([0.0, 2.0, -3.0, 1.0], requires_grad=True)
    lines = fragile(lower, upper)
    assert lines.upper_slope.tolist() == [1, 1, 0, 1]
    assert lines.upper_offset.tolist() == [0, 0, 0, 1]
    sum(part.sum() for part in lines).backward()
    assert lower.grad is not None
    assert lower.grad.tolist() == [0, 0, 0, -1]
    assert upper.grad is not None
    assert upper.grad.isfinite().all()


def test_a_nan_bound_is_not_hidden() -> None:
    nan = torch.tensor([math.nan])
    assert lines_of("CROWN")(nan, nan).upper_slope.isnan().all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_numbers_are_filled_in(dtype: torch.dtype) -> None:
    @relaxation("Half")
    def half(lower: torch.Tensor, upper: torch.Tensor) -> tuple:
        return 0.5, 0, lower < upper, -lower

    lines = half(torch.tensor([[-1.0, -2.0]], dtype=dtype), torch.tensor([[1.0, 1.0]], dtype=dtype))
    assert {part.dtype for part in lines} == {dtype}
    assert isinstance(lines, Lines)
    assert lines.lower_slope.tolist() == [[0.5, 0.5]]
    assert lines.upper_slope.tolist() == [[1.0, 1.0]]
    assert lines.upper_offset.tolist() == [[1.0, 2.0]]


@pytest.mark.parametrize(
    ("result", "message"),
    [
        (lambda l, u: (l, l, u), "expected the 4 values .* got a tuple of 3"),
        (lambda l, u: [l, l, u, u], "got a list of 4"),
        (lambda l, u: (l, l, u, u.sum()), r"shape \(2,\).* got float32 tensor of shape \(\)"),
        (lambda l, u: (l, l, u, u + 1j), "got complex64 tensor"),
        (lambda l, u: (l, l, u, None), "got a NoneType"),
    ],
    ids=("three", "list", "shape", "complex", "none"),
)
def test_a_wrong_result_is_explained(result: Callable, message: str) -> None:
    wrong = Relaxation("Wrong", result)
    with pytest.raises(UserError, match=message):
        wrong(torch.tensor([-1.0, -1.0]), torch.tensor([1.0, 1.0]))


def test_every_relaxation_documents_its_properties() -> None:
    for row in ROWS:
        text = lines_of(row.spec).__doc__ or ""
        assert {"Source:", "Continuity:", "Sensitivity:"} <= set(text.split()), row.spec
