"""How recipes were shortened is said where it holds: above the table, in a row's column, in a cell; reports keep them apart."""

from experiments.runner.grid import expand
from experiments.runner.store import Place
from experiments.runner.table_file import change, load_table
from tests.support.report_desk import HEATMAP, finish, line_of


def test_how_a_recipe_was_shortened_is_said_once_where_all_agree(desk):
    path = desk.table()
    desk.finish(path, {"IBP": (0.80, 0.84), "CROWN": (0.70, 0.71)}, scale=0.05, limit_train=2000)
    files = desk.report(path)
    assert "Behind each measured figure: ×0.05, n 2,000, 10 epochs, 2 seeds." in files["report.md"]
    assert "<sub>" not in files["report.md"]
    assert files["report.html"].count("n 2,000, 10") == 1
    assert "CONV — ×0.05, n 2,000<" in files["training-CONV.svg"]


def test_what_differs_between_rows_has_a_column(desk):
    path = desk.table()
    desk.finish(path, {"IBP": (0.8, 0.8)}, limit_train=500)
    desk.finish(path, {"CROWN": (0.7, 0.7)}, scale=0.05, limit_train=500)
    markdown = desk.report(path)["report.md"]
    assert "Behind each measured figure: n 500, 10 epochs, 2 seeds." in markdown
    assert [line_of(markdown, name)[-1] for name in ("run", "IBP", "CROWN")] == ["recipe", "", "×0.05"]
    assert "<sub>" not in markdown
    assert "against IBP" not in markdown, "lengths differ, so that there is nothing to compare"
    assert "best first" not in markdown


def test_in_a_heatmap_it_stands_in_the_cell(desk):
    path = desk.table(HEATMAP, "loose")
    desk.finish(path, {"IBP-Round:omega=0.5,F=1": (0.81,)}, scale=0.5, limit_train=500)
    desk.finish(path, {"IBP-Round:omega=2,F=10": (0.42,)}, limit_train=500)
    grid = desk.report(path)["report.md"].split("### PGD")[0]
    assert "Behind each measured figure: n 500, 10 epochs, 1 seed." in grid
    assert line_of(grid, "0.5") == ["0.5", "81.00 <sub>×0.5</sub>", "missing"]
    assert line_of(grid, "2") == ["2", "missing", "42.00"]


def test_the_fullest_recipe_counts_unless_another_is_asked_for(desk):
    path = desk.table()
    desk.finish(path, {"IBP": (0.1, 0.1)}, scale=0.05)
    desk.finish(path, {"IBP": (0.2, 0.2)}, scale=0.05, limit_train=500)
    for options, certified, recipe in (
        ((), "10.00 ± 0.00", "figure: ×0.05, 10"),
        (("--limit-train", "500"), "20.00 ± 0.00", "figure: ×0.05, n 500, 10"),
        (("--scale", "1"), "missing", ""),
    ):
        markdown = desk.report(path, *options)["report.md"]
        assert line_of(markdown, "IBP")[3] == certified
        assert recipe in markdown


def test_changed_recipes_are_reported_apart(desk):
    path = desk.table()
    desk.finish(path, {"IBP": (0.1, 0.1)})
    for run in expand(change(load_table(path), ["lr=0.002"])):
        if run.options["method"] == "IBP":
            finish(Place(desk.out / "small", run.id), run, 0.5)
    assert line_of(desk.report(path)["report.md"], "IBP")[3] == "10.00 ± 0.00"
    changed = desk.report(path, "--set", "lr=2e-3")["report.md"]
    assert line_of(changed, "IBP")[3] == "50.00 ± 0.00"
    assert "figure: lr 0.002, 10 epochs" in changed
