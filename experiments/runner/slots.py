"""What of this machine each run gets: a core, a GPU or a part of one."""

from __future__ import annotations

import os
import shutil
import subprocess

from newrelax.errors import UserError


def local_slots(jobs: int | None, cpus: int, gpus: float) -> list[dict[str, str]]:
    """One environment per run at a time: as many as `jobs`, or as the machine's cores or GPUs hold.

    Raises UserError when `gpus` per run are asked for and the machine has fewer.
    """
    if gpus <= 0:
        return [{} for _ in range(jobs or max(1, len(os.sched_getaffinity(0)) // cpus))]
    devices = gpu_names()
    if gpus > len(devices):
        raise UserError(f"--gpus {gpus:g}: this machine has {len(devices)} GPU(s); ask for fewer or leave it out")
    if gpus >= 1:
        sets = [devices[i : i + int(gpus)] for i in range(0, len(devices) - int(gpus) + 1, int(gpus))]
    else:
        sets = [[name] for _ in range(int(1 / gpus)) for name in devices]
    return [{"CUDA_VISIBLE_DEVICES": ",".join(names)} for names in sets[:jobs]]


def gpu_names() -> list[str]:
    """The machine's GPUs, as CUDA_VISIBLE_DEVICES names them."""
    if "CUDA_VISIBLE_DEVICES" in os.environ:
        return [name for name in os.environ["CUDA_VISIBLE_DEVICES"].split(",") if name]
    if shutil.which("nvidia-smi") is None:
        return []
    listing = subprocess.run(["nvidia-smi", "--query-gpu=index", "--format=csv,noheader"], capture_output=True)
    return listing.stdout.decode().split()
