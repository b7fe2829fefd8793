"""Is the list of steps the same function as the model? Bounds of another function prove nothing."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from newrelax.errors import UserError, with_type
from newrelax.network.graph import Graph
from newrelax.network.modes import evaluating

BATCHES = (1, 2, 5)


def check_traced(graph: Graph) -> None:
    """Raises `UserError` unless steps and model agree for several batch sizes, on random, constant and large inputs, and every
    step has each example's value from that example alone."""
    like = next((p for p in (*graph.model.parameters(), *graph.model.buffers()) if p.is_floating_point()), torch.empty(0))
    generator = torch.Generator().manual_seed(1)
    for batch in BATCHES:
        uniform = torch.rand((batch, *graph.input_shape), generator=generator, dtype=like.dtype)
        levels = torch.rand((batch, *[1] * len(graph.input_shape)), generator=generator, dtype=like.dtype)
        normal = torch.randn((batch, *graph.input_shape), generator=generator, dtype=like.dtype)
        for x in (uniform, uniform * levels, 3 * normal):
            check_same(graph, x.to(like.device))
    check_alone(graph, torch.rand((3, *graph.input_shape), generator=generator, dtype=like.dtype).to(like.device))


def check_alone(graph: Graph, x: Tensor) -> None:
    """Raises `UserError` if an example's NaN reaches another one's value at any step; x: [3, *input_shape]."""
    if x.device.type == "meta":
        return
    with torch.no_grad():
        network = graph.network()
        before = [value.reshape(len(x), -1).isfinite().all(1) for value in network.values(x)]
        for i in range(len(x)):
            spoilt = x.clone()
            spoilt[i] = math.nan
            others = torch.arange(len(x), device=x.device) != i
            for step, fine, value in zip(network.steps, before, network.values(spoilt), strict=True):
                reached = value.reshape(len(x), -1).isnan().any(1)
                if bool((reached & others & fine).any()):
                    raise UserError(
                        f"{type(graph.model).__name__} lets examples see each other: nothing of one can be bounded alone "
                        f"({step.source}, {step.place})"
                    )


def check_same(graph: Graph, x: Tensor) -> None:
    """Raises `UserError` where steps and model give different outputs at x, [batch, *input_shape]."""
    if len(x) == 0 or x.device.type == "meta":
        return
    with evaluating(graph.model), torch.no_grad():
        try:
            expected, again = graph.model(x), graph.model(x)
        except Exception as error:
            name = type(graph.model).__name__
            raise UserError(f"{name} fails on inputs of shape {tuple(x.shape)}: {with_type(error, 160)}") from error
        found = graph.network().forward(x)
    if not isinstance(expected, Tensor):
        raise UserError(f"{type(graph.model).__name__} gives a {type(expected).__name__}: expected one tensor")
    expected, again = (expected.unsqueeze(1), again.unsqueeze(1)) if expected.ndim == 1 else (expected, again)
    if not torch.equal(expected.nan_to_num(), again.nan_to_num()):
        raise UserError(
            f"{type(graph.model).__name__} gives two answers to one question in evaluation mode: bounds need a function"
        )
    if found.shape != expected.shape or not _close(found, expected):
        raise UserError(
            f"the exported graph of {type(graph.model).__name__} gives other outputs than the model on {len(x)} inputs: "
            "expected a function of each example alone, whatever the batch's size, in torch functions, without branches"
        )


def _close(found: Tensor, expected: Tensor) -> bool:
    found, expected = found.double(), expected.double()
    finite = expected.isfinite()
    if not torch.equal(finite, found.isfinite()):
        return False
    a, b = found[finite], expected[finite]
    scale = 1 + (float(b.abs().max()) if b.numel() else 0.0)
    return torch.allclose(a, b, rtol=1e-3, atol=1e-3 * scale)
