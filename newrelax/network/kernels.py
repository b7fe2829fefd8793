"""Operators that torch writes in others too early.

A few operators (softshrink in torch 2.15) have a kernel in Python for autograd, which takes them apart before any table of
decompositions is asked. What has a rule is to arrive as it was called.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch


@contextmanager
def kept_whole(names: Iterable[str]) -> Iterator[None]:
    """While inside, operators of these names ("aten.softshrink.default") are not taken apart for autograd."""
    taken: list[tuple[Any, Any]] = []
    key = torch._C.DispatchKey.Autograd
    for name in names:
        namespace, packet, which = name.split(".")
        operator: Any = getattr(getattr(getattr(torch.ops, namespace), packet, None), which, None)
        kernels = getattr(operator, "py_kernels", {})
        if key in kernels:
            taken.append((operator, kernels.pop(key)))
            operator._dispatch_cache.clear()
    try:
        yield
    finally:
        for operator, kernel in taken:
            operator.py_kernels[key] = kernel
            operator._dispatch_cache.clear()
