"""`plugin.analyze` without a network: a relaxation's trained accuracy is predicted, or refused, and comes true."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

import plugin
from plugin import analyze
from plugin.analysis.prediction.model import FEATURES
from plugin.analysis.prediction.study import DATA, Study
from plugin.data import load
from plugin.fitting.common import common_subjects
from plugin.fitting.subject import Asked

STUDY = Study.read()
NOBODY = Asked(None, None, None, None, None, None, None, (), "cpu")

OUTSIDER = '''
from newrelax import relaxation

@relaxation("Clamp")
def clamp(lower, upper, *, steep: float = 2.0):
    """CROWN's lower slope without its jump."""
    chord = upper / (upper - lower).clamp(min=1e-12)
    slope = (steep * (chord - 0.5) + 0.5).clamp(0, 1)
    return slope, 0.0, chord, -lower * chord
'''


def test_the_study_is_whole() -> None:
    """What is installed: every relaxation has every property on every network, and as many accuracies as there are seeds."""
    assert len(STUDY.relaxations) >= 5
    for studied in STUDY.relaxations.values():
        assert set(studied.properties) == set(STUDY.networks)
        assert all(set(FEATURES) <= set(figures) for figures in studied.properties.values())
        assert 1 <= len(studied.certified) <= len(STUDY.setting.seeds)
    assert set(STUDY.networks.values()) | {"study.json"} == {path.name for path in DATA.iterdir()}


def test_its_networks_classify_their_data() -> None:
    """How robust each is tells what trained it: nothing, attacks, or bounds."""
    dataset = load(STUDY.setting.dataset, Path("data"), torch.device("cpu"))
    subjects = common_subjects(STUDY, NOBODY)
    found = {
        kind: plugin.evaluate(subject.model, dataset.test_x, dataset.test_y, eps=STUDY.setting.eps, method="IBP", pgd_steps=10)
        for kind, subject in subjects.items()
    }
    assert all(each.natural_accuracy > 0.9 for each in found.values())
    assert found["natural"].pgd_accuracy < found["PGD"].pgd_accuracy
    assert found["IBP"].certified_accuracy > 0.8


def test_one_is_foretold_and_one_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """IBP from all others, beside what it was trained to; intervals widened beyond all that was studied, without a number."""
    assert analyze.main(["--methods", "IBP,IBP-Widen:omega=50", "--jobs", "1", "--out", str(tmp_path)]) == 0
    said = capsys.readouterr().out
    data = json.loads((tmp_path / "analysis.json").read_text())["prediction"]
    assert data["rests_on"] == STUDY.words
    assert data["methods"]["IBP-Widen:omega=50"]["certified"] is None
    for text in (said, (tmp_path / "table.md").read_text(), (tmp_path / "report.html").read_text()):
        assert STUDY.words in text
        assert "IBP-Widen:omega=50: no prediction, since " in text
        assert f"Measured: {STUDY.relaxations['IBP'].mean:.1f} %" in text or "IBP: no prediction" in text
    assert "| IBP (natural) |" in said


@pytest.mark.parametrize(
    ("words", "message"),
    [
        pytest.param("--methods IBP --budget 300", "--budget 300: a prediction needs what the study measured with", id="other"),
        pytest.param("--methods natural", "gives no bounds to analyse", id="no bounds"),
        pytest.param("--methods IBP --dataset digits", "expected --run DIR, or --model NAME", id="half a network"),
    ],
)
def test_what_makes_no_sense_is_refused_in_a_line(words: str, message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert analyze.main(words.split()) == 2
    error = capsys.readouterr().err
    assert message in error
    assert len(error.strip().splitlines()) == 1


@pytest.mark.slow
def test_a_relaxation_that_nobody_has_seen_trains_into_its_interval(tmp_path: Path) -> None:
    file = tmp_path / "clamp.py"
    file.write_text(OUTSIDER)
    assert analyze.main(["--plugin", str(file), "--methods", "Clamp", "--out", str(tmp_path / "analysis")]) == 0
    foretold: dict[str, Any] = json.loads((tmp_path / "analysis" / "analysis.json").read_text())["prediction"]["methods"]
    interval = foretold["Clamp:steep=2"]["certified"]
    result = plugin.fit(
        STUDY.setting.model, STUDY.setting.dataset, method="Clamp", plugins=[file], eps=STUDY.setting.eps, device="cpu"
    )
    assert result.certified_accuracy is not None
    assert interval["low"] <= 100 * result.certified_accuracy <= interval["high"]
