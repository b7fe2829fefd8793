"""Natural, PGD and certified accuracy: `python -m plugin.evaluate` of a run, and `plugin.evaluate(model, x, y, eps)`."""

from __future__ import annotations

import csv
import io
import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import click
from tqdm import tqdm

from newrelax.bounds import ENGINES
from newrelax.cli import debug_option
from newrelax.errors import UserError
from newrelax.methods.method import Method
from plugin.certification import evaluation
from plugin.certification.api import DEFAULT_METHOD, evaluate
from plugin.certification.bounding import Bounding
from plugin.certification.certifiers.ladder import DEFAULT as DEFAULT_LADDER
from plugin.certification.complete import Work
from plugin.certification.evaluation import ESTIMATE, Evaluation, certifying_method
from plugin.certification.rigorous import Rigor, comparison_table
from plugin.cli import checked, invoke
from plugin.fitting.decide import decide, default_folder, head
from plugin.fitting.subject import FOLDER, Asked, Subject, find_subject, subject_options
from plugin.process.device import device_name
from plugin.process.files import write_output
from plugin.process.interrupt import StopRequest
from plugin.runs.versions import versions
from plugin.settings.table import Table, setting
from plugin.settings.types import Radius

FILE = click.Path(path_type=Path, dir_okay=False)


@dataclass(frozen=True)
class Evaluated:
    """What the command evaluates: a subject, and the method that certifies it."""

    subject: Subject
    method: Method


class Radii(Table):
    """The radii of one command."""

    eps: tuple[Radius, ...] = setting("Radii of the L∞ ball.")


@click.command(context_settings={"max_content_width": 120})
@subject_options
@click.option("--method", "method_name", help=f"Certifies; default the run's, otherwise {DEFAULT_METHOD}.")
@click.option("--eps", "radii", multiple=True, metavar="RADII", help="Radius in --eps-unit; several: 0.1,8/255.")
@click.option("--limit", type=click.IntRange(min=1), help="Only the first examples of the test set.")
@click.option("--batch-size", type=click.IntRange(min=1), help="Examples at once.")
@click.option("--bound-memory", type=click.IntRange(min=1), help="Largest memory for bounds, in MiB.")
@click.option("--engine", type=click.Choice(ENGINES), help="Whose passes compute bounds; default newrelax, or the run's.")
@click.option("--pgd-steps", type=click.IntRange(min=1), default=40, show_default=True, help="Steps of the attack.")
@click.option("--pgd-restarts", type=click.IntRange(min=1), default=1, show_default=True, help="Random starts.")
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Of the attack and of estimates.")
@click.option("--per-example", type=FILE, help="Write a CSV line for each example and eps, with each margin.")
@click.option("--json", "json_path", type=FILE, help="Write the table's figures as JSON.")
@click.option("--rigorous", is_flag=True, help="Certify the network as it runs: with every rounding, in any order.")
@click.option("--complete", is_flag=True, help="Decide every example: climb --ladder until it is verified or falsified.")
@click.option("--ladder", help=f"With --complete: certifiers, cheap ones first; default {DEFAULT_LADDER}.")
@click.option("--timeout", type=click.FloatRange(0, min_open=True), help="With --complete: seconds an example; default 60.")
@click.option("--jobs", type=click.IntRange(min=1), help="With --complete: processes; default 1.")
@click.option("--out", type=FOLDER, help="With --complete: folder of the verdicts; default in the run's folder, or verdicts/.")
@debug_option
def command(
    asked: Asked,
    method_name: str | None,
    radii: tuple[str, ...],
    limit: int | None,
    batch_size: int | None,
    bound_memory: int | None,
    engine: str | None,
    pgd_steps: int,
    pgd_restarts: int,
    seed: int,
    per_example: Path | None,
    json_path: Path | None,
    rigorous: bool,
    complete: bool,
    ladder: str | None,
    timeout: float | None,
    jobs: int | None,
    out: Path | None,
) -> None:
    """Natural, PGD and certified accuracy of a run (--run), or of --model with --weights."""
    _refuse_without_complete(complete, ladder=ladder, timeout=timeout, jobs=jobs, out=out)
    for output in (json_path, per_example):
        if output is not None and not output.parent.is_dir():  # told now, not after the work
            raise UserError(f"cannot write {output}: there is no folder {output.parent}")
    given = read_radii(radii)
    subject = find_subject(asked)
    if not subject.finished:
        click.echo(f"the run in {asked.run} is not finished: evaluating its last checkpoint", err=True)
    config = subject.config
    trained = DEFAULT_METHOD if config is None else config.method
    certifier = certifying_method(subject.registry.get_method(method_name or trained), subject.registry)
    evaluated = Evaluated(subject, checked(certifier, subject.registry, "is not sound and certifies nothing"))
    chosen = given or ((subject.eps,) if subject.eps is not None else ())
    if not chosen:
        raise UserError(f"data set {subject.dataset.name} has no default eps: expected a radius, give --eps")
    for radius in chosen:
        subject.region.check(radius)
    limit = limit if limit is not None or config is None else config.limit_test
    engine = engine or ("newrelax" if config is None else config.engine)
    if complete:
        words = Asking(ladder or DEFAULT_LADDER, timeout or 60.0, jobs or 1, engine, bound_memory, seed, limit, rigorous)
        summaries = []
        for radius in chosen:
            folder = default_folder(asked.run, subject, radius) if out is None else out
            summaries.append(
                _decide(subject, radius, words, folder if len(chosen) == 1 or out is None else folder / f"eps{radius:g}")
            )
        if json_path is not None:
            write_output(json_path, json.dumps({"results": summaries}, indent=2) + "\n")
        return
    bounding = Bounding(engine, bound_memory, subject.registry.operators)
    x, y = subject.dataset.test_x[:limit], subject.dataset.test_y[:limit]
    rigor = Rigor(subject.model, x.shape[1:], evaluated.method, bounding) if rigorous else None
    evaluations = []
    with tqdm(total=len(y) * len(chosen), unit="image", disable=None, leave=False) as bar:
        for radius in chosen:
            evaluations.append(
                evaluation.evaluate(
                    subject.model,
                    x,
                    y,
                    radius,
                    evaluated.method,
                    batch_size=batch_size,
                    pgd_steps=pgd_steps,
                    pgd_restarts=pgd_restarts,
                    region=subject.region,
                    seed=seed,
                    bounding=bounding,
                    progress=bar.update,
                )
            )
    click.echo(table(evaluated, evaluations))
    figures = report(evaluated, evaluations, asked.run)
    if rigor is not None:
        comparisons = [rigor.compare(each, x, y, subject.region, batch_size) for each in evaluations]
        click.echo(comparison_table(comparisons))
        figures |= {"rigorous": [each.to_json() for each in comparisons]}
    if json_path is not None:
        attack = {"pgd_steps": pgd_steps, "pgd_restarts": pgd_restarts, "seed": seed}
        write_output(json_path, json.dumps(figures | attack, indent=2) + "\n")
    if per_example is not None:
        write_output(per_example, per_example_csv(evaluations))


@dataclass(frozen=True)
class Asking:
    """The command line's words for --complete."""

    ladder: str
    timeout: float
    jobs: int
    engine: str
    memory: int | None
    seed: int
    limit: int | None
    rigorous: bool


def _decide(subject: Subject, radius: float, asking: Asking, folder: Path) -> dict[str, Any]:
    """Decides the subject's test set at a radius, and shows the table."""
    work = Work(
        model=subject.model,
        eps=radius,
        region=subject.region,
        ladder=asking.ladder,
        seconds=asking.timeout,
        plugins=subject.plugins,
        engine=asking.engine,
        memory=asking.memory,
        seed=asking.seed,
        rigorous=asking.rigorous,
    )
    with StopRequest() as stop:
        stop.strike_now()  # what is decided is kept already
        summary, values = decide(subject, work, folder, limit=asking.limit, jobs=asking.jobs)
    click.echo(f"{head(subject, work, summary)}\n{summary.table()}\nverdicts: {folder}")
    return values


def _refuse_without_complete(complete: bool, **given: object) -> None:
    """Raises UserError for settings of --complete without it."""
    for name, value in given.items():
        if value is not None and not complete:
            raise UserError(f"--{name} is a setting of --complete: give that, too")


def read_radii(texts: Sequence[str]) -> tuple[float, ...]:
    """Radii as numbers or fractions, with commas between them or given several times: `0.1`, `8/255`, `0.1,0.2`.

    Raises:
        UserError: what is no number.
    """
    return Radii.read({"eps": tuple(part.strip() for text in texts for part in text.split(","))}).eps


def table(evaluated: Evaluated, evaluations: Sequence[Evaluation]) -> str:
    """The accuracies in percent, a line for each eps."""
    subject, method = evaluated.subject, evaluated.method
    sound = method.sound
    heading = "certified" if sound else ESTIMATE
    count = len(evaluations[0].labels)
    lines = [
        f"{subject.name} on {subject.dataset.name}, {count} test images, "
        f"{'certified' if sound else 'estimated'} with {method.label}"
        + ("" if evaluations[0].engine == "newrelax" else f" by {evaluations[0].engine}"),
        f"{'eps':>8}  {'natural':>9}  {'PGD':>9}  {heading:>9}",
    ]
    for each in evaluations:
        last = each.certified_accuracy if sound else each.estimated_accuracy
        shares = (each.natural_accuracy, each.pgd_accuracy, last)
        natural, attacked, certified = (f"{100 * share:.2f} %" for share in shares if share is not None)
        lines.append(f"{each.eps:>8.4g}  {natural:>9}  {attacked:>9}  {certified:>{max(9, len(heading))}}")
    return "\n".join(lines)


def report(evaluated: Evaluated, evaluations: Sequence[Evaluation], run: Path | None) -> dict[str, object]:
    """What --json writes: what was evaluated, and under `results` the accuracies (fractions) for each eps."""
    subject, method = evaluated.subject, evaluated.method
    return {
        "model": subject.name,
        "dataset": subject.dataset.name,
        "weights": str(subject.weights),
        "run": None if run is None else str(run),
        "images": len(evaluations[0].labels),
        "certify_method": method.label,
        "engine": evaluations[0].engine,
        "sound": method.sound,
        "results": [each.to_json() for each in evaluations],
        "device": device_name(subject.dataset.test_x.device),
        "versions": versions(),
    }


def per_example_csv(evaluations: Sequence[Evaluation]) -> str:
    """A line for each eps and image; `margin_j` is the lower bound of z_y − z_j, empty for the image's own class.

    The columns of a method that is not sound are named `estimated` and `estimated_margin_j`.
    """
    sound = evaluations[0].method.sound
    classes = evaluations[0].margins.shape[1] + 1
    proven, margin = ("certified", "margin") if sound else ("estimated", "estimated_margin")
    heading = ["eps", "image", "label", "predicted", "natural", "pgd", "pgd_margin", proven]
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([*heading, *(f"{margin}_{j}" for j in range(classes))])
    for each in evaluations:
        columns = (
            each.labels,
            each.predictions,
            each.natural.int(),
            each.pgd.int(),
            each.pgd_margins,
            each.positive.int(),
            each.margins,
        )
        rows = zip(*(column.tolist() for column in columns), strict=True)
        for image, (label, predicted, natural, attacked, attacked_margin, positive, margins) in enumerate(rows):
            cells = [f"{bound:.9g}" for bound in margins]
            cells.insert(label, "")
            writer.writerow(
                [f"{each.eps:.9g}", image, label, predicted, natural, attacked, f"{attacked_margin:.9g}", positive, *cells]
            )
    return text.getvalue()


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command line and returns its exit code: 2 for a user's mistake, 1 for bounds that an attack broke."""
    return invoke(command, argv, "python -m plugin.evaluate")


class _Callable(ModuleType):
    """A module that is called as its function: the name `plugin.evaluate` is both a command and part of the Python API."""

    def __call__(self, *arguments: Any, **named: Any) -> Evaluation:
        return evaluate(*arguments, **named)


sys.modules[__name__].__class__ = _Callable

if __name__ == "__main__":
    sys.exit(main())
