"""Every activation: its constants, its interval, and the lines that it gets without a relaxation of its own."""

from __future__ import annotations

import math
from functools import partial

import pytest
import torch
from torch import Tensor

from newrelax import Relaxation
from newrelax.checks.jumps import find_jumps
from newrelax.checks.properties import find_inconsistency, find_nonfinite, measure_tightness
from newrelax.checks.soundness import find_counterexample
from newrelax.relaxations.activation import ACTIVATIONS, Activation, elu, power
from newrelax.relaxations.smooth import smooth_lines

CELU, SELU = elu(2.0, 1.0, 0.5), elu(1.6732632423543772, 1.0507009873554805)
KNOWN = {
    **{name: a for name, a in ACTIVATIONS.items() if name != "relu"},
    **{a.name: a for a in (CELU, SELU, elu(0.3), elu(-0.7), power(3), power(4), power(5))},
}
EVERY = pytest.mark.parametrize("activation", KNOWN.values(), ids=list(KNOWN))
BOTH = pytest.mark.parametrize("parallel", [False, True], ids=("free", "parallel"))
DTYPES = pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=("float64", "float32"))


def lines_of(activation: Activation, parallel: bool) -> Relaxation:
    """What an activation gets by default, as a relaxation that can be checked like anybody's."""
    function = partial(_four, activation, parallel)
    return Relaxation("Smooth", function, activation=activation, parallel=parallel)


def _four(activation: Activation, parallel: bool, lower: Tensor, upper: Tensor) -> tuple[Tensor, ...]:
    return tuple(smooth_lines(activation, lower, upper, parallel=parallel))


def intervals(activation: Activation, dtype: torch.dtype, count: int = 3000) -> tuple[Tensor, Tensor]:
    """Of all sizes and on both sides, where the function is defined and of moderate size."""
    generator = torch.Generator().manual_seed(5)
    middle = torch.randn(count, generator=generator, dtype=torch.float64) * 4
    width = 10 ** (torch.rand(count, generator=generator, dtype=torch.float64) * 8 - 6)
    first = torch.cat([middle, torch.zeros(50), torch.full((50,), -1e-3)]).double()
    width = torch.cat([width, 10 ** torch.linspace(-6, 1, 100, dtype=torch.float64)])
    lower, upper = first - width * (torch.arange(len(width)) % 2), first + width
    if activation.domain[0] == 0:
        lower, upper = lower.abs() + 1e-3, lower.abs() + 1e-3 + (upper - lower)
    if activation.poles:
        keep = (lower > 1e-3) | (upper < -1e-3)
        lower, upper = lower[keep], upper[keep]
    keep = torch.maximum(activation(lower).abs(), activation(upper).abs()) < 1e6
    return lower[keep].to(dtype), upper[keep].to(dtype)


def dense(lower: Tensor, upper: Tensor, count: int = 400) -> Tensor:
    share = torch.linspace(0, 1, count, dtype=torch.float64)[:, None]
    return lower.double() * (1 - share) + upper.double() * share


@EVERY
@BOTH
def test_lines_pass_the_check(activation: Activation, parallel: bool) -> None:
    value = lines_of(activation, parallel)
    assert find_counterexample(value) is None
    assert find_nonfinite(value) is None
    assert find_inconsistency(value) is None
    assert measure_tightness(value).area < 1.3


@EVERY
@BOTH
@DTYPES
def test_lines_enclose_a_dense_sample(activation: Activation, parallel: bool, dtype: torch.dtype) -> None:
    lower, upper = intervals(activation, dtype)
    lines = smooth_lines(activation, lower, upper, parallel=parallel)
    assert all(bool(part.isfinite().all()) for part in lines)
    below, low, above, high = (part.double() for part in lines)
    x = dense(lower, upper)
    value = activation(x)
    size = (below.abs() + above.abs()) * torch.maximum(lower.abs(), upper.abs()).double() + value.abs().amax(0)
    # torch's softplus is x itself above 20, 2e-9 less than it should be.
    exact = 3e-9 if activation.name == "softplus" else 1e-11
    slack = (exact if dtype == torch.float64 else 2e-6) * (1 + size)
    assert float((below * x + low - value - slack).max()) <= 0
    assert float((value - above * x - high - slack).max()) <= 0
    if parallel:
        assert torch.equal(lines.lower_slope, lines.upper_slope)


@EVERY
@DTYPES
def test_the_interval_is_exact(activation: Activation, dtype: torch.dtype) -> None:
    lower, upper = intervals(activation, dtype)
    low, high = activation.interval(lower, upper)
    value = activation(dense(lower, upper, 4000))
    exact = 1e-6 if dtype == torch.float32 else 3e-9 if activation.name == "softplus" else 1e-12
    size = 1 + value.abs().amax(0)
    assert float(((low - value.amin(0)) / size).max()) <= exact
    assert float(((value.amax(0) - high) / size).max()) <= exact
    # And no looser than the sample is coarse.
    step = (upper - lower).double() / 4000
    assert float(((value.amin(0) - low) / size - step).max()) <= exact
    assert float(((high - value.amax(0)) / size - step).max()) <= exact


@EVERY
def test_the_derivative_is_the_functions(activation: Activation) -> None:
    assert activation.derivative is not None
    x = torch.linspace(-9, 9, 1801, dtype=torch.float64)
    x = x[(x > activation.domain[0]) & (x.abs() > 1e-2)].requires_grad_()
    (expected,) = torch.autograd.grad(activation(x).sum(), x)
    torch.testing.assert_close(activation.derivative(x.detach()), expected, rtol=1e-9, atol=1e-12)


@EVERY
def test_places_of_a_slope_are_found(activation: Activation) -> None:
    """Every place has another one with its own slope among those that are named."""
    assert activation.derivative is not None
    assert activation.critical is not None
    x = torch.linspace(-6, 6, 997, dtype=torch.float64)
    x = x[x > activation.domain[0]] if activation.period is None else x[x.abs() < math.pi]
    places = torch.stack(torch.broadcast_tensors(*activation.critical(activation.derivative(x))))
    if activation.period is not None:
        places = torch.cat([places - activation.period, places, places + activation.period])
    away = (places - x).abs().nan_to_num(math.inf).amin(0)
    bent = x >= 0 if activation.name.startswith("elu") else torch.zeros_like(x, dtype=torch.bool)
    # Where the slope hardly changes, places far apart are as good.
    flat = (activation.derivative(x + 1e-3) - activation.derivative(x - 1e-3)).abs() < 1e-7
    assert float(away[~bent & ~flat].max()) < 2e-4


@EVERY
@BOTH
def test_gradients_equal_finite_differences(activation: Activation, parallel: bool) -> None:
    lower, upper = intervals(activation, torch.float64, 400)
    keep = ((upper - lower) > 1e-2) & ((upper - lower) < 20)
    weights = torch.tensor([0.7, 1.3, -0.9, 0.4], dtype=torch.float64)[:, None]

    def total(low: Tensor, high: Tensor) -> Tensor:
        return (weights * torch.stack(tuple(smooth_lines(activation, low, high, parallel=parallel)))).sum(0)

    lower, upper = lower[keep], upper[keep]
    low, high = lower.clone().requires_grad_(), upper.clone().requires_grad_()
    got = torch.autograd.grad(total(low, high).sum(), (low, high))
    assert all(bool(part.isfinite().all()) for part in got)
    step = 1e-6 * (upper - lower).clamp(max=1)
    by = (
        (total(lower + step, upper) - total(lower - step, upper)) / (2 * step),
        (total(lower, upper + step) - total(lower, upper - step)) / (2 * step),
    )
    size = 1 + total(lower, upper).abs() + activation(lower).abs() + activation(upper).abs()
    for analytic, numeric in zip(got, by, strict=True):
        wrong = (analytic - numeric).abs() / size > 1e-3 * (1 + analytic.abs() / size)
        # A step may cross the place where another slope becomes the best.
        assert float(wrong.double().mean()) < 0.02


@pytest.mark.parametrize("name", ["gelu", "gelu(tanh)", "silu", "mish"])
def test_the_constants_of_smooth_bends(name: str) -> None:
    """Extrema and inflections, to all their digits, with a slower arithmetic of more of them."""
    mpmath = pytest.importorskip("mpmath")
    functions = {
        "gelu": lambda x: x * (1 + mpmath.erf(x / mpmath.sqrt(2))) / 2,
        "gelu(tanh)": lambda x: x * (1 + mpmath.tanh(mpmath.sqrt(2 / mpmath.pi) * (x + mpmath.mpf("0.044715") * x**3))) / 2,
        "silu": lambda x: x / (1 + mpmath.exp(-x)),
        "mish": lambda x: x * mpmath.tanh(mpmath.log(1 + mpmath.exp(x))),
    }
    with mpmath.workdps(40):
        (extremum,) = ACTIVATIONS[name].extrema
        exact = mpmath.findroot(lambda x: mpmath.diff(functions[name], x), extremum)
        assert abs(exact - extremum) < 1e-15
        # The pieces of the inverse meet where the function is steepest and least steep.
        critical = ACTIVATIONS[name].critical
        assert critical is not None
        ends = torch.cat([torch.stack(critical(torch.tensor([sign * 1e3], dtype=torch.float64))) for sign in (1.0, -1.0)])
        bends = sorted({float(end) for end in ends.flatten() if abs(end) < 5})
        assert min(bends) < -1 < 1 < max(bends)
        for end in bends:
            exact = mpmath.findroot(lambda x: mpmath.diff(functions[name], x, 2), (end - 1e-3, end + 1e-3), tol=1e-24)
            assert abs(exact - end) < 1e-15


def test_bounds_outside_the_domain_are_infinite() -> None:
    lower = torch.tensor([-1.0, 0.0, -2.0, 1.0], requires_grad=True)
    upper = torch.tensor([1.0, 1.0, -1.0, 2.0], requires_grad=True)
    for name, defined in {"log": [3], "rsqrt": [3], "reciprocal": [2, 3], "sqrt": [1, 3]}.items():
        activation = ACTIVATIONS[name]
        for parallel in (False, True):
            lines = smooth_lines(activation, lower, upper, parallel=parallel)
            assert [i for i in range(4) if bool(lines.lower_offset[i].isfinite() & lines.upper_offset[i].isfinite())] == defined
            assert lines.lower_offset[[i for i in range(4) if i not in defined]].tolist() == [-math.inf] * (4 - len(defined))
            kept = torch.tensor(defined)
            gradients = torch.autograd.grad(sum(part[kept].sum() for part in lines), (lower, upper))
            assert all(bool(part.isfinite().all()) for part in gradients)


def test_a_root_forgives_rounding_below_zero() -> None:
    lower, upper = torch.tensor([-1e-7, -1e-3]), torch.tensor([1.0, 1.0])
    low, high = ACTIVATIONS["sqrt"].interval(lower, upper)
    assert low.tolist() == [0.0, -math.inf]
    assert high.tolist() == [1.0, math.inf]


def test_huge_numbers_stay_numbers() -> None:
    for name in ("sigmoid", "tanh", "gelu", "gelu(tanh)", "silu", "mish", "elu", "softplus", "erf", "atan", "sin", "cos"):
        for dtype in (torch.float32, torch.float64):
            size = torch.tensor([1e2, 1e6, 1e18], dtype=dtype)
            lower, upper = (
                torch.cat([-size, -size, size / 2]).requires_grad_(),
                torch.cat([size, -size / 2, size]).requires_grad_(),
            )
            for parallel in (False, True):
                lines = smooth_lines(ACTIVATIONS[name], lower, upper, parallel=parallel)
                assert all(bool(part.isfinite().all()) for part in lines), name
                gradients = torch.autograd.grad(sum(part.sum() for part in lines), (lower, upper))
                assert all(bool(part.isfinite().all()) for part in gradients), name
    lines = smooth_lines(ACTIVATIONS["exp"], torch.tensor([0.0]), torch.tensor([200.0]), parallel=False)
    assert lines.lower_offset.isfinite().all()
    assert not lines.upper_offset.isnan().any()


def test_lines_are_continuous_where_they_can_be() -> None:
    for name in ("exp", "square", "softplus"):
        assert find_jumps(lines_of(ACTIVATIONS[name], False)) == ()
