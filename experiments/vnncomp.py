"""Command line: a benchmark of the verifiers' competition, decided instance by instance, beside the verdicts that were given.

python -m experiments.vnncomp ../shared/vnncomp/acasxu --timeout 120 --jobs 2 --out experiments/results/vnncomp/acasxu

The folder has `onnx/`, `vnnlib/` and `instances.csv` (network, property, verdict). What is decided is kept as it comes, so that
a run that was interrupted goes on where it was.
"""

from __future__ import annotations

import csv
import multiprocessing
import os
import sys
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import torch

from newrelax.cli import debug_option, run_command
from newrelax.document import Grid, Heading, Paragraph, markdown
from newrelax.errors import UserError
from plugin.certification.properties import decide
from plugin.formats.extras import installed
from plugin.process.device import device_name
from plugin.process.files import write_output
from plugin.process.journal import Journal
from plugin.verify import verify

DECIDED = ("unsat", "sat")
FOLDER = click.Path(path_type=Path, file_okay=False)


@dataclass(frozen=True)
class Instance:
    """A network's and a property's file name, and the verdict that was given, if any."""

    network: str
    asked: str
    given: str = ""

    @property
    def key(self) -> str:
        return f"{self.network} {self.asked}"


@dataclass(frozen=True)
class Outcome:
    """What was found: the answer's first word and its other lines, a remark, and the seconds of one process."""

    instance: Instance
    verdict: str
    counterexample: str
    note: str
    seconds: float

    @property
    def contradicts(self) -> bool:
        """Whether a verdict that was given says the opposite."""
        return self.instance.given in DECIDED and self.verdict in DECIDED and self.verdict != self.instance.given

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Outcome:
        return cls(**{**values, "instance": Instance(**values["instance"])})


def read_instances(folder: Path) -> list[Instance]:
    """Raises UserError where instances.csv is absent or has no such columns."""
    path = folder / "instances.csv"
    if not path.is_file():
        raise UserError(f"{folder}: expected a benchmark with instances.csv, onnx/ and vnnlib/, got no {path.name}")
    with open(path, newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    if not rows or not {"network", "property"} <= set(rows[0]):
        raise UserError(f"{path}: expected columns network, property, verdict")
    return [Instance(row["network"], row["property"], row.get("verdict", "")) for row in rows]


def answered(folder: Path, instance: Instance, seconds: float, threads: int) -> Outcome:
    """One instance, in this process."""
    torch.set_num_threads(threads)
    began = time.monotonic()
    told = verify(_file(folder / "onnx", instance.network), _file(folder / "vnnlib", instance.asked), seconds, decide)
    verdict, _, rest = told.text.partition("\n")
    return Outcome(instance, verdict, rest, told.note, round(time.monotonic() - began, 2))


def _file(folder: Path, name: str) -> Path:
    plain, packed = folder / name, folder / f"{name}.gz"
    return packed if packed.is_file() else plain


def journal(folder: Path, timeout: float, threads: int) -> Journal[Outcome]:
    """The outcomes in a folder. Raises UserError where they were found with other limits."""
    question = {"timeout": timeout, "threads": threads}
    return Journal(folder, question, "outcomes.jsonl", read=Outcome.from_json, key=lambda each: each.instance.key)


def document(name: str, outcomes: Sequence[Outcome], seconds: float, threads: int, device: str) -> str:
    """The whole table as Markdown."""
    counts = Counter(each.verdict for each in outcomes)
    decided = sum(counts[word] for word in DECIDED)
    wrong = [each for each in outcomes if each.contradicts]
    groups: dict[str, list[Outcome]] = {}
    for each in outcomes:
        groups.setdefault(each.instance.network if name != "acasxu" else each.instance.asked, []).append(each)
    words = (*DECIDED, "unknown", "timeout")
    summary = [
        [group, str(len(found)), *(str(sum(each.verdict == word for each in found)) for word in words)]
        for group, found in groups.items()
    ]
    hours = sum(each.seconds for each in outcomes) / 3600
    by = " by onnxruntime" if installed("onnxruntime") else ""
    told = "contradicts none of the verdicts that were given" if not wrong else f"contradicts {len(wrong)} given verdicts"
    return markdown(
        [
            Heading(f"{name}: {decided} of {len(outcomes)} decided", 1),
            Paragraph(
                f"At most {seconds:g} s an instance, each in a process of its own, threads: {threads}, on {device}; together "
                f"{hours:.2f} hours. It {told}. Each `sat` was replayed{by}."
            ),
            Paragraph(f"`python -m experiments.vnncomp …/{name} --timeout {seconds:g} --out …`"),
            Grid.of(["", "instances", *words], summary),
            Heading("Every instance", 2),
            Grid.of(
                ["network", "property", "given", "found", "seconds"],
                [
                    [each.instance.network, each.instance.asked, each.instance.given, each.verdict, f"{each.seconds:.1f}"]
                    for each in outcomes
                ],
            ),
        ]
    )


@click.command(context_settings={"max_content_width": 120})
@click.argument("folder", type=FOLDER)
@click.option("--timeout", type=click.FloatRange(0, min_open=True), default=120, show_default=True, help="Seconds an instance.")
@click.option("--jobs", type=click.IntRange(min=1), default=1, show_default=True, help="Instances at once.")
@click.option("--threads", type=click.IntRange(min=1), default=1, show_default=True, help="Threads of each.")
@click.option("--limit", type=click.IntRange(min=1), help="Only the first instances.")
@click.option("--out", type=FOLDER, required=True, help="Folder of the outcomes, and of README.md with their table.")
@debug_option
def command(folder: Path, timeout: float, jobs: int, threads: int, limit: int | None, out: Path) -> None:
    """Decides the instances of a benchmark, and says where the verdict that was given is another."""
    instances = read_instances(folder)[:limit]
    kept = journal(out, timeout, threads)
    context = multiprocessing.get_context("spawn")
    os.environ["OMP_NUM_THREADS"] = str(threads)
    with ProcessPoolExecutor(jobs, mp_context=context, max_tasks_per_child=1) as pool:
        waiting = [pool.submit(answered, folder, each, timeout, threads) for each in instances if each.key not in kept.entries]
        for future in as_completed(waiting):
            outcome = future.result()
            kept.add([outcome])
            click.echo(f"{outcome.instance.key}: {outcome.verdict} in {outcome.seconds:.1f} s", err=True)
    outcomes = [kept.entries[each.key] for each in instances]
    text = document(folder.name, outcomes, timeout, threads, device_name(torch.device("cpu")))
    write_output(out / "README.md", text)
    click.echo(text.partition("## ")[0])
    wrong = [each for each in outcomes if each.contradicts]
    if wrong:
        raise UserError(f"{wrong[0].instance.key}: found {wrong[0].verdict}, given {wrong[0].instance.given}")


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command line and returns its exit code: 2 where a verdict contradicts a given one."""
    return run_command(command, argv, "python -m experiments.vnncomp")


if __name__ == "__main__":
    sys.exit(main())
