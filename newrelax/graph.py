"""The network as a list of affine steps, ReLUs and additions, read off auto_LiRPA's parsed graph."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from . import lirpa
from .affine import Affine, AveragePool, BatchNorm, Constant, Conv, Linear, Reshape
from .operator import ConstantOperand, RelaxedRelu


class Relu:
    """Marks a ReLU step."""


class Add:
    """Marks the sum of two steps of one shape."""


@dataclass(frozen=True)
class Step:
    """One operator; inputs are indices of earlier steps (−1: the network's input), shape is per example."""

    operator: Affine | Relu | Add
    inputs: tuple[int, ...]
    shape: tuple[int, ...]


class UnsupportedGraph(Exception):
    """The graph has an operator that only auto_LiRPA's own passes know."""


class Graph:
    """Steps in topological order; the last one gives the logits.

    input_shape: of one example. origin: the last of the leading steps that act on each feature alone (normalisation,
    say), −1 if there is none: its output still ranges over a box, where back-substitution may stop. widest: for each step,
    the most features that there are from the input up to it, itself included.
    """

    def __init__(self, steps: Sequence[Step], input_shape: tuple[int, ...]) -> None:
        self.steps, self.input_shape = tuple(steps), input_shape
        self.origin = -1
        for i, step in enumerate(self.steps[:-1]):
            alone = isinstance(step.operator, Affine) and step.operator.diagonal
            if not alone or any(min(later.inputs) < i for later in self.steps[i + 1 :]):
                break
            self.origin = i
        self.relus = tuple(i for i, step in enumerate(self.steps) if isinstance(step.operator, Relu))
        sizes = [math.prod(shape) for shape in (input_shape, *(step.shape for step in self.steps))]
        self.widest = tuple(itertools.accumulate(sizes, max))[1:]
        self._batch_norms = [s.operator for s in self.steps if isinstance(s.operator, BatchNorm)]

    @classmethod
    def of(cls, bounded: nn.Module, input_shape: tuple[int, ...]) -> Graph:
        """Read a `BoundedModule`; raises `UnsupportedGraph`."""
        steps: list[Step] = []
        index: dict[str, int] = {}

        def visit(node: Any) -> int:
            if node.name in index:
                return index[node.name]
            if isinstance(node, lirpa.BoundInput) and not isinstance(node, (lirpa.BoundParams, lirpa.BoundBuffers)):
                return -1
            operator, variables = _operator_of(node)
            inputs = tuple(visit(variable) for variable in variables)
            steps.append(Step(operator, inputs, tuple(node.output_shape[1:])))
            index[node.name] = len(steps) - 1
            return index[node.name]

        visit(bounded[bounded.final_name])
        if isinstance(steps[-1].operator, Relu):
            raise UnsupportedGraph("ReLU, which is the last one here")
        return cls(steps, input_shape)

    @property
    def has_batch_norm(self) -> bool:
        return bool(self._batch_norms)

    def forward(self, x: Tensor, *, training: bool = False) -> Tensor:
        """Clean logits. In training, batch-norm steps keep this batch's statistics for the next bounds."""
        values: list[Tensor] = []
        for step in self.steps:
            operands = [x if i < 0 else values[i] for i in step.inputs]
            match step.operator:
                case Relu():
                    values.append(torch.relu(operands[0]))
                case Add():
                    values.append(operands[0] + operands[1])
                case BatchNorm() as norm if training:
                    values.append(norm.observe(operands[0]))
                case affine:
                    values.append(affine.value(operands[0]))
        return values[-1]

    def use_running_statistics(self) -> None:
        for norm in self._batch_norms:
            norm.forget()


def _operator_of(node: Any) -> tuple[Affine | Relu | Add, list[Any]]:
    first = [node.inputs[0]] if node.inputs else []
    if isinstance(node, (lirpa.BoundRelu, RelaxedRelu)):
        return Relu(), first
    if isinstance(node, ConstantOperand):
        return Constant(node), [node.inputs[node.variable]]
    weights_fixed = all(isinstance(i, (lirpa.BoundParams, lirpa.BoundBuffers, lirpa.BoundConstant)) for i in node.inputs[1:])
    if isinstance(node, lirpa.BoundLinear) and weights_fixed and len(node.output_shape) == 2 and _is_plain_gemm(node):
        return Linear(node), first
    if isinstance(node, lirpa.BoundConv) and weights_fixed and len(node.output_shape) == 4:
        return Conv(node), first
    if isinstance(node, lirpa.BoundBatchNormalization):
        return BatchNorm(node), first
    if isinstance(node, lirpa.BoundFlatten) or (isinstance(node, lirpa.BoundReshape) and weights_fixed):
        return Reshape(node), first
    if isinstance(node, lirpa.BoundAveragePool):
        return AveragePool(node), first
    if isinstance(node, lirpa.BoundAdd) and node.inputs[0].output_shape == node.inputs[1].output_shape:
        return Add(), list(node.inputs)
    raise UnsupportedGraph(type(node).__name__)


def _is_plain_gemm(node: Any) -> bool:
    scales = getattr(node, "alpha_linear", 1.0), getattr(node, "beta_linear", 1.0)
    return not getattr(node, "transA", 0) and scales == (1.0, 1.0)
