"""Training under torchrun: as one process would, through the loss of one of them."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from plugin.train import main
from tests.conftest import REPOSITORY

OPTIONS = [
    "--dataset",
    "digits",
    "--model",
    "FC",
    "--method",
    "CROWN-IBP",
    "--epochs",
    "5",
    "--limit-train",
    "301",
    "--limit-test",
    "91",
    "--device",
    "cpu",
]
TIMINGS = {"seconds", "evaluation_seconds", "processes"}
PATIENCE = 240.0


def torchrun(out: Path, *more: str, restarts: int = 0) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    command += ["--max-restarts", str(restarts), "-m", "plugin.train", *OPTIONS, "--out", str(out), *more]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(command, cwd=REPOSITORY, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)


def read_metrics(folder: Path) -> list[dict[str, object]]:
    path = folder / "metrics.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def workers_of(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="needs /proc to find the processes")
def test_two_processes_and_a_lost_one_train_as_one(tmp_path: Path) -> None:
    run = torchrun(tmp_path / "two", "--resume", restarts=2)
    deadline = time.monotonic() + PATIENCE
    while len(read_metrics(tmp_path / "two")) < 2 and run.poll() is None:
        assert time.monotonic() < deadline, "no epoch ends"
        time.sleep(0.01)
    assert run.poll() is None, run.communicate()[0].decode()[-2000:]
    os.kill(workers_of(run.pid)[-1], signal.SIGKILL)
    output = run.communicate(timeout=PATIENCE)[0].decode()
    assert run.returncode == 0, output[-3000:]
    assert output.count("run folder: ") == 1, "one process writes and prints"
    assert "epoch 1/5" in output and output.count("epoch 1/5") == 1, "it went on from its checkpoint"

    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # as torchrun's processes have
    try:
        assert main([*OPTIONS, "--out", str(tmp_path / "one")]) == 0
    finally:
        torch.set_num_threads(threads)
    alone, together = (json.loads((tmp_path / name / "result.json").read_text()) for name in ("one", "two"))
    for name in alone.keys() - TIMINGS:
        assert together[name] == alone[name], name
    lines = list(zip(read_metrics(tmp_path / "one"), read_metrics(tmp_path / "two"), strict=True))
    assert [line["epoch"] for line, _ in lines] == list(range(1, 6))
    for one, two in lines:
        for name in one.keys() - TIMINGS:
            expected = one[name] if one[name] is None else pytest.approx(one[name], rel=1e-4)
            assert two[name] == expected, (one["epoch"], name)


def test_a_refusal_is_one_line(tmp_path: Path) -> None:
    output = torchrun(tmp_path / "none", "--eps", "7").communicate(timeout=PATIENCE)[0].decode()
    errors = [line for line in output.splitlines() if line.startswith("error: ")]
    assert "error: eps: expected a radius in (0, 1] (inputs are that far apart at most), got 7" in errors
    assert not (tmp_path / "none").exists()
