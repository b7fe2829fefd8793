"""Command line: a table's finished runs as Markdown, CSV and HTML, beside the paper's figures.

    python -m experiments.report table2

The same results give the same report, to the byte; what the runs took is in a file of its own, timing.csv.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import click

from experiments.reporting.csv_files import rows_grid, times_grid
from experiments.reporting.properties import collect_properties
from experiments.reporting.summary import Row, Variant, collect_rows, timings
from experiments.reporting.table_report import build_report
from experiments.runner.grid import Table
from experiments.runner.only import parse_only
from experiments.runner.table_file import change, load_table
from newrelax.cli import debug_option, run_command
from newrelax.document import Block, Picture, csv, markdown, page
from newrelax.errors import UserError
from plugin.process.files import write_atomically


@click.command(context_settings={"show_default": True})
@click.argument("table")
@click.option("--out", type=click.Path(path_type=Path), default=Path("runs"), help="Folder of all tables' runs.")
@click.option("--to", type=click.Path(path_type=Path), help="Folder of the report; default OUT/TABLE/report.")
@click.option("--only", default="", help="Cells to report, as in experiments.run.")
@click.option("--seeds", type=int, help="How many seeds, instead of the table's.")
@click.option("--scale", type=float, help="Runs at this scale only; default: the largest that has results.")
@click.option("--limit-train", type=int, help="Runs with this many training images only.")
@click.option("--set", "changes", multiple=True, metavar="NAME=VALUE", help="Runs with these changes, as in experiments.run.")
@debug_option
def command(
    table: str,
    out: Path,
    to: Path | None,
    only: str,
    seeds: int | None,
    scale: float | None,
    limit_train: int | None,
    changes: tuple[str, ...],
) -> int:
    """Report TABLE (table1 … table4, or a .toml file of your own) from its runs under OUT."""

    def variant(each: Variant) -> bool:
        return scale in (None, each.scale) and limit_train in (None, each.limit_train)

    loaded = change(load_table(table), changes)
    rows = collect_rows(loaded, out, seeds=seeds, only=parse_only(only, loaded) if only else None, variant=variant)
    measured, certified = collect_properties(loaded, out), rows
    if loaded.layout.properties and not measured.properties:
        measured = collect_properties(load_table(loaded.layout.properties), out)
    if loaded.layout.certified:
        certified = collect_rows(change(load_table(loaded.layout.certified), changes), out, variant=variant)
    folder = to or out / loaded.name / "report"
    try:
        write_report(folder, loaded, build_report(loaded, rows, measured, certified), rows, timings(loaded, out))
    except OSError as error:
        raise UserError(f"--to: cannot write to {folder}: {error.strerror}") from error
    finished = sum(len(row.seeds) for row in rows)
    click.echo(f"{folder}/report.html: {finished} of {finished + sum(len(row.missing) for row in rows)} runs")
    return 0


def write_report(
    folder: Path, table: Table, blocks: Sequence[Block], rows: Sequence[Row], times: Sequence[Mapping[str, object]]
) -> None:
    """Write report.md with its pictures, report.html, report.csv and timing.csv into a folder."""
    files = {
        "report.md": markdown(blocks).encode(),
        "report.html": page(table.title, blocks).encode(),
        "report.csv": csv(rows_grid(table, rows)).encode(),
        "timing.csv": csv(times_grid(times)).encode(),
        **{block.file: block.content for block in blocks if isinstance(block, Picture)},
    }
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        write_atomically(folder / name, content)


def main(argv: Sequence[str] | None = None) -> int:
    return run_command(command, argv, "python -m experiments.report")


if __name__ == "__main__":
    sys.exit(main())
