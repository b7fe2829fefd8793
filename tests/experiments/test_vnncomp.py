"""The competition's benchmarks: verdicts that were given, resuming, and a verdict that contradicts."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from experiments.vnncomp import Instance, Outcome, answered, document, journal, main, read_instances
from plugin.formats.extras import installed

PACKAGES = ("onnx", "onnx2torch", "onnxruntime")
readable = pytest.mark.skipif(not all(map(installed, PACKAGES)), reason='no ONNX here: pip install "newrelax[onnx]"')

QUICK = [
    ("acasxu", "ACASXU_run2a_1_1_batch_2000.onnx", "prop_3.vnnlib"),
    ("acasxu", "ACASXU_run2a_2_1_batch_2000.onnx", "prop_4.vnnlib"),
    ("acasxu", "ACASXU_run2a_2_1_batch_2000.onnx", "prop_2.vnnlib"),
    ("mnist_fc", "mnist-net_256x2.onnx", "prop_0_0.03.vnnlib"),
    ("mnist_fc", "mnist-net_256x2.onnx", "prop_12_0.03.vnnlib"),
    ("mnist_fc", "mnist-net_256x4.onnx", "prop_13_0.03.vnnlib"),
]


@readable
@pytest.mark.parametrize(("benchmark", "network", "asked"), QUICK, ids=lambda value: str(value).removesuffix(".vnnlib"))
def test_verdicts_are_those_that_were_given(benchmark: str, network: str, asked: str, shared_dir: Path) -> None:
    folder = shared_dir / "vnncomp" / benchmark
    if not folder.is_dir():
        pytest.skip(f"no {folder.name} in {folder.parent}")
    (instance,) = [each for each in read_instances(folder) if (each.network, each.asked) == (network, asked)]
    outcome = answered(folder, instance, 60, 1)
    assert outcome.verdict in ("sat", "unsat")
    assert not outcome.contradicts


def outcome(asked: str, verdict: str, given: str = "") -> Outcome:
    return Outcome(Instance("net.onnx", asked, given), verdict, "", "", 1.0)


def test_the_table_counts_and_says_who_contradicts() -> None:
    told = document("mine", [outcome("a", "unsat", "unsat"), outcome("b", "sat"), outcome("c", "timeout")], 10, 1, "a CPU")
    assert "# mine: 2 of 3 decided" in told
    assert "contradicts none" in told
    assert "| net.onnx | 3 | 1 | 1 | 0 | 1 |" in told
    assert "contradicts 1 given" in document("mine", [outcome("a", "sat", "unsat")], 10, 1, "a CPU")


@pytest.mark.parametrize("given", ["disputed", "open", "not given", ""])
def test_what_nobody_is_sure_of_contradicts_nothing(given: str) -> None:
    assert not outcome("a", "sat", given).contradicts


def benchmark(folder: Path) -> Path:
    (folder / "instances.csv").write_text("network,property,verdict\nnet.onnx,a.vnnlib,unsat\nnet.onnx,b.vnnlib,sat\n")
    return folder


def test_a_line_cut_short_is_asked_again_and_other_limits_elsewhere(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    out.mkdir()
    lines = [json.dumps({**vars(each), "instance": vars(each.instance)}) for each in (outcome("a", "sat"), outcome("b", "sat"))]
    (out / "outcomes.jsonl").write_text(lines[0] + "\n" + lines[1][:-9])
    kept = journal(out, 5, 1)
    assert [each.instance.asked for each in kept.entries.values()] == ["a"]
    kept.add([outcome("c", "unsat")])
    assert [each.instance.asked for each in journal(out, 5, 1).entries.values()] == ["a", "c"]
    (tmp_path / "instances.csv").write_text("network,property,verdict\nnet.onnx,a,sat\n")
    assert main([str(tmp_path), "--out", str(out), "--timeout", "5"]) == 0
    assert main([str(tmp_path), "--out", str(out), "--timeout", "9"]) == 2
    assert "choose another folder with --out" in capsys.readouterr().err


@pytest.mark.parametrize(("found", "code"), [("unsat", 0), ("sat", 2)], ids=["as given", "contradiction"])
def test_what_is_kept_is_not_asked_again(found: str, code: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """No network exists: everything is read from what an earlier run kept."""
    kept = [outcome("a.vnnlib", found, "unsat"), outcome("b.vnnlib", "sat", "sat")]
    (tmp_path / "out").mkdir()
    lines = [json.dumps({**vars(each), "instance": vars(each.instance)}) for each in kept]
    (tmp_path / "out" / "outcomes.jsonl").write_text("\n".join(lines) + "\n")
    assert main([str(benchmark(tmp_path)), "--out", str(tmp_path / "out")]) == code
    shown = capsys.readouterr()
    assert "2 of 2 decided" in shown.out
    assert ("a.vnnlib: found sat, given unsat" in shown.err) == (code == 2)


def test_a_folder_that_is_no_benchmark_is_told_in_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(tmp_path), "--out", str(tmp_path / "out")]) == 2
    assert "expected a benchmark with instances.csv" in capsys.readouterr().err
