"""Exact accuracy in reports: beside the certified one, with what is left open, missing or failed."""

import csv
import re

import pytest

from experiments.runner.grid import expand
from experiments.runner.store import VERDICTS, Place
from experiments.runner.table_file import load_table
from plugin.process.files import write_json
from tests.support.report_desk import HEATMAP, TABLE, line_of


def settle(desk, path, verified, undecided=0.0):
    """Give every finished run that `verified` (method -> fractions by seed) names its verdicts."""
    table = load_table(path)
    for run in expand(table):
        values = verified.get(run.options["method"], ())
        if run.seed < len(values):
            folder = Place(desk.out / table.name, run.id).folder / "complete-eps0.3"
            folder.mkdir(exist_ok=True)
            question = {"ladder": "attack:steps=40,restarts=3,IBP,exact", "timeout": 5, "count": run.decision.limit or 100}
            write_json(folder / VERDICTS, {**question, "verified": values[run.seed], "undecided": undecided})


@pytest.mark.parametrize(
    ("limit", "undecided", "verified", "cell"),
    [
        pytest.param("", 0.0, (0.85, 0.87), "86.00 ± 1.41", id="all"),
        pytest.param("", 0.01, (0.85, 0.87), "86.00 ± 1.41 <sub>undecided 1.00</sub>", id="some left open"),
        pytest.param("", 0.0, (0.85,), "85.00 <sub>verdicts of 1 of 2 seeds</sub>", id="one seed"),
        pytest.param("limit = 20", 0.0, (0.85, 0.87), "86.00 ± 1.41 <sub>first 20 images</sub>", id="part of the test set"),
    ],
)
def test_exact_stands_beside_certified(desk, limit, undecided, verified, cell):
    path = desk.table(f"{TABLE}[decide]\nladder = 'IBP,exact'\ntimeout = 5\n{limit}\n")
    desk.finish(path, {"IBP": (0.80, 0.84), "CROWN": (0.70, 0.70)})
    settle(desk, path, {"IBP": verified}, undecided)
    files = desk.report(path)
    markdown = files["report.md"]
    assert line_of(markdown, "run")[3:5] == ["certified", "exact"]
    assert line_of(markdown, "IBP")[3:6] == ["82.00 ± 2.83", cell, "86.8"]
    assert line_of(markdown, "CROWN")[3:5] == ["70.00 ± 0.00", "missing"]
    assert "- CONV, CROWN: verdicts of seed 0, 1" in markdown
    assert "- Ladder: attack:steps=40,restarts=3,IBP,exact, 5 s an image" in markdown
    assert cell.split(" <")[0] in files["report.html"]
    first = next(csv.DictReader(files["report.csv"].splitlines()))
    assert first["exact_mean"] == f"{100 * sum(verified) / len(verified):.4f}"
    assert first["undecided_mean"] == f"{100 * undecided:.4f}"


def test_failed_verdicts_are_told_from_missing_ones(desk):
    path = desk.table(f"{TABLE}[decide]\n")
    desk.finish(path, {"IBP": (0.80, 0.84)})
    place = Place(desk.out / "small", "CONV-IBP-seed0")
    write_json(place.note("failure.json"), {"message": "unknown certifier 'IPB'"})
    markdown = desk.report(path)["report.md"]
    assert line_of(markdown, "IBP")[3:5] == ["82.00 ± 2.83", "failed"]
    assert "- CONV, IBP, seed 0: unknown certifier 'IPB'" in markdown


def test_a_heatmap_has_its_exact_grid(desk):
    path = desk.table(f"{HEATMAP}[decide]\ntimeout = 5\nladder = 'IBP,exact'\n", "loose")
    desk.finish(path, {"IBP-Round:omega=0.5,F=1": (0.81,)})
    settle(desk, path, {"IBP-Round:omega=0.5,F=1": (0.83,)})
    grid = desk.report(path)["report.md"].split("### Exact accuracy")[1].split("###")[0]
    assert line_of(grid, "0.5") == ["0.5", "83.00", "missing"]


def test_verdicts_of_another_question_are_missing(desk):
    path = desk.table(f"{TABLE}[decide]\nladder = 'IBP,exact'\ntimeout = 6\n")
    desk.finish(path, {"IBP": (0.80, 0.84)})
    settle(desk, path, {"IBP": (0.85, 0.87)})
    assert line_of(desk.report(path)["report.md"], "IBP")[4] == "missing"


def test_tables_that_do_not_decide_say_nothing_of_it(desk):
    path = desk.table(f"{TABLE}[decide]\nladder = 'IBP,exact'\ntimeout = 5\n")
    desk.finish(path, {"IBP": (0.80, 0.84)})
    settle(desk, path, {"IBP": (0.85, 0.87)})
    files = desk.report(desk.table())
    assert not [name for name, text in files.items() if re.search("exact|undecided", text, re.IGNORECASE)]
