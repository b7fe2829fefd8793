"""Training steps as CUDA graphs: recorded once for each kind of step, then replayed without Python in between.

A graph repeats the kernels of the recorded step on the same memory. So all that differs between two steps of a kind
lies in tensors of its own: the batch, the step's number, and what the schedule moves (ε, κ, β, learning rate).
"""

from __future__ import annotations

import gc
from collections import Counter
from collections.abc import Callable, Hashable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Generic, Protocol, TypeVar

import torch
from torch import Tensor

from newrelax.errors import UserError, one_line
from newrelax.share import DeviceShare
from plugin.training.schedule import Values

# Steps of a kind that run as they are before it is recorded: libraries set themselves up in the first one.
EAGER_STEPS = 2

T = TypeVar("T")


class Recorder(Protocol):
    """Makes a step repeatable. `here()` is where all steps must run, recorded or not."""

    def here(self) -> AbstractContextManager[object]: ...

    def record(self, step: Callable[[], T]) -> Callable[[], T]:
        """A function that repeats `step` on the same memory and returns the same tensors, overwritten."""


class Rerun:
    """Repeats a step by calling it again: what a graph does, for devices without any."""

    def here(self) -> AbstractContextManager[object]:
        return nullcontext()

    def record(self, step: Callable[[], T]) -> Callable[[], T]:
        return step


class CudaGraphs:
    """One CUDA graph a step. All share a memory pool and a stream, which gradients' nodes belong to as well."""

    def __init__(self, device: torch.device) -> None:
        self._stream = torch.cuda.Stream(device)
        self._pool = torch.cuda.graph_pool_handle()

    @contextmanager
    def here(self) -> Iterator[None]:
        outside = torch.cuda.current_stream(self._stream.device)
        self._stream.wait_stream(outside)
        with torch.cuda.stream(self._stream):
            yield
        outside.wait_stream(self._stream)

    def record(self, step: Callable[[], T]) -> Callable[[], T]:
        graph = torch.cuda.CUDAGraph()
        gc.collect()  # a graph that Python frees while another one is recorded would break the recording
        try:
            with torch.cuda.graph(graph, pool=self._pool, stream=self._stream):
                outputs = step()
        except torch.OutOfMemoryError:
            raise
        except RuntimeError as error:
            reason = one_line(error, longest=160)
            raise UserError(f"--capture: this step cannot be recorded as a CUDA graph, leave it out ({reason})") from error

        def replay() -> T:
            graph.replay()
            return outputs

        return replay


class CapturedSteps(Generic[T]):
    """Takes steps on batches of `batch_size` inputs by replaying them, and others as they are.

    Steps are of one kind when they do the same work: κ and β at the same ends or in between, and the
    same `observe`. What a step returns is overwritten by the next one.
    """

    def __init__(self, batch_size: int, device: torch.device, recorder: Recorder | None = None) -> None:
        self._batch_size = batch_size
        self._recorder = CudaGraphs(device) if recorder is None else recorder
        self._batch: tuple[Tensor, Tensor] | None = None
        self._number = torch.zeros((), dtype=torch.int64, device=device)
        # Double precision like Python's numbers; the fused optimisers read single precision.
        eps, kappa, beta = (torch.zeros((), dtype=torch.float64, device=device) for _ in range(3))
        self._scalars = (eps, kappa, beta, torch.zeros((), device=device))
        self._values = Values(eps, DeviceShare(kappa), DeviceShare(beta), self._scalars[-1])
        self._taken: Counter[Hashable] = Counter()
        self._replays: dict[Hashable, Callable[[], T]] = {}

    def __call__(
        self,
        take: Callable[[Tensor, Tensor, Values, Tensor, bool], T],
        x: Tensor,
        y: Tensor,
        values: Values,
        number: int,
        observe: bool,
    ) -> T:
        """`take(x, y, values, number, observe)`, its numbers on the device. `take` must be the same in every call."""
        with self._recorder.here():
            moved = self._place(values, number)
            if len(x) != self._batch_size:
                return take(x, y, moved, self._number, observe)
            if self._batch is None:
                self._batch = torch.empty_like(x), torch.empty_like(y)
            for held, given in zip(self._batch, (x, y), strict=True):
                held.copy_(given)
            kind = moved.kappa, moved.beta, observe
            self._taken[kind] += 1
            if kind not in self._replays:
                x, y = self._batch
                if self._taken[kind] <= EAGER_STEPS:
                    return take(x, y, moved, self._number, observe)
                self._replays[kind] = self._recorder.record(lambda: take(x, y, moved, self._number, observe))
            return self._replays[kind]()

    def _place(self, values: Values, number: int) -> Values:
        """Writes the numbers to the device; κ and β at an end stay what they are, since they decide what is computed."""
        self._number.fill_(number)
        for held, value in zip(self._scalars, values, strict=True):
            held.fill_(float(value))
        ends = {name: share for name in ("kappa", "beta") if (share := getattr(values, name)) in (0, 1)}
        return self._values._replace(**ends)
