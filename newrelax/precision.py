"""Bounds need all of single precision: TF32, say, keeps 10 of 23 bits, and a bound may then lie above the truth."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch


@contextmanager
def full_precision() -> Iterator[None]:
    """Convolutions and matrix products in full float32, whatever the user's settings are; these come back.

    torch uses TF32 in a GPU's convolutions unless told otherwise, and on request shorter floats elsewhere.
    """
    cudnn = torch.backends.cudnn
    try:
        older = torch.get_float32_matmul_precision(), cudnn.allow_tf32
    except RuntimeError:  # torch refuses the older settings to who has used the newer ones
        older = None
    newer = [(owner, owner.fp32_precision, parent.fp32_precision) for owner, parent in _newer_settings()]
    if older is not None:
        torch.set_float32_matmul_precision("highest")
        cudnn.allow_tf32 = False
    else:
        for owner, _, _ in newer:
            owner.fp32_precision = "ieee"
    try:
        yield
    finally:
        if older is not None:
            torch.set_float32_matmul_precision(older[0])
            cudnn.allow_tf32 = older[1]
        for owner, value, inherited in newer:
            owner.fp32_precision = "none" if value == inherited else value  # "none": goes on following its parent


def _newer_settings() -> list[tuple[Any, Any]]:
    """Each setting and the one that it follows unless it is set itself; torch 2.9 and on."""
    backends: Any = torch.backends
    cudnn, mkldnn = backends.cudnn, backends.mkldnn
    if not hasattr(cudnn, "conv"):
        return []
    return [(backends.cuda.matmul, cudnn), (cudnn.conv, cudnn), (mkldnn.matmul, mkldnn), (mkldnn.conv, mkldnn)]
