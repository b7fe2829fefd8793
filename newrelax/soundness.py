"""Do two lines bound ReLU? A search for a counterexample over (l, u, x)."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass

import torch
from torch import Tensor

from newrelax.errors import UserError
from newrelax.relaxation import Lines, Relaxation

ROUNDINGS = 16
"""Rounded operations granted to a relaxation: its lines are made of about a dozen, on numbers
no larger than max(|l|, |u|), so they may be off by this many units of rounding at that size."""

ALLOWANCE = 1e-8
"""Absolute excess not held against a relaxation. Guards such as u/(u - l + 1e-8) move a line by
up to this much; networks with pre-activations of order one round by more in float32."""

_MAGNITUDES = (
    1e-30, 1e-20, 1e-12, 1e-9, 1e-8, 1e-7, 1e-6, 1e-4, 1e-2, 0.1, 0.3, 1.0, 1.5, 2.0, 3.0,
    10.0, 1e2, 1e4, 1e6, 1e10, 1e18, 1e30,
)  # fmt: skip


@dataclass(frozen=True)
class Counterexample:
    """A point where a line fails: l <= x <= u, and the line is on the wrong side of ReLU(x).

    `line` is "lower", "upper", or "interval" for a replacement interval that leaves out x.
    `value` is the line's value at x, `relu` is ReLU(x) (x itself for an interval), `violation`
    how far the value is on the wrong side (NaN or infinite where the line is).
    """

    lower: float
    upper: float
    x: float
    line: str
    value: float
    relu: float
    violation: float
    dtype: str

    def __str__(self) -> str:
        place = f"l = {self.lower:g}, u = {self.upper:g}, x = {self.x:g} ({self.dtype}): "
        if self.line == "interval":
            return place + f"the interval ends at {self.value:g} and leaves out x by {self.violation:g}"
        if not math.isfinite(self.violation):
            return place + f"the {self.line} line is not finite"
        side = "above" if self.line == "lower" else "below"
        return place + (
            f"the {self.line} line, {self.value:g}, is {side} ReLU(x) = {self.relu:g} "
            f"by {self.violation:g}"
        )

    def as_dict(self) -> dict[str, float | str]:
        """Plain values, for JSON."""
        return asdict(self)


def find_counterexample(relaxation: Relaxation) -> Counterexample | None:
    """A point where the lines fail to bound ReLU, or None after a search that found none.

    Searched in float64 and float32: round numbers first (so that a counterexample reads well),
    then a dense grid, all pairs of magnitudes from 1e-30 to 1e30 (1e18 in float32) with both
    signs, the boundaries l = 0, u = 0, l = u and -l = u and their floating-point neighbours,
    random intervals, and a climb from the tightest of those towards larger excess. For fixed
    (l, u) the excess is largest at x = l, x = u or x = 0; points between are tried too. Takes
    about a second.

    Raises:
        UserError: the function fails, or returns something else than lines.
    """
    _try_out(relaxation)
    for dtype in (torch.float64, torch.float32):
        generator = torch.Generator().manual_seed(0)
        for lower, upper in _stages(dtype, generator):
            found = _worst(relaxation, lower, upper)
            if found is not None:
                return found
        found = _climb(relaxation, *_merge(_stages(dtype, generator)), generator)
        if found is not None:
            return found
    return None


def _try_out(relaxation: Relaxation) -> None:
    example = torch.tensor([-1.0, -2.0]), torch.tensor([2.0, 1.0])
    try:
        relaxation(*example)
    except UserError:
        raise
    except Exception as error:  # a plugin's function may raise anything
        text = " ".join(str(error).split())
        raise UserError(f"{relaxation.name}: its function raised {type(error).__name__}: {text}") from error


def is_sound(relaxation: Relaxation) -> bool:
    """Whether `find_counterexample` finds none."""
    return find_counterexample(relaxation) is None


def pairs(dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """All intervals of the search but the climb's: (lower, upper), each [n], lower <= upper."""
    return _merge(_stages(dtype, torch.Generator().manual_seed(0)))


def excess(lines: Lines, lower: Tensor, upper: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
    """How far the lower and the upper line are on the wrong side of ReLU at x (float64).

    lower, upper: [n]; x: [m, n]. The lines are evaluated in float64, so that in float32 only the
    relaxation's own rounding counts. Positive is a violation.
    """
    parts = [part.double() for part in lines]
    y = x.double().clamp(min=0)
    return parts[0] * x.double() + parts[1] - y, y - parts[2] * x.double() - parts[3]


def tolerance(lower: Tensor, upper: Tensor) -> Tensor:
    """The excess that rounding and guards explain (float64), see `ROUNDINGS` and `ALLOWANCE`."""
    scale = torch.maximum(lower.abs(), upper.abs()).double()
    return ROUNDINGS * torch.finfo(lower.dtype).eps * scale + ALLOWANCE


def points(lower: Tensor, upper: Tensor) -> Tensor:
    """Places in [lower, upper] to look at: [m, n], the ends and 0 among them."""
    shares = torch.linspace(0, 1, 6, dtype=lower.dtype)[:, None]
    inside = lower * (1 - shares) + upper * shares  # no upper - lower: that can overflow
    zero = torch.zeros_like(lower)[None]
    return torch.minimum(torch.maximum(torch.cat([lower[None], upper[None], zero, inside]), lower), upper)


def _stages(dtype: torch.dtype, generator: torch.Generator) -> Iterator[tuple[Tensor, Tensor]]:
    yield _all_pairs(torch.arange(-6, 7, dtype=dtype) / 2)
    yield _all_pairs(torch.arange(-40, 41, dtype=dtype) / 13)
    # The product of two bounds, as in -l u/(u - l), must not overflow: 1e18 in float32.
    size = torch.tensor([m for m in _MAGNITUDES if m * m < torch.finfo(dtype).max], dtype=dtype)
    yield _all_pairs(torch.cat([-size.flip(0), torch.zeros(1, dtype=dtype), size]))
    yield _neighbours(size)
    power = torch.rand(2, 2000, generator=generator, dtype=dtype) * 12 - 8
    sign = torch.randint(0, 2, (2, 2000), generator=generator) * 2 - 1
    ends = sign * 10**power
    yield ends.amin(0), ends.amax(0)


def _all_pairs(values: Tensor) -> tuple[Tensor, Tensor]:
    first, second = torch.triu_indices(len(values), len(values))
    return values[first], values[second]


def _neighbours(size: Tensor) -> tuple[Tensor, Tensor]:
    """-l = u, l = u, l = 0 and u = 0, and one unit of rounding beside each."""
    zero = torch.zeros_like(size)
    up, down = torch.nextafter(size, 2 * size), torch.nextafter(size, zero)
    tiny = torch.full_like(size, torch.finfo(size.dtype).tiny)
    lower = [-size, -size, -size, size, -up, down, -size, -size, -tiny, tiny, -tiny]
    upper = [size, up, down, size, -size, size, tiny, -tiny, size, size, tiny]
    return torch.cat(lower), torch.cat(upper)


def _merge(stages: Iterator[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
    lower, upper = zip(*stages, strict=True)
    return torch.cat(lower), torch.cat(upper)


def _excess_at_points(relaxation: Relaxation, lower: Tensor, upper: Tensor) -> tuple[Tensor, Tensor]:
    """Excess of the lower and the upper line, [2, m, n], infinite where a line is not finite, and
    the points, [m, n]."""
    with torch.no_grad():
        lines = relaxation(lower, upper)
    x = points(lower, upper)
    both = torch.stack(excess(lines, lower, upper, x))
    # A line that is not finite bounds nothing, whatever its comparison says.
    finite = torch.stack([lines[0].isfinite() & lines[1].isfinite(), lines[2].isfinite() & lines[3].isfinite()])
    return torch.where(finite[:, None] & both.isfinite(), both, float("inf")), x


def _worst(relaxation: Relaxation, lower: Tensor, upper: Tensor) -> Counterexample | None:
    outside = _outside(relaxation, lower, upper)
    if outside is not None:
        return outside
    both, x = _excess_at_points(relaxation, lower, upper)
    violated = both > tolerance(lower, upper)
    if not violated.any():
        return None
    # Relative to the interval's size, so that huge intervals do not hide plain ones.
    size = torch.maximum(lower.abs(), upper.abs()).double().clamp(min=1.0)
    worst = int(torch.where(violated, both / size, -1.0).argmax())
    side, rest = divmod(worst, x.numel())
    row, column = divmod(rest, x.shape[1])
    at = lower[column : column + 1], upper[column : column + 1]
    with torch.no_grad():
        lines = relaxation(*at)
    point = float(x[row, column])
    value = float(lines[2 * side].double() * point + lines[2 * side + 1].double())
    relu = max(point, 0.0)
    return Counterexample(
        float(at[0]), float(at[1]), point, ("lower", "upper")[side], value, relu,
        abs(value - relu), str(lower.dtype).removeprefix("torch."),
    )  # fmt: skip


def _outside(relaxation: Relaxation, lower: Tensor, upper: Tensor) -> Counterexample | None:
    """An end that an interval relaxation's replacement interval leaves out."""
    if relaxation.widen is None:
        return None
    with torch.no_grad():
        wider = relaxation.widen(lower, upper)
    allowed = tolerance(lower, upper)
    for sign, end, moved in ((1.0, lower, wider[0]), (-1.0, upper, wider[1])):
        inward = sign * (moved.double() - end.double())
        violated = ~(inward <= allowed)  # NaN counts
        if violated.any():
            at = int(violated.double().argmax())
            return Counterexample(
                float(lower[at]), float(upper[at]), float(end[at]), "interval", float(moved[at]),
                float(end[at]), float(inward[at]), str(lower.dtype).removeprefix("torch."),
            )  # fmt: skip
    return None


def _climb(
    relaxation: Relaxation, lower: Tensor, upper: Tensor, generator: torch.Generator, keep: int = 32
) -> Counterexample | None:
    """Random steps from the intervals with the least room, kept when the excess grows."""
    for round_ in range(12):
        both, _ = _excess_at_points(relaxation, lower, upper)
        room = both.amax((0, 1)) / tolerance(lower, upper)
        # Tight lines touch ReLU, so most intervals tie at 0: pick among them at random.
        order = torch.randperm(len(room), generator=generator)
        best = order[room[order].topk(min(keep, len(room))).indices]
        spread = 2.0 ** (-round_ / 2)
        noise = torch.randn(2, 32, keep, generator=generator, dtype=lower.dtype) * spread
        start = torch.stack([lower[best], upper[best]])[:, None, : len(best)]
        moved = start * torch.exp(noise) + noise.flip(0) * spread * 0.1 * (start.abs() < 100)
        ends = torch.cat([start, moved], 1).flatten(1)
        lower, upper = ends.amin(0), ends.amax(0)
        found = _worst(relaxation, lower, upper)
        if found is not None:
            return found
    return None
