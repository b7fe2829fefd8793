"""Several processes that train one network together, as `torchrun` starts them.

Every process draws the same global batches and takes its own part of each; gradients of the certified loss, the
measured sums and the wish to stop are added up over the processes, so that all of them take the same step as a single
process would, to rounding. Two things are a process's own: batch norm normalises by the statistics of its part, and
methods that draw (attacks, random slopes) draw for it. Only rank 0 writes files.
"""

from __future__ import annotations

import os
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed import PrefixStore, Store, TCPStore  # type: ignore[attr-defined]  # public, but not marked so

from newrelax.errors import UserError, one_line
from plugin.process.world import World


@dataclass(frozen=True)
class ProcessWorld(World):
    """A `World` of several processes, connected through torch.distributed.

    `device`: where this process's tensors to be summed live.
    """

    device: torch.device = field(default_factory=lambda: torch.device("cpu"))

    def part(self, count: int) -> slice:
        """This process's part of `count` inputs: contiguous, in the order of ranks, sizes differing by one at most.

        The first ranks get the larger parts, so that the writer's is never empty.
        """
        small, larger = divmod(count, self.size)
        start = self.rank * small + min(self.rank, larger)
        return slice(start, start + small + (self.rank < larger))

    def sum_(self, tensors: Sequence[Tensor]) -> None:
        """Add up tensors of one dtype over the processes, in place, in one message."""
        if not tensors:
            return
        flat = torch.cat([tensor.detach().reshape(-1) for tensor in tensors])
        with _lost_process_is_user_error():
            dist.all_reduce(flat)
        parts = flat.split([tensor.numel() for tensor in tensors])
        for tensor, part in zip(tensors, parts, strict=True):
            tensor.detach().copy_(part.view_as(tensor))

    def sum_gradients(self, model: nn.Module) -> None:
        """Add up the gradients of `model`'s parameters over the processes.

        The processes' losses must be parts of one sum. A parameter that no process has a gradient for keeps none.
        Batch norm's running statistics, which each process measures on its part, become their mean.
        """
        parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
        had = torch.tensor([float(p.grad is not None) for p in parameters], device=self.device)
        for parameter in parameters:
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
        gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]  # every one by now
        norms = [module for module in model.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)]
        buffers = [buffer for norm in norms for buffer in norm.buffers() if buffer.is_floating_point()]
        for group in _by_dtype([*gradients, *buffers, had]):
            self.sum_(group)
        for buffer in buffers:
            buffer /= self.size
        for parameter, present in zip(parameters, had.tolist(), strict=True):
            if not present:
                parameter.grad = None

    def agreed_stop(self, signal: int | None) -> int | None:
        """The signal that any process was asked to stop with, the same answer in all of them; None without one."""
        asked = torch.tensor([signal or 0], device=self.device)
        with _lost_process_is_user_error():
            dist.all_reduce(asked, op=dist.ReduceOp.MAX)
        return int(asked) or None

    def share(self, text: str | None) -> str:
        """Rank 0's text, in every process."""
        data = list((text or "").encode()) if self.is_writer else []
        length = torch.tensor([len(data)], device=self.device)
        with _lost_process_is_user_error():
            dist.broadcast(length, src=0)
            held = torch.tensor(data or [0] * int(length), dtype=torch.uint8, device=self.device)
            if len(held):
                dist.broadcast(held, src=0)
        return bytes(held.tolist()).decode()

    def seed_streams(self, seed: int, step: int) -> None:
        """Give the other processes than rank 0 random streams of their own for a step.

        Random methods draw for different inputs in each process; that the streams follow from the seed and the step
        alone makes a resumed run equal to an undisturbed one without keeping them.
        """
        if not self.is_writer:
            torch.manual_seed(hash((seed, self.rank, step)) % 2**63)


@contextmanager
def connect(environment: Mapping[str, str], device: str) -> Iterator[World]:
    """The world that `torchrun` set up in the environment variables; a single process without them.

    gloo connects processes on CPUs, nccl on GPUs, a process a GPU.

    Raises:
        UserError: the variables are incomplete, or there are more processes than GPUs on this machine.
    """
    if int(environment.get("WORLD_SIZE", "1")) == 1:
        yield World()
        return
    missing = [name for name in ("RANK", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT") if name not in environment]
    if missing:
        raise UserError(f"WORLD_SIZE is set but {', '.join(missing)} is not: start several processes with torchrun")
    where = process_device(environment, device)
    if where.type == "cuda":
        torch.cuda.set_device(where)
    rank, size = int(environment["RANK"]), int(environment["WORLD_SIZE"])
    # torchrun's own store server outlives the processes it starts: only those without it need one.
    serves = rank == 0 and environment.get("TORCHELASTIC_USE_AGENT_STORE") != "True"
    with _lost_process_is_user_error():
        server = TCPStore(environment["MASTER_ADDR"], int(environment["MASTER_PORT"]), size, serves, multi_tenant=True)
        store = PrefixStore(agree_on_round(server, rank, size), server)
        dist.init_process_group("nccl" if where.type == "cuda" else "gloo", store=store, rank=rank, world_size=size)
    try:
        yield ProcessWorld(rank=rank, size=size, device=where)
    finally:
        dist.destroy_process_group()


def agree_on_round(store: Store, rank: int, size: int) -> str:
    """A name for this start of the processes, the same in all of them and never used before.

    A store that outlives a lost process still holds the addresses of those before; torch 2.15 tries to connect to
    them. Under a new name there are none. A process believes a name only when rank 0 has answered its own greeting
    under it, so that the name of an earlier start is never taken for today's.
    """
    own = uuid.uuid4().hex
    if rank == 0:
        store.set("round", own)
        greetings = [store.get(f"{own}/{other}").decode() for other in range(1, size)]
        store.set(f"{own}/answer", ",".join(greetings))
        return own
    while True:
        name = str(store.get("round").decode())
        store.set(f"{name}/{rank}", own)
        if store.check([f"{name}/answer"]) and own in store.get(f"{name}/answer").decode():
            return name
        time.sleep(0.02)


def process_device(environment: Mapping[str, str], device: str) -> torch.device:
    """The device of this process: its own GPU when `device` is `cuda`.

    Raises:
        UserError: a device that processes cannot share, or more processes than GPUs on this machine.
    """
    if "LOCAL_RANK" not in environment or device == "cpu":
        return torch.device(device)
    if device != "cuda":
        raise UserError(f"--device {device}: several processes take a GPU each; use --device cuda or cpu")
    local = int(environment["LOCAL_RANK"])
    if local >= torch.cuda.device_count():
        raise UserError(f"{local + 1} processes on a machine with {torch.cuda.device_count()} GPUs: use fewer, or --device cpu")
    return torch.device("cuda", local)


def _by_dtype(tensors: Sequence[Tensor]) -> list[list[Tensor]]:
    """The tensors in groups of one dtype, each of which travels as one message."""
    groups: dict[torch.dtype, list[Tensor]] = {}
    for tensor in tensors:
        groups.setdefault(tensor.dtype, []).append(tensor)
    return list(groups.values())


@contextmanager
def _lost_process_is_user_error() -> Iterator[None]:
    """Turns what torch.distributed raises when a process is gone into one line that says how to go on."""
    try:
        yield
    except RuntimeError as error:
        rank = os.environ.get("RANK", "?")
        raise UserError(
            f"process {rank} lost the others ({one_line(error, 120)}); "
            "torchrun --max-restarts N starts them again, and --resume goes on from the last checkpoint"
        ) from error
