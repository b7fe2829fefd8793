"""The line inside a helper: torch knows which line of a `forward` an operator comes from, not what that line called."""

from __future__ import annotations

import traceback
from typing import Any

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from newrelax.network.operators.base import Shape
from newrelax.network.place import is_users, line_text


class _Watch(TorchFunctionMode):
    """Notes, for every function of torch that runs, its name and the user's lines that led to it, the innermost last."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[tuple[str, list[str]]] = []

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        frames = [frame for frame in traceback.extract_stack() if is_users(frame.filename)]
        lines = [line_text(frame.filename, frame.lineno or 0, frame.line) for frame in frames]
        self.seen.append((str(getattr(func, "__name__", "")).strip("_"), lines))
        return func(*args, **(kwargs or {}))


def inner_line(model: nn.Module, input_shape: Shape, operator: str, place: str) -> str:
    """The innermost line of the user's that calls an operator from a place, as `place_of` writes both.

    The model runs once; where that fails, or leaves a choice, it stays at the place.
    """
    like = next((p for p in (*model.parameters(), *model.buffers()) if p.is_floating_point()), torch.empty(0))
    modes = [(module, module.training) for module in model.modules()]
    watch = _Watch()
    try:
        model.eval()
        with torch.random.fork_rng(devices=[]), torch.no_grad(), watch:
            model(torch.full((2, *input_shape), 0.5, dtype=like.dtype, device=like.device))
    except Exception:  # what is refused may not run either: what was seen until then is enough
        pass
    finally:
        for module, training in modes:
            module.training = training
    inner = [(name, lines[-1]) for name, lines in watch.seen if place in lines]
    packet = operator.split(".")[1].strip("_") if operator.count(".") == 2 else operator
    named = {line for name, line in inner if name and (packet.startswith(name) or name.startswith(packet))}
    every = {line for _, line in inner}
    for found in (named, every):
        if len(found) == 1:
            return found.pop()
    return place
