"""A model from its name: a built-in architecture, or a factory of the user's own."""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import nullcontext
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor, nn

from newrelax.errors import UserError, with_type
from newrelax.names import nearest
from newrelax.network.modes import evaluating
from plugin.formats.onnx_reader import is_network_file, read_network
from plugin.models.architectures import ARCHITECTURES, Network, Normalize, Shape, describe
from plugin.process.streams import seeded
from plugin.settings.factories import Factory


def build(
    name: str,
    input_shape: Shape,
    classes: int,
    mean: Sequence[float],
    std: Sequence[float],
    seed: int | None = None,
) -> nn.Module:
    """A network with freshly drawn weights, on the CPU: inputs [batch, *input_shape] to logits [batch, classes].

    Args:
        name: one of ARCHITECTURES, or `package.module:factory` for the user's own, with parameters as in
            `package.module:factory:width=5,depth=2`; the factory is called with those of input_shape, classes, mean
            and std that it takes as keyword arguments, and normalises by itself if it wants to. With two classes it
            may give one logit, which decides by its sign. Or an ONNX file, .onnx or .onnx.gz, which brings its own
            weights and normalisation, and may name the data's shape otherwise ([784, 1] for 28×28 images).
        mean, std: of the training inputs, one number for each channel or feature.
        seed: the weights are drawn from this seed, and the global random stream is left as it was; None draws from
            the global stream. Layers keep torch's default initialisation.

    Raises:
        UserError: an unknown name, a built-in architecture that cannot take such inputs, or a factory that fails or
            gives something else than such a network.
    """
    if is_network_file(name):
        return _from_file(name, input_shape, classes)
    stream = nullcontext if seed is None else partial(seeded, seed)
    first = name.partition(":")[0]
    if name in ARCHITECTURES:
        with stream():
            layers = ARCHITECTURES[name](tuple(input_shape), classes)
            return Network(Normalize(mean, std, input_shape), *layers)
    if first in ARCHITECTURES:
        raise UserError(f"model {first} takes no parameters, got {name!r}")
    if ":" not in name:
        known = ", ".join(ARCHITECTURES)
        raise UserError(
            f"unknown model {name!r}{nearest(name, ARCHITECTURES)}: expected one of {known}, or package.module:factory"
        )
    with stream():  # apart from building: what a module draws when it is first imported must not move the weights
        factory = Factory.find("model", name)
    with stream():
        model = factory(input_shape=input_shape, classes=classes, mean=tuple(mean), std=tuple(std))
        if not isinstance(model, nn.Module):
            raise UserError(f"{factory.what}: expected the factory to give an nn.Module, got {type(model).__name__}")
        check_output(factory.what, model, input_shape, classes)
        return model


def _from_file(name: str, input_shape: Shape, classes: int) -> nn.Module:
    model = read_network(name)
    if math.prod(model.input_shape) != math.prod(input_shape):
        raise UserError(f"model {name}: takes {describe(model.input_shape)}, the data has {describe(input_shape)}")
    check_output(f"model {name}", model, input_shape, classes)
    return model


def check_output(label: str, model: nn.Module, input_shape: Shape, classes: int) -> None:
    """Raises UserError for a network that cannot take such inputs, or gives something else than logits."""
    entry = _Entry(model)
    try:
        with evaluating(model), torch.no_grad(), entry:
            output = model(torch.zeros(2, *input_shape, device=next((p.device for p in model.parameters()), None)))
    except Exception as problem:
        mismatch = entry.mismatch(input_shape)
        if mismatch is not None:
            raise UserError(f"{label}: {mismatch}") from problem
        raise UserError(f"{label}: fails on {describe(input_shape)} ({with_type(problem)})") from problem
    shapes = [(2, classes)] + ([(2, 1)] if classes == 2 else [])  # one logit decides between two classes by its sign
    if not isinstance(output, Tensor) or tuple(output.shape) not in shapes:
        got = tuple(output.shape) if isinstance(output, Tensor) else type(output).__name__
        raise UserError(f"{label}: expected logits of shape (2, {classes}) for 2 inputs, got {got}")


class _Call(NamedTuple):
    layer: nn.Module
    shape: Shape


class _Entry:
    """Inside this context, the first convolution or linear layer that a model calls is remembered, with its input's shape."""

    def __init__(self, model: nn.Module) -> None:
        self._model = model
        self._first: _Call | None = None

    def __enter__(self) -> _Entry:
        layers = [m for m in self._model.modules() if isinstance(m, (nn.modules.conv._ConvNd, nn.Linear))]
        self._handles = [layer.register_forward_pre_hook(self._remember) for layer in layers]
        return self

    def __exit__(self, *_: object) -> None:
        for handle in self._handles:
            handle.remove()

    def _remember(self, layer: nn.Module, inputs: tuple[object, ...]) -> None:
        if self._first is None and inputs and isinstance(inputs[0], Tensor):
            self._first = _Call(layer, tuple(inputs[0].shape))

    def mismatch(self, input_shape: Shape) -> str | None:
        """What the model takes and what the data gives, where the first layer shows that they differ; None elsewhere."""
        if self._first is None:
            return None
        layer, shape = self._first
        if isinstance(layer, nn.modules.conv._ConvNd):
            if len(shape) == len(layer.kernel_size) + 2 and shape[1] == input_shape[0] != layer.in_channels:
                return f"takes inputs of {layer.in_channels} channels, the data has {input_shape[0]}: {describe(input_shape)}"
            return None
        if isinstance(layer, nn.Linear) and shape == (2, math.prod(input_shape)) and layer.in_features != shape[1]:
            return f"takes inputs of {layer.in_features} features, the data has {shape[1]}: {describe(input_shape)}"
        return None
