"""Batches in pieces that a processor's cache holds."""

import torch
from torch import Tensor

CACHE = 1 << 21
"""Bytes that a thread takes at a time: few enough to stay in a CPU's cache, where element-wise passes are several times
faster, and what is written pixel by pixel is gathered."""


def pieces(x: Tensor) -> list[slice]:
    """Slices of a batch [n, ...] that stay in a CPU's cache each; on other devices the whole."""
    size = CACHE * torch.get_num_threads() * len(x) // max(1, x.nbytes) if x.device.type == "cpu" else len(x)
    size = max(1, size)
    return [slice(i, i + size) for i in range(0, len(x), size)]


def row_pieces(x: Tensor) -> list[tuple[slice, slice]]:
    """Slices of a batch of rows [n, rows, ...]: where one example alone is more than the cache holds, of its rows, too."""
    samples = pieces(x)
    rows = pieces(x[0]) if len(samples) == len(x) > 0 else [slice(None)]
    return [(i, j) for i in samples for j in rows]
