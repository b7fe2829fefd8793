"""Every figure of a study: what relaxations trained to, and what was measured of them on common networks."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

from experiments.runner.grid import Run, Table, expand
from experiments.runner.store import Place
from newrelax.errors import UserError
from plugin.analysis.prediction.properties import read_properties
from plugin.analysis.propagation import Propagation
from plugin.fitting.subject import Asked, Subject, find_subject
from plugin.models.weights import load_weights
from plugin.runs.folder import MODEL

DIGITS = 6
"""Significant digits that are kept: more than any figure repeats to on another machine."""
PROTOCOL = ("probe", "budget", "single_weights", "images", "step", "learning_rate")
"""Settings of an analysis that figures depend on."""
IMAGES = 100
"""Test images for propagation tightness."""


@dataclass(frozen=True)
class Trained:
    """A network trained with a relaxation. Accuracies in percent: of images, under attack, certified by `certifier`, and as the
    ladder decides; None: not decided. family: how the relaxation's bounds are propagated. propagation: the network's
    propagation tightness."""

    relaxation: str
    family: str
    seed: int
    natural: float
    pgd: float
    certified: float
    certifier: str
    exact: float | None
    undecided: float | None
    propagation: float


@dataclass(frozen=True)
class Network:
    """A common network, by the method that trained it. Accuracies in percent; certified by `certifier`."""

    kind: str
    seed: int
    natural: float
    pgd: float
    certified: float
    certifier: str


@dataclass(frozen=True)
class Measured:
    """A relaxation on a common network. properties: see plugin.analysis.prediction. curve: the share of images certified at 0,
    step, 2·step, …, as far as any is."""

    kind: str
    seed: int
    relaxation: str
    properties: Mapping[str, float | None]
    curve: tuple[float, ...]


@dataclass(frozen=True)
class Figures:
    """All of a study. setting: data set, model, eps, and what the analyses measured with; origin: commits, versions, devices;
    unfinished: runs of the table that have no result yet."""

    setting: Mapping[str, Any]
    origin: Mapping[str, Any]
    unfinished: tuple[str, ...]
    networks: tuple[Network, ...]
    trained: tuple[Trained, ...]
    measured: tuple[Measured, ...]

    @property
    def kinds(self) -> tuple[str, ...]:
        """The common networks' kinds."""
        return tuple(dict.fromkeys(each.kind for each in self.measured))

    @property
    def seeds(self) -> tuple[int, ...]:
        """The seeds of training."""
        return tuple(sorted({each.seed for each in self.trained}))

    @property
    def relaxations(self) -> tuple[str, ...]:
        """Those that were trained, in the table's order."""
        return tuple(dict.fromkeys(each.relaxation for each in self.trained))

    def of(self, relaxation: str) -> tuple[Trained, ...]:
        """Its trained networks, by seed."""
        return tuple(each for each in self.trained if each.relaxation == relaxation)

    def text(self) -> str:
        """The file's text: JSON with a line for each record."""
        return "{\n" + ",\n".join(_entries(asdict(self))) + "\n}\n"

    @classmethod
    def read(cls, path: Path) -> Self:
        """The figures in a file. Raises UserError where it holds none."""
        try:
            data = json.loads(path.read_text(encoding="utf-8"))
            return cls(
                data["setting"],
                data["origin"],
                tuple(data["unfinished"]),
                tuple(Network(**each) for each in data["networks"]),
                tuple(Trained(**each) for each in data["trained"]),
                tuple(Measured(**{**each, "curve": tuple(each["curve"])}) for each in data["measured"]),
            )
        except (OSError, ValueError, KeyError, TypeError) as problem:
            raise UserError(
                f"{path}: expected figures that python -m experiments.study wrote, got {type(problem).__name__}: {problem}"
            ) from problem


def collect(table: Table, out: Path) -> Figures:
    """The figures of a table's finished runs under `out`.

    Raises UserError where no relaxation is trained, or no analysis finished.
    """
    runs = [(run, Place(out / table.name, run.id)) for run in expand(table)]
    grid = [(run, place) for run, place in runs if not run.analyze and place.read_result()]
    common = [(run, place) for run, place in runs if run.analyze and place.read_analysis()]
    if not grid or not common:
        raise UserError(
            f"{out / table.name}: expected trained relaxations and analysed networks, got {len(grid)} and {len(common)}; "
            f"run python -m experiments.run {table.name} --out {out}"
        )
    done = {run.id for run, _ in (*grid, *common)}
    results = [place.read_result() or {} for _, place in (*grid, *common)]
    settings = {tuple(result[name] for name in ("dataset", "model", "eps")) for result in results}
    if len(settings) > 1:
        raise UserError(f"{out / table.name}: expected one data set, network and eps, got {sorted(settings)}")
    analyses = [(place.read_analysis() or {})["settings"] for _, place in common]
    protocols = [{name: each[name] for name in PROTOCOL} for each in analyses]
    if any(each != protocols[0] for each in protocols):
        raise UserError(f"{out / table.name}: expected analyses that measured equally much, got {protocols}")
    versions = [*(result["versions"] for result in results), *analyses]
    subject = find_subject(Asked(grid[0][1].folder, None, None, None, None, None, None, (), "cpu"))
    return Figures(
        setting={
            **{name: results[0][name] for name in ("dataset", "model", "eps")},
            **protocols[0],
        },
        origin={
            "commits": sorted({str(each["commit"]) for each in versions if each.get("commit")}),
            **{name: sorted({str(each.get(name)) for each in versions}) for name in ("python", "torch")},
            "devices": sorted({str(result["device"]) for result in results}),
        },
        unfinished=tuple(run.id for run, _ in runs if run.id not in done),
        networks=tuple(_network(run, place.read_result() or {}) for run, place in common),
        trained=tuple(_all_trained(grid, subject)),
        measured=tuple(each for run, place in common for each in _measured(run, place.read_analysis() or {})),
    )


def rounded(value: float | None) -> float | None:
    """A figure to DIGITS significant digits."""
    return None if value is None else float(f"{value:.{DIGITS}g}")


def _percent(share: float) -> float:
    return float(f"{100 * share:.{DIGITS}g}")


def _accuracies(result: Mapping[str, Any]) -> tuple[float, float, float]:
    natural, pgd, certified = (_percent(result[f"{name}_accuracy"]) for name in ("natural", "pgd", "certified"))
    return natural, pgd, certified


def _network(run: Run, result: Mapping[str, Any]) -> Network:
    natural, pgd, certified = _accuracies(result)
    return Network(str(run.options["method"]), run.seed, natural, pgd, certified, result["certify_method"])


def _all_trained(grid: Sequence[tuple[Run, Place]], subject: Subject) -> Iterator[Trained]:
    """subject: of any of the runs; the others have its architecture and data."""
    propagation = Propagation(subject.model, subject.dataset.test_x[:IMAGES], subject.dataset.test_y[:IMAGES])
    for run, place in grid:
        result = place.read_result() or {}
        verdicts = None if run.decision is None else place.read_verdicts(run.decision)
        load_weights(propagation.model, place.folder / MODEL)
        yield Trained(
            result["method"],
            subject.registry.get_method(result["method"]).propagation.name,
            run.seed,
            *_accuracies(result),
            result["certify_method"],
            exact=None if verdicts is None else _percent(verdicts["verified"]),
            undecided=None if verdicts is None else _percent(verdicts["undecided"]),
            propagation=float(f"{propagation.tightness():.{DIGITS}g}"),
        )


def _measured(run: Run, analysis: Mapping[str, Any]) -> Iterator[Measured]:
    for label, record in analysis["methods"].items():
        properties = {name: rounded(value) for name, value in read_properties(record).items()}
        yield Measured(str(run.options["method"]), run.seed, label, properties, tuple(record["tightness"]["certified"]))


def _entries(data: Mapping[str, Any]) -> Iterator[str]:
    for name, value in data.items():
        if isinstance(value, Sequence) and value and isinstance(value[0], dict):
            lines = ",\n".join(f"  {json.dumps(each, ensure_ascii=False)}" for each in value)
            yield f' "{name}": [\n{lines}\n ]'
        else:
            yield f' "{name}": {json.dumps(value, ensure_ascii=False)}'
