"""The command line of the benchmarks: its table, comparison with an earlier run, errors. No time is asserted."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from experiments import bench
from tests.experiments.benchmarks.tables import rows

TINY = ["--model", "CONV", "--shape", "digits", "--batch-size", "4", "--repeat", "2", "--device", "cpu"]


def test_writes_a_table_and_compares_with_an_earlier_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first = tmp_path / "first.json"
    assert bench.main([*TINY, "--methods", "IBP,CROWN-IBP+fusion,IBP+only", "--json", str(first)]) == 0
    (result,) = json.loads(first.read_text())["results"]
    timed = {"natural", "IBP", "CROWN-IBP+fusion", "IBP+only"}
    assert set(result["seconds"]) == timed | {f"{name} plain" for name in timed - {"natural"}} | {"matrix product"}
    assert all(len(rounds) == 2 and min(rounds) > 0 for rounds in result["seconds"].values())
    capsys.readouterr()
    assert bench.main([*TINY, "--methods", "IBP", "--no-plain", "--against", str(first)]) == 0
    head, natural, ibp = rows(capsys.readouterr().out)
    assert head[-2:] == ["earlier, ms", "in natural steps"]
    assert ibp[0] == "IBP"
    assert ibp[4] == "1.00"
    assert natural[3] == "1.00"
    assert ibp[5:7] == ["", ""]
    assert float(ibp[-2]) == pytest.approx(1e3 * sum(result["seconds"]["IBP"]) / 2, abs=0.051)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([*TINY, "--methods", "nonsense"], "unknown method"),
        ([*TINY, "--methods", "IBP+colour"], "IBP+colour: unknown variant 'colour'; known: NAME+fusion, NAME+only"),
        ([*TINY, "--methods", "IBP+fusion"], "IBP has no such row"),
        ([*TINY, "--against", "absent.json"], "--against: expected a file that --json wrote"),
        (["--model", "CONVV"], "unknown model"),
        (["gpu", "--device", "cpu"], "this benchmark needs a CUDA device"),
        (["size", "--methods", "nonsense", "--device", "cpu"], "unknown method"),
    ],
    ids=["method", "variant", "fusion", "earlier file", "model", "gpu on a CPU", "method of size"],
)
def test_errors_are_one_line(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert bench.main(arguments) == 2
    error = capsys.readouterr().err
    assert message in error
    assert len(error.strip().splitlines()) == 1


def test_no_gpu_is_one_line(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert bench.main(["gpu"]) == 2
    assert capsys.readouterr().err.startswith("error: --device cuda: this benchmark needs a CUDA device")


@pytest.mark.parametrize("name", ["--json", "--against", "  gpu ", "  size "], ids=["json", "against", "on a gpu", "sizes"])
def test_help(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert bench.main(["--help"]) == 0
    assert name in capsys.readouterr().out


def test_options_before_a_subcommand_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert bench.main(["--threads", "1", "size"]) == 2
    assert "size: options come after it, got --threads before" in capsys.readouterr().err
