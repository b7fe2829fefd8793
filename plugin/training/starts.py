"""What weights training starts from: the network's own, or drawn for the loss that is to come."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import ClassVar

import torch
from torch import nn

from newrelax.names import read_spelling, unknown
from newrelax.plugins import Extension
from newrelax.registry import BUILTIN_SOURCE, Registry
from plugin.settings.nouns import Named, catalogue, listing
from plugin.settings.table import Table


class Start(Table, Extension):
    """An initialisation. A subclass has a `name`, a docstring whose first line `--init list` shows, and `draw`."""

    name: ClassVar[str]

    def draw(self, model: nn.Module, stream: torch.Generator) -> None:
        """Gives the model its first weights; nothing is drawn but from the stream, which is the CPU's. Gradients are off."""
        raise NotImplementedError

    @property
    def label(self) -> str:
        """Its spelling, with the parameters where it has some."""
        params = ",".join(f"{key}={value}" for key, value in self.to_json().items())
        return f"{self.name}:{params}" if params else self.name

    @classmethod
    def summary(cls) -> str:
        """The first line of its docstring."""
        return (cls.__doc__ or cls.name).strip().splitlines()[0]


class Own(Start):
    """The network's own: what its layers drew when it was made."""

    name: ClassVar[str] = "torch"

    def draw(self, model: nn.Module, stream: torch.Generator) -> None:
        pass


class Shi(Start):
    """N(0, 2π/n²) for n inputs of a neuron: intervals keep their width at the start (Shi et al., NeurIPS 2021).

    For every linear and convolutional layer but the last; their biases are 0. Half-widths δ of a layer's inputs become
    n · E|w| · δ = 2δ, of which a ReLU that crosses leaves half. Transposed convolutions and computed weights stay as they are.
    """

    name: ClassVar[str] = "shi"

    def draw(self, model: nn.Module, stream: torch.Generator) -> None:
        layers = [m for m in model.modules() if isinstance(m, (nn.Linear, nn.modules.conv._ConvNd))]
        for layer in layers[:-1]:
            if not isinstance(layer.weight, nn.Parameter) or getattr(layer, "transposed", False):
                continue
            normal = torch.randn(layer.weight.shape, generator=stream, dtype=layer.weight.dtype)
            layer.weight.copy_(normal * (math.sqrt(2 * math.pi) / layer.weight[0].numel()))
            if layer.bias is not None:
                layer.bias.zero_()


BUILTIN: tuple[type[Start], ...] = (Own, Shi)


def starts(registry: Registry) -> Mapping[str, Named[type[Start]]]:
    """Every initialisation with where it comes from. Raises UserError where two share a name."""
    outside = [(source, each) for source, each in registry.extensions if isinstance(each, type) and issubclass(each, Start)]
    return catalogue("initialisation", [*((BUILTIN_SOURCE, each) for each in BUILTIN), *outside])


def read_start(spelling: str, registry: Registry) -> Start:
    """The initialisation that is named. Raises UserError for an unknown name or parameter, or a wrong value."""
    name, params = read_spelling(spelling)
    known = starts(registry)
    if name not in known:
        raise unknown("init", name, known)
    return known[name].value.read(params, what=f"parameter of init {name}")


def list_starts(registry: Registry) -> str:
    """A line for each initialisation."""
    known = starts(registry)
    return listing({each.value().label: Named(each.source, each.value.summary()) for each in known.values()})


@torch.no_grad()
def draw(start: Start, model: nn.Module, seed: int) -> None:
    """Gives the model its first weights, from a stream of the seed's own; torch's global streams stay as they are."""
    start.draw(model, torch.Generator().manual_seed(seed))
