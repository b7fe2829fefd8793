"""A report's figures as plain tables, for programs to read: report.csv and timing.csv."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from experiments.reporting.summary import Figure, Row
from experiments.runner.grid import Table
from newrelax.document import Grid

_TIMES = ("run", "seconds", "evaluation_seconds", "epochs", "steps", "device")


def rows_grid(table: Table, rows: Sequence[Row]) -> Grid:
    """A row per cell of the table; per-seed values are joined with `;`."""
    names = ["natural", "pgd", "certified", "estimated"]
    names += ["exact", "undecided"] if table.decision else []
    header = [*table.axes, "scale", "limit_train", "seeds", "missing_seeds"]
    header += [f"{name}_{part}" for name in names for part in ("mean", "spread", "per_seed")]
    header += ["paper_certified", "difference", "certify_method", "epochs", "failure"]
    lines = []
    for row in rows:
        line = [str(row.cell.get(axis, "")) for axis in table.axes]
        line += [f"{row.scale:g}" if row.results else "", str(row.limit_train or ""), _joined(row.seeds), _joined(row.missing)]
        for name in names:
            line += _csv_figure(getattr(row, name))
        line += ["" if value is None else f"{value:.4f}" for value in (row.paper and row.paper.certified, row.difference)]
        for name in ("certify_method", "epochs"):
            line.append("/".join(dict.fromkeys(str(result.get(name, "")) for result in row.results)))
        line.append("; ".join(row.failures.values()))
        lines.append(line)
    return Grid.of(header, lines)


def times_grid(times: Sequence[Mapping[str, object]]) -> Grid:
    """What each run took; empty where a run did not say."""
    texts = ([time.get(name) for name in _TIMES] for time in times)
    return Grid.of(_TIMES, (["" if value is None else str(value) for value in values] for values in texts))


def _csv_figure(figure: Figure | None) -> list[str]:
    if figure is None:
        return ["", "", ""]
    spread = "" if figure.spread is None else f"{figure.spread:.4f}"
    return [f"{figure.mean:.4f}", spread, ";".join(f"{value:.4f}" for value in figure.values)]


def _joined(values: Sequence[int]) -> str:
    return ";".join(map(str, values))
