"""Measured tables of the READMEs: each figure stands in the committed results, and the command that gives it beside the table.

A new table is one entry of TABLES: the document, the table's first header cell, whether methods stand across or down, and where
the figures of each line of the other axis (given by how it begins) are from: a call of one of the functions above TABLES.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal
from functools import partial

import pytest

from experiments.reporting.paper import paper_figures
from newrelax.document import NO, YES
from tests.conftest import REPOSITORY
from tests.support.markdown_tables import Grid, agree, figures, grids, has_command

RESULTS = REPOSITORY / "experiments" / "results"
DOCUMENTS = ("README.md", "experiments/README.md", "plugin/analysis/README.md")

Source = Callable[[], Mapping[str, str]]
"""Committed figures by method: a text with the figures in the order in which a cell shows them; it may show fewer."""


@dataclass(frozen=True)
class Table:
    """A table of a document and its sources, by how the row (the column, where methods stand `down`) begins."""

    document: str
    head: str
    methods: str
    sources: Mapping[str, Source]

    def read(self) -> Grid:
        """The table as it stands in its document."""
        (grid,) = [grid for grid in grids(read(self.document)) if grid.header[0] == self.head]
        return grid

    def source(self, line: str) -> Source | None:
        """Where the figures of a line are from; None where this entry does not say."""
        return next((source for start, source in self.sources.items() if line.startswith(start)), None)


def accuracies(file: str, figure: str, **where: str) -> dict[str, str]:
    """Mean and spread of a `report.csv`: `figure` is natural, pgd, certified, exact or undecided; `where` picks its rows."""
    lines = csv.DictReader((RESULTS / file).read_text().splitlines())
    chosen = [line for line in lines if all(line[axis] == value for axis, value in where.items())]
    return {line["method"]: f"{line[f'{figure}_mean']} {line[f'{figure}_spread']}" for line in chosen}


def down(file: str, head: str, *columns: str) -> dict[str, str]:
    """Columns of a result page's table whose rows are methods."""
    (grid,) = [grid for grid in grids((RESULTS / file).read_text()) if grid.header[0] == head]
    return {row[0]: " ".join(row[grid.header.index(column)] for column in columns) for row in grid.rows}


def costs(over: str) -> dict[str, str]:
    """Natural steps of each loss over a method; the README writes losses as code."""
    steps = down("costs.md", "step", "natural steps")
    names = {"fused": "fusion", "MTL:alpha=0.5": "MTL"}
    losses = ("certified", "fused", "adversarial", "MTL:alpha=0.5", "CC", "Exp", "SABR", "TAPS", "STAPS")
    rows = {loss: over if loss == "certified" else f"{over}+{names.get(loss, loss)}" for loss in losses}
    return {f"`{loss}`": steps[row] for loss, row in rows.items() if row in steps}


def decided(dataset: str, model: str) -> dict[str, str]:
    """What a ladder verified of the published networks, in percent, and of how many images: where there are more, of most."""
    found = map(json.loads, (RESULTS / "exact" / "networks.jsonl").read_text().splitlines())
    here = [each for each in found if each["seed"] is None and (each["dataset"], each["model"]) == (dataset, model)]
    chosen = {each["method"]: each for each in sorted(here, key=lambda each: each["images"])}
    return {method: f"{100 * each['verified'] / each['images']:.4f} ({each['images']:,})" for method, each in chosen.items()}


def paper(dataset: str, model: str) -> dict[str, str]:
    """The paper's own certified accuracy."""
    found = [figure for figure in paper_figures() if (figure.where["dataset"], figure.where["model"]) == (dataset, model)]
    return {str(figure.where["method"]): str(figure.certified) for figure in found}


SIGMAS = ("0.003", "0.01", "0.01,pairs=4,parts=true")
"""Of the smoothing table, with what is said of the pairs."""

TABLES = [
    pytest.param(
        Table(
            "README.md",
            "trained with",
            "across",
            {
                "certified accuracy": partial(accuracies, "digits/report.csv", "certified"),
                "decided exactly": partial(accuracies, "digits/report.csv", "exact"),
                "tightness": partial(down, "digits/report.md", "run", "tightness"),
                "continuous, insensitive": partial(down, "digits/report.md", "run", "continuity", "sensitivity"),
                "the paper, MNIST": partial(paper, "mnist", "CONV"),
                "the paper's networks, decided": partial(decided, "mnist", "CONV"),
            },
        ),
        id="the paradox",
    ),
    pytest.param(
        Table(
            "README.md",
            "`--loss`",
            "across",
            {"over IBP": partial(costs, "IBP"), "over CROWN-IBP": partial(costs, "CROWN-IBP")},
        ),
        id="costs of schemes",
    ),
    pytest.param(
        Table(
            "experiments/README.md",
            "certified accuracy, CONV, %",
            "across",
            {
                "after 1,000 steps": partial(accuracies, "table2/report.csv", "certified", dataset="mnist", model="CONV"),
                "the paper": partial(paper, "mnist", "CONV"),
            },
        ),
        id="CONV, small",
    ),
    pytest.param(
        Table(
            "experiments/README.md",
            "certified accuracy, FC, %",
            "across",
            {
                "ε = 0.2": partial(accuracies, "table2-fc/report.csv", "certified", dataset="mnist", model="FC"),
                "the paper": partial(paper, "mnist", "FC"),
            },
        ),
        id="FC",
    ),
    pytest.param(
        Table(
            "experiments/README.md",
            "decided exactly, digits, %",
            "across",
            {
                f"`{loss.partition(':')[0]}`": partial(accuracies, "schemes/report.csv", "exact", loss=loss)
                for loss in (
                    "certified",
                    "MTL:alpha=0.5,steps=3",
                    "CC:alpha=0.5,steps=3",
                    "Exp:alpha=0.5,steps=3",
                    "SABR:lambda=0.4,steps=3",
                    "TAPS:split=1,steps=3",
                    "STAPS:split=1,lambda=0.4,steps=3",
                )
            },
        ),
        id="schemes",
    ),
    pytest.param(
        Table(
            "experiments/README.md",
            "certified accuracy, digits, %",
            "across",
            {
                f"`{name}`": partial(accuracies, "smoothing/report.csv", "certified", estimator=name)
                for name in ("none", *(f"{kind}:sigma={sigma}" for kind in ("rgs", "pgpe", "controlled") for sigma in SIGMAS))
            },
        ),
        id="smoothing",
    ),
    pytest.param(
        Table(
            "plugin/analysis/README.md",
            "relaxation",
            "down",
            {
                name: partial(down, "analysis.md", "relaxation", name)
                for name in (
                    "tightness",
                    "continuity",
                    "largest jump",
                    "sensitivity",
                    "curved bounds",
                    "order",
                    "unpredicted",
                )
            },
        ),
        id="properties",
    ),
]


def differences(table: Table, grid: Grid) -> list[str]:
    """One line for each cell that has a source and whose figures the committed results do not give."""
    found = []
    for line, method, cell in cells(table.methods, grid):
        source = table.source(line)
        if source is not None and not agree(cell, committed := source().get(method, "no figure")):
            found.append(f"{table.document}: {table.head}: {line}, {method}: {cell!r}, but the results say {committed!r}")
    return found


def cells(methods: str, grid: Grid) -> Iterator[tuple[str, str, str]]:
    """Each cell with what it says and of which method: (line, method, text)."""
    for row in grid.rows:
        for column, cell in zip(grid.header[1:], row[1:], strict=True):
            yield (row[0], column, cell) if methods == "across" else (column, row[0], cell)


def read(document: str) -> str:
    return (REPOSITORY / document).read_text()


@pytest.mark.parametrize("table", TABLES)
def test_figures_are_the_committed_ones(table: Table) -> None:
    assert differences(table, table.read()) == []


@pytest.mark.parametrize("document", DOCUMENTS)
def test_every_measured_table_has_sources_and_a_command(document: str) -> None:
    """One line for each that has none."""
    entries = [table for case in TABLES if isinstance(table := case.values[0], Table) and table.document == document]
    missing = []
    for grid in (grid for grid in grids(read(document)) if grid.is_measured):
        here = [table for table in entries if table.head == grid.header[0]]
        lines = dict.fromkeys(line for line, _, cell in cells(here[0].methods if here else "across", grid) if figures(cell))
        missing += [f"{grid.header[0]}: {line}: no source" for line in lines if not any(table.source(line) for table in here)]
        missing += [] if has_command(grid.section, (REPOSITORY / document).parent) else [f"{grid.header[0]}: no command"]
    assert missing == []


@pytest.mark.parametrize("table", TABLES)
def test_a_changed_figure_is_noticed(table: Table) -> None:
    """Each figure in turn is moved by two units of its last digit, each verdict turned round: one more difference."""
    grid = table.read()
    before = set(differences(table, grid))
    for i, row in enumerate(grid.rows):
        for j, cell in enumerate(row[1:], 1):
            if table.source(row[0] if table.methods == "across" else grid.header[j]) is None:
                continue
            for changed in changes(figures(cell)):
                rows = (*grid.rows[:i], (*row[:j], changed, *row[j + 1 :]), *grid.rows[i + 1 :])
                (line,) = set(differences(table, replace(grid, rows=rows))) - before
                assert repr(changed) in line


def changes(shown: Sequence[str]) -> Iterator[str]:
    """A cell with one of its figures after the other put wrong."""
    for number, each in enumerate(shown):
        sign = {YES: NO, NO: YES}.get(each)
        other = sign or str(Decimal(each) + 2 * Decimal(1).scaleb(int(Decimal(each).as_tuple().exponent)))
        yield " ".join([*shown[:number], other, *shown[number + 1 :]])


@pytest.mark.parametrize(
    ("shown", "committed", "expected"),
    [
        ("56.2", "56.1700", True),
        ("56.1", "56.1700", False),
        ("**88.1** ± 0.5", "88.1481 0.4811", True),
        ("88.1 ± 0.4", "88.1481 0.4811", False),
        ("88.1 ± 0.5", "88.1481 ", False),
        ("77.5 (first 1,000)", "77.50 1,000", True),
        ("-6.7", "-6.67", True),
        ("4.7e-04", "4.71e-4", True),
        ("✓ ✗", "✓ ✗", True),
        ("✓ ✗", "✗ ✗", False),
        ("", "no figure", True),
        ("12.5", "no figure", False),
    ],
)
def test_rounding_is_to_the_digits_shown(shown: str, committed: str, expected: bool) -> None:
    assert agree(shown, committed) is expected


def test_a_table_without_a_command_is_noticed() -> None:
    command = "```bash\n# a comment\npython -m plugin.train\n```\n"
    text = f"# A\n{command}| a | b |\n|---|---|\n| x | 1.0 |\n# B\n| c | d |\n|---|---|\n| x | 2 |\n"
    assert [(grid.header[0], grid.is_measured, has_command(grid.section, REPOSITORY)) for grid in grids(text)] == [
        ("a", True, True),
        ("c", True, False),
    ]
    assert has_command("[table](experiments/results/exact/README.md)", REPOSITORY)
