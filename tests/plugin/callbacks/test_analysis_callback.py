"""`--analyze`: it changes nothing about a run, keeps to its budget, and says what it measured."""

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from newrelax.errors import UserError
from plugin.analysis.allowance import Allowance
from plugin.analysis.measure import Protocol
from plugin.callbacks.analysis import ORDER, RECORDS, Analysis
from plugin.callbacks.tensorboard import TensorBoard
from plugin.training.callback import Callback, EpochInfo
from plugin.training.loop import TrainState, train
from plugin.training.schedule import Values
from tests.plugin.test_train_cli import events
from tests.support.tiny_runs import assert_same_run, terms_of, tiny_config, tiny_state, train_cli

GENEROUS = ("--analyze", "--analyze-budget", "1e6", "--analyze-every", "2")  # epochs 2 and 4


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Enough for every figure, too little for fine verdicts."""
    original = Analysis._protocol

    def protocol(self: Analysis, state: TrainState, values: Values) -> Protocol:
        return replace(original(self, state, values), budget=240, single_weights=1, images=4, step=0.05)

    monkeypatch.setattr(Analysis, "_protocol", protocol)


def lines_of(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / RECORDS).read_text().splitlines()]


class Clock:
    """Every reading is `tick` seconds after the one before."""

    def __init__(self, tick: float) -> None:
        self.tick, self.now = tick, 0.0

    def __call__(self) -> float:
        self.now += self.tick
        return self.now


class Pace(Callback):
    """Makes every epoch take `seconds` of training time, whatever the machine does."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds

    def on_epoch(self, state: TrainState, info: object) -> None:
        state.seconds = self.seconds * state.epoch


def analysed(folder: Path, state: TrainState, *, percent: float, tick: float, every: int = 1, **known: float) -> None:
    """Trains with epochs of 10 s and measurements that take `tick` s; `known`: costs to expect of them."""
    board = TensorBoard(folder)
    analysis = Analysis(board, folder, every, percent, clock=Clock(tick))
    analysis._costs.update(known)
    try:
        train(state, [board, Pace(10.0), analysis])
    finally:
        board.close()


# Random slopes draw from the global stream in training, PGD does in the measurement of tightness.
@pytest.mark.parametrize("method", ["IBP", "CROWN-IBP", "CROWN-IBP-RandomSlope"])
def test_training_is_bit_for_bit_the_same(tmp_path: Path, method: str) -> None:
    train_cli(tmp_path / "plain", "--method", method)
    train_cli(tmp_path / "analysed", "--method", method, *GENEROUS)
    assert_same_run(tmp_path / "plain", tmp_path / "analysed")
    assert {line["measurement"] for line in lines_of(tmp_path / "analysed")} == set(ORDER)


def test_random_streams_optimiser_and_gradients_stay(tmp_path: Path) -> None:
    class Watch(Analysis):
        def on_epoch(self, state: TrainState, info: Any) -> None:
            before = snapshot(state)
            super().on_epoch(state, info)
            assert all(torch.equal(a, b) for a, b in zip(before, snapshot(state), strict=True))
            assert state.model.training

    def snapshot(state: TrainState) -> Iterator[torch.Tensor]:
        tensors = [torch.get_rng_state(), state.order.get_state(), *state.model.state_dict().values()]
        tensors += [p.grad for p in state.model.parameters() if p.grad is not None]
        moments = [v for entry in state.optimizer.state_dict()["state"].values() for v in entry.values()]
        tensors += [v for v in moments if isinstance(v, torch.Tensor)]
        return iter([t.clone() for t in tensors])

    board = TensorBoard(tmp_path)
    analysis = Watch(board, tmp_path, 1, 1e6)
    train(tiny_state("CROWN-IBP", epochs=3), [board, analysis])
    board.close()
    assert lines_of(tmp_path)


def test_killed_and_resumed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same weights as without analysis and interruption; what was measured is neither lost nor doubled."""
    train_cli(tmp_path / "plain")
    train_cli(tmp_path / "whole", *GENEROUS)
    original = Analysis.on_epoch

    def killed(self: Analysis, state: TrainState, info: EpochInfo) -> None:
        original(self, state, info)
        if state.epoch == 3:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Analysis, "on_epoch", killed)
        train_cli(tmp_path / "killed", *GENEROUS, code=130)
    assert max(line["epoch"] for line in lines_of(tmp_path / "killed")) == 2
    train_cli(tmp_path / "killed", "--resume")
    assert_same_run(tmp_path / "plain", tmp_path / "killed")
    assert without_times(tmp_path / "killed") == without_times(tmp_path / "whole")


def without_times(folder: Path) -> list[dict[str, Any]]:
    return [{k: v for k, v in line.items() if "seconds" not in k} for line in lines_of(folder)]


def test_allowance_is_never_overdrawn_on_purpose() -> None:
    allowance = Allowance(10, spent=1.0, clock=Clock(2.0))
    assert not allowance.covers(0.1, training=10)
    assert allowance.covers(1.0, training=20)
    with allowance.spending():
        pass
    assert (allowance.last, allowance.spent) == (2.0, 3.0)
    assert not allowance.covers(0.1, training=30)
    assert allowance.covers(0.1, training=31)


def test_keeps_to_the_budget_by_stretching_the_intervals(tmp_path: Path) -> None:
    """Epochs of 10 s, measurements of 2 s: 10 % pays for one measurement every second epoch, in turn."""
    analysed(tmp_path, tiny_state("IBP", epochs=12, ramp=1), percent=10, tick=2.0, **dict.fromkeys(ORDER, 2.0))
    lines = lines_of(tmp_path)
    assert [(line["epoch"], line["measurement"]) for line in lines] == [
        (2, "tightness"),
        (4, "sensitivity"),
        (6, "continuity"),
        (8, "tightness"),
        (10, "sensitivity"),
        (12, "continuity"),
    ]
    postponed = {event.step: event.value for event in events(tmp_path).Scalars("analysis/postponed")}
    assert postponed == dict.fromkeys(range(2, 13), 1.0)
    share = [event.value for event in events(tmp_path).Scalars("analysis/percent_of_training")]
    assert max(share) <= 10
    assert share[-1] == pytest.approx(10)


def test_a_generous_budget_measures_everything_whenever_due(tmp_path: Path) -> None:
    """The first costs are foreseen by timing one evaluation."""
    analysed(tmp_path, tiny_state("IBP", epochs=4, warmup=0, ramp=1), percent=1000, tick=0.01, every=2)
    assert [line["epoch"] for line in lines_of(tmp_path)] == [1, 1, 1, 3, 3, 3]
    assert not any(event.value for event in events(tmp_path).Scalars("analysis/postponed"))


def test_the_first_costs_are_foreseen(tmp_path: Path) -> None:
    """An evaluation that takes 1 s foretells hundreds for continuity, which 10 % of 10 s never pays."""
    analysed(tmp_path, tiny_state("IBP", epochs=3, warmup=0, ramp=1), percent=700, tick=1.0)
    assert "continuity" not in {line["measurement"] for line in lines_of(tmp_path)}


def test_says_what_found_no_time(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    analysed(tmp_path, tiny_state("IBP"), percent=0.001, tick=5.0)
    assert "no time for tightness, sensitivity, continuity within 0.001 %" in caplog.text
    assert not (tmp_path / RECORDS).exists()


def test_a_resumed_run_remembers_what_was_spent(tmp_path: Path) -> None:
    analysed(tmp_path, tiny_state("IBP", epochs=2, warmup=0, ramp=1), percent=1e6, tick=3.0)
    spent = lines_of(tmp_path)[-1]["seconds_so_far"]
    state = tiny_state("IBP", epochs=2, warmup=0, ramp=1)
    state.epoch, state.step = 2, 6
    again = Analysis(TensorBoard(tmp_path), tmp_path, 1, 10)
    again.on_start(state)
    assert again._allowance.spent == spent


def test_what_tensorboard_shows(tmp_path: Path) -> None:
    train_cli(tmp_path / "run", "--method", "CROWN-IBP-R", *GENEROUS)
    read = events(tmp_path / "run")
    assert {
        "continuity/continuous",
        "continuity/largest_jump",
        "continuity/jumps_per_unit",
        "sensitivity/insensitive",
        "sensitivity/curved_share",
        "sensitivity/order",
        "sensitivity/relative_slope",
        "sensitivity/unpredicted",
        "tightness/certified_radius",
        "tightness/gap",
        "analysis/postponed",
        "analysis/percent_of_training",
    } <= set(read.Tags()["scalars"])
    assert read.Tags()["images"] == ["continuity/loss_along_a_line"]
    names = [name for name, _ in tiny_state("IBP").model.named_parameters()]
    assert read.Tags()["histograms"] == [f"slopes/{name}" for name in names]
    assert [event.step for event in read.Scalars("continuity/continuous")] == [2, 4]
    (last,) = [line for line in lines_of(tmp_path / "run") if (line["epoch"], line["measurement"]) == (4, "tightness")]
    assert read.Scalars("tightness/certified_radius")[-1].value == pytest.approx(last["radius"])


@pytest.mark.parametrize(
    ("method", "given"), [("IBP", {}), ("CROWN-IBP", {}), ("CROWN-IBP", {"loss_fusion": True}), ("DeepZ", {})]
)
def test_the_loss_that_is_trained(tmp_path: Path, method: str, given: dict[str, Any]) -> None:
    """Present ε and β, fused or not."""
    state = tiny_state(method, **given)
    analysis = Analysis(TensorBoard(tmp_path), tmp_path, 1, 10)
    values = Values(eps=0.07, kappa=0.0, beta=0.25 if method == "CROWN-IBP" else 1.0, lr=1e-3)
    x, y = analysis._probe(state, 2)
    probe = analysis._protocol(state, values).make_probe(state.model, analysis._analysed(state, values), x, y)
    assert probe.loss().item() == pytest.approx(terms_of(state, x, y, values).loss.item(), rel=1e-5)


def test_estimates_are_named_so(tmp_path: Path) -> None:
    train_cli(tmp_path / "run", "--method", "hBox-Cauchy:k=5", *GENEROUS)
    tags = events(tmp_path / "run").Tags()["scalars"]
    assert "tightness/estimated_radius" in tags
    assert "tightness/certified_radius" not in tags


@pytest.mark.parametrize("method", ["natural", "PGD"])
def test_no_certified_loss_is_a_user_error(tmp_path: Path, method: str, capsys: pytest.CaptureFixture[str]) -> None:
    train_cli(tmp_path / "run", "--method", method, "--analyze", code=2)
    error = capsys.readouterr().err
    assert f"{method} has none" in error
    assert len(error.strip().splitlines()) == 1
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"analyze_every": 2}, "--analyze-every is a setting of --analyze"),
        ({"analyze": True, "analyze_every": 0}, "analyze-every: expected at least 1"),
        ({"analyze": True, "analyze_budget": 0.0}, "analyze-budget: expected above 0"),
        ({"analyze": True, "kappa": (1.0, 1.0)}, "IBP has none"),
    ],
)
def test_settings_are_checked(given: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        tiny_config("IBP", **given)


def test_options_reach_the_config_and_may_change_on_resume(tmp_path: Path) -> None:
    def stored() -> dict[str, Any]:
        values = json.loads((tmp_path / "run" / "config.json").read_text())
        return {name: values[name] for name in ("analyze", "analyze_every", "analyze_budget")}

    train_cli(tmp_path / "run", "--analyze", "--analyze-every", "3", "--analyze-budget", "25")
    assert stored() == {"analyze": True, "analyze_every": 3, "analyze_budget": 25.0}
    train_cli(tmp_path / "plain", "--epochs", "5")
    assert tiny_config("IBP").analyze is False


def test_a_loss_that_is_not_finite_stops_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("plugin.analysis.probe.Probe.loss", lambda self: self.margins().sum() * float("nan"))
    train_cli(tmp_path / "run", *GENEROUS)
    assert "continuity was not measured" in caplog.text
