"""Perturbations of weights: standard normal draws from a stream of their own, and the scale σ that they are taken at."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

_PURPOSE = 0x5EED_0F_5011
"""Keeps the stream apart from others that start from the run's seed."""


def stream(seed: int, step: int, device: torch.device) -> torch.Generator:
    """The stream of a step's noise. It follows from the run's seed and the step alone: a resumed run draws the same."""
    (start,) = np.random.SeedSequence((_PURPOSE, seed, step)).generate_state(1, np.uint64).tolist()
    return torch.Generator(device).manual_seed(start >> 1)


def flat(tensors: Sequence[Tensor]) -> Tensor:
    """Tensors one after another, as one vector without gradients."""
    return torch.cat([tensor.detach().reshape(-1) for tensor in tensors])


def layer_sizes(model: nn.Module) -> Tensor:
    """For each trained weight, in the order of `model.parameters()`: the root mean square of its layer. A vector.

    A layer is a module with trained parameters of its own; its weight and its bias count together, since biases often start
    at 0, where a size of their own would leave them without noise.
    """
    sizes: dict[int, Tensor] = {}
    for module in model.modules():
        own = [parameter for parameter in module.parameters(recurse=False) if parameter.requires_grad]
        if own:
            norm = torch.stack([parameter.detach().norm() for parameter in own]).norm()
            size = norm / math.sqrt(sum(parameter.numel() for parameter in own))
            sizes |= {id(parameter): size for parameter in own}
    return torch.cat([sizes[id(p)].expand(p.numel()) for p in model.parameters() if p.requires_grad])
