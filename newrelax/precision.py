"""Bounds need all of single precision: a GPU's TF32 keeps 10 of 23 bits, and a bound may then lie above the truth."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch


@contextmanager
def full_precision() -> Iterator[None]:
    """Convolutions and matrix products on a GPU in full float32, whatever the user's settings are; these come back.

    torch uses TF32 in convolutions unless told otherwise.
    """
    settings = _settings()
    before = [getattr(owner, name) for owner, name, _ in settings]
    for owner, name, exact in settings:
        setattr(owner, name, exact)
    try:
        yield
    finally:
        for (owner, name, _), value in zip(settings, before, strict=True):
            setattr(owner, name, value)


def _settings() -> list[tuple[Any, str, object]]:
    """Owner, name and exact value of each switch. torch refuses the old names to who has used the new ones (2.9 and on)."""
    cudnn, matmul = torch.backends.cudnn, torch.backends.cuda.matmul
    try:
        cudnn.allow_tf32, matmul.allow_tf32  # noqa: B018
    except RuntimeError:
        return [(cudnn.conv, "fp32_precision", "ieee"), (matmul, "fp32_precision", "ieee")]
    return [(cudnn, "allow_tf32", False), (matmul, "allow_tf32", False)]
