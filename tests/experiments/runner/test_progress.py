"""What a person sees of a table's runs: lines in a log file, bars on a terminal."""

import io
import json

import pytest

from experiments.runner.progress import Progress
from experiments.runner.worker import Job, Outcome, State


@pytest.fixture
def job(tmp_path) -> Job:
    job = Job("FC-IBP-seed0", str(tmp_path), {}, ())
    job.place.folder.mkdir()
    (job.place.folder / "config.json").write_text(json.dumps({"epochs": 4}))
    lines = [{"epoch": epoch, "certified_accuracy": epoch / 10} for epoch in (1, 2, 3)]
    (job.place.folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return job


def test_a_log_has_a_line_for_each_event(job):
    stream = io.StringIO()
    with Progress(2, stream=stream) as progress:
        progress.started(job)
        progress.tick()
        progress.waiting(job, "held by another")
        progress.started(job)
        progress.waiting(job, "held by another")
        progress.ended(job, Outcome(job.id, State.FAILED, "no luck"))
    assert stream.getvalue().splitlines() == [
        "start    FC-IBP-seed0",
        "waiting  FC-IBP-seed0: held by another",
        "failed   [1/2] FC-IBP-seed0  no luck",
    ]
    assert progress.outcomes[job.id].state is State.FAILED


def test_a_terminal_has_a_bar_for_each_run_under_way(job):
    stream = io.StringIO()
    with Progress(2, stream=stream, live=True) as progress:
        progress.started(job)
        progress.tick()
        shown = stream.getvalue()
        progress.ended(job, Outcome(job.id, State.STOPPED, "stopped"))
    assert "FC-IBP-seed0" in shown
    assert "epoch 3/4" in shown
    assert "certified 30.0%" in shown
    assert "start " not in shown
    assert "stopped  [1/2] FC-IBP-seed0  stopped" in stream.getvalue()


def test_the_wish_to_stop_is_said_once():
    stream = io.StringIO()
    with Progress(1, stop=lambda: True, stream=stream) as progress:
        progress.tick()
        progress.tick()
    assert stream.getvalue() == "stopping: the runs are saving; run the same command again to carry on\n"
