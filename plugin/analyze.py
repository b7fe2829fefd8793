"""Command line: `python -m plugin.analyze` measures continuity, sensitivity and tightness of relaxations on a network."""

from __future__ import annotations

import dataclasses
import hashlib
import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import click
import torch
from torch import nn
from tqdm import tqdm

from newrelax.errors import UserError
from newrelax.methods.method import Method
from newrelax.registry import Registry
from plugin.analysis import figures
from plugin.analysis.measure import PARTS, Protocol, cost, measure
from plugin.analysis.report import markdown, page
from plugin.certification.bounding import Bounding
from plugin.cli import checked, invoke
from plugin.data.builtin import NAMES, Dataset, load
from plugin.fitting.run import check_device, load_registry
from plugin.models import build as models
from plugin.process.files import write_atomically, write_json
from plugin.runs import checkpoint
from plugin.runs.folder import MODEL, RESULT, finished_result, read_config, read_json, versions
from plugin.settings.config import DEFAULT_EPS

PAPER_METHODS = "IBP,hBox,CROWN,DeepZ,CROWN-IBP-R"
FILE = click.Path(path_type=Path, dir_okay=False)
FOLDER = click.Path(path_type=Path, file_okay=False)
FORMAT = 1
"""Of the files with partial results; raised when an older file must not be taken up."""


@dataclass(frozen=True)
class Subject:
    """The network under analysis. `weights`: where they come from; `trained`: certified accuracies of training, by method."""

    name: str
    model: nn.Module
    weights: str
    dataset: Dataset
    eps: float
    trained: dict[str, float] = field(default_factory=dict)


def _default(*names: str, kind: object, text: str) -> object:
    return click.option(*names, type=kind, default=None, help=text)  # type: ignore[call-overload]


@click.command(context_settings={"max_content_width": 120})
@_default("--run", kind=FOLDER, text="Run folder of plugin.train: its network, data set and eps.")
@_default("--model", kind=str, text=f"{', '.join(models.ARCHITECTURES)} or package.module:factory.")
@_default("--weights", kind=FILE, text="State dict for --model; without it the network is untrained.")
@_default("--dataset", kind=str, text=f"One of {', '.join(NAMES)}; default digits.")
@_default("--data-dir", kind=FOLDER, text="Folder of the data sets; default data.")
@click.option("--methods", default=PAPER_METHODS, show_default=True, help='With commas between them, or "all".')
@click.option("--plugin", "plugins", multiple=True, type=FILE, help="Python file with relaxations of your own.")
@click.option(
    "--trained", multiple=True, type=FOLDER, help="Run folders (or a folder of them) whose certified accuracies to show."
)
@click.option("--limit", type=click.IntRange(min=1), default=100, show_default=True, help="Test images for tightness.")
@_default(
    "--eps", kind=click.FloatRange(0, 1, min_open=True), text="Radius of the probe; default the run's, or the data set's."
)
@click.option(
    "--eps-step", type=click.FloatRange(0, 1, min_open=True), default=0.01, show_default=True, help="Grid of ε for tightness."
)
@click.option("--probe", type=click.IntRange(min=1), default=4, show_default=True, help="Images of the probe batch.")
@click.option(
    "--budget", type=click.IntRange(min=240), default=800, show_default=True, help="Evaluations of the loss for continuity."
)
@click.option(
    "--single-weights",
    type=click.IntRange(min=1),
    default=5,
    show_default=True,
    help="Weights tried in each layer for sensitivity.",
)
@click.option(
    "--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Of directions, untrained weights and estimates."
)
@_default("--device", kind=str, text="cpu, cuda or cuda:N; default cuda where there is one.")
@_default("--out", kind=FOLDER, text="Folder of the results; default analysis in the run's folder, or analysis/NAME.")
@click.option("--debug", is_flag=True, help="Show tracebacks of user errors.")
def command(
    run: Path | None,
    model: str | None,
    weights: Path | None,
    dataset: str | None,
    data_dir: Path | None,
    methods: str,
    plugins: tuple[Path, ...],
    trained: tuple[Path, ...],
    limit: int,
    eps: float | None,
    eps_step: float,
    probe: int,
    budget: int,
    single_weights: int,
    seed: int,
    device: str | None,
    out: Path | None,
    debug: bool,
) -> None:
    """Measure continuity, sensitivity and tightness of relaxations on a run (--run) or on --model with --weights.

    Writes table.md, analysis.json, report.html and overview.png. Interrupted, it goes on where it was when called again.
    """
    del debug  # read where errors become exit codes
    where = check_device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    subject, registry = _subject(run, model, weights, dataset, data_dir, plugins, seed, where)
    subject.trained.update(_trained(trained))
    protocol = Protocol(
        eps=eps or subject.eps,
        probe=probe,
        budget=budget,
        single_weights=single_weights,
        images=limit,
        step=eps_step,
        seed=seed,
    )
    chosen = [checked(method, registry, "is not sound") for method in select(registry, methods)]
    folder = out or (
        run / "analysis"
        if run is not None
        else Path("analysis") / f"{subject.name}-{subject.dataset.name}-{Path(subject.weights).stem}"
    )
    try:
        (folder / "parts").mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"--out: cannot make {folder / 'parts'}: {error.strerror}") from error
    records, failed = _measure_all(subject, chosen, protocol, registry, folder, tolerant=methods.strip() == "all")
    text = _write(folder, subject, protocol, records, failed)
    click.echo(text)
    click.echo(f"report: {folder / 'report.html'}")


def select(registry: Registry, names: str) -> list[Method]:
    """The methods of a list with commas, or every method that gives bounds for "all"."""
    if names.strip() == "all":
        return [m for m in registry.values() if m.gives_bounds]
    # A comma also separates a method's parameters: NAME:a=1,b=2. What has no name of its own belongs to the one before.
    specs: list[str] = []
    for part in (p.strip() for p in names.split(",")):
        if specs and ":" in specs[-1] and re.fullmatch(r"\w+=[^:]*", part):
            specs[-1] += f",{part}"
        elif part:
            specs.append(part)
    chosen = [registry.get_method(spec) for spec in specs]
    for method in chosen:
        if not method.gives_bounds:
            raise UserError(f"{method.label} gives no bounds to analyse; it is certified with {method.certify_with}")
    if not chosen:
        raise UserError('--methods: expected names with commas between them, or "all", got nothing')
    return list({m.label: m for m in chosen}.values())


def _subject(
    run: Path | None,
    model: str | None,
    weights: Path | None,
    dataset: str | None,
    data_dir: Path | None,
    plugins: tuple[Path, ...],
    seed: int,
    device: torch.device,
) -> tuple[Subject, Registry]:
    if run is not None:
        if any(v is not None for v in (model, weights, dataset)):
            raise UserError("--run brings its own network, weights and data set: leave out --model, --weights and --dataset")
        config = read_config(run)
        load_registry(config)  # refuses plugin files that changed since the run
        registry = Registry.load([*(p.path for p in config.plugins), *plugins])
        file = next((f for f in (run / MODEL, run / checkpoint.FILE_NAME) if f.exists()), None)
        if file is None:
            raise UserError(f"{run} has neither {MODEL} nor {checkpoint.FILE_NAME}: the run has not saved anything yet")
        name, source, eps = config.model, load(config.dataset, data_dir or Path(config.data_dir), device), config.eps
    elif model is not None:
        registry, file, name = Registry.load(plugins), weights, model
        source = load(dataset or "digits", data_dir or Path("data"), device)
        eps = DEFAULT_EPS[source.name]
    else:
        raise UserError("expected --run DIR, or --model NAME (with --weights FILE unless untrained)")
    network = models.build(name, source.input_shape, source.classes, source.mean, source.std, seed=seed)
    if file is not None:
        models.load_weights(network, file)
    trained = {} if run is None else _trained([run])
    described = str(file) if file is not None else f"untrained (seed {seed})"
    return Subject(name, network.to(device).eval(), described, source, eps, trained), registry


def _trained(folders: Sequence[Path]) -> dict[str, float]:
    """Certified accuracy by the method that trained, from the results of finished runs."""
    found: dict[str, float] = {}
    for folder in folders:
        runs = [folder] if (folder / RESULT).exists() else sorted(p.parent for p in folder.glob(f"*/{RESULT}"))
        for path in runs:
            result = finished_result(path) or {}
            accuracy = result.get("certified_accuracy")
            if isinstance(accuracy, float) and result.get("sound", True):
                found[str(result["method"])] = accuracy
    return found


def _measure_all(
    subject: Subject, methods: Sequence[Method], protocol: Protocol, registry: Registry, folder: Path, tolerant: bool
) -> tuple[dict[str, dict[str, Any]], list[str]]:
    """Every part of every method; what the folder holds already from a call with the same settings is taken up."""
    images, labels = subject.dataset.test_x, subject.dataset.test_y
    parameters = sum(1 for p in subject.model.parameters() if p.requires_grad)
    costs = {part: cost(part, protocol, parameters) for part in PARTS}
    records: dict[str, dict[str, Any]] = {}
    failed: list[str] = []
    weights, bounding = _weights_hash(subject.model), Bounding(operators=registry.operators)
    with tqdm(total=len(methods) * sum(costs.values()), unit="ev", disable=None, leave=False) as bar:
        for method in methods:
            file = folder / "parts" / (re.sub(r"[^\w.=-]+", "_", method.label) + ".json")
            key = _key(subject, weights, protocol, method, registry)
            record = _taken_up(file, key) or {"key": key, "method": method.label, "sound": method.sound}
            for part in PARTS:
                start = bar.n
                if part not in record:
                    bar.set_description(f"{method.label}: {part}")
                    limit = start + costs[part]
                    try:
                        record[part] = measure(
                            part,
                            subject.model,
                            method,
                            images,
                            labels,
                            protocol,
                            lambda n: bar.update(min(n, limit - bar.n)),
                            bounding=bounding,
                        )
                    except (UserError, ValueError) as problem:  # ValueError: bounds that are not finite
                        if not tolerant:
                            raise UserError(str(problem)) from problem
                        failed.append(f"{method.label}: {problem}")
                        break
                    write_json(file, record)
                bar.update(start + costs[part] - bar.n)
            else:
                accuracy = subject.trained.get(method.label)
                records[method.label] = record | ({} if accuracy is None else {"trained_certified": accuracy})
    return records, failed


def _weights_hash(model: nn.Module) -> str:
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def _key(subject: Subject, weights: str, protocol: Protocol, method: Method, registry: Registry) -> str:
    """What a partial result depends on."""
    source = registry.source(method.name)
    code = Path(source).read_bytes() if Path(source).is_file() else source.encode()
    facts = (
        FORMAT,
        weights,
        subject.name,
        subject.dataset.name,
        dataclasses.astuple(protocol),
        method.label,
        method.sound,
        versions(),
    )
    return hashlib.sha256(repr(facts).encode() + code).hexdigest()


def _taken_up(file: Path, key: str) -> dict[str, Any] | None:
    if not file.exists():
        return None
    try:
        found = read_json(file)
    except UserError:
        return None  # a damaged partial result is measured again
    return found if found.get("key") == key else None


def _write(folder: Path, subject: Subject, protocol: Protocol, records: dict[str, dict[str, Any]], failed: list[str]) -> str:
    settings = {
        "model": subject.name,
        "dataset": subject.dataset.name,
        "weights": Path(subject.weights).name,
        **dataclasses.asdict(protocol),
        **versions(),
    }
    title = f"Relaxations on {subject.name}, {subject.dataset.name}"
    notes = [
        f"Weights: {settings['weights']}. ε = {protocol.eps:g} for the probe ({protocol.probe} images, float64). Tightness on {protocol.images} "
        f"test images, ε in steps of {protocol.step:g}. Seed {protocol.seed}.",
        *(f"Left out: {reason}" for reason in failed),
    ]
    text = markdown(title, notes, records)
    write_json(folder / "analysis.json", {"settings": settings, "methods": records, "failed": failed})
    write_atomically(folder / "table.md", text.encode())
    write_atomically(folder / "overview.png", figures.png(figures.overview(records)))
    write_atomically(folder / "report.html", page(title, notes, records, settings).encode())
    return text


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command line and returns its exit code."""
    return invoke(command, argv, "python -m plugin.analyze")


if __name__ == "__main__":
    sys.exit(main())
