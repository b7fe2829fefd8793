"""A step's loss as a function of the weights: the same batch, the same random numbers, batch norm moved once."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from plugin.process.world import World
from plugin.training.losses.base import Batch, Terms
from plugin.training.smoothing.noise import flat


class Surroundings:
    """What an evaluation of a loss leaves behind beside its value: moved random streams and moved buffers.

    Each evaluation of a step begins with the streams of its first, so that both sides of a pair see one and the same function
    (an attack's starts, random slopes), and with the buffers of its first. After `settle` the streams are as after a single
    evaluation, and the buffers, batch norm's running statistics, the mean of what the evaluations made of them.
    """

    def __init__(self, model: nn.Module, device: torch.device) -> None:
        self._device = device if device.type == "cuda" else None
        self._cpu_stream = torch.get_rng_state()
        self._device_stream = None if self._device is None else torch.cuda.get_rng_state(self._device)
        self._buffers = list(model.buffers())
        self._before = [buffer.clone() for buffer in self._buffers]
        self._means = [buffer.clone() for buffer in self._buffers]
        self._evaluations = 0

    def begin(self) -> None:
        """Before an evaluation."""
        torch.set_rng_state(self._cpu_stream)
        if self._device is not None and self._device_stream is not None:
            torch.cuda.set_rng_state(self._device_stream, self._device)
        for buffer, before in zip(self._buffers, self._before, strict=True):
            buffer.copy_(before)

    def end(self) -> None:
        """After an evaluation."""
        self._evaluations += 1
        for buffer, mean in zip(self._buffers, self._means, strict=True):
            # Written so that buffers which all evaluations leave alone stay what they are, bit for bit.
            mean.copy_(mean + (buffer - mean) / self._evaluations if buffer.is_floating_point() else buffer)

    def settle(self) -> None:
        """After the last evaluation."""
        for buffer, mean in zip(self._buffers, self._means, strict=True):
            buffer.copy_(mean)


@dataclass(frozen=True)
class BatchObjective:
    """The loss of a step's batch, over all processes, as a function of the present weights (`neighbourhood.Objective`).

    take: terms of a piece of the batch. batch: this process's part, gone through in `accumulate` pieces; weight: 0 for a
    process without a part, whose input only stands in. record: is told each piece's terms and how many inputs count.
    """

    take: Callable[[Batch], Terms]
    parameters: Sequence[Tensor]
    batch: Batch
    weight: float
    accumulate: int
    record: Callable[[Terms, int], None]
    surroundings: Surroundings
    world: World

    def split(self, count: int) -> list[BatchObjective]:
        """Each on a part of the inputs, as even as can be; their mean is the whole."""
        parts = zip(self.batch.x.tensor_split(count), self.batch.y.tensor_split(count), strict=True)
        return [self._on(x, y, count) for x, y in parts]

    def _on(self, x: Tensor, y: Tensor, count: int) -> BatchObjective:
        x, y, weight = (x, y, self.weight * count) if len(x) else (self.batch.x[:1], self.batch.y[:1], 0.0)
        return replace(self, batch=self.batch._replace(x=x, y=y), weight=weight)

    def value(self) -> Tensor:
        with torch.no_grad():
            value = torch.stack(list(self._pieces())).sum()
        self.world.sum_([value])
        return value

    def gradient(self) -> tuple[Tensor, Tensor]:
        self._forget()
        value = torch.zeros((), device=self.batch.x.device)
        for loss in self._pieces():
            loss.backward()
            value = value + loss.detach()
        slope = flat([torch.zeros_like(p) if p.grad is None else p.grad for p in self.parameters])
        self._forget()
        self.world.sum_([slope])
        self.world.sum_([value])
        return value, slope

    def _forget(self) -> None:
        for parameter in self.parameters:
            parameter.grad = None

    def _pieces(self) -> Iterator[Tensor]:
        """The loss of each piece, in turn: the one before is done with when the next is asked for."""
        self.surroundings.begin()
        for x, y in zip(self.batch.x.chunk(self.accumulate), self.batch.y.chunk(self.accumulate), strict=True):
            terms = self.take(self.batch._replace(x=x, y=y))
            self.record(terms, len(x) if self.weight > 0 else 0)
            yield self.weight * terms.loss
        self.surroundings.end()
