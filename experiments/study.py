"""Command line: what predicts whether a relaxation trains?

    python -m experiments.run relaxations        # trains every relaxation, measures them on common networks
    python -m experiments.study                  # correlations, models, words and a picture

The same runs give the same bytes; `--figures` makes all of it from the figures alone.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

import click

from experiments.runner.table_file import load_table
from experiments.studying.document import build
from experiments.studying.figures import Figures, collect
from experiments.studying.findings import find
from experiments.studying.package import write_package
from newrelax.cli import debug_option, run_command
from newrelax.document import Picture, markdown
from newrelax.errors import UserError
from plugin.process.files import write_atomically

FIGURES = "figures.json"
PACKAGE = "plugin/analysis/prediction/data"
"""Where what plugin.analyze predicts from is kept, in a checkout."""


@click.command(context_settings={"show_default": True})
@click.argument("table", default="relaxations")
@click.option("--out", type=click.Path(path_type=Path), default=Path("runs"), help="Folder of all tables' runs.")
@click.option("--to", type=click.Path(path_type=Path), help="Folder of the study; default experiments/results/TABLE.")
@click.option("--figures", type=click.Path(path_type=Path), help=f"A study's {FIGURES}, in place of runs.")
@click.option(
    "--prediction", type=click.Path(path_type=Path), help=f"Also write what plugin.analyze predicts from, such as {PACKAGE}."
)
@debug_option
def command(table: str, out: Path, to: Path | None, figures: Path | None, prediction: Path | None) -> int:
    """Study the runs of TABLE under OUT: writes README.md, its picture, study.json and figures.json."""
    if figures is not None and prediction is not None:
        raise UserError("--prediction needs the networks of the runs: leave out --figures")
    loaded = load_table(table)
    found = collect(loaded, out) if figures is None else Figures.read(figures)
    folder = to or Path(__file__).parent / "results" / loaded.name
    findings = find(found)
    study = f"python -m experiments.study {loaded.name}"
    commands = [f"python -m experiments.run {loaded.name}", f"{study} --prediction {PACKAGE}", f"{study} --figures {FIGURES}"]
    blocks = build(found, findings, commands)
    files = {
        "README.md": markdown(blocks).encode(),
        "study.json": findings.text().encode(),
        FIGURES: found.text().encode(),
        **{block.file: block.content for block in blocks if isinstance(block, Picture)},
    }
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, content in files.items():
            write_atomically(folder / name, content)
    except OSError as error:
        raise UserError(f"--to: cannot write to {folder}: {error.strerror}") from error
    if prediction is not None:
        write_package(found, loaded, out, prediction)
    click.echo(f"{folder}/README.md: {len(findings.study.relaxations)} relaxations, {len(found.unfinished)} runs unfinished")
    return 0


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command line and returns its exit code."""
    return run_command(command, argv, "python -m experiments.study")


if __name__ == "__main__":
    sys.exit(main())
