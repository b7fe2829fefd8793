"""The one thing a relaxation is: a pure function from bounds to two lines.

A neuron with pre-activation bounds l ≤ x ≤ u is enclosed by

    lower_slope * x + lower_offset  ≤  f(x)  ≤  upper_slope * x + upper_offset

for every x in [l, u], f being ReLU unless the relaxation says otherwise. For ReLU an author writes that function for
*crossing* neurons (l < 0 < u), vectorised over tensors; `Relaxation.__call__` is sealed and adds the stable neurons, whose
lines are the same for every relaxation. For other activations the function sees every neuron.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import NamedTuple

import torch
from torch import Tensor

from newrelax.errors import UserError
from newrelax.relaxations.activation import ACTIVATIONS, Activation

_NAME_FORBIDS = set(" \t\n:,=/\\")


class Lines(NamedTuple):
    """Two lines per neuron; each tensor has the shape of the bounds."""

    lower_slope: Tensor
    lower_offset: Tensor
    upper_slope: Tensor
    upper_offset: Tensor


@dataclass(frozen=True)
class Relaxation:
    """A relaxation of one activation as an immutable value; call it to get the lines.

    Attributes:
        name: the name users type, without parameters.
        function: `(lower, upper, **params) -> (lower_slope, lower_offset,
            upper_slope, upper_offset)`, pure and elementwise. It sees crossing
            neurons only, unless `handles_stable`. An entry may be a plain number.
        params: the function's keyword-only parameters and their values.
        handles_stable: True when the function also gives the lines of stable
            neurons (the continuous "-C" variants); it then sees every neuron.
        sound: False for a relaxation known not to enclose its activation.
        native: auto_LiRPA 0.3's own option for the same lines, if it has one.
        propagation: the default propagation of a method made of this value.
        interval: for interval relaxations: `(lower, upper, **params) ->
            (lower', upper')`, the interval that replaces [lower, upper].
        minimum: the smallest value allowed for a parameter, by name.
        chord: True when the upper line is the chord of ReLU over [l, u], so that
            at the middle it gives (ReLU(l) + ReLU(u))/2, for stable neurons too:
            "ibp+backward" then takes its reference from the interval pass.
        parallel: True when both lines have one slope, for all bounds. Hybrid
            propagation asks for it, and it halves the cost of back-substitution.
        activation: the name of the function that the lines are around, "relu" or
            another of `newrelax.relaxations.activation.ACTIVATIONS`; an `Activation`
            of one's own may be given in its place.
        own: the activation, where it was given and not named.
    """

    name: str
    function: Callable[..., tuple[Tensor | float, ...]]
    params: Mapping[str, float] = field(default_factory=dict, hash=False)
    handles_stable: bool = False
    sound: bool = True
    native: str | None = None
    propagation: str = "backward"
    interval: Callable[..., tuple[Tensor, Tensor]] | None = None
    minimum: Mapping[str, float] = field(default_factory=dict, hash=False)
    chord: bool = False
    parallel: bool = False
    activation: str = "relu"
    own: Activation | None = field(default=None, compare=False, repr=False)

    def __post_init__(self) -> None:
        check_name(self.name)
        if isinstance(self.activation, Activation):
            object.__setattr__(self, "own", self.activation)
            object.__setattr__(self, "activation", self.activation.name)
        if self.own is None and self.activation not in ACTIVATIONS:
            raise UserError(f"{self.name}: unknown activation {self.activation!r}; known: {', '.join(ACTIVATIONS)}")
        if self.activation != "relu" and (self.interval is not None or self.chord):
            raise UserError(f"{self.name}: interval and chord are for relaxations of relu, this one is of {self.activation}")
        # help(value) and `summary` then show the mathematics the author wrote.
        object.__setattr__(self, "__doc__", inspect.getdoc(self.function))

    @property
    def summary(self) -> str:
        """First line of the function's docstring, or the name."""
        return (self.__doc__ or self.name).strip().splitlines()[0]

    @property
    def label(self) -> str:
        """Canonical spelling with parameters, such as `CROWN-Soft:gamma=1`."""
        return format_label(self.name, self.params)

    @property
    def function_of(self) -> Activation:
        """The activation that the lines are around."""
        return ACTIVATIONS[self.activation] if self.own is None else self.own

    @property
    def widen(self) -> Callable[[Tensor, Tensor], tuple[Tensor, Tensor]] | None:
        """`(lower, upper) -> (lower', upper')` with the parameters filled in,
        for interval relaxations; None for all others."""
        if self.interval is None:
            return None
        interval, params = self.interval, dict(self.params)
        return lambda lower, upper: interval(lower, upper, **params)

    def with_params(self, **params: float) -> Relaxation:
        """The same relaxation with other parameter values.

        Raises:
            UserError: an unknown parameter, or a value that is not a finite
                number or is below its minimum.
        """
        checked = {key: self._check_param(key, value) for key, value in params.items()}
        return replace(self, params={**self.params, **checked})

    def _check_param(self, key: str, value: float) -> float:
        if key not in self.params:
            known = ", ".join(self.params) or "none"
            raise UserError(f"{self.name} has no parameter {key!r}; its parameters: {known}")
        return check_number(self.name, key, value, self.minimum.get(key, -math.inf))

    def __call__(self, lower: Tensor, upper: Tensor) -> Lines:
        """The lines of every neuron, differentiable in the bounds.

        Args:
            lower, upper: pre-activation bounds, floating point, same shape.

        Raises:
            UserError: the function returned something else than four real
                tensors of the bounds' shape (or numbers).
        """
        if self.handles_stable or self.activation != "relu":
            values = self._evaluate(lower, upper)
            return Lines(*(value if isinstance(value, Tensor) else torch.full_like(lower, value) for value in values))
        # A NaN bound is neither active nor inactive: it reaches the function
        # and shows up in the bounds instead of passing for a dead neuron.
        # 1 or 0 in the bounds' own type: a boolean costs a CPU 5 times more.
        active = lower.detach().clone().ge_(0)
        stable = torch.maximum(active, upper.detach().clone().le_(0))
        # The function must not see stable bounds even where its value is
        # discarded: a NaN gradient there would still poison the sum (0 * NaN).
        # Products select 15 times faster than torch.where does on a CPU;
        # an infinite bound comes out as NaN lines.
        crossing = 1 - stable
        values = self._evaluate(torch.addcmul(-stable, crossing, lower), torch.addcmul(stable, crossing, upper))
        lower_slope, lower_offset, upper_slope, upper_offset = (crossing * value for value in values)
        return Lines(active + lower_slope, lower_offset, active + upper_slope, upper_offset)

    def _evaluate(self, lower: Tensor, upper: Tensor) -> tuple[Tensor | float, ...]:
        values = self.function(lower, upper, **self.params)
        if not isinstance(values, tuple) or len(values) != 4:
            raise UserError(
                f"{self.name}: expected the 4 values (lower slope, lower offset, upper slope, "
                f"upper offset), got {_describe(values)}"
            )
        return tuple(self._checked(value, lower) for value in values)

    def _checked(self, value: Tensor | float, like: Tensor) -> Tensor | float:
        if isinstance(value, (int, float)):
            return float(value)
        if not isinstance(value, Tensor) or value.shape != like.shape or value.is_complex():
            raise UserError(
                f"{self.name}: expected each line's slope and offset to be a number or a "
                f"{_describe(like)} like the bounds, got {_describe(value)}"
            )
        # (upper > 1) * 0.5 is float32 whatever the bounds are.
        return value.to(like.dtype)


def relaxation(
    name: str,
    *,
    handles_stable: bool = False,
    sound: bool = True,
    native: str | None = None,
    propagation: str = "backward",
    interval: Callable[..., tuple[Tensor, Tensor]] | None = None,
    minimum: Mapping[str, float] | None = None,
    chord: bool = False,
    parallel: bool = False,
    activation: str | Activation = "relu",
) -> Callable[[Callable[..., tuple[Tensor | float, ...]]], Relaxation]:
    """Turn a function of two bounds into a `Relaxation`.

    The function's keyword-only arguments are the relaxation's parameters; each
    needs a number as its default. Nothing is registered anywhere.

    >>> @relaxation("Half")
    ... def half(lower, upper):
    ...     return 0.5, 0.0, 1.0, -lower

    Lines of another activation see every neuron:

    >>> @relaxation("Box", activation="tanh", parallel=True)
    ... def box(lower, upper):
    ...     return 0.0, lower.tanh(), 0.0, upper.tanh()
    """

    def wrap(function: Callable[..., tuple[Tensor | float, ...]]) -> Relaxation:
        return Relaxation(
            name=name,
            function=function,
            params=_read_params(name, function),
            handles_stable=handles_stable,
            sound=sound,
            native=native,
            propagation=propagation,
            interval=interval,
            minimum=dict(minimum or {}),
            chord=chord,
            parallel=parallel,
            activation=activation,  # type: ignore[arg-type]
        )

    return wrap


def _read_params(name: str, function: Callable[..., object]) -> dict[str, float]:
    params: dict[str, float] = {}
    positional = 0
    for parameter in inspect.signature(function).parameters.values():
        if parameter.kind is inspect.Parameter.KEYWORD_ONLY:
            params[parameter.name] = check_number(name, parameter.name, parameter.default)
        else:
            positional += 1
    if positional != 2:
        raise UserError(f"{name}: expected a function (lower, upper, *, parameters), got {positional} positional arguments")
    return params


def check_number(name: str, key: str, value: object, minimum: float = -math.inf) -> float:
    """`value` as a finite float of at least `minimum`; UserError otherwise."""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        shown = "no default" if value is inspect.Parameter.empty else repr(value)
        raise UserError(f"{name}: parameter {key} must be a finite number, got {shown}")
    if value < minimum:
        raise UserError(f"{name}: parameter {key} must be at least {minimum:g}, got {value:g}")
    return float(value)


def check_name(name: str) -> None:
    """Refuse a name that could not be typed as `NAME:key=value`."""
    if not isinstance(name, str) or not name or _NAME_FORBIDS & set(name):
        raise UserError(f"expected a name without spaces, ':', ',', '=' or slashes, got {name!r}")


def format_label(name: str, params: Mapping[str, float]) -> str:
    """`NAME:key=value,key=value`, the numbers as short as they go."""
    if not params:
        return name
    return name + ":" + ",".join(f"{key}={_shortest(value)}" for key, value in params.items())


def _shortest(value: float) -> str:
    """The shortest text that reads back as the same number."""
    return f"{value:g}" if float(f"{value:g}") == value else repr(value)


def _describe(value: object) -> str:
    if isinstance(value, Tensor):
        return f"{str(value.dtype).removeprefix('torch.')} tensor of shape {tuple(value.shape)}"
    if isinstance(value, (tuple, list)):
        return f"a {type(value).__name__} of {len(value)}"
    return f"a {type(value).__name__}"
