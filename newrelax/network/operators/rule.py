"""How an ATen operator becomes steps: a rule, found by the operator's name."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

Bounded = Literal["exact affine", "through ReLUs", "lines", "planes", "composed"]


@dataclass(frozen=True)
class Rule:
    """Steps for one or several ATen operators, as `--operators` lists them.

    names: of the operators, such as "aten.leaky_relu.default". bounded: how. function: for "composed", the operator's own
    arguments → the same value from other torch functions; else (build, the operator's arguments, defaults included) → steps
    (see `newrelax.network.build.Builder`).
    """

    names: tuple[str, ...]
    bounded: Bounded
    function: Callable[..., Any]

    @property
    def summary(self) -> str:
        """First line of the function's docstring."""
        return (inspect.getdoc(self.function) or self.names[0]).splitlines()[0]


def operator(*names: str, bounded: Bounded) -> Callable[[Callable[..., Any]], Rule]:
    """Turn a function (build, *arguments) → steps into a `Rule`. Nothing is registered anywhere."""

    def wrap(function: Callable[..., Any]) -> Rule:
        return Rule(names, bounded, function)

    return wrap


def composed(*names: str) -> Callable[[Callable[..., Any]], Rule]:
    """Turn a function that writes an operator in other torch functions into a `Rule`.

    >>> @composed("aten.hardswish.default")
    ... def hardswish(x):
    ...     return x * torch.nn.functional.relu6(x + 3) / 6
    """

    def wrap(function: Callable[..., Any]) -> Rule:
        return Rule(names, "composed", function)

    return wrap
