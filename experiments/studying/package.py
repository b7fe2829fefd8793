"""A study as `plugin.analyze` predicts from it: a table of properties and accuracies, and common networks."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path

import numpy as np
import safetensors.torch

from experiments.runner.grid import Table, expand
from experiments.runner.store import Place
from experiments.studying.figures import Figures, Measured, rounded
from plugin.analysis.prediction.properties import NAMED, PROPERTIES
from plugin.analysis.prediction.study import FILE, Setting, Studied, Study
from plugin.models.weights import read_weights
from plugin.process.files import write_atomically
from plugin.runs.folder import MODEL

SEED = 0
"""Of the common networks that go into the package: those on which a new relaxation is measured."""


def as_study(figures: Figures, seeds: Collection[int] | None = None) -> Study:
    """The relaxations that were trained and wholly measured, with the means of their properties over common networks.

    seeds: of the common networks; default all. What is averaged is what a model sees of a property.
    """
    chosen = [each for each in figures.measured if seeds is None or each.seed in seeds]
    setting, found = figures.setting, {}
    for relaxation in figures.relaxations:
        own = [each for each in chosen if each.relaxation == relaxation]
        properties = {kind: _means([each for each in own if each.kind == kind]) for kind in figures.kinds}
        if own and all(len(named) == len(PROPERTIES) for named in properties.values()):
            found[relaxation] = Studied(tuple(each.certified for each in figures.of(relaxation)), properties)
    return Study(
        Setting(setting["dataset"], setting["model"], setting["eps"], figures.seeds),
        {
            "eps": setting["eps"],
            "probe": setting["probe"],
            "budget": setting["budget"],
            "single-weights": setting["single_weights"],
            "limit": setting["images"],
            "eps-step": setting["step"],
            "seed": SEED,
        },
        {kind: f"{kind}.safetensors" for kind in figures.kinds},
        found,
        figures.origin,
    )


def write_package(figures: Figures, table: Table, out: Path, folder: Path) -> None:
    """Writes the study of the common networks of SEED, and their weights, into a folder."""
    study = as_study(figures, {SEED})
    folder.mkdir(parents=True, exist_ok=True)
    for run in expand(table):
        if run.analyze and run.seed == SEED:
            weights = read_weights(Place(out / table.name, run.id).folder / MODEL)
            file = study.networks[str(run.options["method"])]
            write_atomically(folder / file, safetensors.torch.save({name: weights[name] for name in sorted(weights)}))
    write_atomically(folder / FILE, study.text().encode())


def _means(measured: Collection[Measured]) -> Mapping[str, float]:
    """Each property that all of them have, in its own unit, averaged as a model sees it."""
    means = {}
    for each in PROPERTIES:
        values = [value for one in measured if (value := one.properties[each.name]) is not None]
        if measured and len(values) == len(measured):
            means[each.name] = _mean(each.name, values)
    return means


def _mean(name: str, values: Collection[float]) -> float:
    offset = NAMED[name].offset
    mean = float(np.mean([NAMED[name].scaled(value) for value in values]))
    return float(rounded(mean if offset is None else 10**mean - offset) or 0.0)
