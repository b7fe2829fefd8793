"""Reports: the right figures in the right places, what is missing or estimated said so, the same bytes each time."""

import csv
import json
import re

import pytest

from experiments.report import main
from experiments.reporting.summary import Figure, collect_rows
from experiments.runner.grid import expand
from experiments.runner.store import ANALYSIS, METRICS, RESULT, VERDICTS, Place
from experiments.runner.table_file import change, load_table
from plugin.process.files import write_json
from tests.support.calls import invoke

TABLE = """
title = "A small table"
seeds = 2
[options]
dataset = "mnist"
[grid]
model = ["CONV"]
method = ["IBP", "CROWN", "DeepZ-Cauchy:k=50"]
[report]
group = ["model"]
baseline = "IBP"
"""
HEATMAP = """
[options]
dataset = "digits"
method = "IBP-Round:omega={omega},F={F}"
[grid]
omega = [0.5, 2]
F = [1, 10]
[report]
heatmap = ["omega", "F"]
"""
PROPERTIES = """
[analyze]
methods = ["IBP", "hBox"]
network = { method = "natural", dataset = "mnist", model = "CONV" }
[report]
certified = "FILE"
"""


class Desk:
    """Table files, runs made by hand, and reports of them."""

    def __init__(self, folder):
        self.folder, self.out = folder, folder / "runs"

    def table(self, text=TABLE, name="small"):
        path = self.folder / f"{name}.toml"
        path.write_text(text)
        return str(path)

    def finish(self, path, certified, **options):
        """Give every run that `certified` (method -> fractions by seed) names a result; `options` go to `expand`."""
        table = load_table(path)
        for run in expand(table, **options):
            values = certified.get(run.options["method"], ())
            if run.seed < len(values):
                finish(Place(self.out / table.name, run.id), run, values[run.seed])

    def report(self, path, *options):
        result = invoke(main, [path, "--out", str(self.out), "--to", str(self.folder / "report"), *options])
        assert result.exit_code == 0, result.output
        return {file.name: file.read_text() for file in (self.folder / "report").iterdir()}


def begin(place, run):
    """The run's folder with the runner's note of its settings."""
    for folder in (place.folder, place.note("json").parent):
        folder.mkdir(parents=True, exist_ok=True)
    write_json(place.note("json"), run.settings())


def finish(place, run, certified):
    sound = "Cauchy" not in run.options["method"]
    begin(place, run)
    write_json(
        place.folder / RESULT,
        {
            "method": run.options["method"],
            "dataset": run.options["dataset"],
            "model": run.options.get("model", "FC"),
            "seed": run.seed,
            "eps": 0.3,
            "epochs": 10,
            "natural_accuracy": 0.9,
            "pgd_accuracy": 0.8,
            "certified_accuracy": certified if sound else None,
            "estimated_accuracy": None if sound else certified,
            "certify_method": run.options["method"],
            "sound": sound,
            "seconds": 12.0,
            "test_images": 100,
        },
    )
    lines = [{"epoch": epoch, "certified_accuracy": certified * epoch / 4} for epoch in range(1, 5)]
    (place.folder / METRICS).write_text("".join(json.dumps(line) + "\n" for line in lines))


@pytest.fixture
def desk(tmp_path):
    return Desk(tmp_path)


def line_of(markdown, start):
    (line,) = [line for line in markdown.splitlines() if line.startswith(f"| {start} |")]
    return [field.strip() for field in line.strip("|").split("|")]


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
        "10",
        "2 of 2",
    ]
    assert line_of(markdown, "CROWN")[3:7] == ["70.00 ± 0.00", "70.2", "-0.20", "-12.00"]
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
    assert line_of(markdown, "IBP")[-1] == "1 of 2"
    assert line_of(markdown, "CROWN")[1:4] == ["failed", "failed", "failed"]
    assert "- CONV, CROWN, seed 0: the loss is not finite at step 7" in markdown
    assert "- CONV, CROWN: seeds 0, 1" in markdown
    assert line_of(markdown, "DeepZ-Cauchy:k=50")[3] == "99.00 ± 0.00 <sub>estimate, not certified</sub>"
    assert "best first" not in markdown, "one certified figure and an estimate make no order"
    rows = list(csv.DictReader(files["report.csv"].splitlines()))
    assert [(row["certified_mean"], row["estimated_mean"]) for row in rows] == [("80.0000", ""), ("", ""), ("", "99.0000")]


def test_nothing_run_is_a_report_too(desk):
    markdown = desk.report(desk.table())["report.md"]
    assert line_of(markdown, "IBP") == ["IBP", "missing", "missing", "missing", "86.8", "—", "—", "—", "0 of 2"]


def test_how_a_recipe_was_shortened_is_beside_every_figure(desk):
    path = desk.table()
    desk.finish(path, {"IBP": (0.80, 0.84)}, scale=0.05, limit_train=2000)
    markdown = desk.report(path)["report.md"]
    remark = "<sub>×0.05, n 2,000</sub>"
    assert [field.endswith(remark) for field in line_of(markdown, "IBP")] == [False, *[True] * 3, False, True, *[False] * 3]
    assert "- Length: ×0.05, n 2,000" in markdown


def test_the_fullest_recipe_counts_unless_another_is_asked_for(desk):
    path = desk.table()
    desk.finish(path, {"IBP": (0.1, 0.1)}, scale=0.05)
    desk.finish(path, {"IBP": (0.2, 0.2)}, scale=0.05, limit_train=500)
    assert line_of(desk.report(path)["report.md"], "IBP")[3] == "10.00 ± 0.00 <sub>×0.05</sub>"
    limited = desk.report(path, "--limit-train", "500")["report.md"]
    assert line_of(limited, "IBP")[3] == "20.00 ± 0.00 <sub>×0.05, n 500</sub>"
    assert line_of(desk.report(path, "--scale", "1")["report.md"], "IBP")[3] == "missing"


def test_changed_recipes_are_reported_apart(desk):
    path = desk.table()
    desk.finish(path, {"IBP": (0.1, 0.1)})
    for run in expand(change(load_table(path), ["lr=0.002"])):
        if run.options["method"] == "IBP":
            finish(Place(desk.out / "small", run.id), run, 0.5)
    assert line_of(desk.report(path)["report.md"], "IBP")[3] == "10.00 ± 0.00"
    changed = desk.report(path, "--set", "lr=2e-3")["report.md"]
    assert line_of(changed, "IBP")[3] == "50.00 ± 0.00 <sub>lr 0.002</sub>"


def test_baseline_is_not_compared_across_lengths(desk):
    path = desk.table()
    desk.finish(path, {"IBP": (0.8, 0.8)}, scale=0.5)
    desk.finish(path, {"CROWN": (0.7, 0.7)}, scale=0.05)
    assert line_of(desk.report(path)["report.md"], "CROWN")[6] == "—"


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
    assert line_of(desk.report(path)["report.md"], "IBP")[-1] == "1 of 2"


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
        pytest.param("", 0.0, (0.85,), "85.00 <sub>1 of 2 seeds</sub>", id="one seed"),
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


def test_properties_beside_the_paper_s(desk):
    table = desk.table()
    desk.finish(table, {"IBP": (0.80, 0.84)})
    path = desk.table(PROPERTIES.replace("FILE", table), "properties")
    (run,) = expand(load_table(path))
    place = Place(desk.out / "properties", run.id)
    finish(place, run, 0.0)
    (place.folder / ANALYSIS).parent.mkdir()
    write_json(
        place.folder / ANALYSIS,
        {
            "methods": {
                "IBP": {
                    "tightness": {"radius": 0.75},
                    "continuity": {"continuous": True},
                    "sensitivity": {"insensitive": True},
                }
            }
        },
    )
    files = desk.report(path)
    assert line_of(files["report.md"], "IBP") == ["IBP", "0.75", "0.73", "✓", "✓", "✓", "✓", "82.00 ± 2.83", "86.8"]
    assert line_of(files["report.md"], "hBox") == ["hBox", "missing", "1.76", "missing", "✗", "missing", "✓", "missing", "83.7"]
    assert "continuous, insensitive (measured)" in files["tightness.svg"]


def test_spread_is_the_sample_deviation():
    assert Figure((1.0, 3.0)).spread == pytest.approx(2**0.5)
    assert Figure((1.0,)).spread is None


def test_a_user_error_is_one_line(desk):
    result = invoke(main, ["table9", "--out", str(desk.out)])
    assert result.exit_code == 2
    assert result.output.startswith("error: no table 'table9'")
