"""`plugin.analyze` from the command line: a table, JSON, a self-contained page, and nothing measured twice."""

from __future__ import annotations

from plugin import analyze, train

TINY = "--method IBP --epochs 1 --limit-train 60 --limit-test 20 --batch-size 30 --eps 0.05 --model FC --device cpu"


def test_measures_relaxations_of_a_run(tmp_path, capsys):
    run, out = tmp_path / "run", tmp_path / "analysis"
    assert train.main([*TINY.split(), "--out", str(run)]) == 0
    arguments = ["--run", str(run), "--methods", "IBP", "--limit", "4", "--out", str(out)]
    assert analyze.main(arguments) == 0
    page = (out / "report.html").read_text()
    assert (out / "overview.png").read_bytes().startswith(b"\x89PNG")
    assert "IBP" in page
    assert 'src="http' not in page
    kept = {path: path.stat().st_mtime_ns for path in out.rglob("IBP*.json")}
    assert kept
    capsys.readouterr()
    assert analyze.main(arguments) == 0
    assert {path: path.stat().st_mtime_ns for path in out.rglob("IBP*.json")} == kept
    said = capsys.readouterr().out
    assert "| IBP |" in said
    assert "No prediction of the trained accuracy: it rests on digits, CONV, ε = 0.1" in said


def test_unknown_method_is_one_line(tmp_path, capsys):
    run = tmp_path / "run"
    assert train.main([*TINY.split(), "--out", str(run)]) == 0
    capsys.readouterr()
    assert analyze.main(["--run", str(run), "--methods", "nonsense", "--out", str(tmp_path / "a")]) == 2
    error = capsys.readouterr().err
    assert "unknown method" in error
    assert len(error.strip().splitlines()) == 1
