"""A table of somebody's own, in a folder of theirs: run by the real trainer, then reported."""

import csv
from pathlib import Path

import pytest

from experiments import report, run
from tests.support.calls import invoke

MINE = """
title = "How long to train"
[options]
dataset = "digits"
model = "FC"
batch-size = 20
limit-test = 20
epochs = 1
[grid]
method = ["IBP"]
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "mine.toml").write_text(MINE)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_is_run_and_reported_from_any_folder(folder: Path) -> None:
    called = invoke(run.main, ["mine.toml", "--limit-train", "40", "--device", "cpu"])
    assert called.exit_code == 0, called.output
    assert "1 finished" in called.output
    called = invoke(report.main, ["mine.toml"])
    assert called.exit_code == 0, called.output
    written = folder / "runs" / "mine" / "report"
    (row,) = csv.DictReader((written / "report.csv").read_text().splitlines())
    assert (row["method"], row["epochs"], row["limit_train"], row["missing_seeds"]) == ("IBP", "1", "40", "")
    assert "How long to train" in (written / "report.html").read_text()
