"""Networks from ONNX files, as modules that train, are bounded, and take any number of inputs at once."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, fx, nn

from newrelax.errors import UserError, with_type
from plugin.formats.extras import installed, require
from plugin.formats.onnx_graph import read_uniform, unknown_operators
from plugin.formats.runtime import Runtime

POINTS = 3
"""Random inputs in [0, 1] at which what was read is compared with the file."""
TOLERANCE = 1e-4
"""Of outputs, relative to the largest: both compute in float32."""
SUFFIXES = (".onnx", ".onnx.gz")


class OnnxNetwork(nn.Module):
    """What a file holds. Inputs [batch, …] of as many entries as `input_shape` has; outputs [batch, outputs]."""

    def __init__(self, body: nn.Module, input_shape: tuple[int, ...]) -> None:
        super().__init__()
        self.body = body
        self.input_shape = input_shape

    def forward(self, x: Tensor) -> Tensor:
        if tuple(x.shape[1:]) != self.input_shape:
            x = x.reshape(x.shape[0], *self.input_shape)
        y: Tensor = self.body(x)
        return y if y.ndim == 2 else y.flatten(1)


class Rearranged(nn.Module):
    """Each example in another shape, whatever their number: files have the number of examples in it."""

    def __init__(self, sizes: tuple[int, ...]) -> None:
        super().__init__()
        self.sizes = sizes

    def forward(self, x: Tensor) -> Tensor:
        return x.reshape(x.shape[0], *self.sizes)


def is_network_file(name: str) -> bool:
    """Whether a model's name is a file's that `read_network` reads."""
    return name.lower().endswith(SUFFIXES)


def read_network(path: Path | str) -> OnnxNetwork:
    """The network in a file .onnx or .onnx.gz, on the CPU, in evaluation mode.

    Where onnxruntime is installed, its outputs are compared with those of the file at some points.

    Raises:
        UserError: the file is absent, damaged, or has operators or shapes that are not read; a package is not installed.
    """
    path = Path(path)
    what = f"network {path}"
    reader = require("onnx2torch", "reading ONNX files")
    uniform = read_uniform(path)
    unknown = unknown_operators(uniform.model)
    if unknown:
        raise UserError(f"{what} has operators that are not read: {', '.join(unknown)}")
    try:
        body = reader.convert(uniform.model)
    except Exception as problem:  # a library's, for attributes and shapes that it does not know
        raise UserError(f"{what} cannot be read ({with_type(problem, 160)})") from problem
    _rearrange(body)
    network = OnnxNetwork(body, uniform.input_shape).eval()
    _check(what, network, Runtime(uniform.content) if installed("onnxruntime") else None)
    return network


def _rearrange(body: Any) -> None:
    """Puts `Rearranged` where a constant shape begins with the examples."""
    for node in body.graph.nodes:
        if node.op != "call_module" or type(body.get_submodule(node.target)).__name__ != "OnnxReshape":
            continue
        x, shape = node.args
        if isinstance(shape, fx.Node) and shape.op == "get_attr":
            first, *sizes = _attribute(body, str(shape.target)).tolist()
            if first in (-1, 0, 1) and 0 not in sizes and (first != -1 or -1 not in sizes):
                body.set_submodule(node.target, Rearranged(tuple(sizes)))
                node.args = (x,)
    body.graph.eliminate_dead_code()
    body.recompile()


def _attribute(body: nn.Module, name: str) -> Tensor:
    owner, _, last = name.rpartition(".")
    found: Tensor = getattr(body.get_submodule(owner), last)
    return found


def _check(what: str, network: OnnxNetwork, runtime: Runtime | None) -> None:
    """Raises UserError for a network that takes one input at a time only, or computes something else than its file."""
    x = torch.rand(POINTS, *network.input_shape, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        try:
            alone = torch.cat([network(each[None]) for each in x])
        except Exception as problem:  # whatever a file made by hand may do
            raise UserError(f"{what} fails on inputs {network.input_shape} ({with_type(problem, 160)})") from problem
        try:
            together = network(x)
        except Exception as problem:
            raise UserError(f"{what} takes one input at a time: {with_type(problem, 160)}") from problem
    if not _close(together, alone):
        raise UserError(f"{what} has other outputs for several inputs at once: examples see each other")
    if runtime is not None and not _close(alone, runtime.outputs(x)):
        raise UserError(
            f"{what} is read as another function than onnxruntime computes: it has an operator that is not known well"
        )


def _close(ours: Tensor, theirs: Tensor) -> bool:
    if ours.shape != theirs.shape or not math.isfinite(ours.abs().sum().item()):
        return False
    return bool((ours - theirs).abs().max() <= TOLERANCE * max(1.0, theirs.abs().max().item()))
