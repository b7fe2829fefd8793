"""The benchmark command: its table, its JSON, and the comparison with an earlier run. No time is asserted."""

from __future__ import annotations

import json

import pytest

from experiments import bench

TINY = ["--shape", "digits", "--batch-size", "4", "--repeat", "1", "--device", "cpu"]


def test_writes_a_table_and_compares_with_an_earlier_run(tmp_path, capsys):
    first = tmp_path / "first.json"
    assert bench.main([*TINY, "--methods", "IBP,CROWN-IBP", "--json", str(first)]) == 0
    seconds = json.loads(first.read_text())["seconds"]
    assert set(seconds) == {"natural", "IBP", "IBP plain", "CROWN-IBP", "CROWN-IBP plain"}
    assert all(value > 0 for value in seconds.values())
    capsys.readouterr()
    assert bench.main([*TINY, "--methods", "IBP", "--no-plain", "--against", str(first)]) == 0
    header, rule, natural, ibp = capsys.readouterr().out.strip().splitlines()[-4:]
    assert "earlier, ms" in header and ibp.startswith("| IBP |")
    assert f"{seconds['IBP'] * 1e3:.1f}" in ibp


@pytest.mark.parametrize(
    "arguments, message",
    [(["--methods", "nonsense"], "unknown method"), (["--against", "absent.json"], "--against")],
    ids=["method", "earlier file"],
)
def test_errors_are_one_line(arguments, message, capsys):
    assert bench.main([*TINY, *arguments]) == 2
    error = capsys.readouterr().err
    assert message in error and len(error.strip().splitlines()) == 1
