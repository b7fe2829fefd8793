"""Measuring a held-back part along the way: what is held back, when it is measured, and that training is left as it is."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from plugin.callbacks import Callback, StepInfo
from plugin.callbacks.validation import RECORDS
from plugin.certification.evaluation import evaluate
from plugin.data import load
from plugin.fitting.run import prepare, run
from plugin.process.interrupt import Interrupted, StopRequest
from plugin.runs.folder import RunFolder
from plugin.train import main
from plugin.training.loop import TrainState
from tests.conftest import REPOSITORY
from tests.support.calls import invoke
from tests.support.tiny_runs import REGISTRY, TINY, assert_same_run, tiny_config, train_cli

SMALL = "tests.support.own_networks:two_hidden"
HELD_BACK = ("--model", SMALL, "--validation", "0.25", "--limit-train", "80")


def lines_of(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / RECORDS).read_text().splitlines()]


@pytest.mark.parametrize("every", [1, 3])
def test_is_measured_every_few_epochs_and_at_the_end(tmp_path: Path, every: int) -> None:
    train_cli(tmp_path / "run", *HELD_BACK, "--method", "IBP", "--validate-every", str(every))
    lines = lines_of(tmp_path / "run")
    assert [line["epoch"] for line in lines] == [epoch for epoch in (1, 2, 3, 4) if epoch % every == 0 or epoch == 4]
    assert all(line["images"] == 20 for line in lines)
    assert json.loads((tmp_path / "run" / "result.json").read_text())["validation"] == lines[-1]
    events = EventAccumulator(str(tmp_path / "run")).Reload()
    for name in ("natural", "pgd", "certified"):
        shown = [(event.step, event.value) for event in events.Scalars(f"validation/{name}")]
        assert shown == [(line["epoch"], pytest.approx(line[f"{name}_accuracy"])) for line in lines]


def test_the_part_is_stratified_and_training_goes_without_it() -> None:
    whole = load("digits", limit_train=200)
    dataset = load("digits", limit_train=200, validation=0.25)
    counts = [torch.bincount(y, minlength=10) for y in (dataset.validation_y, dataset.train_y, whole.train_y)]
    assert torch.equal(counts[0] + counts[1], counts[2])
    assert ((counts[0] - counts[2] / 4).abs() <= 1).all()
    both = torch.cat([dataset.train_x, dataset.validation_x]).flatten(1)
    assert torch.equal(both.unique(dim=0), whole.train_x.flatten(1).unique(dim=0))
    assert torch.equal(dataset.test_x, whole.test_x)


@pytest.mark.parametrize("method", ["CROWN-IBP", "PGD", "CROWN-IBP-RandomSlope"])
def test_measuring_leaves_training_bit_for_bit(tmp_path: Path, method: str) -> None:
    for name, every in (("often", "1"), ("once", "1000")):
        train_cli(tmp_path / name, *HELD_BACK, "--method", method, "--validate-every", every)
    often, once = (torch.load(tmp_path / name / "model.pt", weights_only=True) for name in ("often", "once"))
    assert all(torch.equal(tensor, once[name]) for name, tensor in often.items())
    assert (tmp_path / "often" / "metrics.jsonl").read_text() == (tmp_path / "once" / "metrics.jsonl").read_text()
    assert lines_of(tmp_path / "often")[-1] == lines_of(tmp_path / "once")[-1]


def test_a_line_is_what_evaluating_the_network_gives(tmp_path: Path) -> None:
    train_cli(tmp_path / "run", *HELD_BACK, "--method", "IBP", "--eps", "0.02", "--lr", "2e-2", "--warmup", "4")
    config = tiny_config(
        "IBP", model=SMALL, validation=0.25, limit_train=80, eps=0.02, weights=str(tmp_path / "run" / "model.pt")
    )
    prepared = prepare(config, REGISTRY)
    dataset = prepared.state.dataset
    found = evaluate(prepared.state.model, dataset.validation_x, dataset.validation_y, 0.02, prepared.certifier)
    (*_, last) = lines_of(tmp_path / "run")
    assert (last["natural_accuracy"], last["pgd_accuracy"], last["certified_accuracy"]) == (
        found.natural_accuracy,
        found.pgd_accuracy,
        found.certified_accuracy,
    )
    assert found.natural_accuracy > 0.2


class StopAt(Callback):
    """Asks to stop after a step, as a signal would."""

    def __init__(self, step: int, stop: StopRequest) -> None:
        self.step, self.stop = step, stop

    def on_step(self, state: TrainState, info: StepInfo) -> None:
        if info.step == self.step:
            self.stop.signal = signal.SIGTERM


@pytest.mark.parametrize("step", [2, 4], ids=["before the epoch ends", "within an epoch"])
def test_stopped_and_resumed_anywhere_the_lines_are_the_same(tmp_path: Path, step: int) -> None:
    config = tiny_config("IBP", model=SMALL, validation=0.25, limit_train=80, validate_every=1, epochs=3)

    def go(folder: Path, stop_at: int | None) -> None:
        prepared = prepare(config, REGISTRY)
        resume = folder.exists()
        with RunFolder.reopen(folder) if resume else RunFolder.create(folder, config) as opened, StopRequest() as stop:
            hooks = [] if stop_at is None else [StopAt(stop_at, stop)]
            run(prepared, opened, resume=resume, stop=stop, callbacks=hooks, progress=False)

    go(tmp_path / "whole", None)
    with pytest.raises(Interrupted):
        go(tmp_path / "run", step)
    go(tmp_path / "run", None)
    assert (tmp_path / "run" / RECORDS).read_text() == (tmp_path / "whole" / RECORDS).read_text()
    assert_same_run(tmp_path / "run", tmp_path / "whole")


def test_killed_in_the_middle_and_resumed_the_lines_are_the_same(tmp_path: Path) -> None:
    options = [*TINY, *HELD_BACK, "--method", "CROWN-IBP", "--epochs", "8", "--validate-every", "1"]
    assert invoke(main, [*options, "--out", str(tmp_path / "whole")]).exit_code == 0
    command = [sys.executable, "-m", "plugin.train", *options, "--out", str(tmp_path / "run")]
    killed = subprocess.Popen(command, cwd=REPOSITORY, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 120
        while not (tmp_path / "run" / RECORDS).exists() and killed.poll() is None:
            assert time.monotonic() < deadline, "no epoch ends"
            time.sleep(0.005)
        assert killed.poll() is None, "ended before it was killed"
        os.kill(killed.pid, signal.SIGKILL)
    finally:
        killed.kill()
        killed.wait()
    assert len(lines_of(tmp_path / "run")) < 8
    assert invoke(main, [*options, "--out", str(tmp_path / "run"), "--resume"]).exit_code == 0
    assert (tmp_path / "run" / RECORDS).read_text() == (tmp_path / "whole" / RECORDS).read_text()
    assert_same_run(tmp_path / "run", tmp_path / "whole")


def test_lines_after_the_checkpoint_are_measured_again(tmp_path: Path) -> None:
    train_cli(tmp_path / "run", *HELD_BACK, "--method", "IBP", "--validate-every", "1")
    expected = (tmp_path / "run" / RECORDS).read_text()
    (tmp_path / "run" / "result.json").unlink()
    train_cli(tmp_path / "run", "--resume", *HELD_BACK, "--method", "IBP")
    assert (tmp_path / "run" / RECORDS).read_text() == expected


def test_an_estimate_is_shown_as_one(tmp_path: Path) -> None:
    train_cli(tmp_path / "run", *HELD_BACK, "--method", "DeepZ-Cauchy:k=3", "--epochs", "2")
    (line,) = lines_of(tmp_path / "run")
    assert "certified_accuracy" not in line
    assert 0 <= line["estimated_accuracy"] <= 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--validation", "1"), "validation: expected in [0, 1), got 1"),
        (("--validation", "0.001"), "leaves 60 to train and 0 to validate"),
        (("--validation", "0.2", "--validate-every", "0"), "validate-every: expected at least 1, got 0"),
    ],
    ids=["everything", "nothing", "never"],
)
def test_mistakes_are_one_line(tmp_path: Path, options: tuple[str, ...], message: str) -> None:
    called = invoke(main, [*TINY, *options, "--out", str(tmp_path / "run")])
    assert called.exit_code == 2
    assert called.output.count("\n") == 1
    assert message in called.output
