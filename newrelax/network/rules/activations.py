"""Activations: those made of bends, by ReLU's lines; smooth ones, by lines of their own."""

from __future__ import annotations

from typing import Any

import torch

from newrelax.network.build import Builder, Traced, is_traced
from newrelax.network.operators.rule import Rule, operator
from newrelax.relaxations import activation as act


@operator("aten.relu.default", bounded="lines")
def relu(build: Builder, x: Traced) -> Traced:
    """max(x, 0): the lines of the relaxation."""
    return build.relu(x)


@operator("aten.leaky_relu.default", "aten.rrelu.default", bounded="through ReLUs")
def leaky_relu(build: Builder, x: Traced, slope: Any = 0.01, *randomised: Any) -> Traced:
    """x above 0, slope·x below (the middle of RReLU's slopes in evaluation mode)."""
    if build.site.operator == "aten.rrelu.default":
        if randomised[1]:
            build.refuse("draws random numbers in evaluation mode: pass training=self.training")
        slope = (slope + randomised[0]) / 2
    return build.bent(x, slope, 0.0, (1 - slope, 0.0))


@operator("aten.prelu.default", bounded="through ReLUs")
def prelu(build: Builder, x: Traced, weight: Any) -> Traced:
    """LeakyReLU with trained slopes, one or one a channel."""
    if is_traced(weight):
        build.refuse("with slopes that depend on the input has no bounds here")
    rank = len(x.layout.sizes(x.shape))
    slope = weight.view(-1, *[1] * max(rank - 2, 0)) if weight.numel() > 1 else weight.view(())
    return build.bent(x, slope, 0.0, (1 - slope, 0.0))


@operator("aten.hardtanh.default", "aten.relu6.default", bounded="through ReLUs")
def hardtanh(build: Builder, x: Traced, low: Any = 0.0, high: Any = 6.0) -> Traced:
    """x between low and high."""
    return build.bent(x, 0.0, low, (1.0, low), (-1.0, high)).at_least(low)


@operator(
    "aten.clamp.default",
    "aten.clamp.Tensor",
    "aten.clip.default",
    "aten.clip.Tensor",
    "aten.clamp_min.default",
    "aten.clamp_min.Tensor",
    "aten.clamp_max.default",
    "aten.clamp_max.Tensor",
    bounded="through ReLUs",
)
def clamp(build: Builder, x: Traced, low: Any = None, high: Any = None) -> Traced:
    """x between two limits, either of which may be left out."""
    if "clamp_max" in build.site.operator:
        low, high = None, low
    if is_traced(low, high) or not is_traced(x):
        found: Traced = x if low is None else maximum.function(build, x, low)
        return found if high is None else minimum.function(build, found, high)
    if low is not None and high is not None and not _in_order(low, high):
        return minimum.function(build, maximum.function(build, x, low), high)  # type: ignore[no-any-return]
    if low is None:
        return x if high is None else build.bent(x, 1.0, 0.0, (-1.0, high))
    found = build.bent(x, 0.0, low, (1.0, low), *([] if high is None else [(-1.0, high)]))
    return found if isinstance(low, torch.Tensor) else found.at_least(low)


def _in_order(low: Any, high: Any) -> bool:
    return bool((torch.as_tensor(low) <= torch.as_tensor(high)).all())


@operator("aten.abs.default", bounded="through ReLUs")
def absolute(build: Builder, x: Traced) -> Traced:
    """|x|."""
    return build.bent(x, -1.0, 0.0, (2.0, 0.0)).at_least(0.0)


@operator("aten.hardsigmoid.default", bounded="through ReLUs")
def hardsigmoid(build: Builder, x: Traced) -> Traced:
    """(x + 3)/6 between 0 and 1."""
    return build.bent(x, 0.0, 0.0, (1 / 6, -3.0), (-1 / 6, 3.0)).at_least(0.0)


@operator("aten.softshrink.default", bounded="through ReLUs")
def softshrink(build: Builder, x: Traced, edge: Any = 0.5) -> Traced:
    """x moved towards 0 by the edge, 0 within it."""
    return build.bent(x, 1.0, edge, (-1.0, -edge), (1.0, edge))


@operator("aten.threshold.default", bounded="through ReLUs")
def threshold(build: Builder, x: Traced, at: Any, value: Any) -> Traced:
    """x above the threshold, which is also the value below."""
    if at != value:
        build.refuse(
            f"jumps from {value:g} to {at:g}: expected the same value as the threshold, since lines cannot bound a jump well"
        )
    return build.bent(x, 0.0, at, (1.0, at))


@operator("aten.maximum.default", "aten.fmax.default", "aten.max.other", bounded="through ReLUs")
def maximum(build: Builder, x: Any, y: Any) -> Traced:
    """The larger of two steps, or of a step and a constant."""
    if not isinstance(x, Traced):
        x, y = y, x
    if isinstance(y, Traced):
        return build.larger(x, y)
    found = build.bent(build.expanded(x), 0.0, y, (1.0, y))
    return found if isinstance(y, torch.Tensor) else found.at_least(y)


@operator("aten.minimum.default", "aten.fmin.default", "aten.min.other", bounded="through ReLUs")
def minimum(build: Builder, x: Any, y: Any) -> Traced:
    """The smaller of two steps, or of a step and a constant."""
    if not isinstance(x, Traced):
        x, y = y, x
    if isinstance(y, Traced):
        return build.negate(build.larger(build.negate(build.expanded(x)), build.negate(build.expanded(y))))
    return build.bent(build.expanded(x), 1.0, 0.0, (-1.0, y))


def _smooth(name: str, activation: act.Activation) -> Rule:
    def build_it(build: Builder, x: Traced) -> Traced:
        return build.smooth(x, activation)

    build_it.__doc__ = f"{activation.name}, by lines."
    return Rule((name,), "lines", build_it)


SMOOTH = tuple(
    _smooth(f"aten.{name}.default", activation)
    for name, activation in {
        "sigmoid": act.SIGMOID,
        "tanh": act.TANH,
        "silu": act.SILU,
        "mish": act.MISH,
        "exp": act.EXP,
        "sqrt": act.SQRT,
        "log": act.LOG,
        "reciprocal": act.RECIPROCAL,
        "rsqrt": act.RSQRT,
        "erf": act.ERF,
        "atan": act.ATAN,
        "square": act.SQUARE,
        "sin": act.SIN,
        "cos": act.COS,
    }.items()
)


@operator("aten.gelu.default", bounded="lines")
def gelu(build: Builder, x: Traced, approximate: str = "none") -> Traced:
    """x·Φ(x), or its approximation by tanh."""
    return build.smooth(x, act.GELU_TANH if approximate == "tanh" else act.GELU)


@operator("aten.elu.default", bounded="lines")
def elu(build: Builder, x: Traced, alpha: Any = 1.0, scale: Any = 1.0, input_scale: Any = 1.0) -> Traced:
    """scale·x above 0, scale·alpha·(exp(input_scale·x) − 1) below."""
    return build.smooth(x, act.elu(float(alpha), float(scale), float(input_scale)))


@operator("aten.celu.default", bounded="lines")
def celu(build: Builder, x: Traced, alpha: Any = 1.0) -> Traced:
    """x above 0, alpha·(exp(x / alpha) − 1) below."""
    return build.smooth(x, act.elu(float(alpha), 1.0, 1 / float(alpha)))


@operator("aten.selu.default", bounded="lines")
def selu(build: Builder, x: Traced) -> Traced:
    """ELU with the constants of self-normalising networks."""
    return build.smooth(x, act.elu(1.6732632423543772, 1.0507009873554805))


@operator("aten.softplus.default", bounded="lines")
def softplus(build: Builder, x: Traced, beta: Any = 1, threshold: Any = 20) -> Traced:
    """log(1 + exp(beta·x)) / beta."""
    if threshold < 16:  # torch gives x itself beyond it, which is a jump by exp(−threshold)
        build.refuse(f"jumps at its threshold {threshold:g}: expected 20, the default, or more")
    if beta == 1:
        return build.smooth(x, act.SOFTPLUS)
    return build.scale(build.smooth(build.scale(x, beta), act.SOFTPLUS), beta, divides=True)


RULES = (
    relu,
    leaky_relu,
    prelu,
    hardtanh,
    clamp,
    absolute,
    hardsigmoid,
    softshrink,
    threshold,
    maximum,
    minimum,
    *SMOOTH,
    gelu,
    elu,
    celu,
    selu,
    softplus,
)
