"""The processes that train one network together; a single one unless told otherwise."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor, nn


@dataclass(frozen=True)
class World:
    """This process's place among `size` processes; only `rank` 0 writes files.

    Here a single process, which has everything itself already; plugin.process.distributed connects several.
    """

    rank: int = 0
    size: int = 1

    @property
    def is_writer(self) -> bool:
        """Whether this process writes the run's files."""
        return self.rank == 0

    def part(self, count: int) -> slice:
        """This process's part of `count` inputs."""
        return slice(0, count)

    def sum_(self, tensors: Sequence[Tensor]) -> None:
        """Adds up tensors over the processes, in place."""

    def sum_gradients(self, model: nn.Module) -> None:
        """Adds up the gradients of the parameters over the processes."""

    def agreed_stop(self, signal: int | None) -> int | None:
        """The signal that any process was asked to stop with."""
        return signal

    def share(self, text: str | None) -> str:
        """Rank 0's text, in every process."""
        return text or ""

    def seed_streams(self, seed: int, step: int) -> None:
        """Gives processes other than rank 0 random streams of their own for a step."""
