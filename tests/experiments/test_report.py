"""Reports: the right figures in the right places, what is missing or estimated said so, the same bytes each time."""

import csv
import re

import pytest

from experiments.report import main
from experiments.reporting.summary import Figure, collect_rows
from experiments.runner.grid import expand
from experiments.runner.store import METRICS, RESULT, Place
from experiments.runner.table_file import load_table
from plugin.process.files import write_json
from tests.support.calls import invoke
from tests.support.report_desk import HEATMAP, TABLE, begin, line_of


def test_figures_beside_the_paper_s(desk):
    path = desk.table()
    desk.finish(path, {"IBP": (0.80, 0.84), "CROWN": (0.70, 0.70)})
    markdown = desk.report(path)["report.md"]
    assert line_of(markdown, "IBP") == [
        "IBP",
        "90.00 ± 0.00",
        "80.00 ± 0.00",
        "82.00 ± 2.83",
        "86.8",
        "-4.80",
        "—",
    ]
    assert line_of(markdown, "CROWN")[3:7] == ["70.00 ± 0.00", "70.2", "-0.20", "-12.00"]
    assert line_of(markdown, "DeepZ-Cauchy:k=50")[1:] == ["missing", "missing", "missing", "—", "—", "—"]
    assert "\nBehind each measured figure: 10 epochs, 2 seeds.\n\n| run |" in markdown
    assert "best first: IBP 82.00, CROWN 70.00." in markdown


def test_missing_failed_and_estimated_are_told_apart(desk):
    path = desk.table()
    desk.finish(path, {"IBP": (0.80,), "DeepZ-Cauchy:k=50": (0.99, 0.99)})
    run = next(run for run in expand(load_table(path)) if run.options["method"] == "CROWN")
    place = Place(desk.out / "small", run.id)
    begin(place, run)
    write_json(place.note("failure.json"), {"message": "the loss is not finite at step 7"})
    files = desk.report(path)
    markdown = files["report.md"]
    assert line_of(markdown, "IBP")[-1] == "1 of 2 seeds"
    assert line_of(markdown, "DeepZ-Cauchy:k=50")[-1] == "2 seeds"
    assert line_of(markdown, "CROWN")[1:4] == ["failed", "failed", "failed"]
    assert "- CONV, CROWN, seed 0: the loss is not finite at step 7" in markdown
    assert "- CONV, CROWN: seeds 0, 1" in markdown
    assert line_of(markdown, "DeepZ-Cauchy:k=50")[3] == "99.00 ± 0.00 <sub>estimate, not certified</sub>"
    assert "best first" not in markdown, "one certified figure and an estimate make no order"
    rows = list(csv.DictReader(files["report.csv"].splitlines()))
    assert [(row["certified_mean"], row["estimated_mean"]) for row in rows] == [("80.0000", ""), ("", ""), ("", "99.0000")]


def test_nothing_run_is_a_report_too(desk):
    markdown = desk.report(desk.table())["report.md"]
    assert line_of(markdown, "IBP") == ["IBP", "missing", "missing", "missing", "86.8"]
    assert "measured figure:" not in markdown


def test_runs_of_an_older_table_are_left_out(desk):
    path = desk.table()
    desk.finish(path, {"IBP": (0.8, 0.8)})
    newer = desk.table(TABLE.replace('"mnist"', '"mnist"\nlr = 0.1'))
    assert line_of(desk.report(newer)["report.md"], "IBP")[3] == "missing"


def test_damaged_files_are_missing_results(desk):
    path = desk.table()
    desk.finish(path, {"IBP": (0.8, 0.8)})
    place = Place(desk.out / "small", "CONV-IBP-seed0")
    (place.folder / RESULT).write_text('{"method": "IB')
    (place.folder / METRICS).write_text('{"epoch": 1}\n{"epo')
    place.note("json").with_name("stray.json").write_text("[1, 2")
    assert "10 epochs, 1 of 2 seeds." in desk.report(path)["report.md"]


def test_the_same_results_give_the_same_bytes(desk):
    path = desk.table()
    desk.finish(path, {"IBP": (0.80, 0.84), "CROWN": (0.70, 0.71)})
    first = desk.report(path)
    desk.finish(path, {"CROWN": (0.70, 0.71), "IBP": (0.80, 0.84)})
    result = Place(desk.out / "small", "CONV-IBP-seed0").folder / RESULT
    result.write_text(result.read_text().replace('"seconds": 12.0', '"seconds": 99.0'))
    second = desk.report(path)
    assert {name for name in first if first[name] != second[name]} == {"timing.csv"}
    assert "99.0" in second["timing.csv"]


def test_the_page_is_self_contained(desk):
    path = desk.table()
    desk.finish(path, {"IBP": (0.80, 0.84)})
    page = desk.report(path)["report.html"]
    sources = re.findall(r'(?:src|href)="([^"]{5})', page)
    assert sources
    assert set(sources) == {"data:"}


def test_heatmap(desk):
    path = desk.table(HEATMAP, "loose")
    desk.finish(path, {"IBP-Round:omega=0.5,F=1": (0.81,), "IBP-Round:omega=2,F=10": (0.42,)})
    files = desk.report(path)
    assert line_of(files["report.md"].split("### PGD")[0], "0.5") == ["0.5", "81.00", "missing"]
    assert line_of(files["report.md"].split("### PGD")[0], "2") == ["2", "missing", "42.00"]
    drawn = re.findall(r">([^<>]+)</text>", files["heatmap-loose.svg"])
    assert {"81.0", "42.0", "missing", "omega", "F"} <= set(drawn)


def test_training_curves_are_means_over_seeds(desk):
    path = desk.table()
    desk.finish(path, {"IBP": (0.4, 0.8)})
    (row,) = [row for row in collect_rows(load_table(path), desk.out) if row.curve]
    parts, shares = zip(*row.curve, strict=True)
    assert parts == (0.25, 0.5, 0.75, 1.0)
    assert shares == pytest.approx((15.0, 30.0, 45.0, 60.0))


def test_spread_is_the_sample_deviation():
    assert Figure((1.0, 3.0)).spread == pytest.approx(2**0.5)
    assert Figure((1.0,)).spread is None


def test_a_user_error_is_one_line(desk):
    result = invoke(main, ["table9", "--out", str(desk.out)])
    assert result.exit_code == 2
    assert result.output.startswith("error: no table 'table9'")
