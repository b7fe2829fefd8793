"""Command line: exact robust accuracies beside those of own certifiers, as a page made of the networks kept beside it.

python -m experiments.exact                                                      # the page again, from what is kept
python -m experiments.exact IBP=verdicts/box DeepZ=verdicts/zono                 # with networks decided anew
python -m experiments.exact --runs runs/digits                                   # with the decided runs of a table
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

import click

from experiments.deciding.network import merge, read_networks, written
from experiments.deciding.page import build_page
from experiments.deciding.sources import read_folder, read_runs
from newrelax.cli import debug_option, run_command
from newrelax.document import Picture, markdown
from newrelax.errors import UserError
from plugin.process.files import write_atomically, write_output

RESULTS = Path(__file__).parent / "results" / "exact"
NETWORKS, PAGE = "networks.jsonl", "README.md"
FOLDER = click.Path(path_type=Path, file_okay=False)
PUBLISHED = "the authors' released weights"


@click.command()
@click.argument("folders", nargs=-1, metavar="[METHOD=FOLDER]…")
@click.option("--origin", default=PUBLISHED, show_default=True, help="Where the networks of METHOD=FOLDER are from.")
@click.option("--runs", multiple=True, type=FOLDER, help="A table's folder of decided runs, or one such run; may be repeated.")
@click.option("--out", type=FOLDER, default=RESULTS, help="Folder of the kept networks and the page; default results/exact.")
@debug_option
def command(folders: tuple[str, ...], origin: str, runs: tuple[Path, ...], out: Path) -> None:
    """The page of exact accuracies; what is found in the folders is kept beside it.

    METHOD=FOLDER: a folder made by `plugin.evaluate --complete`, with the own relaxation's word on the same images,
    `plugin.evaluate --method METHOD --json FOLDER/own.json`.
    """
    found = [read_folder(spec, origin) for spec in folders]
    found += [network for folder in runs for network in read_runs(folder)]
    networks = merge(read_networks(out / NETWORKS), found)
    if not networks:
        raise UserError(f"no networks are kept in {out}: expected METHOD=FOLDER or --runs FOLDER")
    blocks = build_page(networks)
    out.mkdir(parents=True, exist_ok=True)
    for picture in (block for block in blocks if isinstance(block, Picture)):
        write_atomically(out / picture.file, picture.content)
    write_output(out / NETWORKS, written(networks))
    write_output(out / PAGE, markdown(blocks))
    click.echo(f"{out / PAGE}: {len(networks)} networks")


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command line and returns its exit code."""
    return run_command(command, argv, "python -m experiments.exact")


if __name__ == "__main__":
    sys.exit(main())
