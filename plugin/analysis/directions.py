"""Directions in weight space along which a loss is looked at.

Each is scaled so that t along it reads as *relative weight change*: at t = 1 the weights have moved by their own norm.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from plugin.analysis.records import Direction
from plugin.analysis.weights import WeightSpace

TINY = 1e-30


def _rows(tensor: Tensor) -> Tensor:
    """One row per filter (or per neuron of a linear layer); tensors of one dimension are a single row."""
    return tensor.reshape(tensor.shape[0], -1) if tensor.dim() > 1 else tensor.reshape(1, -1)


def filter_normalised(direction: Sequence[Tensor], parameters: Sequence[Tensor]) -> tuple[Tensor, ...]:
    """Give every filter of a direction the norm of the same filter of the weights.

    Li et al., "Visualizing the Loss Landscape of Neural Nets" (2018), section 4. Biases and other one-dimensional
    parameters are scaled as a whole. Where the weights are all zero, so is the result.
    """
    scaled = []
    for d, p in zip(direction, parameters, strict=True):
        rows, weights = _rows(d), _rows(p.detach())
        factor = weights.norm(dim=1, keepdim=True) / rows.norm(dim=1, keepdim=True).clamp(min=TINY)
        scaled.append((rows * factor).reshape(d.shape))
    return tuple(scaled)


def scaled_to(direction: Sequence[Tensor], parameters: Sequence[Tensor]) -> tuple[Tensor, ...]:
    """Give a direction as a whole the norm of all weights together."""
    size = sum(float(d.double().square().sum()) for d in direction) ** 0.5
    weights = sum(float(p.detach().double().square().sum()) for p in parameters) ** 0.5
    return tuple(d * (weights / max(size, TINY)) for d in direction)


def random_directions(parameters: Sequence[Tensor], count: int, seed: int = 0) -> list[Direction]:
    """Gaussian directions, filter-normalised. Drawn from a generator of their own: global random streams stay put."""
    generator = torch.Generator().manual_seed(seed)
    result = []
    for i in range(count):
        # Drawn in float64 on the CPU, so that a network and its copy on another device get the same directions.
        raw = [torch.randn(p.shape, generator=generator, dtype=torch.float64).to(p) for p in parameters]
        result.append(Direction(f"random {i + 1}", filter_normalised(raw, parameters)))
    return result


def jitter(parameters: Sequence[Tensor], seed: int = 0) -> tuple[Tensor, ...]:
    """A Gaussian displacement with, entry by entry, the root mean square of its parameter."""
    generator = torch.Generator().manual_seed(seed)
    return tuple(
        torch.randn(p.shape, generator=generator, dtype=torch.float64).to(p) * p.detach().square().mean().sqrt()
        for p in parameters
    )


def layer_directions(parameters: Sequence[Tensor], seed: int = 0) -> list[Direction]:
    """For each parameter, a filter-normalised Gaussian direction that moves this parameter alone."""
    whole = random_directions(parameters, 1, seed)[0].tensors
    return [
        Direction(f"parameter {i}", tuple(d if j == i else torch.zeros_like(d) for j, d in enumerate(whole)))
        for i in range(len(parameters))
    ]


def gradient_direction(loss: Callable[[], Tensor], parameters: Sequence[Tensor]) -> Direction:
    """Steepest descent, scaled to the norm of the weights. `.grad` and random streams stay as they are."""
    with WeightSpace(parameters) as space:
        _, gradient = space.gradient(loss)
    return Direction("gradient", scaled_to([-g for g in gradient], parameters))


def step_direction(step: Sequence[Tensor], parameters: Sequence[Tensor]) -> Direction:
    """The optimiser's last step (new weights minus old), scaled to the norm of the weights."""
    return Direction("last step", scaled_to(step, parameters))


def weight_direction(parameters: Sequence[Tensor], parameter: int, index: int) -> Direction:
    """A single weight, by flat index; t = 1 is its parameter's root mean square."""
    tensors = tuple(torch.zeros_like(p) for p in parameters)
    scale = float(parameters[parameter].detach().double().square().mean().sqrt())
    tensors[parameter].view(-1)[index] = scale if scale > 0 else 1.0
    return Direction(f"weight {parameter}[{index}]", tensors)


def single_weights(parameters: Sequence[Tensor], count: int, seed: int = 0) -> list[tuple[int, int]]:
    """Random weights (parameter, flat index), `count` from each parameter of two or more dimensions.

    Drawn with probability proportional to |w|: certified training with an L1 term leaves most weights at next to
    nothing, where a network has no bends but those of its dead parts. Where no parameter has two dimensions, from all.
    """
    generator = torch.Generator().manual_seed(seed)
    wide = [i for i, p in enumerate(parameters) if p.dim() > 1] or list(range(len(parameters)))
    chosen = []
    for i in wide:
        # The Gumbel trick, in float64 on the CPU: the largest of log |w| + noise are a sample without replacement.
        size = parameters[i].detach().double().abs().flatten().cpu()
        noise = -torch.empty_like(size).exponential_(generator=generator).log()
        keys = (size + TINY).log() + noise
        chosen += [(i, int(k)) for k in keys.topk(min(count, len(keys))).indices]
    return chosen


def default_directions(
    loss: Callable[[], Tensor],
    parameters: Sequence[Tensor],
    *,
    seed: int = 0,
    step: Sequence[Tensor] | None = None,
    random: int = 3,
    single: bool = True,
) -> list[Direction]:
    """Some random ones, the gradient, the last step where given, and two single weights (one each of two layers)."""
    weights = single_weights(parameters, 1, seed) if single else []
    chosen = [weights[0], weights[-1]] if len(weights) > 1 else weights
    directions = [*random_directions(parameters, random, seed), gradient_direction(loss, parameters)]
    if step is not None:
        directions.append(step_direction(step, parameters))
    directions += [weight_direction(parameters, i, k) for i, k in chosen]
    return [d for d in directions if d.norm() > 0]
