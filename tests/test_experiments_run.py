"""The runner: what is skipped, resumed, tried again, listed; and what kills may not do."""

import json
import multiprocessing
import os
import random
import signal
import sys
import tempfile
import time
from collections import Counter
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

import pytest
from click.testing import CliRunner

from experiments.run import Commands, local_slots, main, run_table
from experiments.store import Place
from newrelax.errors import UserError

TRAINER = Path(__file__).with_name("fake_trainer.py")
TABLE = """
seeds = 2
[options]
dataset = "digits"
[grid]
model = ["FC"]
method = ["IBP", "CROWN", "hBox"]
"""


class Bench:
    """A table, an output folder and the fake trainer."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.table = folder / "small.toml"
        self.out = folder / "runs"
        self.out.mkdir()
        self.table.write_text(TABLE)

    def commands(self, pause: float = 0.0) -> Commands:
        # -I and -S: nothing but the standard library is needed, and each start counts.
        return Commands(train=(sys.executable, "-I", "-S", str(TRAINER), "--pause", str(pause)))

    def run(self, **options) -> int:
        options = {"jobs": 2, "pause": 0.01, "commands": self.commands(), "out": self.out, **options}
        return run_table(str(self.table), **options)

    def start(self, pause: float, jobs: int = 2) -> "Runner":
        """The runner as a process of its own."""
        options = {"jobs": jobs, "pause": 0.01, "retries": 20, "commands": self.commands(pause), "out": self.out}
        return Runner(str(self.table), options)

    def misbehave(self, **plan: list[str]) -> None:
        (self.out / "misbehave.json").write_text(json.dumps(plan))

    def journal(self) -> list[list[str]]:
        path = self.out / "journal.txt"
        return [line.split() for line in path.read_text().splitlines()] if path.exists() else []

    def count(self, word: str) -> Counter:
        return Counter(entry[1] for entry in self.journal() if entry[0] == word)

    def live_trainers(self) -> list[int]:
        """Processes of fake trainers that have started and not ended."""
        ended = {entry[2] for entry in self.journal() if entry[0] == "end"}
        pids = {entry[2] for entry in self.journal() if entry[0] == "start"} - ended
        return sorted(int(pid) for pid in pids if is_trainer(pid))

    def results(self) -> dict[str, dict]:
        """Each run's result without its timing."""
        found = {path.parent.name: json.loads(path.read_text()) for path in self.out.glob("small/*/result.json")}
        return {name: {key: result[key] for key in result if key != "seconds"} for name, result in found.items()}


@pytest.fixture
def bench(tmp_path):
    return Bench(tmp_path)


def is_trainer(pid: str) -> bool:
    """True when the process lives and is a fake trainer (a number may come again)."""
    try:
        return TRAINER.name in Path(f"/proc/{pid}/cmdline").read_text()
    except OSError:
        return False


class Runner:
    """`run_table` in a process that starts at once (forked from one that has imported it), and its output."""

    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["experiments.run"])

    def __init__(self, table: str, options: dict) -> None:
        with tempfile.NamedTemporaryFile(delete=False, dir=options["out"]) as file:
            self.log = Path(file.name)
        self.process = self.context.Process(target=run_logged, args=(table, options, self.log))
        self.process.start()

    def kill(self) -> None:
        self.process.kill()
        self.process.join()

    def wait(self, seconds: float = 40.0) -> int | None:
        self.process.join(seconds)
        return self.process.exitcode

    @property
    def output(self) -> str:
        return self.log.read_text()


def run_logged(table: str, options: dict, log: Path) -> None:
    """The body of a `Runner`."""
    with log.open("w", buffering=1) as file, redirect_stdout(file), redirect_stderr(file):
        sys.exit(run_table(table, **options))


IDS = {f"FC-{method}-seed{seed}" for method in ("IBP", "CROWN", "hBox") for seed in (0, 1)}


def test_all_cells_run_once(bench, capsys):
    assert bench.run() == 0
    assert set(bench.results()) == IDS
    assert bench.run() == 0
    assert bench.count("start") == dict.fromkeys(IDS, 1)
    assert "6 skipped" in capsys.readouterr().out


def test_dry_run_only_prints(bench):
    result = CliRunner().invoke(main, [str(bench.table), "--dry-run", "--out", str(bench.out), "--only", "method=IBP"])
    assert result.exit_code == 0
    assert "to run   FC-IBP-seed0" in result.output and "CROWN" not in result.output
    assert "-m plugin.train --dataset digits --model FC --method IBP --seed 0" in result.output
    assert list(bench.out.iterdir()) == []


def test_a_user_error_is_one_line():
    result = CliRunner().invoke(main, ["table2", "--only", "model=X"])
    assert result.exit_code == 2
    assert result.output.startswith("error: --only") and result.output.count("\n") == 1


@pytest.mark.parametrize(
    "cause",
    [
        "kill",
        "CUDA out of memory. Tried to allocate 2.00 GiB",
        "[Errno 28] No space left on device: 'checkpoint.pt'",
        "all CUDA-capable devices are busy or unavailable",
    ],
)
def test_passing_causes_are_tried_again(bench, cause):
    bench.misbehave(CROWN=[cause, cause])
    assert bench.run(only="seed=0") == 0
    assert bench.count("start")["FC-CROWN-seed0"] == 3
    assert bench.count("end")["FC-CROWN-seed0"] == 1


@pytest.mark.parametrize(
    ("plan", "starts", "message"),
    [
        (["the loss is not finite at step 7, layer 2"] * 9, 1, "the loss is not finite at step 7, layer 2"),
        (["silent"] * 9, 1, "ended without a result"),
        (["kill"] * 9, 3, "gave up after 3 attempts: ended by SIGKILL"),
    ],
    ids=["error", "no result", "passing again and again"],
)
def test_failures_for_good_are_listed_and_the_rest_goes_on(bench, capsys, plan, starts, message):
    bench.misbehave(CROWN=plan)
    assert bench.run(only="seed=0", retries=2) == 1
    assert bench.count("start")["FC-CROWN-seed0"] == starts
    assert set(bench.results()) == {"FC-IBP-seed0", "FC-hBox-seed0"}
    output = capsys.readouterr().out
    assert "failed for good:" in output
    assert f"FC-CROWN-seed0: {message}" in output
    bench.misbehave()
    assert bench.run(only="seed=0") == 0
    assert not Place(bench.out / "small", "FC-CROWN-seed0").note("failure.json").exists()


@pytest.mark.parametrize("damage", ['{"method": "CR', '{"seed": 0}', '{"seed": 7, "dataset": "digits"}'])
def test_a_damaged_result_is_no_result(bench, damage):
    bench.run(only="method=CROWN,seed=0")
    (bench.out / "small/FC-CROWN-seed0/result.json").write_text(damage)
    assert bench.run(only="method=CROWN,seed=0") == 0
    assert bench.count("start")["FC-CROWN-seed0"] == 2
    assert bench.results()["FC-CROWN-seed0"]["seed"] == 0


def test_a_folder_with_other_settings_is_left_alone(bench, capsys):
    bench.run(only="method=CROWN,seed=0")
    bench.table.write_text(TABLE.replace('"digits"', '"digits"\nepochs = 9'))
    assert bench.run(only="method=CROWN,seed=0") == 1
    output = capsys.readouterr().out
    assert "holds a run with other settings" in output and "'epochs': 9" in output
    assert bench.count("start")["FC-CROWN-seed0"] == 1


def test_sigint_ends_the_runs_gently(bench):
    runner = bench.start(pause=2.0)
    wait_for(lambda: len(bench.journal()) == 2)
    os.kill(runner.process.pid, signal.SIGINT)
    assert runner.wait() == 130
    assert sum(bench.count("saved").values()) == 2, runner.output
    assert "run the same command again" in runner.output and "6 stopped" in runner.output
    assert bench.run() == 0
    assert bench.count("end") == dict.fromkeys(IDS, 1)


def test_two_runners_share_the_work(bench):
    runners = [bench.start(pause=0.02), bench.start(pause=0.02)]
    assert [runner.wait() for runner in runners] == [0, 0], [runner.output for runner in runners]
    assert bench.count("start") == dict.fromkeys(IDS, 1)


def test_an_orphan_is_waited_for(bench):
    runner = bench.start(pause=0.15)
    wait_for(lambda: len(bench.journal()) == 2)
    runner.kill()
    assert bench.run() == 0
    assert bench.count("start") == dict.fromkeys(IDS, 1)
    assert not bench.count("overlap")


def test_ten_kills_lose_nothing_and_repeat_nothing(bench, tmp_path):
    (tmp_path / "calm").mkdir()
    undisturbed = Bench(tmp_path / "calm")
    undisturbed.run()
    draw = random.Random(7)
    runner = bench.start(pause=0.15)
    for victim in draw.sample(["runner", "trainer"] * 5, 10):
        wait_for(lambda: runner.process.exitcode is not None or bench.live_trainers())
        time.sleep(draw.uniform(0.0, 0.4))
        if victim == "trainer" and (living := bench.live_trainers()):
            os.kill(draw.choice(living), signal.SIGKILL)
        else:
            runner.kill()
            runner = bench.start(pause=0.15)
    assert runner.wait() == 0, runner.output
    assert bench.count("start").total() > len(IDS), "no kill has hit a trainer"
    assert bench.results() == undisturbed.results()
    assert bench.count("end") == dict.fromkeys(IDS, 1)
    assert not bench.count("overlap")


def wait_for(condition, seconds=20.0):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.02)


def test_fractions_of_a_gpu_share_it(monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,3")
    assert [slot["CUDA_VISIBLE_DEVICES"] for slot in local_slots(None, 1, 0.5)] == ["0", "3", "0", "3"]
    assert [slot["CUDA_VISIBLE_DEVICES"] for slot in local_slots(None, 1, 2)] == ["0,3"]
    with pytest.raises(UserError, match="this machine has 2 GPU"):
        local_slots(None, 1, 3)
