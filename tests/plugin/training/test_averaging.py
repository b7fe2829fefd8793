"""Averages of weights: what they are, where they are used, and that training does not notice them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import plugin.training.loop
from newrelax.errors import UserError
from plugin.models.build import build
from plugin.training.averaging import Average, read_averaging
from plugin.training.callback import Callback, StepInfo
from plugin.training.loop import TrainState, train
from tests.support.tiny_runs import REGISTRY, assert_same_run, resolved, tiny_state, train_cli

SPELLINGS = ("swa:from=0.5", "ema:decay=0.9,from=0.5")


def weights(model: nn.Module) -> list[Tensor]:
    return [parameter.detach().clone() for parameter in model.parameters()]


class Track(Callback):
    """Keeps the weights after each step."""

    def __init__(self) -> None:
        self.kept: list[list[Tensor]] = []

    def on_step(self, state: TrainState, info: StepInfo) -> None:
        self.kept.append(weights(state.model))


def trained(**given: Any) -> tuple[TrainState, list[list[Tensor]]]:
    state, path = tiny_state(**given), Track()
    train(state, [path])
    return state, path.kept


def by_hand(kept: list[list[Tensor]], decay: float | None) -> list[Tensor]:
    """The average of the second half of the path: equal shares, or those of a moving average."""
    average = [weight.double() for weight in kept[len(kept) // 2]]
    for count, step in enumerate(kept[len(kept) // 2 + 1 :], start=1):
        share = 1 / (count + 1) if decay is None else 1 - decay
        average = [old + share * (new.double() - old) for old, new in zip(average, step, strict=True)]
    return average


@pytest.mark.parametrize(("spelling", "decay"), [(SPELLINGS[0], None), (SPELLINGS[1], 0.9)], ids=["swa", "ema"])
def test_the_trained_model_has_the_average_of_the_last_part(spelling: str, decay: float | None) -> None:
    state, kept = trained(average=spelling)
    assert len(kept) == 12
    for found, expected in zip(weights(state.model), by_hand(kept, decay), strict=True):
        torch.testing.assert_close(found.double(), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_training_itself_goes_on_as_without_it(spelling: str) -> None:
    (_, with_it), (_, without) = trained(average=spelling), trained()
    for one, other in zip(with_it, without, strict=True):
        assert all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


def cnn7() -> nn.Module:
    return build("CNN7", (1, 8, 8), 10, (0.3,), (0.4,), seed=0)


def test_it_is_lent_and_comes_back_bit_for_bit() -> None:
    state = tiny_state(model=cnn7(), average="ema:decay=0.5,from=0")
    before = {name: tensor.clone() for name, tensor in state.model.state_dict().items()}
    with state.evaluated():  # nothing is averaged yet
        assert all(torch.equal(tensor, before[name]) for name, tensor in state.model.state_dict().items())
    assert state.average is not None
    state.average.update(1)
    with torch.no_grad():
        for parameter in state.model.parameters():
            parameter += 1
    state.average.update(2)
    now = {name: tensor.clone() for name, tensor in state.model.state_dict().items()}
    stream = torch.get_rng_state()
    with state.evaluated():
        inside = dict(state.model.state_dict())
        torch.testing.assert_close(inside["layers.1.weight"], before["layers.1.weight"] + 0.5)
        assert not torch.equal(inside["layers.2.running_var"], now["layers.2.running_var"])
    assert all(torch.equal(tensor, now[name]) for name, tensor in state.model.state_dict().items())
    assert torch.equal(torch.get_rng_state(), stream)
    assert state.model.training


def test_batch_norms_statistics_are_made_anew_over_the_training_set() -> None:
    model = nn.Sequential(nn.BatchNorm1d(3), nn.Dropout(), nn.Linear(3, 2))
    average = Average(read_averaging("swa:from=0", REGISTRY), model, 0)
    average.update(1)
    inputs = torch.rand(501, 3, generator=torch.Generator().manual_seed(0))
    average.install(inputs)
    norm = model[0]
    assert norm.running_mean is not None and norm.running_var is not None
    torch.testing.assert_close(norm.running_mean, inputs.mean(0), rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(norm.running_var, inputs.var(0), rtol=1e-2, atol=1e-3)


class Killed(BaseException):
    """What no handler in the program catches."""


@pytest.mark.parametrize("step", [3, 8, 11], ids=["before it starts", "within", "at the last step"])
def test_a_run_that_was_killed_ends_as_if_it_had_not_been(step: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    options = ("--average", "ema:decay=0.9,from=0.5", "--regularizer", "shi", "--init", "shi", "--checkpoint-every", "2steps")
    train_cli(tmp_path / "whole", *options)
    original = plugin.training.loop.train_step

    def killed(state: TrainState, *rest: Any) -> StepInfo:
        if state.step == step:
            raise Killed
        return original(state, *rest)

    monkeypatch.setattr(plugin.training.loop, "train_step", killed)
    with pytest.raises(Killed):
        train_cli(tmp_path / "killed", *options)
    monkeypatch.setattr(plugin.training.loop, "train_step", original)
    train_cli(tmp_path / "killed", *options, "--resume")
    assert_same_run(tmp_path / "whole", tmp_path / "killed")


def test_validation_measures_the_average(tmp_path: Path) -> None:
    """At the end it is what is kept; the run without an average has other weights there."""
    lines = []
    for name, options in (("with", ("--average", "ema:decay=0.99,from=0")), ("without", ())):
        train_cli(tmp_path / name, "--method", "IBP", "--validation", "0.4", "--validate-every", "1", *options)
        lines.append([json.loads(line) for line in (tmp_path / name / "validation.jsonl").read_text().splitlines()])
    assert len(lines[0]) == len(lines[1]) == 4
    assert lines[0] != lines[1]


@pytest.mark.parametrize(
    ("spelling", "message"),
    [
        ("swb", r"unknown average 'swb'; did you mean swa\? \(known: swa, ema\)"),
        ("swa:from=1", r"from: expected in \[0, 1\), got 1"),
        ("ema:decay=2", r"decay: expected in \[0, 1\), got 2"),
        ("swa:decay=0.9", "unknown parameter of average swa 'decay'"),
    ],
    ids=["name", "from", "decay", "parameter"],
)
def test_what_it_refuses(spelling: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        resolved("IBP", average=spelling)


def test_its_label_has_all_its_parameters() -> None:
    assert resolved("IBP", average="swa").average == "swa:from=0.9"
    assert resolved("IBP", average="none").average is None
