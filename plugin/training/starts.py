"""What weights training starts from: the network's own, or drawn for the loss that is to come."""

from __future__ import annotations

import math
from typing import ClassVar

import torch
from torch import nn

from plugin.settings.nouns import Catalogue, Noun


class Start(Noun):
    """An initialisation. A subclass has a `name`, a docstring whose first line `--init list` shows, and `draw`."""

    name: ClassVar[str]

    def draw(self, model: nn.Module, stream: torch.Generator) -> None:
        """Gives the model its first weights; nothing is drawn but from the stream, which is the CPU's. Gradients are off."""
        raise NotImplementedError


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


STARTS: Catalogue[Start] = Catalogue("init", Start, (Own, Shi))
starts, read_start, list_starts = STARTS.known, STARTS.read, STARTS.listing


@torch.no_grad()
def draw(start: Start, model: nn.Module, seed: int) -> None:
    """Gives the model its first weights, from a stream of the seed's own; torch's global streams stay as they are."""
    start.draw(model, torch.Generator().manual_seed(seed))
