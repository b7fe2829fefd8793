"""How much memory back-substitution takes."""

from __future__ import annotations

from typing import NamedTuple

import torch


class Memory(NamedTuple):
    """Bytes that back-substituted coefficients may take.

    piece: of those that go through the network together. kept: of one step's that the gradient may keep; where they are more,
    it goes through the pieces again.
    """

    piece: int
    kept: int

    @classmethod
    def of(cls, limit: int | None, device: torch.device) -> Memory:
        """The user's limit; without one 256 MiB, or, to keep a GPU busy, a 64th of its memory.

        A CPU takes 16 MiB at a time then: its C library gives larger tensors back to the system after each use, and they come
        back as pages to be zeroed first, more than half of the time in a process that does not keep them.
        """
        if limit is not None:
            return cls(limit, limit)
        if device.type != "cuda":
            return cls(1 << 24, 1 << 28)
        share = max(1 << 28, torch.cuda.get_device_properties(device).total_memory // 64)
        return cls(share, share)
