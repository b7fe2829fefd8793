"""`python -m plugin.train` from the outside: what it writes, what it shows, how it fails."""

import errno
import fcntl
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import plugin.training.loop
from newrelax.errors import UserError
from plugin.callbacks.tensorboard import TensorBoard
from plugin.train import main
from plugin.training.loop import train
from tests.support.tiny_runs import TINY, tiny_state, train_cli

SOUND_PLUGIN = """
import torch
from newrelax import relaxation

@relaxation("Mine")
def mine(lower, upper):
    chord = upper / (upper - lower)
    return torch.zeros_like(lower), torch.zeros_like(lower), chord, -chord * lower
"""
UNSOUND_PLUGIN = SOUND_PLUGIN.replace("-chord * lower", "-0.5 * chord * lower")


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The folder of a finished tiny run of a method, trained once. Tests must not change it."""
    folder = tmp_path_factory.mktemp("finished")

    def run(method: str) -> Path:
        if not (folder / method).exists():
            train_cli(folder / method, "--method", method)
        return folder / method

    return run


def result_of(folder: Path) -> dict[str, object]:
    return json.loads((folder / "result.json").read_text())


def test_run_folder(finished: Callable[[str], Path]) -> None:
    folder = finished("CROWN-IBP")
    names = {path.name for path in folder.iterdir()}
    assert {"config.json", "metrics.jsonl", "result.json", "checkpoint.pt", "model.pt"} <= names
    config = json.loads((folder / "config.json").read_text())
    assert (config["method"], config["beta"], config["versions"]["torch"]) == (
        "CROWN-IBP",
        [1.0, 0.0],
        torch.__version__,
    )
    metrics = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert [line["epoch"] for line in metrics] == [1, 2, 3, 4]
    assert [line["step"] for line in metrics] == [3, 6, 9, 12]
    assert metrics[0]["certified_loss"] is None
    assert metrics[-1]["certified_loss"] > 0
    assert set(metrics[0]) == {
        "epoch",
        "step",
        "eps",
        "kappa",
        "beta",
        "lr",
        "loss",
        "natural_loss",
        "natural_accuracy",
        "certified_loss",
        "certified_accuracy",
        "gradient_norm",
        "crossing",
    }


def test_result(finished: Callable[[str], Path]) -> None:
    result = result_of(finished("CROWN-IBP"))
    expected = {
        "method": "CROWN-IBP",
        "dataset": "digits",
        "model": "CONV",
        "eps": 0.1,
        "epochs": 4,
        "seed": 0,
        "certify_method": "IBP",
        "sound": True,
        "allow_unsound": False,
        "estimated_accuracy": None,
        "train_images": 60,
        "test_images": 20,
        "limit_train": 60,
        "scale": None,
        "steps": 12,
    }
    assert {name: result[name] for name in expected} == expected
    assert 0 <= result["certified_accuracy"] <= result["pgd_accuracy"] <= result["natural_accuracy"] <= 1
    assert result["seconds"] > 0


@pytest.mark.parametrize("method", ["natural", "PGD"])
def test_methods_without_bounds_are_certified_with_another(finished: Callable[[str], Path], method: str) -> None:
    result = result_of(finished(method))
    assert result["certify_method"] == "CROWN-IBP-R"
    assert result["certified_accuracy"] is not None
    last = json.loads((finished(method) / "metrics.jsonl").read_text().splitlines()[-1])
    assert ("pgd_accuracy" in last) == (method == "PGD")
    assert last.get("certified_accuracy") is None


def test_estimates_are_no_certificates(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    train_cli(tmp_path / "run", "--method", "hBox-Cauchy:k=5")
    result = result_of(tmp_path / "run")
    assert result["certified_accuracy"] is None
    assert result["sound"] is False
    assert 0 <= result["estimated_accuracy"] <= 1
    printed = capsys.readouterr().out
    assert "estimate, NOT certified (hBox-Cauchy:k=5)" in printed
    assert "certified accuracy" not in printed
    last = json.loads((tmp_path / "run" / "metrics.jsonl").read_text().splitlines()[-1])
    assert "estimated_accuracy" in last
    assert "certified_accuracy" not in last


def test_table(finished: Callable[[str], Path], capsys: pytest.CaptureFixture[str]) -> None:
    train_cli(finished("CROWN-IBP"), "--resume")
    printed = capsys.readouterr().out
    result = result_of(finished("CROWN-IBP"))
    assert f"certified accuracy (IBP)  {100 * result['certified_accuracy']:>6.2f} %" in printed
    for name in ("natural accuracy", "PGD accuracy", "training time"):
        assert name in printed


def events(folder: Path) -> EventAccumulator:
    accumulator = EventAccumulator(str(folder), size_guidance={"scalars": 0})
    return accumulator.Reload()


def test_tensorboard_files(finished: Callable[[str], Path]) -> None:
    folder = finished("CROWN-IBP")
    read = events(folder)
    assert {
        "loss/total",
        "loss/natural",
        "loss/certified",
        "accuracy/natural",
        "accuracy/certified",
        "schedule/eps",
        "schedule/kappa",
        "schedule/beta",
        "schedule/learning_rate",
        "training/gradient_norm",
        "speed/images_per_second",
        "crossing/relu_1",
        "crossing/relu_2",
    } <= set(read.Tags()["scalars"])
    metrics = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    for tag, name in (("schedule/eps", "eps"), ("loss/total", "loss"), ("loss/certified", "certified_loss")):
        written = {event.step: event.value for event in read.Scalars(tag)}
        assert written == pytest.approx({line["epoch"]: line[name] for line in metrics if line[name] is not None})
    assert all(event.value > 0 for event in read.Scalars("speed/images_per_second"))


def test_tensorboard_hyperparameters_with_the_result(finished: Callable[[str], Path]) -> None:
    folder = finished("CROWN-IBP")
    read = events(folder)
    plugins = read.PluginTagToContent("hparams")
    assert {"_hparams_/experiment", "_hparams_/session_start_info", "_hparams_/session_end_info"} <= set(plugins)
    assert b"CROWN-IBP" in plugins["_hparams_/session_start_info"]
    (final,) = read.Scalars("result/certified_accuracy")
    assert final.value == pytest.approx(result_of(folder)["certified_accuracy"])


def test_tensorboard_hides_what_a_resumed_run_repeats(tmp_path: Path) -> None:
    first = tiny_state("IBP", epochs=3)
    writer = TensorBoard(tmp_path)
    train(first, [writer])
    writer.close()
    again = tiny_state("IBP", epochs=3)
    again.step, again.epoch = 3, 1  # as a checkpoint after the first epoch would have it
    writer = TensorBoard(tmp_path)
    train(again, [writer])
    writer.close()
    assert [event.step for event in events(tmp_path).Scalars("loss/total")] == [1, 2, 3]


def test_no_space_for_tensorboard(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr("tensorboard.summary.writer.record_writer.RecordWriter.write", full)
        train_cli(tmp_path / "run", "--method", "natural", code=2)
    error = capfd.readouterr().err
    assert "Traceback" not in error
    assert error.splitlines()[-1].startswith("error: no space left on the device while writing")
    train_cli(tmp_path / "run", "--method", "natural", "--resume")


def test_list_of_methods(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(SOUND_PLUGIN)
    assert main(["--method", "list", "--plugin", str(tmp_path / "mine.py")]) == 0
    printed = capsys.readouterr().out
    for name in ("natural", "PGD", "IBP", "CROWN", "CROWN-IBP", "CROWN-IBP-R", "CROWN-Soft:gamma=1"):
        assert any(line.split()[0] == name for line in printed.splitlines())
    assert str(tmp_path / "mine.py") in printed


@pytest.mark.parametrize(
    ("options", "message"),
    [
        pytest.param(["--method", "CROWM"], "unknown method 'CROWM'; did you mean CROWN", id="method"),
        pytest.param(["--method", "CROWN-Soft:gama=1"], "has no parameter 'gama'", id="method parameter"),
        pytest.param(["--method", "CROWN-Soft:gamma=soft"], "must be a number", id="method parameter value"),
        pytest.param(["--dataset", "minst"], "unknown data set 'minst'; did you mean mnist?", id="data set"),
        pytest.param(["--model", "CONVV"], "unknown model 'CONVV'; did you mean CONV", id="model"),
        pytest.param(["--eps", "0"], "eps: expected above 0, got 0", id="eps zero"),
        pytest.param(["--eps", "1.01"], "eps: expected a radius in (0, 1]", id="eps above one"),
        pytest.param(["--eps", "big"], "expected a number or a fraction such as 8/255, got 'big'", id="eps no number"),
        pytest.param(["--device", "tpu0"], "unknown device 'tpu0'", id="device"),
        pytest.param(["--kappa", "1,2,3"], "expected START,END or one number", id="kappa"),
        pytest.param(["--milestones", "1,x"], "expected numbers with commas", id="milestones"),
        pytest.param(["--colour", "red"], "No such option '--colour'", id="unknown option"),
        pytest.param(["--weights", "absent.pt"], "absent.pt: no such file", id="weights absent"),
        pytest.param(["--plugin", "absent.py"], "--plugin absent.py: no such file", id="plugin absent"),
        pytest.param(["--loss-fusion", "--method", "IBP"], "IBP has no such row", id="loss fusion"),
        pytest.param(["--capture", "--device", "cpu"], "--capture records CUDA graphs: expected --device cuda", id="capture"),
        pytest.param(["--limit-train", "0"], "limit-train: expected at least 1, got 0", id="limit"),
        pytest.param(["--checkpoint-every", "x"], "checkpoint-every: expected something like", id="checkpoint interval"),
    ],
)
def test_mistakes_are_one_line(
    options: list[str],
    message: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main([*options, "--out", str(tmp_path / "run")]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert error.count("\n") == 1
    assert message in error
    # A mistake leaves nothing behind that would be in the way of the corrected command.
    assert main([*TINY, "--epochs", "1", "--out", str(tmp_path / "run"), "--method", "natural"]) == 0


def test_every_option_reaches_the_config(tmp_path: Path) -> None:
    options = {
        "--dataset": "digits",
        "--model": "FC",
        "--eps": "0.2",
        "--train-eps": "0.25",
        "--eps-start": "0.01",
        "--epochs": "2",
        "--batch-size": "16",
        "--accumulate": "2",
        "--warmup": "0.5",
        "--ramp": "0.75",
        "--kappa": "0.9,0.1",
        "--beta": "0.5",
        "--l1": "1e-6",
        "--optimizer": "sgd",
        "--momentum": "0.8",
        "--lr": "0.01",
        "--milestones": "1,1.5",
        "--lr-decay": "0.5",
        "--halve-every": "3",
        "--clip-grad": "5",
        "--pgd-steps": "4",
        "--seed": "7",
        "--device": "cpu",
        "--data-dir": "elsewhere",
        "--limit-train": "32",
        "--limit-test": "10",
        "--bound-memory": "64",
        "--checkpoint-every": "3steps",
    }
    arguments = [word for pair in options.items() for word in pair]
    folder = tmp_path / "run"
    assert (
        main([*arguments, "--augment", "--allow-unsound", "--loss-fusion", "--method", "CROWN-IBP-R", "--run-dir", str(folder)])
        == 0
    )
    config = json.loads((folder / "config.json").read_text())
    expected = {
        "dataset": "digits",
        "model": "FC",
        "eps": 0.2,
        "train_eps": 0.25,
        "eps_start": 0.01,
        "epochs": 2,
        "batch_size": 16,
        "accumulate": 2,
        "warmup": 0.5,
        "ramp": 0.75,
        "kappa": [0.9, 0.1],
        "beta": [0.5, 0.5],
        "l1": 1e-6,
        "optimizer": "sgd",
        "momentum": 0.8,
        "lr": 0.01,
        "milestones": [1, 1.5],
        "lr_decay": 0.5,
        "halve_every": 3,
        "clip_grad": 5,
        "seed": 7,
        "device": "cpu",
        "data_dir": "elsewhere",
        "limit_train": 32,
        "limit_test": 10,
        "bound_memory": 64,
        "checkpoint_every": "3steps",
        "augment": True,
        "allow_unsound": True,
        "loss": "fused",
    }
    assert {name: config[name] for name in expected} == expected


def test_radius_as_a_fraction(tmp_path: Path) -> None:
    train_cli(tmp_path / "run", "--method", "natural", "--eps", "8/255")
    assert result_of(tmp_path / "run")["eps"] == pytest.approx(8 / 255)


def test_no_cuda(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert main(["--device", "cuda", "--out", str(tmp_path / "run")]) == 2
    assert "this machine has no CUDA device" in capsys.readouterr().err


def test_weights_of_another_shape(finished: Callable[[str], Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    weights = finished("IBP") / "model.pt"
    assert main(["--model", "FC", "--weights", str(weights), "--out", str(tmp_path / "run")]) == 2
    assert "do not fit the model" in capsys.readouterr().err.splitlines()[-1]


def test_debug_shows_the_traceback(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="unknown method"):
        main(["--method", "CROWM", "--debug", "--out", str(tmp_path / "run")])


def test_folder_with_another_run(finished: Callable[[str], Path], capsys: pytest.CaptureFixture[str]) -> None:
    before = (finished("IBP") / "result.json").read_bytes()
    train_cli(finished("IBP"), "--method", "IBP", code=2)
    error = capsys.readouterr().err
    assert "already holds a run: continue it with --resume, or choose another folder with --out" in error
    assert (finished("IBP") / "result.json").read_bytes() == before


@pytest.mark.parametrize(
    ("options", "message"),
    [
        pytest.param(["--method", "CROWN"], "holds a run of IBP, not CROWN", id="method"),
        pytest.param(["--lr", "0.5"], "--lr 0.5 differs from the folder's run", id="setting"),
        pytest.param(["--no-augment", "--loss-fusion"], "IBP has no such row", id="loss fusion"),
        pytest.param(["--epochs", "9"], "--epochs 9 differs from the folder's run, which has 4", id="length"),
    ],
)
def test_resuming_another_run(
    finished: Callable[[str], Path], options: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--out", str(finished("IBP")), "--resume", *options]) == 2
    assert message in capsys.readouterr().err


def test_resume_starts_a_run_where_there_is_none(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    train_cli(tmp_path / "run", "--method", "natural", "--resume")
    assert "nothing to resume" in capsys.readouterr().err
    assert (tmp_path / "run" / "result.json").exists()


def test_default_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert main([*TINY, "--method", "natural", "--epochs", "1"]) == 0
    assert (tmp_path / "runs" / "digits-CONV-natural-eps0.1-seed0" / "result.json").exists()


def test_two_processes_in_one_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    with open(folder / ".lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        train_cli(folder, "--method", "natural", code=2)
    assert "another process is training in" in capsys.readouterr().err


def test_folder_that_cannot_be_made(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").write_text("")
    train_cli(tmp_path / "file" / "run", "--method", "natural", code=2)
    assert "cannot make the run folder" in capsys.readouterr().err


def test_damaged_config(finished: Callable[[str], Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "run"
    shutil.copytree(finished("IBP"), folder)
    (folder / "config.json").write_text('{"method": "IBP"')
    assert main(["--out", str(folder), "--resume"]) == 2
    assert "config.json is damaged" in capsys.readouterr().err


def test_plugin_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    plugin_file, folder = tmp_path / "mine.py", tmp_path / "run"
    plugin_file.write_text(SOUND_PLUGIN)
    original = plugin.training.loop.train_step

    class Killed(BaseException):
        pass

    def step(state: plugin.training.loop.TrainState, *args: object) -> object:
        if state.step == 7:
            raise Killed
        return original(state, *args)

    with monkeypatch.context() as patch:
        patch.setattr(plugin.training.loop, "train_step", step)
        with pytest.raises(Killed):
            train_cli(folder, "--method", "Mine", "--plugin", str(plugin_file))
    # A file that changed in between would be another method; the same file is found by itself.
    plugin_file.write_text(SOUND_PLUGIN + "\n# edited\n")
    assert main(["--out", str(folder), "--resume"]) == 2
    assert f"plugin {plugin_file} changed since the run started" in capsys.readouterr().err
    plugin_file.write_text(SOUND_PLUGIN)
    assert main(["--out", str(folder), "--resume"]) == 0
    assert result_of(folder)["certify_method"] == "Mine"


def test_unsound_relaxations_need_a_word(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    plugin_file = tmp_path / "mine.py"
    plugin_file.write_text(UNSOUND_PLUGIN)
    options = ("--method", "Mine", "--plugin", str(plugin_file))
    train_cli(tmp_path / "run", *options, code=2)
    error = capsys.readouterr().err
    assert "Mine is not sound: l = " in error
    assert "--allow-unsound" in error
    train_cli(tmp_path / "run", *options, "--allow-unsound")
    result = result_of(tmp_path / "run")
    assert (result["allow_unsound"], result["sound"], result["certified_accuracy"]) == (True, False, None)
    assert result["estimated_accuracy"] is not None


@pytest.mark.parametrize(
    ("certify_with", "message"), [("Nope", "unknown method 'Nope'"), ("natural", "expected a method that bounds")]
)
def test_what_cannot_certify_is_refused_before_training(
    certify_with: str, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plugin_file = tmp_path / "mine.py"
    plugin_file.write_text(
        f"from newrelax import Method\nm = Method('Mine', propagation='none', certify_with='{certify_with}')"
    )
    train_cli(tmp_path / "run", "--method", "Mine", "--plugin", str(plugin_file), code=2)
    assert message in capsys.readouterr().err
    assert not (tmp_path / "run" / "metrics.jsonl").exists()


def test_an_unsound_relaxation_certifies_nothing_for_others_either(tmp_path: Path) -> None:
    plugin_file = tmp_path / "mine.py"
    other = "\nfrom newrelax import Method\nnaturally = Method('Naturally', propagation='none', certify_with='Mine')"
    plugin_file.write_text(UNSOUND_PLUGIN + other)
    train_cli(tmp_path / "run", "--method", "Naturally", "--plugin", str(plugin_file))
    result = result_of(tmp_path / "run")
    assert (result["sound"], result["certified_accuracy"]) == (False, None)
