"""What callers from Python hand over, checked where it comes in: a method by name or as a value, a network, inputs for it."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from newrelax.arguments import model_dtype
from newrelax.errors import UserError, with_type
from newrelax.methods.method import Method
from newrelax.network.modes import evaluating
from newrelax.registry import Registry
from plugin.certification.evaluation import outside_counterexample


def find_method(method: object, registry: Registry) -> tuple[Method, Registry]:
    """The method that a name or a value means, and a registry that knows it.

    Raises:
        UserError: an unknown name, or what is neither.
    """
    if isinstance(method, Method):
        return method, registry.including(method)
    if not isinstance(method, str):
        raise UserError(f"expected method as a name or a newrelax.Method, got {type(method).__name__}")
    return registry.get_method(method), registry


def refuse_unsound(method: Method, registry: Registry) -> None:
    """Raises UserError where a relaxation from outside does not bound its activation; one that says so is an estimate."""
    found = outside_counterexample(method, registry)
    if found is not None:
        raise UserError(
            f"{method.label} is not sound and certifies nothing: {found}; declare it by sound=False to have its estimates"
        )


def logits_of(model: nn.Module, x: Tensor) -> int:
    """How many logits the network gives for inputs like x [n, *features]; one stands for a binary classifier.

    Raises:
        UserError: the network fails on them, or gives something else than logits [n, classes].
    """
    with evaluating(model), torch.no_grad():
        try:
            output: object = model(x[:1])
        except Exception as problem:  # somebody else's code may fail in any way
            raise UserError(f"the network fails on inputs of shape {tuple(x.shape[1:])} ({with_type(problem)})") from problem
    if not isinstance(output, Tensor) or output.ndim != 2:
        got = f"the shape {tuple(output.shape)}" if isinstance(output, Tensor) else type(output).__name__
        raise UserError(f"expected logits [n, classes] from the network, got {got}")
    return output.shape[1]


def example(model: nn.Module, shape: tuple[int, ...]) -> Tensor:
    """An input of that shape, [1, *shape], as the network takes it: of its type and on its device."""
    device = next((tensor.device for tensor in (*model.parameters(), *model.buffers())), None)
    return torch.zeros(1, *shape, dtype=model_dtype(model), device=device)
