"""Blind verdicts laid beside the paper's: the values of `python -m experiments.calibrate` and their document."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from experiments.reporting.paper import paper_figures
from newrelax.document import Block, Bullets, Grid, Heading, Paragraph, verdict


@dataclass(frozen=True)
class Verdict:
    """One cell, measured: `value` None where too little was resolved, `expected` the paper's, `figures` what decided."""

    network: str
    seed: int
    method: str
    property: str
    value: bool | None
    expected: bool
    figures: Mapping[str, float]

    def agrees(self) -> bool:
        return self.value is self.expected


def paper_cells() -> dict[tuple[str, str], bool]:
    """(method, property) → ✓ or ✗ in the paper's table of properties, measured there on MNIST, CONV."""
    cells = {}
    for figure in paper_figures():
        if figure.continuous is not None and figure.insensitive is not None:
            method = str(figure.where["method"])
            cells[method, "continuity"], cells[method, "sensitivity"] = figure.continuous, figure.insensitive
    return cells


def report(verdicts: Sequence[Verdict], settings: Mapping[str, object]) -> list[Block]:
    """The verdicts against the paper's, network by network, and the figures behind them."""
    agreed = sum(v.agrees() for v in verdicts)
    return [
        Heading("Blind verdicts against the paper's table", 1),
        Paragraph(
            f"{agreed} of {len(verdicts)} verdicts equal the paper's. One protocol and one set of "
            "thresholds for all; a (!) differs, a ? resolved too little."
        ),
        _comparison(verdicts),
        Paragraph("What decided, over all networks and seeds:"),
        _spread(verdicts),
        Bullets([f"{key}: {value}" for key, value in settings.items()]),
    ]


def _comparison(verdicts: Sequence[Verdict]) -> Grid:
    expected = paper_cells()
    by_cell = {(v.network, v.seed, v.method, v.property): v for v in verdicts}
    rows = [["*the paper*", "", *map(verdict, expected.values())]]
    for network, seed in dict.fromkeys((v.network, v.seed) for v in verdicts):
        rows.append([network, str(seed), *(_cell(by_cell.get((network, seed, *cell))) for cell in expected)])
    return Grid.of(["network", "seed", *(f"{method}: {name}" for method, name in expected)], rows)


def _cell(measured: Verdict | None) -> str:
    return "" if measured is None else verdict(measured.value) + ("" if measured.agrees() else " (!)")


def _spread(verdicts: Sequence[Verdict]) -> Grid:
    """Per method, the range of the figures that the verdicts rest on."""
    rows = []
    for method in dict.fromkeys(v.method for v in verdicts):
        smooth = [v.figures for v in verdicts if v.method == method and v.property == "continuity"]
        sharp = [v.figures for v in verdicts if v.method == method and v.property == "sensitivity"]
        if not smooth or not sharp:
            continue
        rows.append(
            [
                method,
                _range([f["largest_jump"] for f in smooth], ".0e"),
                _range([f["narrowest_change"] for f in smooth], ".0e"),
                _range([100 * f["curved_share"] for f in sharp], ".0f") + " %",
                _range([f["order"] for f in sharp], ".0f"),
            ]
        )
    head = ["method", "largest jump / loss", "change at the narrowest width / loss", "curved bounds", "highest order"]
    return Grid.of(head, rows)


def _range(values: Sequence[float], form: str) -> str:
    low, high = format(min(values), form), format(max(values), form)
    return low if low == high else f"{low} to {high}"
