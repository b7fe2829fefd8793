"""From runs on disk to figures, and to what `plugin.analyze` predicts from."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from experiments.runner.grid import Run, expand
from experiments.runner.store import Place
from experiments.runner.table_file import load_table, parse_table
from experiments.studying.figures import collect
from experiments.studying.package import as_study, write_package
from newrelax.errors import UserError
from plugin import train
from plugin.analysis.prediction.properties import PROPERTIES
from plugin.analysis.prediction.study import Study
from plugin.models.weights import read_weights
from plugin.runs.versions import versions

SHORT = {"epochs": 1, "batch-size": 400, "limit-test": 20}
TABLE = {
    "seeds": 1,
    "options": {"dataset": "digits", "model": "FC", **SHORT},
    "grid": {"method": ["IBP", "CROWN-IBP"]},
    "analyze": [
        {"methods": ["IBP", "hBox"], "network": {"method": "natural", "dataset": "digits", "model": "FC", **SHORT}},
        {"network": {"method": "PGD", "dataset": "digits", "model": "FC", **SHORT}},
    ],
    "decide": {"timeout": 1},
}
SMALL = parse_table(TABLE, "small", "small.toml")


def record(method: str, scale: float) -> dict[str, Any]:
    """As plugin.analyze writes it, with figures that a test can tell apart: scale · (1, 2, 3, …) in PROPERTIES' order."""
    parts: dict[str, Any] = {"tightness": {"certified": [0.9, 0.4]}}
    for number, each in enumerate(PROPERTIES, 1):
        parts.setdefault(each.part, {})[each.key] = scale * number
    return {"method": method, "sound": True, **parts}


def finish(run: Run, out: Path, scale: float) -> None:
    """A run's files: trained for an epoch, and analysed or decided by hand."""
    place = Place(out / run.table, run.id)
    place.note("json").parent.mkdir(parents=True, exist_ok=True)
    place.note("json").write_text(json.dumps(run.settings()))
    assert train.main([*run.arguments(), "--out", str(place.folder), "--device", "cpu"]) == 0
    if run.analyze:
        settings = {
            "probe": 2,
            "budget": 240,
            "single_weights": 1,
            "images": 5,
            "step": 0.1,
            "learning_rate": 5e-4,
            **versions(),
        }
        methods = {method: record(method, scale) for method in run.analyze}
        (place.folder / "analysis").mkdir()
        (place.folder / "analysis" / "analysis.json").write_text(json.dumps({"settings": settings, "methods": methods}))
    else:
        folder = place.folder / "complete-eps0.1"
        folder.mkdir()
        verdicts = {"timeout": 1.0, "count": 20, "ladder": "IBP,CROWN-IBP-R,CROWN,alpha-CROWN,exact"}
        (folder / "complete.json").write_text(json.dumps(verdicts | {"verified": 0.25, "undecided": 0.05}))


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs")
    for number, run in enumerate(expand(SMALL), 1):
        finish(run, folder, float(number))
    return folder


def test_every_figure_of_every_run_is_there(out: Path) -> None:
    found = collect(SMALL, out)
    assert (found.unfinished, found.kinds, found.seeds) == ((), ("natural", "PGD"), (0,))
    assert [(each.kind, each.relaxation, each.properties["tightness"]) for each in found.measured] == [
        ("natural", "IBP", 1.0),
        ("natural", "hBox", 1.0),
        ("PGD", "IBP", 2.0),
        ("PGD", "hBox", 2.0),
    ]
    assert found.measured[0].curve == (0.9, 0.4)
    assert [(each.relaxation, each.certifier, each.family) for each in found.trained] == [
        ("IBP", "IBP", "interval"),
        ("CROWN-IBP", "IBP", "ibp+backward"),
    ]
    for each in found.trained:
        result = json.loads((out / "small" / f"{each.relaxation}-seed0" / "result.json").read_text())
        assert each.certified == pytest.approx(100 * result["certified_accuracy"], rel=1e-5)
        assert (each.exact, each.undecided) == (25.0, 5.0)
        assert 0 < each.propagation <= 1
    assert [each.certifier for each in found.networks] == ["CROWN-IBP-R", "CROWN-IBP-R"]


def test_collecting_again_gives_the_same_text(out: Path) -> None:
    assert collect(SMALL, out).text() == collect(SMALL, out).text()


def test_only_what_was_trained_and_measured_is_studied(out: Path) -> None:
    """CROWN-IBP was not measured, hBox not trained."""
    study = as_study(collect(SMALL, out))
    assert set(study.relaxations) == {"IBP"}
    assert study.relaxations["IBP"].properties["PGD"]["tightness"] == 2.0


def test_the_package_holds_the_table_and_the_networks(out: Path, tmp_path: Path) -> None:
    figures = collect(SMALL, out)
    write_package(figures, SMALL, out, tmp_path / "data")
    study = Study.read(tmp_path / "data")
    assert study.text() == as_study(figures, {0}).text()
    assert study.protocol["budget"] == 240
    for kind, file in study.networks.items():
        own = read_weights(out / "small" / f"digits-FC-{kind}-network-seed0" / "model.pt")
        kept = read_weights(tmp_path / "data" / file)
        assert set(own) == set(kept)
        assert all(torch.equal(own[name], kept[name]) for name in own)


def test_runs_that_are_missing_say_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="expected trained relaxations and analysed networks, got 0 and 0; run python -m"):
        collect(load_table("relaxations"), tmp_path)
