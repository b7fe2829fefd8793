"""The operators of auto_LiRPA's that the check goes through: those that the engine takes for steps, and further ones."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from types import MappingProxyType
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from newrelax.lirpa import bridge
from newrelax.lirpa.examination import Subject, boxes
from newrelax.lirpa.live import Live
from newrelax.lirpa.module import BoundedSteps
from newrelax.lirpa.natives import Native, native_of
from newrelax.lirpa.operators import own_class
from newrelax.network.network import Network, Step, Structure
from newrelax.network.operators.arithmetic import Concatenate, Sum
from newrelax.network.operators.base import Operator, Shape
from newrelax.network.operators.convolution import Convolution
from newrelax.network.operators.diagonal import ScaleShift
from newrelax.network.operators.elementwise import Relu
from newrelax.network.operators.linear import Linear
from newrelax.network.operators.move import Reshape
from newrelax.network.operators.pooling import AveragePool
from newrelax.propagations.choice import Relaxations
from newrelax.relaxations.deepz import deepz

BOXES = 64
IMAGES = 6
"""How many boxes are examined, of few features and of images."""

Build = Callable[[torch.dtype, bool], Iterator[Subject]]

Steps = list[tuple[Operator, tuple[int, ...], Shape]]


@dataclass(frozen=True)
class Candidate:
    """One kind of operator, and what is examined of it: subjects(dtype, whether coefficients are kept as patches)."""

    kind: str
    subjects: Build


# operators that the engine takes for steps, as it takes them

_IMAGE: Shape = (2, 6, 6)


def _subject(
    kind: str, label: str, steps: Steps, input_shape: Shape, dtype: torch.dtype, patches: bool, relu: str | None = None
) -> Subject:
    """auto_LiRPA's own operator where it is of that kind, and plain convolutions, whose coefficients are patches; ours
    elsewhere."""
    parts = tuple(Step(operator, inputs, shape) for operator, inputs, shape in steps)
    network = Network(parts, input_shape, Structure(parts, input_shape))

    def choose(step: Step) -> Native | None:
        native = native_of(step, relu)
        return native if native is not None and native.kind in ((kind, "conv2d") if patches else (kind,)) else None

    own = own_class if kind == LINES or patches else partial(own_class, lines=False)
    options = {} if relu is None else {bridge.RELU_OPTION: relu}
    live = Live(network, Relaxations(deepz, parallel=True), torch.zeros((), dtype=dtype))
    bounded = BoundedSteps(live, choose, options, f"the check of {kind}", patches=patches, own=own)
    weights = [tensor for step in parts if (native := choose(step)) is not None for tensor in native.tensors]
    layers = [index for index, step in enumerate(parts) if isinstance(step.operator, Relu)]

    def before(x: Tensor) -> dict[int, Tensor]:
        values = network.values(x)
        return {i: x if parts[i].inputs[0] < 0 else values[parts[i].inputs[0]] for i in layers}

    entered = {i: bounded.nodes[i].inputs[0] for i in layers}
    return Subject(label, bounded.module, network.forward, _boxes(input_shape, dtype), weights, entered, before)


def _boxes(shape: Shape, dtype: torch.dtype, *, positive: bool = False) -> tuple[Tensor, Tensor]:
    return boxes(shape, BOXES if len(shape) == 1 else IMAGES, dtype, positive=positive)


class _Draw:
    """Weights, always the same ones."""

    def __init__(self, dtype: torch.dtype) -> None:
        self._dtype, self._generator = dtype, torch.Generator().manual_seed(0)

    def __call__(self, *shape: int) -> Tensor:
        found = torch.randn(shape, generator=self._generator, dtype=torch.float64) / math.sqrt(max(1, math.prod(shape[1:])))
        return found.to(self._dtype).requires_grad_()

    def linear(self, outputs: int, inputs: int) -> Linear:
        return Linear(self(outputs, inputs), self(outputs))

    def convolution(self, outputs: int, image: Shape, **options: Any) -> tuple[Convolution, Shape]:
        """And the shape of what it gives."""
        given = {"kernel": (3, 3), "stride": (1, 1), "padding": (1, 1), "dilation": (1, 1), "groups": 1, **options}
        weight = self(outputs, image[0] // given["groups"], *given.pop("kernel"))
        found = Convolution(weight, self(outputs), image[1:], **given)
        return found, tuple(found.value(weight.new_zeros(1, *image)).shape[1:])


def _linear(dtype: torch.dtype, patches: bool) -> Iterator[Subject]:
    draw = _Draw(dtype)
    yield _subject("linear", "one layer", [(draw.linear(5, 6), (-1,), (5,))], (6,), dtype, patches)
    deep: Steps = [
        (draw.linear(5, 6), (-1,), (5,)),
        (Relu(), (0,), (5,)),
        (draw.linear(4, 5), (1,), (4,)),
        (Relu(), (2,), (4,)),
        (draw.linear(3, 4), (3,), (3,)),
    ]
    yield _subject("linear", "three layers", deep, (6,), dtype, patches)


def _behind(first: Steps, draw: _Draw) -> Steps:
    """Steps on images with two plain convolutions and ReLUs behind them, whose bounds go back through all."""
    before = first[-1][2]
    square = before[1] == before[2]
    one, middle = draw.convolution(3, before, **({} if square else {"kernel": (1, 1), "padding": (0, 0)}))
    two, last = draw.convolution(2, middle)
    at = len(first)
    return [
        *first,
        (one, (at - 1,), middle),
        (Relu(), (at,), middle),
        (two, (at + 1,), last),
        (Relu(), (at + 2,), last),
    ]


def _both(
    kind: str, label: str, first: Steps, draw: _Draw, image: Shape, dtype: torch.dtype, patches: bool
) -> Iterator[Subject]:
    yield _subject(kind, label, first, image, dtype, patches)
    yield _subject(kind, f"{label}, before others", _behind(first, draw), image, dtype, patches)


def _convolutions(kind: str, **variants: dict[str, Any]) -> Candidate:
    def subjects(dtype: torch.dtype, patches: bool) -> Iterator[Subject]:
        for label, options in variants.items():
            draw, image = _Draw(dtype), options.get("image", _IMAGE)
            operator, shape = draw.convolution(4, image, **{key: value for key, value in options.items() if key != "image"})
            yield from _both(kind, label, [(operator, (-1,), shape)], draw, image, dtype, patches)

    return Candidate(kind, subjects)


def _joined(kind: str, operator: Operator, channels: int) -> Candidate:
    """Two convolutions of the input that meet again."""

    def subjects(dtype: torch.dtype, patches: bool) -> Iterator[Subject]:
        draw = _Draw(dtype)
        (one, shape), (two, _) = draw.convolution(4, _IMAGE), draw.convolution(4, _IMAGE, kernel=(1, 1), padding=(0, 0))
        first: Steps = [(one, (-1,), shape), (two, (-1,), shape), (operator, (0, 1), (channels, *shape[1:]))]
        yield from _both(kind, kind, first, draw, _IMAGE, dtype, patches)

    return Candidate(kind, subjects)


def _pools(kind: str, **variants: tuple[Shape, Shape, Shape, Shape]) -> Candidate:
    def subjects(dtype: torch.dtype, patches: bool) -> Iterator[Subject]:
        for label, (image, kernel, stride, padding) in variants.items():
            operator = AveragePool(image[0], image[1:], kernel, stride, padding)
            shape = tuple(operator.value(torch.zeros(1, *image)).shape[1:])
            yield from _both(kind, label, [(operator, (-1,), shape)], _Draw(dtype), image, dtype, patches)

    return Candidate(kind, subjects)


def _flatten(dtype: torch.dtype, patches: bool) -> Iterator[Subject]:
    draw = _Draw(dtype)
    convolution, image = draw.convolution(3, _IMAGE)
    size = math.prod(image)
    steps: Steps = [
        (convolution, (-1,), image),
        (Relu(), (0,), image),
        (Reshape(image, (size,)), (1,), (size,)),
        (draw.linear(4, size), (2,), (4,)),
        (Relu(), (3,), (4,)),
    ]
    yield _subject("flatten", "flatten", steps, _IMAGE, dtype, patches)


LINES = "lines"


def _lines(kind: str, relu: str | None) -> Candidate:
    """ReLU by auto_LiRPA's own lines, or by lines of ours that it takes through the network; so, then, are scales."""

    def subjects(dtype: torch.dtype, patches: bool) -> Iterator[Subject]:
        yield _subject(kind, "alone", [(Relu(), (-1,), (9,))], (9,), dtype, patches, relu)
        draw = _Draw(dtype)
        convolution, shape = draw.convolution(4, _IMAGE, kernel=(2, 2), stride=(2, 2), padding=(0, 0))
        scale: Operator = ScaleShift(draw(1, 4, 1, 1), draw(1, 4, 1, 1))
        first: Steps = [(convolution, (-1,), shape), (scale, (0,), shape), (Relu(), (1,), shape)]
        yield _subject(kind, "in a network", _behind(first, draw), _IMAGE, dtype, patches, relu)

    return Candidate(kind, subjects)


# operators that auto_LiRPA would take for a user's own module


class _Module(nn.Module):
    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self._function = function

    def forward(self, x: Tensor) -> Tensor:
        return self._function(x)


def _foreign(kind: str, shape: Shape = (8,), positive: bool = False, **functions: Callable[[Tensor], Tensor]) -> Candidate:
    """Functions of one tensor as auto_LiRPA traces them; positive: of numbers above zero."""

    def subjects(dtype: torch.dtype, patches: bool) -> Iterator[Subject]:
        for label, function in functions.items():
            sample = torch.full((1, *shape), 0.5, dtype=dtype)
            with bridge.quiet(), bridge.tracing(), bridge.default_dtype(dtype):
                module = bridge.traced(_Module(function).eval(), sample)
            yield Subject(label, module, function, _boxes(shape, dtype, positive=positive), [], {}, lambda x: {})

    return Candidate(kind, subjects)


def _halves(function: Callable[[Tensor, Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    return lambda x: function(x[:, :4], x[:, 4:])


def _by_kind(*candidates: Candidate) -> Mapping[str, Candidate]:
    return MappingProxyType({candidate.kind: candidate for candidate in candidates})


USED: Mapping[str, Candidate] = _by_kind(
    _lines(LINES, None),
    *(_lines(f"relu ({option})", option) for option in ("adaptive", "zero-lb", "one-lb", "same-slope")),
    Candidate("linear", _linear),
    Candidate("flatten", _flatten),
    _joined("add", Sum((1, 1)), 4),
    _joined("sub", Sum((1, -1)), 4),
    _joined("cat", Concatenate(1, (4, 4)), 8),
    _convolutions(
        "conv2d",
        plain={},
        point={"kernel": (1, 1), "padding": (0, 0)},
        unpadded={"padding": (0, 0)},
        strided={"kernel": (2, 2), "padding": (0, 0), "stride": (2, 2)},
        overlapping={"image": (2, 7, 7), "stride": (2, 2)},
        wide={"kernel": (5, 5), "padding": (2, 2)},
    ),
    _convolutions(
        "conv2d (uneven)",
        rest={"stride": (2, 2)},
        stripes={"stride": (3, 1)},
        oblong={"image": (2, 7, 6), "stride": (2, 2)},
        kernel={"kernel": (4, 5), "padding": (2, 1)},
    ),
    _convolutions(
        "conv2d (groups)",
        groups={"groups": 2},
        strided={"groups": 2, "stride": (2, 2)},
        oblong={"image": (2, 7, 6), "groups": 2},
    ),
    _convolutions(
        "conv2d (dilation)",
        dilated={"dilation": (2, 2)},
        uneven={"dilation": (1, 2)},
        strided={"dilation": (2, 2), "stride": (2, 2)},
    ),
    _pools("avg_pool2d", halves=(_IMAGE, (2, 2), (2, 2), (0, 0)), thirds=((2, 6, 9), (3, 3), (3, 3), (0, 0))),
    _pools(
        "avg_pool2d (uneven)",
        rest=((2, 7, 6), (2, 2), (2, 2), (0, 0)),
        overlapping=(_IMAGE, (3, 3), (2, 2), (0, 0)),
        padded=(_IMAGE, (2, 2), (2, 2), (1, 1)),
        stripes=(_IMAGE, (3, 2), (3, 2), (0, 0)),
    ),
)
"""By kind, as `newrelax.lirpa.natives` names them; and `LINES`, its way with lines of ours."""

FOREIGN: Mapping[str, Candidate] = _by_kind(
    _foreign("leaky_relu", below_1=lambda x: F.leaky_relu(x, 0.1), above_1=lambda x: F.leaky_relu(x, 2.0)),
    _foreign("abs", abs=torch.abs),
    _foreign("neg", neg=torch.neg),
    _foreign("hardtanh", hardtanh=F.hardtanh, relu6=F.relu6),
    _foreign("clamp", clamp=lambda x: x.clamp(-0.5, 1.5)),
    _foreign("sigmoid", sigmoid=torch.sigmoid),
    _foreign("tanh", tanh=torch.tanh),
    _foreign("exp", exp=torch.exp),
    _foreign("log", positive=True, log=torch.log),
    _foreign("sqrt", positive=True, sqrt=torch.sqrt),
    _foreign("reciprocal", positive=True, reciprocal=torch.reciprocal),
    _foreign("pow", square=lambda x: x**2),
    _foreign("sin", sin=torch.sin),
    _foreign("cos", cos=torch.cos),
    _foreign("atan", atan=torch.atan),
    _foreign("elu", elu=F.elu),
    _foreign("softplus", softplus=F.softplus),
    _foreign("gelu", gelu=F.gelu),
    _foreign("silu", silu=F.silu),
    _foreign("erf", erf=torch.erf),
    _foreign("softmax", softmax=lambda x: x.softmax(1)),
    _foreign("mul", mul=_halves(torch.mul)),
    _foreign("div", positive=True, div=_halves(torch.div)),
    _foreign("maximum", maximum=_halves(torch.maximum)),
    _foreign("minimum", minimum=_halves(torch.minimum)),
    _foreign("sum", sum=lambda x: x.sum(1, keepdim=True)),
    _foreign("mean", mean=lambda x: x.mean(1, keepdim=True)),
    _foreign(
        "max_pool2d",
        shape=(2, 6, 6),
        halves=lambda x: F.max_pool2d(x, 2).flatten(1),
        overlapping=lambda x: F.max_pool2d(x, 3, 1).flatten(1),
    ),
)
"""By kind. The engine never takes them: steps of these are bounded by operators of ours."""
