"""Captured training steps: with tensors in place of numbers they do what steps do, and a GPU's graphs repeat them."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import pytest
import torch
from torch import nn

from newrelax.errors import UserError
from plugin.callbacks import Callback, EpochInfo
from plugin.fitting.run import prepare
from plugin.process.world import World
from plugin.training.capture import EAGER_STEPS, CapturedSteps, Rerun
from plugin.training.loop import TrainState, train
from tests.conftest import REPOSITORY
from tests.support.tiny_runs import REGISTRY, assert_same_run, tiny_config, tiny_state, train_cli

T = TypeVar("T")
METHODS = ["natural", "PGD", "IBP", "CROWN", "CROWN-IBP", "CROWN-IBP-RandomSlope", "hBox-Cauchy:k=5"]


class Repeats(Rerun):
    """Repeats recorded steps where the loop's own counters are out of reach, as they are for a graph."""

    def __init__(self, state: TrainState) -> None:
        self.state, self.recorded, self.replayed = state, 0, 0

    def record(self, step: Callable[[], T]) -> Callable[[], T]:
        self.recorded += 1

        def replay() -> T:
            self.replayed += 1
            counters = self.state.step, self.state.epoch_step
            self.state.step = self.state.epoch_step = 10**9
            try:
                return step()
            finally:
                self.state.step, self.state.epoch_step = counters

        return replay


class Epochs(Callback):
    def __init__(self) -> None:
        self.means: list[dict[str, object]] = []

    def on_epoch(self, state: TrainState, info: EpochInfo) -> None:
        self.means.append(info.means)


def _without_regularizer(means: dict[str, object]) -> dict[str, object]:
    return {name: value for name, value in means.items() if not name.startswith("regularizer")}


def both(method: str, **given: object) -> Repeats:
    """The same run taken as it is and captured, trained to the end: bit for bit the same.

    The learning rates are powers of two, which single precision holds.
    """
    settings = dict(epochs=8, warmup=3, ramp=2.5, eps=0.05, batch_size=25, limit_train=135, lr=2**-9, lr_decay=0.5, **given)
    states, epochs = [], []
    for captured in (False, True):
        model = None
        if given.get("model") == "norm":
            settings.pop("model", None)
            torch.manual_seed(0)
            model = nn.Sequential(nn.Flatten(), nn.Linear(64, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 10))
        state = tiny_state(method, model=model, **settings)
        recorder = Repeats(state)
        if captured:
            state.captured = CapturedSteps(state.config.batch_size, state.device, recorder)
        epochs.append(Epochs())
        train(state, [epochs[-1]])
        states.append(state)
    for taken, repeated in zip(epochs[0].means, epochs[1].means, strict=True):
        # A recorded step cannot skip a regulariser that has faded: it counts more steps, with 0.
        assert _without_regularizer(taken) == _without_regularizer(repeated)
    plain, captured = states
    for name, tensor in plain.model.state_dict().items():
        assert torch.equal(captured.model.state_dict()[name], tensor), name
    return recorder


@pytest.mark.parametrize("method", METHODS)
def test_captured_steps_are_the_steps(method: str) -> None:
    assert both(method).replayed > 20


@pytest.mark.parametrize(
    "given",
    [
        {"loss_fusion": True},
        {"loss": "MTL:steps=2"},
        {"loss": "STAPS:steps=2"},
        {"accumulate": 3},
        {"clip_grad": 0.1},
        {"l1": 1e-3},
        {"beta": (0.8, 0.1)},
        {"kappa": (0.7, 0.0)},
        {"milestones": (2, 4)},
        {"regularizer": "shi"},
        {"average": "swa:from=0.5"},
        {"model": "norm"},
    ],
    ids=lambda given: next(iter(given)),
)
def test_whatever_a_step_has_is_captured(given: dict[str, object]) -> None:
    assert both("CROWN-IBP", **given).replayed > 20


def test_one_record_for_each_kind_of_step() -> None:
    """Natural, mixed and final steps, each observed or not; the ragged last batch is never recorded."""
    recorder = both("CROWN-IBP")
    # Of six steps an epoch, the first is observed, the last ragged: 3 epochs natural, 2.5 of ramp, 2.5 final.
    kinds = {"natural": 12, "natural observed": 3, "ramp": 10, "ramp observed": 2, "final": 11, "final observed": 2}
    assert recorder.recorded == sum(count > EAGER_STEPS for count in kinds.values())
    assert recorder.replayed == sum(max(0, count - EAGER_STEPS) for count in kinds.values())


def test_captured_settings_go_together() -> None:
    with pytest.raises(UserError, match="--capture records CUDA graphs: expected --device cuda, got cpu"):
        tiny_config("IBP", capture=True)
    with pytest.raises(UserError, match="--capture: expected --optimizer adam"):
        tiny_config("IBP", capture=True, device="cuda", optimizer="sgd")
    with pytest.raises(UserError, match="--capture: gradients that processes add up cannot be recorded"):
        prepare(tiny_config("IBP", capture=True, device="cuda"), REGISTRY, World(rank=0, size=2))


@pytest.fixture
def deterministic(monkeypatch: pytest.MonkeyPatch) -> None:
    """cuDNN may otherwise add up gradients in any order."""
    monkeypatch.setattr(torch.backends.cudnn, "deterministic", True)


@pytest.mark.gpu
@pytest.mark.usefixtures("deterministic")
@pytest.mark.parametrize("method", METHODS)
def test_graphs_repeat_the_steps(method: str) -> None:
    """Bit for bit: what is replayed is what the first steps of a kind computed without a graph."""
    final = []
    for graphs in (False, True):
        state = tiny_state(method, epochs=8, warmup=3, ramp=2.5, batch_size=25, limit_train=135, device="cuda", capture=True)
        if not graphs:
            state.captured = CapturedSteps(25, state.device, Rerun())
        train(state)
        final.append(state.model.state_dict())
    assert all(torch.equal(final[0][name], final[1][name]) for name in final[0])


@pytest.mark.gpu
@pytest.mark.usefixtures("deterministic")
def test_a_captured_run_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from tests.plugin.runs.test_checkpoint import Killed, at_step, kill

    options = ("--method", "CROWN-IBP", "--device", "cuda", "--capture", "--epochs", "8", "--checkpoint-every", "2steps")
    train_cli(tmp_path / "whole", *options)
    with monkeypatch.context() as patch:
        at_step(patch, 13, kill)
        with pytest.raises(Killed):
            train_cli(tmp_path / "run", *options)
    train_cli(tmp_path / "run", *options, "--resume")
    assert_same_run(tmp_path / "whole", tmp_path / "run")


@pytest.mark.gpu
def test_a_step_that_asks_cannot_be_recorded() -> None:
    """In a process of its own: a recording that broke off may leave CUDA's random streams unusable."""
    program = """
from plugin.training.loop import train
from tests.support.tiny_runs import tiny_state
state = tiny_state("IBP", device="cuda", capture=True, epochs=8)
original = state.learner.net.bounds
state.learner.net.bounds = lambda *given, **named: (given[0].sum().item(), original(*given, **named))[1]
train(state)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=REPOSITORY)
    assert "UserError: --capture: this step cannot be recorded" in done.stderr
