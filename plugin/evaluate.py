"""Command line: `python -m plugin.evaluate` measures natural, PGD and certified accuracy of a trained network."""

import csv
import io
import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import click
import torch
from torch import nn
from tqdm import tqdm

from newrelax.bounds import ENGINES
from newrelax.errors import UserError
from newrelax.methods.method import Method
from newrelax.registry import Registry
from plugin.certification.bounding import Bounding
from plugin.certification.evaluation import ESTIMATE, Evaluation, certifying_method, evaluate
from plugin.cli import checked, invoke
from plugin.data.builtin import NAMES, Dataset, load
from plugin.fitting.run import check_device, load_registry
from plugin.models import build as models
from plugin.process.files import write_atomically
from plugin.runs import checkpoint
from plugin.runs.folder import CONFIG, MODEL, device_name, read_config, versions
from plugin.settings.config import DEFAULT_EPS, Config

DEFAULT_METHOD = "CROWN-IBP-R"


class Radii(click.ParamType):
    """Radii as numbers or fractions with commas between them: `0.1`, `8/255`, `0.1,0.2`."""

    name = "eps"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> tuple[float, ...]:
        return tuple(self._radius(part, param, ctx) for part in str(value).split(","))

    def _radius(self, text: str, param: click.Parameter | None, ctx: click.Context | None) -> float:
        numerator, _, denominator = text.partition("/")
        try:
            radius = float(numerator) / float(denominator or 1)
        except (ValueError, ZeroDivisionError):
            self.fail(f"expected a number or a fraction such as 8/255, got {text!r}", param, ctx)
        if not 0 < radius <= 1:
            self.fail(f"expected a radius in (0, 1] (pixels are in [0, 1]), got {text}", param, ctx)
        return radius


@dataclass(frozen=True)
class Subject:
    """What is evaluated: a network with its weights, on the device of the data set, and the method that certifies."""

    name: str
    model: nn.Module
    weights: Path
    dataset: Dataset
    method: Method


def _optional(*names: str, kind: object, text: str) -> object:
    return click.option(*names, type=kind, default=None, help=text)  # type: ignore[call-overload]


FILE = click.Path(path_type=Path, dir_okay=False)
FOLDER = click.Path(path_type=Path, file_okay=False)


@click.command(context_settings={"max_content_width": 120})
@_optional("--run", kind=FOLDER, text="Run folder of plugin.train: its network, data set, eps and method.")
@_optional("--model", kind=str, text=f"{', '.join(models.ARCHITECTURES)} or package.module:factory.")
@_optional("--weights", kind=click.Path(path_type=Path), text="State dict to load into --model.")
@_optional("--dataset", kind=str, text=f"One of {', '.join(NAMES)}; default digits.")
@_optional("--data-dir", kind=FOLDER, text="Folder of the data sets; default data.")
@_optional("--method", "method_name", kind=str, text=f"Certifies; default the run's, otherwise {DEFAULT_METHOD}.")
@click.option("--plugin", "plugins", multiple=True, type=FILE, help="Python file with relaxations of your own.")
@click.option("--eps", "radii", multiple=True, type=Radii(), help="Radius in pixel units; may be repeated: 0.1, 8/255.")
@_optional("--limit", kind=click.IntRange(min=1), text="Only the first images of the test set.")
@_optional("--batch-size", kind=click.IntRange(min=1), text="Images at once.")
@_optional("--bound-memory", kind=click.IntRange(min=1), text="Largest memory for bounds, in MiB.")
@click.option("--engine", type=click.Choice(ENGINES), help="Whose passes compute bounds; default newrelax, or the run's.")
@_optional("--device", kind=str, text="cpu, cuda or cuda:N; default cuda where there is one.")
@click.option("--pgd-steps", type=click.IntRange(min=1), default=40, show_default=True, help="Steps of the attack.")
@click.option("--pgd-restarts", type=click.IntRange(min=1), default=1, show_default=True, help="Random starts.")
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Of the attack and of estimates.")
@_optional("--per-example", kind=FILE, text="Write a CSV line for each image and eps, with each margin.")
@_optional("--json", "json_path", kind=FILE, text="Write the table's figures as JSON.")
@click.option("--debug", is_flag=True, help="Show tracebacks of user errors.")
def command(
    run: Path | None,
    model: str | None,
    weights: Path | None,
    dataset: str | None,
    data_dir: Path | None,
    method_name: str | None,
    plugins: tuple[Path, ...],
    radii: tuple[tuple[float, ...], ...],
    limit: int | None,
    batch_size: int | None,
    bound_memory: int | None,
    engine: str | None,
    device: str | None,
    pgd_steps: int,
    pgd_restarts: int,
    seed: int,
    per_example: Path | None,
    json_path: Path | None,
    debug: bool,
) -> None:
    """Natural, PGD and certified accuracy of a run (--run), or of --model with --weights."""
    del debug  # read where errors become exit codes
    for output in (json_path, per_example):
        if output is not None and not output.parent.is_dir():  # told now, not after the work
            raise UserError(f"cannot write {output}: there is no folder {output.parent}")
    where = check_device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    config = _run_config(run, model, weights, dataset)
    registry = _registry(config, plugins)
    if config is not None and run is not None:
        subject = _subject_of_run(run, config, data_dir, where, method_name, registry)
    elif model is not None and weights is not None:
        subject = _subject(model, weights, dataset or "digits", data_dir or Path("data"), where, method_name, registry)
    else:
        raise UserError("expected --run DIR, or --model NAME with --weights FILE")
    default_eps = config.eps if config is not None else DEFAULT_EPS[subject.dataset.name]
    chosen = [radius for group in radii for radius in group] or [default_eps]
    limit = limit if limit is not None or config is None else config.limit_test
    bounding = Bounding(engine or (config.engine if config is not None else "newrelax"), bound_memory, registry.operators)
    images, labels = subject.dataset.test_x[:limit], subject.dataset.test_y[:limit]
    evaluations = []
    with tqdm(total=len(labels) * len(chosen), unit="image", disable=None, leave=False) as bar:
        for radius in chosen:
            evaluations.append(
                evaluate(
                    subject.model,
                    images,
                    labels,
                    radius,
                    subject.method,
                    batch_size=batch_size,
                    pgd_steps=pgd_steps,
                    pgd_restarts=pgd_restarts,
                    seed=seed,
                    bounding=bounding,
                    progress=bar.update,
                )
            )
    click.echo(table(subject, evaluations))
    if json_path is not None:
        attack = {"pgd_steps": pgd_steps, "pgd_restarts": pgd_restarts, "seed": seed}
        figures = report(subject, evaluations, run, where) | attack
        write_output(json_path, json.dumps(figures, indent=2) + "\n")
    if per_example is not None:
        write_output(per_example, per_example_csv(evaluations))


def write_output(path: Path, text: str) -> None:
    """Write a file whole or not at all, following links; what is no file (a pipe, /dev/stdout) is written through.

    Raises UserError where that cannot be done.
    """
    # Replacing /dev/stdout, as an atomic write would, takes it from every program on the machine.
    stream = path.parent in (Path("/dev"), Path("/dev/fd")) or (path.exists() and not path.is_file())
    try:
        if stream:
            with open(path, "a") as file:
                file.write(text)
        else:
            write_atomically(path.resolve(), text.encode())
    except OSError as problem:
        raise UserError(f"cannot write {path}: {problem.strerror or problem}") from problem


def _run_config(run: Path | None, *others: object) -> Config | None:
    if run is None:
        return None
    if any(other is not None for other in others):
        raise UserError("--run brings its own network, weights and data set: leave out --model, --weights and --dataset")
    if not (run / CONFIG).is_file():
        raise UserError(f"{run} holds no run: expected a folder made by plugin.train, with {CONFIG}")
    return read_config(run)


def _registry(config: Config | None, plugins: tuple[Path, ...]) -> Registry:
    if config is None:
        return Registry.load(plugins)
    load_registry(config)  # refuses plugin files that changed since the run
    return Registry.load([*(plugin.path for plugin in config.plugins), *plugins])


def _subject_of_run(
    run: Path, config: Config, data_dir: Path | None, device: torch.device, method_name: str | None, registry: Registry
) -> Subject:
    finished = run / MODEL
    unfinished = run / checkpoint.FILE_NAME
    weights = finished if finished.exists() else unfinished
    if not weights.exists():
        raise UserError(f"{run} has neither {finished.name} nor {unfinished.name}: the run has not saved anything yet")
    if weights == unfinished:
        checkpoint.read(weights)  # verifies its checksum
        click.echo(f"the run in {run} is not finished: evaluating its last checkpoint", err=True)
    folder = data_dir or Path(config.data_dir)
    return _subject(config.model, weights, config.dataset, folder, device, method_name or config.method, registry)


def _subject(
    name: str,
    weights: Path,
    dataset_name: str,
    data_dir: Path,
    device: torch.device,
    method_name: str | None,
    registry: Registry,
) -> Subject:
    certifier = certifying_method(registry.get_method(method_name or DEFAULT_METHOD), registry)
    method = checked(certifier, registry, "is not sound and certifies nothing")
    dataset = load(dataset_name, data_dir, device)
    model = models.build(name, dataset.input_shape, dataset.classes, dataset.mean, dataset.std, seed=0)
    models.load_weights(model, weights)
    return Subject(name, model.to(device), weights, dataset, method)


def table(subject: Subject, evaluations: Sequence[Evaluation]) -> str:
    """The accuracies in percent, a line for each eps."""
    sound = subject.method.sound
    heading = "certified" if sound else ESTIMATE
    count = len(evaluations[0].labels)
    lines = [
        f"{subject.name} on {subject.dataset.name}, {count} test images, "
        f"{'certified' if sound else 'estimated'} with {subject.method.label}"
        + ("" if evaluations[0].engine == "newrelax" else f" by {evaluations[0].engine}"),
        f"{'eps':>8}  {'natural':>9}  {'PGD':>9}  {heading:>9}",
    ]
    for evaluation in evaluations:
        last = evaluation.certified_accuracy if sound else evaluation.estimated_accuracy
        shares = (evaluation.natural_accuracy, evaluation.pgd_accuracy, last)
        natural, attacked, certified = (f"{100 * share:.2f} %" for share in shares if share is not None)
        lines.append(f"{evaluation.eps:>8.4g}  {natural:>9}  {attacked:>9}  {certified:>{max(9, len(heading))}}")
    return "\n".join(lines)


def report(subject: Subject, evaluations: Sequence[Evaluation], run: Path | None, device: torch.device) -> dict[str, object]:
    """What --json writes: what was evaluated, and under `results` the accuracies (fractions) for each eps."""
    return {
        "model": subject.name,
        "dataset": subject.dataset.name,
        "weights": str(subject.weights),
        "run": None if run is None else str(run),
        "images": len(evaluations[0].labels),
        "certify_method": subject.method.label,
        "engine": evaluations[0].engine,
        "sound": subject.method.sound,
        "results": [evaluation.to_json() for evaluation in evaluations],
        "device": device_name(device),
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
    for evaluation in evaluations:
        columns = (
            evaluation.labels,
            evaluation.predictions,
            evaluation.natural.int(),
            evaluation.pgd.int(),
            evaluation.pgd_margins,
            evaluation.positive.int(),
            evaluation.margins,
        )
        rows = zip(*(column.tolist() for column in columns), strict=True)
        for image, (label, predicted, natural, attacked, attacked_margin, positive, margins) in enumerate(rows):
            cells = [f"{bound:.9g}" for bound in margins]
            cells.insert(label, "")
            writer.writerow(
                [
                    f"{evaluation.eps:.9g}",
                    image,
                    label,
                    predicted,
                    natural,
                    attacked,
                    f"{attacked_margin:.9g}",
                    positive,
                    *cells,
                ]
            )
    return text.getvalue()


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command line and returns its exit code: 2 for a user's mistake, 1 for bounds that an attack broke."""
    return invoke(command, argv, "python -m plugin.evaluate")


if __name__ == "__main__":
    sys.exit(main())
