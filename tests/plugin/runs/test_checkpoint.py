"""Interrupted runs end as the uninterrupted one, bit for bit; bad files are refused."""

import errno
import json
import os
import pickle
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

import plugin.training.loop
from newrelax.errors import UserError
from plugin.process import files
from plugin.process.interrupt import StopRequest
from plugin.process.tensors import trailer
from plugin.runs import checkpoint
from plugin.train import main
from plugin.training.loop import train
from tests.support.tiny_runs import TINY, assert_same_run, tiny_state, train_cli

STEPS = 12  # of a TINY run


class Killed(BaseException):
    """What no handler in the program may catch, as no handler sees kill -9."""


def at_step(monkeypatch: pytest.MonkeyPatch, number: int, action: Callable[[], None]) -> None:
    """Calls `action` instead of the step `number` (counted from 0 over the whole run)."""
    original = plugin.training.loop.train_step

    def step(state: Any, *args: Any) -> Any:
        if state.step == number:
            action()
        return original(state, *args)

    monkeypatch.setattr(plugin.training.loop, "train_step", step)


def kill() -> None:
    raise Killed


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The finished run of a method, trained once."""
    folder = tmp_path_factory.mktemp("undisturbed")

    def run(method: str) -> Path:
        if not (folder / method).exists():
            train_cli(folder / method, "--method", method)
        return folder / method

    return run


@pytest.mark.parametrize("every", ["1epochs", "2steps", "100epochs"])
@pytest.mark.parametrize("step", [0, 1, 4, 6, 11])
def test_killed_at_any_step_ends_the_same(
    undisturbed: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: int, every: str
) -> None:
    # CROWN-IBP uses β; killed again on the way, one step further.
    options = ("--method", "CROWN-IBP", "--checkpoint-every", every, "--resume")
    for number in (step, min(step + 1, STEPS - 1)):
        with monkeypatch.context() as patch:
            at_step(patch, number, kill)
            with pytest.raises(Killed):
                train_cli(tmp_path / "run", *options)
    train_cli(tmp_path / "run", *options)
    assert_same_run(undisturbed("CROWN-IBP"), tmp_path / "run")


@pytest.mark.parametrize("method", ["PGD", "CROWN-IBP-RandomSlope"])
def test_random_streams_go_on(
    undisturbed: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    with monkeypatch.context() as patch:
        at_step(patch, 7, kill)
        with pytest.raises(Killed):
            train_cli(tmp_path / "run", "--method", method, "--checkpoint-every", "2steps")
    train_cli(tmp_path / "run", "--method", method, "--resume")
    assert_same_run(undisturbed(method), tmp_path / "run")


def test_the_fused_loss_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    options = ("--method", "CROWN-IBP", "--loss-fusion", "--checkpoint-every", "2steps")
    train_cli(tmp_path / "whole", *options)
    with monkeypatch.context() as patch:
        at_step(patch, 7, kill)
        with pytest.raises(Killed):
            train_cli(tmp_path / "run", *options)
    train_cli(tmp_path / "run", "--resume")
    assert_same_run(tmp_path / "whole", tmp_path / "run")


@pytest.mark.parametrize("moment", ["before", "after"])
@pytest.mark.parametrize("name", ["config.json", "metrics.jsonl", "checkpoint.pt", "model.pt", "result.json"])
def test_killed_around_any_write_ends_the_same(
    undisturbed: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, moment: str
) -> None:
    original = os.replace
    writes = 0

    def replace(source: Path, target: Path) -> None:
        nonlocal writes
        writes += Path(target).name == name
        # The third checkpoint is one in the middle; the other files are written once or at starts.
        strikes = Path(target).name == name and writes == (3 if name == "checkpoint.pt" else 1)
        if strikes and moment == "before":
            raise Killed
        original(source, target)
        if strikes:
            raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(files.os, "replace", replace)
        with pytest.raises(Killed):
            train_cli(tmp_path / "run", "--method", "IBP")
    train_cli(tmp_path / "run", "--method", "IBP", "--resume")
    assert_same_run(undisturbed("IBP"), tmp_path / "run")
    assert not list((tmp_path / "run").glob("*.partial"))


def test_killed_between_a_metrics_line_and_its_checkpoint(
    undisturbed: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "save", lambda path, state: kill() if state.epoch == 2 else None)
        with pytest.raises(Killed):
            train_cli(tmp_path / "run", "--method", "IBP")
    assert len((tmp_path / "run" / "metrics.jsonl").read_text().splitlines()) == 2
    train_cli(tmp_path / "run", "--method", "IBP", "--resume")
    assert_same_run(undisturbed("IBP"), tmp_path / "run")


# Slowed down, so that there is time to strike in the middle however busy the machine is.
SLOW_TRAINER = """
import sys, time
import plugin.training.loop
from plugin.train import main
step = plugin.training.loop.train_step
plugin.training.loop.train_step = lambda *arguments: (time.sleep(0.1), step(*arguments))[1]
sys.exit(main())
"""


def test_real_kill_9_in_another_process(tmp_path: Path) -> None:
    options = ["--method", "IBP", "--epochs", "40", "--warmup", "1", "--ramp", "20", "--checkpoint-every", "7steps"]
    folder = tmp_path / "run"
    environment = {**os.environ, "OMP_NUM_THREADS": str(torch.get_num_threads())}
    command = [sys.executable, "-c", SLOW_TRAINER, *TINY, *options, "--out", str(folder)]
    with subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL) as process:
        wait_for(lambda: lines(folder / "metrics.jsonl") >= 5, process)
        process.send_signal(signal.SIGKILL)
    assert process.returncode == -signal.SIGKILL
    assert 5 <= lines(folder / "metrics.jsonl") < 40
    train_cli(folder, *options, "--resume")
    train_cli(tmp_path / "undisturbed", *options)
    assert_same_run(tmp_path / "undisturbed", folder)


def wait_for(condition: Callable[[], bool], process: "subprocess.Popen[bytes]") -> None:
    deadline = time.monotonic() + 120
    while not condition():
        assert process.poll() is None, "the run ended too early"
        assert time.monotonic() < deadline, "the run did not get on"
        time.sleep(0.01)


def lines(path: Path) -> int:
    return path.read_text().count("\n") if path.exists() else 0


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)], ids=["SIGTERM", "Ctrl-C"])
def test_signals_save_and_leave(
    undisturbed: Callable[[str], Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    number: signal.Signals,
    code: int,
) -> None:
    with monkeypatch.context() as patch:
        at_step(patch, 7, lambda: os.kill(os.getpid(), number))
        train_cli(tmp_path / "run", "--method", "IBP", code=code)
    last = capsys.readouterr().err.splitlines()[-1]
    assert last.startswith("stopped after step 8 of 12; saved in ")
    assert "--resume" in last
    assert checkpoint.read(tmp_path / "run" / "checkpoint.pt")["step"] == 8
    train_cli(tmp_path / "run", "--resume")
    assert_same_run(undisturbed("IBP"), tmp_path / "run")


def test_second_signal_kills() -> None:
    before = signal.getsignal(signal.SIGINT)
    with StopRequest() as stop:
        os.kill(os.getpid(), signal.SIGINT)
        assert stop.signal == signal.SIGINT
        assert signal.getsignal(signal.SIGINT) == signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
    assert signal.getsignal(signal.SIGINT) == before


def test_signal_during_the_evaluation(
    undisturbed: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr("plugin.fitting.run.conclude", lambda *_, **__: os.kill(os.getpid(), signal.SIGTERM))
        train_cli(tmp_path / "run", "--method", "IBP", code=143)
    assert not (tmp_path / "run" / "result.json").exists()
    train_cli(tmp_path / "run", "--resume")
    assert_same_run(undisturbed("IBP"), tmp_path / "run")


def test_finished_run_is_not_run_again(
    undisturbed: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("plugin.train.run", lambda *_, **__: pytest.fail("trained again"))
    train_cli(undisturbed("IBP"), "--method", "IBP", "--resume")
    captured = capsys.readouterr()
    assert "is finished already" in captured.err
    assert "certified accuracy (IBP)" in captured.out


def damaged(path: Path) -> Iterator[tuple[str, bytes]]:
    good = path.read_bytes()
    middle = len(good) // 2
    yield "flipped bit", good[:middle] + bytes([good[middle] ^ 1]) + good[middle + 1 :]
    yield "truncated", good[: len(good) // 3]
    yield "one byte short", good[:-1]
    yield "empty", b""
    yield "foreign", b"not a checkpoint at all"
    yield "plain pickle", pickle.dumps({"model": {}})


def test_bad_checkpoints_are_refused(
    undisturbed: Callable[[str], Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = undisturbed("IBP") / "checkpoint.pt"
    for kind, content in damaged(path):
        folder = tmp_path / kind.replace(" ", "-")
        folder.mkdir()
        (folder / "config.json").write_text((undisturbed("IBP") / "config.json").read_text())
        (folder / "checkpoint.pt").write_bytes(content)
        assert main(["--out", str(folder), "--resume"]) == 2, kind
        error = capsys.readouterr().err.splitlines()[-1]
        assert error.startswith("error: ") and "checkpoint.pt" in error, kind


def test_checkpoints_never_run_code(tmp_path: Path) -> None:
    class Bomb:
        def __reduce__(self) -> tuple[Any, ...]:
            return (Path.touch, (tmp_path / "exploded",))

    path = tmp_path / "checkpoint.pt"
    torch.save({"model": Bomb()}, path)
    path.write_bytes(path.read_bytes() + trailer(path.read_bytes()))
    with pytest.raises(UserError, match="holds what this program never writes"):
        checkpoint.read(path)
    assert not (tmp_path / "exploded").exists()


def test_checkpoint_of_another_network_is_refused(tmp_path: Path) -> None:
    checkpoint.save(tmp_path / "checkpoint.pt", tiny_state("IBP"))
    with pytest.raises(UserError, match="does not fit this run's network and optimiser"):
        checkpoint.restore(
            tmp_path / "checkpoint.pt",
            tiny_state("IBP", model=torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 10))),
        )


def test_checkpoint_of_another_device_is_refused(tmp_path: Path) -> None:
    state = tiny_state("IBP")
    checkpoint.save(tmp_path / "checkpoint.pt", state)
    state.device = torch.device("cuda")
    with pytest.raises(UserError, match="saved on cpu, .* --device cpu"):
        checkpoint.restore(tmp_path / "checkpoint.pt", state)


def test_nothing_bad_is_saved(tmp_path: Path) -> None:
    state = tiny_state("IBP", epochs=1)
    checkpoint.save(tmp_path / "checkpoint.pt", state)
    good = (tmp_path / "checkpoint.pt").read_bytes()
    with torch.no_grad():
        state.model.layers[1].weight[0] = float("inf")
    with pytest.raises(UserError, match="first offending layer: layers.1.weight"):
        checkpoint.save(tmp_path / "checkpoint.pt", state)
    assert (tmp_path / "checkpoint.pt").read_bytes() == good


def test_no_space_left(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    undisturbed: Callable[[str], Path],
) -> None:
    original = os.fsync

    def full(descriptor: int) -> None:
        name = os.readlink(f"/proc/self/fd/{descriptor}") if sys.platform == "linux" else ""
        if name.endswith("checkpoint.pt.partial") and (tmp_path / "run" / "metrics.jsonl").stat().st_size > 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        original(descriptor)

    with monkeypatch.context() as patch:
        patch.setattr(files.os, "fsync", full)
        train_cli(tmp_path / "run", "--method", "IBP", code=2)
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith("error: no space left on the device while writing")
    assert "--resume" in error
    assert not list((tmp_path / "run").glob("*.partial"))
    assert checkpoint.read(tmp_path / "run" / "checkpoint.pt")["step"] == 0
    train_cli(tmp_path / "run", "--method", "IBP", "--resume")
    assert_same_run(undisturbed("IBP"), tmp_path / "run")


def test_nan_keeps_the_last_good_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    original = plugin.training.loop.train_step

    def step(state: Any, x: torch.Tensor, *args: Any) -> Any:
        return original(state, x * float("nan") if state.step == 7 else x, *args)

    monkeypatch.setattr(plugin.training.loop, "train_step", step)
    train_cli(tmp_path / "run", "--method", "IBP", code=2)
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith("error: step 7 (epoch 3): the loss or its gradient is not finite; first offending layer: ")
    content = checkpoint.read(tmp_path / "run" / "checkpoint.pt")
    assert content["step"] == 6
    assert all(torch.isfinite(tensor).all() for tensor in content["model"].values())
    assert not (tmp_path / "run" / "result.json").exists()


def test_weights_option_takes_a_checkpoint(undisturbed: Callable[[str], Path], tmp_path: Path) -> None:
    source = undisturbed("IBP") / "checkpoint.pt"
    train_cli(tmp_path / "run", "--method", "natural", "--weights", str(source), "--epochs", "1")
    assert json.loads((tmp_path / "run" / "config.json").read_text())["weights"] == str(source)


def test_resuming_does_not_need_the_initial_weights(
    undisturbed: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    weights = tmp_path / "initial.pt"
    weights.write_bytes((undisturbed("IBP") / "model.pt").read_bytes())
    with monkeypatch.context() as patch:
        at_step(patch, 7, kill)
        with pytest.raises(Killed):
            train_cli(tmp_path / "run", "--method", "natural", "--weights", str(weights))
    weights.unlink()
    train_cli(tmp_path / "run", "--resume")


def test_state_survives_the_round_trip(tmp_path: Path) -> None:
    state = tiny_state("IBP", epochs=2)
    train(state)
    checkpoint.save(tmp_path / "checkpoint.pt", state)
    other = tiny_state("IBP", epochs=2)
    checkpoint.restore(tmp_path / "checkpoint.pt", other)
    assert (other.step, other.epoch, other.epoch_step, other.seconds) == (6, 2, 0, state.seconds)
    for one, two in zip(state.optimizer.state.values(), other.optimizer.state.values(), strict=False):
        assert torch.equal(one["exp_avg"], two["exp_avg"])
        assert one["step"] == two["step"]
