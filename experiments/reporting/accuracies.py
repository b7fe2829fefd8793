"""Tables of accuracies: a row a run, or a value of two axes; the relaxations' properties beside them."""

from __future__ import annotations

from collections.abc import Sequence

from experiments.reporting.paper import paper_figures
from experiments.reporting.pictures import row_label
from experiments.reporting.properties import Measurements, Properties
from experiments.reporting.small_print import NOTHING, Field, arrange
from experiments.reporting.summary import Figure, Row
from experiments.runner.grid import Table
from newrelax.document import Block, Paragraph, verdict


def accuracy_table(table: Table, rows: Sequence[Row], measured: Measurements) -> list[Block]:
    """A line a run: accuracies beside the paper's and the baseline's, and its relaxation's properties where there are some."""
    baseline = next((row for row in rows if row.cell.get("method") == table.layout.baseline), None)
    header = ["run", "natural", "PGD", "certified", *(["exact"] if table.decision else []), "paper certified", "difference"]
    header += [f"against {table.layout.baseline}"] if table.layout.baseline else []
    header += ["tightness", "continuity", "sensitivity"]
    lines = []
    for row in rows:
        line = [Field(row_label(row)), *(accuracy(row, kind) for kind in _kinds(table, "natural", "PGD", "certified", "exact"))]
        line += [_number(row.paper.certified if row.paper else None), _signed(row.difference)]
        line += [_signed(_against(row, baseline))] if table.layout.baseline else []
        line += _properties(measured.properties.get(str(row.options.get("method"))), NOTHING)
        lines.append(line)
    return arrange(header, lines, by_row=True)


def property_line(rows: Sequence[Row], measured: Measurements) -> list[Block]:
    """What the properties beside these rows were measured on; nothing where none are."""
    if not any(str(row.options.get("method")) in measured.properties for row in rows):
        return []
    text = "Tightness (mean certified radius × 100), continuity and sensitivity (✓: favourable) are measured on a fixed network"
    return [Paragraph(f"{text}: {measured.network}.")]


def accuracy_grids(table: Table, rows: Sequence[Row]) -> dict[str, list[Block]]:
    """Accuracy over the two axes of the table's heatmap, for each kind of accuracy, `certified` first."""
    vertical, horizontal = table.layout.heatmap
    down = list(dict.fromkeys(row.cell[vertical] for row in rows))
    across = list(dict.fromkeys(row.cell[horizontal] for row in rows))
    at = {(row.cell[vertical], row.cell[horizontal]): row for row in rows}
    grids = {}
    for kind in _kinds(table, "certified", "exact", "PGD", "natural"):
        lines = [[Field(str(y)), *(accuracy(at.get((y, x)), kind) for x in across)] for y in down]
        grids[kind] = arrange([f"{vertical} \\ {horizontal}", *map(str, across)], lines, by_row=False)
    return grids


def property_table(measured: Measurements, certified: Sequence[Row]) -> list[Block]:
    """The relaxations' properties beside the paper's, and beside the certified accuracy of what they trained."""
    network = measured.asked.options
    header = ["relaxation", "tightness", "paper", "continuity", "paper", "sensitivity", "paper", "certified", "paper"]
    lines = []
    for method in measured.asked.methods:
        where = {"dataset": network.get("dataset"), "model": network.get("model"), "method": method}
        paper = next((figure for figure in paper_figures() if figure.where == where), None)
        row = next((row for row in certified if all(row.options.get(name) == value for name, value in where.items())), None)
        tightness, continuity, sensitivity = _properties(measured.properties.get(method), "missing")
        lines.append(
            [
                *(Field(method), tightness, _number(paper.tightness if paper else None)),
                *(continuity, Field(verdict(paper.continuous if paper else None, NOTHING))),
                *(sensitivity, Field(verdict(paper.insensitive if paper else None, NOTHING))),
                *(Field("missing") if row is None else accuracy(row, "certified"), _number(paper.certified if paper else None)),
            ]
        )
    return arrange(header, lines, by_row=True)


def accuracy(row: Row | None, kind: str) -> Field:
    """A row's accuracy of a kind (`natural`, `PGD`, `certified`, `exact`) with its small print; for no row, nothing."""
    if row is None:
        return Field(NOTHING)
    figures = {"natural": row.natural, "PGD": row.pgd, "certified": row.worst, "exact": row.exact}
    if (figure := figures[kind]) is None:
        return Field("failed" if row.failures else "missing")
    notes: list[str] = []
    if kind == "certified" and row.estimated is not None:
        notes.append("estimate, not certified")
    if kind == "exact":
        notes += [f"undecided {row.undecided.mean:.2f}"] if row.undecided and row.undecided.mean else []
        notes += [f"verdicts of {len(row.verdicts)} of {len(row.seeds)} seeds"] if row.unsettled else []
        counts = {each["count"] for each in row.verdicts} - {each.get("test_images") for each in row.results}
        notes += [f"first {count:,} images" for count in sorted(counts)]
    return Field(_text(figure), (*notes, *row.small_print), measured=True)


def _kinds(table: Table, *kinds: str) -> list[str]:
    return [kind for kind in kinds if kind != "exact" or table.decision]


def _properties(found: Properties | None, absent: str) -> list[Field]:
    if found is None:
        return [Field(absent)] * 3
    tightness = Field(absent) if found.tightness is None else Field(_text(found.tightness))
    return [tightness, Field(verdict(found.continuous, NOTHING)), Field(verdict(found.insensitive, NOTHING))]


def _text(figure: Figure) -> str:
    return f"{figure.mean:.2f}" + (f" ± {figure.spread:.2f}" if figure.spread is not None else "")


def _number(value: float | None) -> Field:
    return Field(NOTHING if value is None else f"{value:g}")


def _signed(value: float | None) -> Field:
    return Field(NOTHING if value is None else f"{value:+.2f}")


def _against(row: Row, baseline: Row | None) -> float | None:
    """Certified accuracy minus the baseline's; None where they were shortened differently."""
    if baseline is None or row is baseline or not row.certified or not baseline.certified:
        return None
    return row.certified.mean - baseline.certified.mean if row.shortened == baseline.shortened else None
