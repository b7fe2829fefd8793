"""One step to be measured: both sides the same, its cost, and what stands where there is none."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from experiments.benchmarks import step
from experiments.benchmarks.step import Case, Cost, cost, make_step, training_state
from newrelax.errors import UserError
from plugin.training.loop import train_step

CPU = torch.device("cpu")
CASE = Case("CROWN-IBP", "CONV", "digits", 4, 0.1)


def test_both_sides_take_the_same_step() -> None:
    """auto_LiRPA's side computes the same loss and gradient."""
    for method in ("IBP", "IBP+only", "CROWN-IBP", "CROWN-IBP+fusion", "CROWN"):
        taken = []
        for plain in (False, True):
            state, values = training_state(replace(CASE, method=method, plain=plain), CPU)
            taken.append(train_step(state, state.dataset.train_x, state.dataset.train_y, values))
        assert taken[0].loss.item() == pytest.approx(taken[1].loss.item(), rel=1e-5)
        assert taken[0].gradient_norm.item() == pytest.approx(taken[1].gradient_norm.item(), rel=1e-3)


@pytest.mark.parametrize("name", ["leaky", "without_bias", "max_pool", "concatenated"])
def test_other_networks_take_the_same_step_on_both_sides(name: str) -> None:
    case = replace(CASE, model=f"experiments.benchmarks.other_networks:{name}", shape="mnist")
    losses = []
    for plain in (False, True):
        state, values = training_state(replace(case, plain=plain), CPU)
        losses.append(train_step(state, state.dataset.train_x, state.dataset.train_y, values).loss.item())
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)


def test_memory_is_of_tensors_alive_at_once() -> None:
    with step.LiveTensors() as tensors:
        first = torch.zeros(1000)
        second = first + 1
        view = second.view(10, 100)
        del first
        third = view * 2
        del second, third
    assert (tensors.peak, tensors.live) == (8000, 4000)  # the view keeps its tensor


def test_cost_of_a_step(monkeypatch: pytest.MonkeyPatch) -> None:
    found = cost(CASE, CPU, budget=0.0)
    assert found.seconds > 0
    assert found.memory > 0
    assert found.note == ""
    # weights and phases of the kernels outweigh four more images
    assert cost(replace(CASE, batch_size=16), CPU, budget=0.0).memory > 1.5 * found.memory
    slow = cost(replace(CASE, batch_size=10**6), CPU, budget=0.0, limit=0.001)
    assert slow.seconds is None
    assert slow.note == "over 0.001 s, not run"


@pytest.mark.parametrize(
    "problem", [torch.OutOfMemoryError("CUDA out of memory"), RuntimeError("DefaultCPUAllocator: can't allocate memory")]
)
def test_no_memory_is_a_cell(problem: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(case: Case, *more: object) -> step.Step:
        if case.batch_size > 2:
            raise problem
        return make_step(case, CPU)

    monkeypatch.setattr(step, "make_step", fail)
    assert cost(CASE, CPU) == Cost(note="out of memory")


def test_other_problems_are_not_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*given: object) -> step.Step:
        raise RuntimeError("a bug")

    monkeypatch.setattr(step, "make_step", fail)
    with pytest.raises(RuntimeError, match="a bug"):
        cost(CASE, CPU)


def test_what_cannot_be_captured_is_a_cell(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(case: Case, *more: object) -> step.Step:
        raise UserError("--capture: this step cannot be recorded as a CUDA graph")

    monkeypatch.setattr(step, "make_step", fail)
    assert cost(replace(CASE, capture=True), CPU).note.startswith("--capture: this step cannot be recorded")
    with pytest.raises(UserError):
        cost(CASE, CPU)
