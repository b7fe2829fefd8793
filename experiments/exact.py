"""Command line: exact robust accuracies beside the paper's certified ones, from folders of `plugin.evaluate --complete`.

python -m experiments.exact IBP=verdicts/box DeepZ=verdicts/zono --out experiments/results/exact/README.md
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from experiments.reporting.paper import find_paper_figure
from newrelax.cli import debug_option, run_command
from newrelax.document import Bullets, Grid, Heading, Paragraph, markdown
from newrelax.errors import UserError
from plugin.process.files import write_output

HEADER = (
    "trained with",
    "images",
    "natural",
    "attack leaves",
    "exact",
    "undecided",
    "certified in the paper",
    "exact − paper",
    "CPU hours",
)


def read_folder(spec: str) -> tuple[str, dict[str, Any]]:
    """The method and the figures of METHOD=FOLDER.

    Raises:
        UserError: another form, or a folder without complete.json.
    """
    method, equals, folder = spec.partition("=")
    path = Path(folder) / "complete.json"
    if not equals or not path.is_file():
        raise UserError(f"expected METHOD=FOLDER with a folder made by plugin.evaluate --complete, got {spec!r}")
    return method, dict(json.loads(path.read_text(encoding="utf-8")))


def row(method: str, figures: dict[str, Any]) -> list[str]:
    """A line of the table; fractions in percent."""
    paper = find_paper_figure({"dataset": figures["dataset"], "model": figures["model"], "method": method})
    certified = None if paper is None else paper.certified
    exact = 100 * figures["verified"]
    return [
        method,
        f"{figures['count']:,}",
        f"{100 * figures['natural_accuracy']:.2f}",
        f"{100 * figures['pgd_accuracy']:.2f}",
        f"{exact:.2f}",
        f"{100 * figures['undecided']:.2f}",
        "" if certified is None else f"{certified:.1f}",
        "" if certified is None else f"{exact - certified:+.1f}",
        f"{figures['seconds'] / 3600:.2f}",
    ]


def document(read: Sequence[tuple[str, dict[str, Any]]]) -> str:
    """The table as Markdown."""
    first = read[0][1]
    rungs = {
        method: ", ".join(f"{name} {each['decided']}" for name, each in figures["rungs"].items()) for method, figures in read
    }
    return markdown(
        [
            Heading(f"Exact robust accuracy, {first['model']} on {first['dataset']}, ε = {first['eps']:g}", 1),
            Paragraph(
                "In percent of the first images of the test set. Exact: proven for every point of the ball; undecided is "
                f"left open after {first['timeout']:g} s an image. Ladder: {first['ladder']}. Device: {first['device']}. "
                "The paper's figures are of the whole test set, by the method's own relaxation."
            ),
            Grid.of(HEADER, [row(*each) for each in read]),
            Paragraph(
                "Each line: `python -m plugin.evaluate --model … --weights … --dataset … --eps … --complete --limit …`; "
                "all: `python -m experiments.exact METHOD=FOLDER …`."
            ),
            Heading("Who decided"),
            Bullets([f"{method}: {text}" for method, text in rungs.items()]),
        ]
    )


@click.command()
@click.argument("folders", nargs=-1, required=True, metavar="METHOD=FOLDER…")
@click.option("--out", type=click.Path(path_type=Path), help="Markdown file; default standard output.")
@debug_option
def command(folders: tuple[str, ...], out: Path | None) -> None:
    """Exact robust accuracies beside the paper's certified ones."""
    text = document([read_folder(spec) for spec in folders])
    if out is None:
        click.echo(text)
    else:
        write_output(out, text)


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command line and returns its exit code."""
    return run_command(command, argv, "python -m experiments.exact")


if __name__ == "__main__":
    sys.exit(main())
