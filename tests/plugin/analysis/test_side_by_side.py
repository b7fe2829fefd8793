"""Work in processes of its own: the same results, progress, errors, and no process that outlives its caller."""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections.abc import Callable
from dataclasses import dataclass

import pytest
import torch

from newrelax.errors import UserError
from plugin.analysis.side_by_side import Tick, default_jobs, side_by_side


@dataclass(frozen=True)
class Sums:
    """Sums of a column, a tick for each; refuses a negative one."""

    values: torch.Tensor

    def __call__(self, column: int, tick: Tick) -> tuple[float, int]:
        if column < 0:
            raise UserError(f"expected a column, got {column}")
        for _ in range(column):
            tick(1)
        return float(self.values[:, column].sum()), torch.get_num_threads()


SUMS = Sums(torch.rand(50, 4, generator=torch.Generator().manual_seed(0)))


def ends_itself(task: int, tick: Tick) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.parametrize("jobs", [1, 2], ids=["here", "two processes"])
def test_every_task_has_its_result_and_progress_is_heard(jobs: int) -> None:
    ticks: list[int] = []
    found = dict(side_by_side(SUMS, [3, 1, 2, 0], jobs=jobs, tick=ticks.append))
    assert found == {place: (float(SUMS.values[:, column].sum()), 1) for place, column in enumerate([3, 1, 2, 0])}
    assert sum(ticks) == 6


@pytest.mark.parametrize("jobs", [1, 2], ids=["here", "two processes"])
def test_an_error_is_the_callers(jobs: int) -> None:
    with pytest.raises(UserError, match="expected a column, got -1"):
        list(side_by_side(SUMS, [-1, -1], jobs=jobs))
    assert not multiprocessing.active_children()


def test_processes_end_when_nobody_wants_the_rest() -> None:
    found = side_by_side(SUMS, [0, 1, 2, 3], jobs=2)
    next(found)
    assert multiprocessing.active_children()
    found.close()
    assert not multiprocessing.active_children()


def test_processes_that_are_killed_are_missed() -> None:
    with pytest.raises(RuntimeError, match="ended before its work was done"):
        list(side_by_side(ends_itself, [1, 2], jobs=2))


def test_what_cannot_be_pickled_is_done_here() -> None:
    process = os.getpid()
    here: Callable[[int, Tick], bool] = lambda task, tick: os.getpid() == process  # noqa: E731
    assert list(side_by_side(here, [1, 2], jobs=2)) == [(0, True), (1, True)]


def test_threads_are_as_before_afterwards() -> None:
    torch.set_num_threads(2)
    assert [threads for _, (_, threads) in side_by_side(SUMS, [1, 2])] == [1, 1]
    assert torch.get_num_threads() == 2
    torch.set_num_threads(1)


def test_a_gpu_is_not_shared() -> None:
    assert default_jobs(torch.device("cuda")) == 1
