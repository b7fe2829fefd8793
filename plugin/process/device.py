"""Which device a process computes on."""

from __future__ import annotations

import platform

import torch

from newrelax.errors import UserError


def default_device() -> str:
    """The GPU, where there is one."""
    return "cuda" if torch.cuda.is_available() else "cpu"


def check_device(name: str) -> torch.device:
    """The device of that name. Raises UserError when this machine or this program has none."""
    try:
        device = torch.device(name)
    except RuntimeError:
        raise UserError(f"unknown device {name!r}: expected cpu, cuda or cuda:N") from None
    if device.type not in ("cpu", "cuda"):
        raise UserError(f"device {name!r} is not supported: expected cpu, cuda or cuda:N")
    if device.type == "cuda":
        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if count == 0:
            raise UserError(f"--device {name}: this machine has no CUDA device; use --device cpu")
        if (device.index or 0) >= count:
            raise UserError(f"--device {name}: this machine's CUDA devices are cuda:0 to cuda:{count - 1}")
    return device


def device_name(device: torch.device) -> str:
    """The device as a reader of a result wants it named."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    threads = torch.get_num_threads()
    return f"{platform.machine()} CPU, {threads} thread{'s' * (threads > 1)}"
