"""What a relaxation must do besides bounding its activation, and how tight it is: checks on the lines alone."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from newrelax.checks.places import all_pairs, excess, points, tolerance, usable
from newrelax.checks.soundness import pairs
from newrelax.relaxations.activation import RELU, Activation
from newrelax.relaxations.base import Lines, Relaxation

_DTYPES = (torch.float64, torch.float32)


def find_nonfinite(relaxation: Relaxation) -> str | None:
    """Where a slope, an offset or a gradient of one is not finite, in words; None if nowhere.

    Looks at all intervals of the soundness search, |l| and |u| from 0 and 1e-30 to 1e30
    (1e18 in float32), where the activation is of use there.
    """
    for dtype in _DTYPES:
        lower, upper = (end.requires_grad_() for end in pairs(relaxation, dtype))
        lines = relaxation(lower, upper)
        for name, part in lines._asdict().items():
            values = {name: part.detach()}
            if part.requires_grad:
                gradients = torch.autograd.grad(part.sum(), (lower, upper), retain_graph=True, allow_unused=True)
                values |= {f"d {name} / d {end}": g for end, g in zip("lu", gradients, strict=True) if g is not None}
            for what, value in values.items():
                bad = ~value.isfinite()
                if bad.any():
                    at = int(bad.double().argmax())
                    return (
                        f"{what.replace('_', ' ')} is {value[at].item():g} at l = {lower[at].item():g}, "
                        f"u = {upper[at].item():g} ({str(dtype).removeprefix('torch.')})"
                    )
    return None


def find_inconsistency(relaxation: Relaxation) -> str | None:
    """How the lines are not what they are taken for, in words: a function of the neuron's own bounds, and of what kind.

    The same intervals are evaluated again, in another order, alone, beside others and in another
    shape. Vectorised and scalar arithmetic may round differently, by a few units.
    """
    generator = torch.Generator().manual_seed(2)
    ends = torch.randn(2, 240, generator=generator, dtype=torch.float64) * 3
    if not relaxation.function_of.is_everywhere:
        ends = ends.abs() + 0.1
    lower, upper = ends.amin(0), ends.amax(0)
    with torch.no_grad():
        kept = ends.amin(0), ends.amax(0)
        whole = torch.stack(relaxation(lower, upper))
        if not (torch.equal(lower, kept[0]) and torch.equal(upper, kept[1])):
            return "the function changes its inputs in place"
        order = torch.randperm(240, generator=generator)
        shaped = torch.stack(relaxation(lower.reshape(2, 5, 4, 6), upper.reshape(2, 5, 4, 6)))
        singles = [torch.stack(relaxation(lower[i : i + 1], upper[i : i + 1])) for i in range(0, 240, 16)]
        more = -50 * upper.abs() if relaxation.function_of.is_everywhere else 0.01 * lower
        beside = torch.stack(relaxation(torch.cat([lower, more]), torch.cat([upper, upper.abs()])))
        others = (
            ("differ when evaluated twice", whole, torch.stack(relaxation(lower, upper))),
            ("depend on the order", whole[:, order], torch.stack(relaxation(lower[order], upper[order]))),
            ("depend on the tensor's shape", whole, shaped.reshape(4, 240)),
            ("depend on the other neurons", whole[:, ::16], torch.cat(singles, 1)),
            ("depend on the other neurons", whole, beside[:, :240]),
        )
        whole_upper = whole[2] * (lower + upper) / 2 + whole[3]
    for what, expected, got in others:
        if not torch.allclose(expected, got, rtol=1e-12, atol=1e-12, equal_nan=True):
            return f"the lines {what} (by {float((expected - got).abs().max()):.3g})"
    if relaxation.chord and not torch.allclose(whole_upper, (lower.relu() + upper.relu()) / 2, rtol=1e-9, atol=1e-9):
        return "the upper line is not the chord, which chord=True says it is"
    apart = _slopes_apart(relaxation) if relaxation.parallel else None
    return None if apart is None else f"parallel=True says that both lines have one slope, which is not so at {apart}"


def seems_parallel(relaxation: Relaxation) -> bool:
    """Whether both lines had one slope wherever the search looked, declared or not."""
    return _slopes_apart(relaxation) is None


def _slopes_apart(relaxation: Relaxation) -> str | None:
    """An interval, in words, over which the two lines have different slopes."""
    lower, upper = pairs(relaxation, torch.float64)
    with torch.no_grad():
        lines = relaxation(lower, upper)
    apart = lines.lower_slope != lines.upper_slope
    if not apart.any():
        return None
    at = int(apart.double().argmax())
    slopes = f"{float(lines.lower_slope[at]):g} and {float(lines.upper_slope[at]):g}"
    return f"l = {float(lower[at]):g}, u = {float(upper[at]):g}: {slopes}"


@dataclass(frozen=True)
class Tightness:
    """The two lines against IBP's constants, the activation's smallest and largest value; for ReLU over crossing neurons.

    within: whether the lines stay within IBP's constants on all of [l, u].
    overshoot: the most by which a line leaves them, in units of the interval's width u - l.
    area: mean of (area between the lines) / (area of IBP's box, for ReLU u (u - l)).
    worst_area: the largest such quotient; for ReLU among intervals with ends within a factor 30.
    """

    within: bool
    overshoot: float
    area: float
    worst_area: float


def measure_tightness(relaxation: Relaxation) -> Tightness:
    """Compare with IBP. For ReLU on crossing intervals of width 1, l : u from 30 : 1 to 1 : 30, evenly in log; for others on
    intervals between -4 and 4 over which the function varies by more than 1e-3.

    Stable neurons count for `within` as well: there a line may leave the constants too.
    """
    activation = relaxation.function_of
    if activation is RELU:
        share = torch.linspace(-1, 1, 401, dtype=torch.float64) * torch.log(torch.tensor(30.0))
        upper = torch.sigmoid(share)
        lower = upper - 1
    else:
        lower, upper = _plain_intervals(activation)
    with torch.no_grad():
        lines = relaxation(lower, upper)
        middle = (lower + upper) / 2
        height = (lines[2] - lines[0]) * middle + lines[3] - lines[1]
        low, high = activation.interval(lower, upper)
        area = height * (upper - lower) / ((high - low) * (upper - lower))
        if activation is RELU:
            # Stable neurons: the ranges must be [l, u] and [0, 0].
            stable = torch.tensor([[0.5, 0.0, -1.5, -1.0], [1.5, 1.0, -0.5, 0.0]], dtype=torch.float64)
            lower = torch.cat([lower, stable[0]])
            upper = torch.cat([upper, stable[1]])
        overshoot = _overshoot(activation, relaxation(lower, upper), lower, upper)
    worst = float(overshoot.max())
    return Tightness(worst <= 1e-9, max(worst, 0.0), float(area.mean()), float(area.max()))


def _plain_intervals(activation: Activation) -> tuple[Tensor, Tensor]:
    lower, upper = usable(activation, *all_pairs(torch.arange(-16, 17, dtype=torch.float64) / 4))
    low, high = activation.interval(lower, upper)
    varies = (high - low > 1e-3) & (upper > lower)
    return lower[varies], upper[varies]


def _overshoot(activation: Activation, lines: Lines, lower: Tensor, upper: Tensor) -> Tensor:
    """How far the range of the lines over [l, u] leaves the activation's interval, per width."""
    ends = torch.stack([lower, upper])
    low, high = activation.interval(lower, upper)
    bottom = (lines.lower_slope * ends + lines.lower_offset).amin(0)
    top = (lines.upper_slope * ends + lines.upper_offset).amax(0)
    over = torch.maximum(low - bottom, top - high)
    return over / (upper - lower)


def worst_excess(relaxation: Relaxation) -> tuple[float, float]:
    """The largest excess of a line over its activation, and the largest in units of what is allowed.

    Negative excess counts as 0; above 1 in the second number the relaxation is unsound.
    """
    absolute, relative = 0.0, 0.0
    activation = relaxation.function_of
    for dtype in _DTYPES:
        lower, upper = pairs(relaxation, dtype)
        with torch.no_grad():
            lines = relaxation(lower, upper)
            x = points(activation, lines, lower, upper)
            both = torch.stack(excess(activation, lines, x))
            allowed = tolerance(activation, lines, lower, upper, x)
        relative = max(relative, float((both / allowed).nan_to_num(math.inf).max()))
        # Huge intervals, and steep ones, round by huge amounts: they only count in units of what is allowed.
        plain = torch.maximum(lower.abs(), upper.abs()) <= 10
        if activation is not RELU:
            plain &= torch.maximum(*(end.abs() for end in activation.interval(lower, upper))) <= 100
        if dtype == torch.float64:
            absolute = max(absolute, float(both[:, :, plain].max()))
    return absolute, relative
