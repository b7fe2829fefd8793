"""How a command computes bounds, whatever the method: by which engine, with how much memory, with whose operators."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import nn

from newrelax.bounds import BoundedNetwork
from newrelax.methods.method import Method
from newrelax.network.operators.rule import Rule
from newrelax.network.rules import BUILTIN_RULES

TRAINING_MEMORY = 256
"""MiB for bounds in training on a CPU: command lines keep what tensors give back, so that large pieces cost them nothing."""


@dataclass(frozen=True)
class Bounding:
    """engine: one of `newrelax.bounds.ENGINES`. memory: largest for bounds, in MiB; None leaves it to the bounds.

    operators: rules for the operators of networks, a registry's.
    """

    engine: str = "newrelax"
    memory: int | None = None
    operators: tuple[Rule, ...] = BUILTIN_RULES

    def network(self, model: nn.Module, input_shape: Sequence[int], method: Method) -> BoundedNetwork:
        """The model, bounded so. Raises `UserError` as `BoundedNetwork` does."""
        memory = None if self.memory is None else self.memory << 20
        return BoundedNetwork(model, input_shape, method, memory=memory, engine=self.engine, operators=self.operators)
