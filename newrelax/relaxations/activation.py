"""Activations: the functions of one feature that a relaxation can be for.

What bounds need to know of one is where it turns (its interval then follows from finitely many values) and where it has a
given slope (then so do the best offsets of lines of that slope, see `newrelax.relaxations.smooth`).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from newrelax.relaxations.slopes import Critical, Function, where_monotone

ROUNDINGS = 16
"""Rounded operations by which a bound may lie beyond the end of a domain and still mean the end."""


@dataclass(frozen=True)
class Activation:
    """A function of one feature.

    name: as `@relaxation(…, activation=name)` spells it. function: the call of torch that networks make. derivative: of it;
    None: only constant lines are known. extrema: places where the function turns, ascending. critical: all places of a given
    slope, elementwise (NaN where there is none; places too many do no harm); None: unknown. domain: where the function is
    defined and continuous, without its ends, but with them if it is closed, and without the poles. period: after which the
    function repeats itself; extrema and critical then name the places of one period. guarded: the same function with a finite
    gradient where torch's own call has none.
    """

    name: str
    function: Function
    derivative: Function | None = field(default=None, compare=False)
    extrema: tuple[float, ...] = ()
    critical: Critical | None = field(default=None, compare=False)
    domain: tuple[float, float] = (-math.inf, math.inf)
    closed: bool = False
    poles: tuple[float, ...] = ()
    period: float | None = None
    guarded: Function | None = field(default=None, compare=False)

    def __call__(self, x: Tensor) -> Tensor:
        """The function's values."""
        return self.function(x) if self.guarded is None else self.guarded(x)

    @property
    def is_everywhere(self) -> bool:
        """Whether the function is defined for all numbers."""
        return self.domain == (-math.inf, math.inf) and not self.poles

    def is_defined_above(self, floor: float) -> bool:
        """Whether a domain with an end or a pole holds all numbers from there on."""
        first, last = self.domain
        inside = floor > first or (self.closed and floor >= first)
        return not self.is_everywhere and inside and last == math.inf and all(floor > pole for pole in self.poles)

    def within(self, lower: Tensor, upper: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Whether the function is defined on all of [lower, upper], and those ends; 1 and 1 where it is not.

        Bounds round: what lies beyond the end of a closed domain by no more than that counts as the end.
        """
        first, last = self.domain
        if self.closed:
            slack = ROUNDINGS * torch.finfo(lower.dtype).eps * torch.maximum(lower.abs(), upper.abs()).detach()
            lower = torch.where((lower < first) & (lower >= first - slack), first, lower)
            upper = torch.maximum(lower, upper)
            inside = (lower >= first) & (upper < last)
        else:
            inside = (lower > first) & (upper < last)
        for pole in self.poles:
            inside = inside & ((lower > pole) | (upper < pole))
        return inside, torch.where(inside, lower, 1.0), torch.where(inside, upper, 1.0)

    def interval(self, lower: Tensor, upper: Tensor) -> tuple[Tensor, Tensor]:
        """The smallest and the largest value over [lower, upper]; infinite where that leaves the domain."""
        if self.is_everywhere:
            return self._interval(lower, upper)
        inside, lower, upper = self.within(lower, upper)
        low, high = self._interval(lower, upper)
        return torch.where(inside, low, -math.inf), torch.where(inside, high, math.inf)

    def _interval(self, lower: Tensor, upper: Tensor) -> tuple[Tensor, Tensor]:
        values = [self(lower), self(upper)]
        if self.period is not None:
            values += [
                torch.where(self._meets(at, lower, upper), self(torch.full_like(lower, at)), values[0]) for at in self.extrema
            ]
        else:
            values += [self(torch.minimum(lower.clamp(min=at), upper)) for at in self.extrema]
        low, high = values[0], values[0]
        for value in values[1:]:
            low, high = torch.minimum(low, value), torch.maximum(high, value)
        return low, high

    def _meets(self, at: float, lower: Tensor, upper: Tensor) -> Tensor:
        """Whether `at`, or a place some periods from it, lies in [lower, upper], give or take what places round by."""
        assert self.period is not None
        slack = 2 * torch.finfo(lower.dtype).eps * (1 + torch.maximum(lower.abs(), upper.abs()) / self.period)
        first, last = (lower - at) / self.period - slack, (upper - at) / self.period + slack
        return (first.ceil() <= last.floor()).detach()


def _sigmoid_slope(x: Tensor) -> Tensor:
    value = torch.sigmoid(x)
    return value * (1 - value)


def _tanh_slope(x: Tensor) -> Tensor:
    value = torch.tanh(x)
    return 1 - value * value


def _tanh_places(slope: Tensor) -> tuple[Tensor, ...]:
    """±artanh √(1 − s), written so that it keeps its digits for small s."""
    slope = slope.clamp(min=torch.finfo(slope.dtype).tiny)
    place = (1 + (1 - slope).clamp(min=0).sqrt()).log() - 0.5 * slope.log()
    return place, -place


def _sigmoid_places(slope: Tensor) -> tuple[Tensor, ...]:
    place, _ = _tanh_places(4 * slope)  # sigmoid(x) = (1 + tanh(x/2))/2
    return 2 * place, -2 * place


def _erf_slope(x: Tensor) -> Tensor:
    return 2 / math.sqrt(math.pi) * torch.exp(-x * x)


def _erf_places(slope: Tensor) -> tuple[Tensor, ...]:
    place = (-(slope * (math.sqrt(math.pi) / 2)).log()).sqrt()
    return place, -place


def _atan_places(slope: Tensor) -> tuple[Tensor, ...]:
    place = (1 / slope.clamp(min=1e-30) - 1).clamp(min=0).sqrt()
    return place, -place


def _gelu_slope(x: Tensor) -> Tensor:
    density = torch.exp(-0.5 * x * x) / math.sqrt(2 * math.pi)
    return 0.5 * (1 + torch.erf(x / math.sqrt(2))) + x * density


_GELU_TANH = math.sqrt(2 / math.pi)


def _gelu_tanh_slope(x: Tensor) -> Tensor:
    x = x.clamp(-1e3, 1e3)  # cubes of large numbers overflow; the slope is 0 or 1 long before
    square = x * x
    inner = torch.tanh(_GELU_TANH * x * (1 + 0.044715 * square))
    return 0.5 * (1 + inner) + 0.5 * x * (1 - inner * inner) * _GELU_TANH * (1 + 3 * 0.044715 * square)


def _gelu_tanh(x: Tensor) -> Tensor:
    """Torch's cube of large numbers overflows on the way back; there the function is ReLU."""
    plain = x.detach().abs() < 1e4
    return torch.where(plain, F.gelu(torch.where(plain, x, 0.0), approximate="tanh"), x.relu())


def _root(x: Tensor) -> Tensor:
    """The square root; at 0, where it rises infinitely fast, with gradient 0."""
    inner = x.clamp(min=torch.finfo(x.dtype).tiny)
    return torch.where(x.detach() > 0, torch.sqrt(inner), torch.sqrt(x.detach()))


def _silu_slope(x: Tensor) -> Tensor:
    value = torch.sigmoid(x)
    return value * (1 + x * (1 - value))


def _mish_slope(x: Tensor) -> Tensor:
    inner = torch.tanh(F.softplus(x))
    return inner + x * (1 - inner * inner) * torch.sigmoid(x)


def _elu_slope(x: Tensor, alpha: float, scale: float, input_scale: float) -> Tensor:
    return torch.where(x > 0, scale, scale * alpha * input_scale * torch.exp(input_scale * x.clamp(max=0)))


def _reciprocal_places(slope: Tensor) -> tuple[Tensor, ...]:
    place = (-1 / slope).sqrt()
    return place, -place


POSITIVE = (0.0, math.inf)

RELU = Activation("relu", torch.relu)
SIGMOID = Activation("sigmoid", torch.sigmoid, _sigmoid_slope, critical=_sigmoid_places)
TANH = Activation("tanh", torch.tanh, _tanh_slope, critical=_tanh_places)
ERF = Activation("erf", torch.erf, _erf_slope, critical=_erf_places)
ATAN = Activation("atan", torch.atan, lambda x: 1 / (1 + x * x), critical=_atan_places)
SOFTPLUS = Activation("softplus", F.softplus, torch.sigmoid, critical=lambda slope: (torch.logit(slope),))
GELU = Activation(
    "gelu",
    F.gelu,
    _gelu_slope,
    extrema=(-0.7517915246935645,),
    critical=where_monotone(_gelu_slope, (-math.sqrt(2), math.sqrt(2)), 12.0),
)
GELU_TANH = Activation(
    "gelu(tanh)",
    partial(F.gelu, approximate="tanh"),
    _gelu_tanh_slope,
    extrema=(-0.7524614220710163,),
    critical=where_monotone(_gelu_tanh_slope, (-1.4185040087908284, 1.4185040087908284), 12.0),
    guarded=_gelu_tanh,
)
SILU = Activation(
    "silu",
    F.silu,
    _silu_slope,
    extrema=(-1.2784645427610738,),
    critical=where_monotone(_silu_slope, (-2.3993572805154677, 2.3993572805154677), 40.0),
)
MISH = Activation(
    "mish",
    F.mish,
    _mish_slope,
    extrema=(-1.1924312145154952,),
    critical=where_monotone(_mish_slope, (-2.2563763963607931, 1.4905711794854285), 40.0),
)
EXP = Activation("exp", torch.exp, torch.exp, critical=lambda slope: (slope.log(),))
SQUARE = Activation("square", torch.square, lambda x: 2 * x, extrema=(0.0,), critical=lambda slope: (slope / 2,))
SQRT = Activation(
    "sqrt",
    torch.sqrt,
    lambda x: 0.5 * x.rsqrt(),
    critical=lambda slope: (0.25 / slope.square(),),
    domain=POSITIVE,
    closed=True,
    guarded=_root,
)
LOG = Activation("log", torch.log, torch.reciprocal, critical=lambda slope: (1 / slope,), domain=POSITIVE)
RECIPROCAL = Activation("reciprocal", torch.reciprocal, lambda x: -1 / x.square(), critical=_reciprocal_places, poles=(0.0,))
RSQRT = Activation(
    "rsqrt", torch.rsqrt, lambda x: -0.5 * x.rsqrt() / x, critical=lambda slope: ((-2 * slope).pow(-2 / 3),), domain=POSITIVE
)
SIN = Activation(
    "sin",
    torch.sin,
    torch.cos,
    extrema=(-math.pi / 2, math.pi / 2),
    critical=lambda slope: (slope.acos(), -slope.acos()),
    period=2 * math.pi,
)
COS = Activation(
    "cos",
    torch.cos,
    lambda x: -torch.sin(x),
    extrema=(0.0, math.pi),
    critical=lambda slope: (-slope.asin(), math.pi + slope.asin()),
    period=2 * math.pi,
)


def elu(alpha: float = 1.0, scale: float = 1.0, input_scale: float = 1.0) -> Activation:
    """scale·x above 0, scale·alpha·(exp(input_scale·x) − 1) below (ELU, CELU, SELU)."""
    slope = partial(_elu_slope, alpha=alpha, scale=scale, input_scale=input_scale)

    def critical(at: Tensor) -> tuple[Tensor, ...]:
        # besides the place below 0 where the exponential has the slope, the bend at 0 itself
        return (at / (scale * alpha * input_scale)).log() / input_scale, torch.zeros_like(at)

    name = "elu" if (alpha, scale, input_scale) == (1.0, 1.0, 1.0) else f"elu({alpha:g}, {scale:g}, {input_scale:g})"
    # with a negative alpha the bend at 0 is the smallest value
    return Activation(
        name, lambda x: torch.ops.aten.elu(x, alpha, scale, input_scale), slope, extrema=(0.0,), critical=critical
    )


def power(exponent: int) -> Activation:
    """x to a whole power above 1."""
    if exponent == 2:
        return SQUARE
    even = exponent % 2 == 0

    def critical(slope: Tensor) -> tuple[Tensor, ...]:
        size = (slope.abs() / exponent).pow(1 / (exponent - 1))
        return (size * slope.sign(),) if even else (size, -size)

    return Activation(
        f"power({exponent})",
        lambda x: x**exponent,
        lambda x: exponent * x ** (exponent - 1),
        extrema=(0.0,) if even else (),
        critical=critical,
    )


def real_power(exponent: float) -> Activation:
    """x to a power that is no whole number, x above 0; at 0 too where the power is above 0."""

    def function(x: Tensor) -> Tensor:
        if not 0 < exponent < 1:
            return x**exponent
        inner = x.clamp(min=torch.finfo(x.dtype).tiny)  # at 0 it rises infinitely fast, as the square root does
        return torch.where(x.detach() > 0, inner**exponent, x.detach() ** exponent)

    def derivative(x: Tensor) -> Tensor:
        inner = x.clamp(min=torch.finfo(x.dtype).tiny)
        steep = exponent if exponent > 1 else exponent * torch.where(x.detach() > 0, 1.0, math.inf)
        return steep * inner ** (exponent - 1)

    return Activation(
        f"power({exponent:g})",
        lambda x: x**exponent,
        derivative,
        critical=lambda slope: ((slope / exponent).pow(1 / (exponent - 1)),),
        domain=POSITIVE,
        closed=exponent > 0,
        guarded=function,
    )


ACTIVATIONS: dict[str, Activation] = {
    a.name: a
    for a in (
        RELU,
        SIGMOID,
        TANH,
        GELU,
        GELU_TANH,
        SILU,
        MISH,
        elu(),
        SOFTPLUS,
        EXP,
        SQUARE,
        SQRT,
        LOG,
        RECIPROCAL,
        RSQRT,
        ERF,
        ATAN,
        SIN,
        COS,
    )
}
"""All activations by name."""
