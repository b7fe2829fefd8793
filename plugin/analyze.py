"""Command line: `python -m plugin.analyze` measures continuity, sensitivity and tightness of relaxations on a network."""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import click
from click.core import ParameterSource

from newrelax.cli import debug_option
from newrelax.errors import UserError
from newrelax.methods.method import Method
from newrelax.names import split_spellings
from newrelax.registry import Registry
from plugin.analysis.measure import Protocol
from plugin.analysis.prediction.forecast import elsewhere, forecast
from plugin.analysis.prediction.study import Study
from plugin.analysis.side_by_side import default_jobs
from plugin.analysis.smoothed import for_analysis
from plugin.cli import checked, invoke
from plugin.fitting.common import common_protocol, common_subjects, names_no_network
from plugin.fitting.measuring import Work, certified_by
from plugin.fitting.subject import FOLDER, Asked, Subject, find_subject, subject_options
from plugin.training.smoothing import read_smoothing

PAPER_METHODS = "IBP,hBox,CROWN,DeepZ,CROWN-IBP-R"


@click.command(context_settings={"max_content_width": 120})
@subject_options
@click.option("--methods", default=PAPER_METHODS, show_default=True, help='With commas between them, or "all".')
@click.option("--trained", multiple=True, type=FOLDER, help="Run folders, or a folder of them, whose accuracies to show.")
@click.option("--limit", type=click.IntRange(min=1), default=100, show_default=True, help="Test examples for tightness.")
@click.option("--eps", type=click.FloatRange(0, min_open=True), help="Of the probe; default the run's, or the data set's.")
@click.option("--eps-step", type=click.FloatRange(0, 1, min_open=True), default=0.01, show_default=True, help="Of ε's grid.")
@click.option("--probe", type=click.IntRange(min=1), default=4, show_default=True, help="Examples of the probe batch.")
@click.option("--budget", type=click.IntRange(min=240), default=800, show_default=True, help="Evaluations for continuity.")
@click.option("--single-weights", type=click.IntRange(min=1), default=5, show_default=True, help="Weights tried in each layer.")
@click.option("--smoothing", metavar="TEXT", help="Measure the loss averaged over noise on the weights: pgpe:sigma=0.01 …")
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Of directions and untrained weights.")
@click.option("--jobs", type=click.IntRange(min=1), help="Processes; default a core each, 4 at most. With a GPU always 1.")
@click.option("--out", type=FOLDER, help="Folder of the results; default analysis in the run's folder, or analysis/NAME.")
@debug_option
def command(
    asked: Asked,
    methods: str,
    trained: tuple[Path, ...],
    limit: int,
    eps: float | None,
    eps_step: float,
    probe: int,
    budget: int,
    single_weights: int,
    smoothing: str | None,
    seed: int,
    jobs: int | None,
    out: Path | None,
) -> None:
    """Measure continuity, sensitivity and tightness of relaxations on a run (--run) or on --model with --weights.

    With neither, on the networks of the study that comes with the project: the certified accuracy that training will reach is
    then predicted, with an interval.

    Writes table.md, analysis.json, report.html and overview.png. Interrupted, it goes on where it was when called again.
    """
    if names_no_network(asked) and smoothing is None:
        return predict(asked, methods, trained, jobs, out)
    subject = find_subject(asked, seed=seed, untrained=True)
    radius = eps or subject.eps
    if radius is None:
        raise UserError(f"data set {subject.dataset.name} has no default eps: expected a radius, give --eps")
    subject.region.check(radius)
    smooth = None if smoothing is None else for_analysis(read_smoothing(smoothing, subject.registry))
    protocol = Protocol(
        eps=radius,
        probe=probe,
        budget=budget,
        single_weights=single_weights,
        images=limit,
        step=eps_step,
        seed=seed,
        smoothing=smooth,
    )
    chosen = [checked(method, subject.registry, "is not sound") for method in select(subject.registry, methods)]
    folder = out or _default_folder(asked.run, subject, seed, protocol)
    _make(folder)
    work = Work(subject, protocol, folder, described(subject, seed), certified_by([*filter(None, [asked.run]), *trained]))
    records, failed = work.measure_all(chosen, tolerant=methods.strip() == "all", jobs=_jobs(subject, jobs))
    click.echo(work.write(records, failed, elsewhere()))
    click.echo(f"report: {folder / 'report.html'}")
    return None


def predict(asked: Asked, methods: str, trained: Sequence[Path], jobs: int | None, out: Path | None) -> None:
    """Measures relaxations on the study's common networks and predicts what they will be trained to."""
    study = Study.read()
    protocol = common_protocol(study, _given_options())
    subjects = common_subjects(study, asked)
    registry = next(iter(subjects.values())).registry
    chosen = [checked(method, registry, "is not sound") for method in select(registry, methods)]
    folder = out or Path("analysis") / "common"
    accuracies = certified_by(trained)
    by_kind, failed = {}, []
    for kind, subject in subjects.items():
        _make(folder / kind)
        work = Work(subject, protocol, folder / kind, f"common networks ({', '.join(subjects)})", accuracies)
        by_kind[kind], problems = work.measure_all(chosen, tolerant=methods.strip() == "all", jobs=_jobs(subject, jobs))
        failed += [f"{problem} ({kind} network)" for problem in problems]
    whole = [method for method in chosen if all(method.label in records for records in by_kind.values())]
    foretold = [forecast(study, method, {kind: by_kind[kind][method.label] for kind in by_kind}) for method in whole]
    together = {f"{method.label} ({kind})": by_kind[kind][method.label] for method in whole for kind in by_kind}
    notes = [*(each.line(study.words) for each in foretold), "In brackets: how the common network was trained."]
    said = {"rests_on": study.words, "methods": {each.method: each.to_json() for each in foretold}}
    click.echo(replace(work, folder=folder).write(together, failed, notes, said))
    click.echo(f"report: {folder / 'report.html'}")


def select(registry: Registry, names: str) -> list[Method]:
    """The methods of a list with commas, or every method that gives bounds for "all"."""
    if names.strip() == "all":
        return [m for m in registry.values() if m.gives_bounds]
    chosen = [registry.get_method(spec) for spec in split_spellings(names)]
    for method in chosen:
        if not method.gives_bounds:
            raise UserError(f"{method.label} gives no bounds to analyse; it is certified with {method.certify_with}")
    if not chosen:
        raise UserError('--methods: expected names with commas between them, or "all", got nothing')
    return list({m.label: m for m in chosen}.values())


def described(subject: Subject, seed: int) -> str:
    """Where the network's weights come from, for people."""
    return f"untrained (seed {seed})" if subject.weights is None else str(subject.weights)


def _make(folder: Path) -> None:
    try:
        (folder / "parts").mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"--out: cannot make {folder / 'parts'}: {error.strerror}") from error


def _jobs(subject: Subject, asked: int | None) -> int:
    default = default_jobs(subject.dataset.test_x.device)
    return default if asked is None else min(asked, default) if subject.dataset.test_x.is_cuda else asked


def _given_options() -> dict[str, float]:
    """Numbers of the protocol that were given on the command line, not by default: option, as it is spelt, → value."""
    context = click.get_current_context()
    given = {name for name in context.params if context.get_parameter_source(name) is ParameterSource.COMMANDLINE} - {"jobs"}
    numbers = {name: value for name in sorted(given) if isinstance(value := context.params[name], int | float)}
    return {name.replace("_", "-"): value for name, value in numbers.items() if not isinstance(value, bool)}


def _default_folder(run: Path | None, subject: Subject, seed: int, protocol: Protocol) -> Path:
    smoothed = "" if protocol.smoothing is None else "-" + re.sub(r"[^\w.=-]+", "_", protocol.smoothing.label)
    if run is not None:
        return run / f"analysis{smoothed}"
    weights = f"untrained (seed {seed})" if subject.weights is None else subject.weights.stem
    return Path("analysis") / f"{subject.name}-{subject.dataset.name}-{weights}{smoothed}"


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command line and returns its exit code."""
    return invoke(command, argv, "python -m plugin.analyze")


if __name__ == "__main__":
    sys.exit(main())
