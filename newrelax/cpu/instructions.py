"""What a processor can do, where that decides between kernels."""

from __future__ import annotations

import torch


def has_avx512() -> bool:
    """Whether torch's own kernels (oneDNN's) have vectors of 512 bits here."""
    return torch.backends.cpu.get_cpu_capability() == "AVX512"
