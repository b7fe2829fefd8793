"""`plugin.fit`: training from Python, with a run folder or without one."""

from __future__ import annotations

import json
import threading
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import plugin
import plugin.evaluate
import plugin.train
from newrelax import Method, Registry, relaxation
from newrelax.relaxations.crown import crown
from plugin.callbacks import EpochInfo, StepInfo
from plugin.training.loop import TrainState
from tests.plugin.api.tiny import QUICK, assert_same_weights, data, network, rows
from tests.support.calls import invoke


class Hooks(plugin.Callback):
    """Which hooks were called, in order."""

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.infos: list[EpochInfo] = []

    def on_start(self, state: TrainState) -> None:
        self.calls.append("start")

    def on_step(self, state: TrainState, info: StepInfo) -> None:
        self.calls.append("step")

    def on_epoch(self, state: TrainState, info: EpochInfo) -> None:
        self.calls.append("epoch")
        self.infos.append(info)

    def on_trained(self, state: TrainState) -> None:
        self.calls.append("trained")

    def on_end(self, state: TrainState, result: dict[str, object]) -> None:
        self.calls.append("end")

    def close(self) -> None:
        self.calls.append("close")


class Trips(plugin.Callback):
    """Fails at one step."""

    def __init__(self, step: int) -> None:
        self.step = step

    def on_step(self, state: TrainState, info: StepInfo) -> None:
        if info.step == self.step:
            raise RuntimeError("tripped")


def fit(
    model: nn.Module | str | None = None, given: Any = None, method: Any = "IBP", eps: Any = 0.05, **more: Any
) -> plugin.Result:
    return plugin.fit(
        network() if model is None else model, data() if given is None else given, method, eps, **{**QUICK, **more}
    )


def test_without_a_folder_nothing_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    model = network()
    result = fit(model)
    assert list(tmp_path.iterdir()) == []
    assert result.folder is None
    assert result.model is model
    with pytest.raises(AssertionError):
        assert_same_weights(model, network())
    x, y = data()[2:]
    both = torch.cat([data()[0], x])
    measured = plugin.evaluate(model, x, y, 0.05, "IBP", data_range=(both.amin(0), both.amax(0)))
    for name in ("natural_accuracy", "pgd_accuracy", "certified_accuracy"):
        assert getattr(result, name) == getattr(measured, name)


def test_nothing_is_printed_without_progress(capfd: pytest.CaptureFixture[str]) -> None:
    fit()
    assert capfd.readouterr() == ("", "")
    fit(progress=True)
    assert "epoch 2/2" in capfd.readouterr().err


def test_a_result_is_shown_as_the_command_line_shows_it() -> None:
    text = str(fit(seed=3))
    assert text.startswith("IBP on (given from Python), (given from Python), eps 0.05, 2 epochs, seed 3, 20 test images\n")
    assert "certified accuracy (IBP)" in text


def test_callbacks_see_every_hook() -> None:
    hooks = Hooks()
    fit(callbacks=[hooks])
    assert hooks.calls == ["start", *["step"] * 3, "epoch", *["step"] * 3, "epoch", "trained", "end", "close"]


def test_the_history_is_that_of_the_epochs_and_of_the_folder(tmp_path: Path) -> None:
    hooks = Hooks()
    result = fit(callbacks=[hooks], out=tmp_path / "run")
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert list(result.history) == lines == [info.record() for info in hooks.infos]
    assert [line["epoch"] for line in lines] == [1, 2]


def test_a_folder_keeps_what_the_result_says(tmp_path: Path) -> None:
    result = fit(out=tmp_path / "run")
    assert result.folder == tmp_path / "run"
    assert json.loads((tmp_path / "run" / "result.json").read_text()) == json.loads(json.dumps(result.values))
    saved = torch.load(tmp_path / "run" / "model.pt", weights_only=True)
    assert all(torch.equal(tensor, saved[name]) for name, tensor in result.model.state_dict().items())


def test_training_with_and_without_a_folder_is_the_same(tmp_path: Path) -> None:
    assert_same_weights(fit(method="CROWN-IBP").model, fit(method="CROWN-IBP", out=tmp_path / "run").model)


def test_the_command_line_leaves_a_run_of_objects_to_python(tmp_path: Path) -> None:
    fit(out=tmp_path / "run")
    called = invoke(plugin.evaluate.main, ["--run", str(tmp_path / "run")])
    assert called.exit_code == 2
    assert called.output.count("\n") == 1
    assert "was given from Python: use plugin.evaluate(…) there" in called.output


def test_the_command_line_resumes_no_run_of_objects(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="tripped"):
        fit(out=tmp_path / "run", callbacks=[Trips(4)])
    called = invoke(plugin.train.main, ["--out", str(tmp_path / "run"), "--resume"])
    assert called.exit_code == 2
    assert called.output.count("\n") == 1
    assert "was given from Python: go on from there with plugin.fit(…, out=…, resume=True)" in called.output


@pytest.mark.parametrize("checkpoint_every", ["1epochs", "1steps"])
@pytest.mark.parametrize("method", ["CROWN-IBP", "PGD"])
def test_resumed_after_a_failure_as_if_nothing_had_happened(tmp_path: Path, method: str, checkpoint_every: str) -> None:
    settings = {"method": method, "epochs": 3, "validation": 0.2, "validate_every": 1}
    whole = fit(network(nn.BatchNorm1d(8)), out=tmp_path / "whole", **settings)
    with pytest.raises(RuntimeError, match="tripped"):
        fit(
            network(nn.BatchNorm1d(8)),
            out=tmp_path / "run",
            callbacks=[Trips(4)],
            checkpoint_every=checkpoint_every,
            **settings,
        )
    resumed = fit(network(nn.BatchNorm1d(8)), out=tmp_path / "run", resume=True, **settings)
    assert_same_weights(whole.model, resumed.model)
    for name in ("metrics.jsonl", "validation.jsonl"):
        assert (tmp_path / "run" / name).read_text() == (tmp_path / "whole" / name).read_text()
    assert resumed.values["validation"] == whole.values["validation"]
    assert [line["epoch"] for line in resumed.history] == [2, 3]


def test_a_finished_run_is_read_back(tmp_path: Path) -> None:
    first = fit(out=tmp_path / "run")
    hooks = Hooks()
    again = fit(out=tmp_path / "run", resume=True, callbacks=[hooks])
    assert hooks.calls == []
    assert again.values == json.loads(json.dumps(first.values))
    assert_same_weights(first.model, again.model)


def test_a_folder_of_another_run_is_refused(tmp_path: Path) -> None:
    fit(out=tmp_path / "run")
    with pytest.raises(plugin.UserError, match="already holds a run"):
        fit(out=tmp_path / "run")
    with pytest.raises(plugin.UserError, match=r"seed 1 differs from the folder's run, which has 0"):
        fit(out=tmp_path / "run", resume=True, seed=1)


def test_held_back_examples_are_measured() -> None:
    result = fit(validation=0.2, validate_every=1)
    assert set(result.values["validation"]) == {"epoch", "images", "natural_accuracy", "pgd_accuracy", "certified_accuracy"}
    assert (result.values["validation"]["epoch"], result.values["validation"]["images"]) == (2, 6)
    assert result.values["train_images"] == 24


def test_names_of_network_and_data() -> None:
    result = fit("FC", "digits", eps=None, limit_train=20, limit_test=10, epochs=1)
    assert (result.values["model"], result.values["dataset"], result.values["eps"]) == ("FC", "digits", 0.1)
    assert result.values["test_images"] == 10


@pytest.mark.parametrize(
    "given",
    [
        pytest.param(lambda: data(), id="tuple"),
        pytest.param(lambda: list(data()), id="list"),
        pytest.param(lambda: dict(zip(("x_train", "y_train", "x_test", "y_test"), data(), strict=True)), id="mapping"),
        pytest.param(lambda: tuple(each.numpy() for each in data()), id="numpy"),
        pytest.param(
            lambda: tuple(each.double() if each.is_floating_point() else each.int() for each in data()), id="other types"
        ),
        pytest.param(lambda: plugin_dataset(), id="Dataset"),
    ],
)
def test_data_in_memory(given: Any) -> None:
    assert_same_weights(fit(given=given()).model, fit().model)


def plugin_dataset() -> plugin.Dataset:
    from plugin.data import from_arrays

    return from_arrays("mine", *data())


def test_a_method_of_ones_own_and_a_file_of_nouns(tmp_path: Path) -> None:
    mine = Method("Mine", propagation="ibp+backward", relaxation=crown, recipe="CROWN-IBP-R")
    result = fit(method=mine)
    assert (result.values["method"], result.values["certify_method"], result.values["sound"]) == ("Mine", "Mine", True)
    assert_same_weights(result.model, fit(method="CROWN-IBP-R").model)
    file = tmp_path / "mine.py"
    file.write_text(
        "import plugin\n@plugin.scalar('norms/all')\ndef norm(state):\n"
        "    '''Of all weights.'''\n    return sum(p.norm().item() for p in state.model.parameters())\n"
    )
    assert fit(plugins=[file]).history[-1]["norms/all"] > 0


def test_a_method_that_only_estimates_has_no_certified_accuracy() -> None:
    result = fit(method="DeepZ-Cauchy:k=5")
    assert result.certified_accuracy is None
    assert "estimate, NOT certified" in str(result)


def test_outside_the_main_thread(tmp_path: Path) -> None:
    found: list[plugin.Result] = []
    thread = threading.Thread(target=lambda: found.append(fit(out=tmp_path / "run")))
    thread.start()
    thread.join()
    assert found[0].values["steps"] == 6


@relaxation("Shrunk")
def shrunk(lower: torch.Tensor, upper: torch.Tensor) -> tuple[Any, Any, Any, Any]:
    """Not above ReLU."""
    chord = upper / (upper - lower)
    return torch.zeros_like(lower), torch.zeros_like(lower), chord, -0.5 * chord * lower


X, Y = rows(8)
WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "unknown setting": ({"learning_rate": 1}, "unknown setting 'learning_rate'.*known: .*lr_decay"),
    "misspelt setting": ({"epoch": 3}, "unknown setting 'epoch'; did you mean epochs"),
    "misspelt keyword": ({"callback": []}, "unknown setting 'callback'"),
    "data set as a setting": ({"dataset": "digits"}, "unknown setting 'dataset': what to train on is the second argument"),
    "value of a setting": ({"batch_size": 0}, "batch-size: expected at least 1, got 0"),
    "resume nothing": ({"resume": True}, "resume: expected the folder"),
    "analysis nowhere": ({"analyze": True}, "analyze: expected a run folder"),
    "no radius": ({"eps": None}, "has no default eps: expected its radius"),
    "radius of each feature": ({"eps": torch.ones(4)}, "eps: expected a number"),
    "radius too wide": ({"eps": 1.5}, r"eps: expected a radius in \(0, 0\.99\d+\]"),
    "unknown method": ({"method": "IPB"}, "unknown method 'IPB'; did you mean IBP"),
    "no method": ({"method": None}, "expected method as a name or a newrelax.Method, got NoneType"),
    "unsound method": ({"method": Method("Shrunk", relaxation=shrunk)}, "Shrunk is not sound: .* is below ReLU"),
    "unknown loss": ({"loss": "certifed"}, "unknown loss 'certifed'; did you mean certified"),
    "unknown network": ({"model": "CON"}, "unknown model 'CON'; did you mean CONV"),
    "a factory": ({"model": network}, "model: expected a torch.nn.Module or the name of a network, got function"),
    "double precision": ({"model": network(dtype=torch.float64)}, r"expected a network in float32.*use .float\(\)"),
    "nothing to train": ({"model": network().requires_grad_(False)}, "expected weights to train"),
    "too few logits": ({"model": network(outputs=2)}, r"expected logits of shape \(2, 3\) for 2 inputs, got \(2, 2\)"),
    "other features": ({"model": nn.Linear(5, 3)}, "takes inputs of 5 features, the data has 4"),
    "other channels": (
        {"model": nn.Sequential(nn.Conv2d(3, 2, 3), nn.Flatten()), "given": (torch.rand(4, 1, 3, 3), Y[:4] % 2) * 2},
        "takes inputs of 3 channels, the data has 1",
    ),
    "weights not finite": (
        {"model": nn.utils.skip_init(nn.Linear, 4, 3).apply(lambda m: m.weight.data.fill_(torch.nan))},
        "NaN",
    ),
    "unknown data": ({"given": "digit"}, "unknown data set 'digit'; did you mean digits"),
    "data of another type": ({"given": 5}, "data: expected a plugin.Dataset, a name, or x_train.*got int"),
    "two arrays": ({"given": (X, Y)}, "got a tuple of 2"),
    "other keys": ({"given": {"x": X, "y_train": Y}}, "unknown key .*'x'"),
    "NaN": (
        {"given": (X * torch.nan, Y, X, Y)},
        r"x_train: NaN or infinite values, 32 of 32, the first nan at x_train\[0, 0\]",
    ),
    "no class": ({"given": (X, Y - 1, X, Y)}, r"y_train\[\d\] is -1, which is no class"),
    "a class that training lacks": ({"given": (X, Y, X, Y + 1)}, r"y_test\[\d\] is 3, which is no class"),
    "empty": ({"given": (X[:0], Y[:0], X, Y)}, "x_train is empty"),
    "too few to hold back": ({"validation": 0.01}, "holding back 0.01 of 30 .* leaves 30 to train and 0"),
    "a single callback": (
        {"callbacks": plugin.Callback()},
        "callbacks: expected a sequence of plugin.Callback objects, got Callback",
    ),
    "a callback's class": ({"callbacks": [Hooks]}, "got the class Hooks"),
    "a single file": ({"plugins": "mine.py"}, "plugins: expected a sequence of files, got 'mine.py'"),
    "no such file": ({"plugins": ["mine.py"]}, "no plugin file at .*mine.py"),
}


@pytest.mark.parametrize(("given", "message"), WRONG.values(), ids=list(WRONG))
def test_mistakes_are_one_line(given: dict[str, Any], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(plugin.UserError, match=message) as caught:
        fit(**given)
    assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_a_loss_that_stops_being_finite_is_said_in_one_line() -> None:
    with pytest.raises(plugin.UserError, match=r"^step \d.*not finite") as caught:
        fit(lr=1e30)
    assert "\n" not in str(caught.value)


def test_the_registry_of_others_is_left_alone() -> None:
    fit(method=Method("Mine", propagation="ibp+backward", relaxation=crown))
    assert "Mine" not in Registry.load()
