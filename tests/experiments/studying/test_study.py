"""The study as a command: from figures to a page that says by rule what they show, again and again the same."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from experiments.study import main
from experiments.studying.figures import Figures
from experiments.studying.findings import find
from experiments.studying.sentences import sentences
from newrelax.errors import UserError
from tests.conftest import REPOSITORY
from tests.experiments.studying.made_up import figures

RESULTS = REPOSITORY / "experiments" / "results" / "relaxations"
FILES = {"README.md", "figures.json", "study.json", "study.svg"}


def by_tightness(properties: dict[str, float]) -> float:
    return 90 - 15 * properties["tightness"]


def by_cosine_too(properties: dict[str, float]) -> float:
    return by_tightness(properties) + 10 * properties["gradient cosine"]


def by_nothing(properties: dict[str, float]) -> float:
    return 80.0


def made(folder: Path, given: Figures) -> dict[str, bytes]:
    """What the command writes for some figures."""
    folder.mkdir(exist_ok=True)
    (folder / "given.json").write_text(given.text())
    assert main(["--figures", str(folder / "given.json"), "--to", str(folder / "study")]) == 0
    return {path.name: path.read_bytes() for path in (folder / "study").iterdir()}


def test_its_own_figures_give_the_same_bytes_again(tmp_path: Path) -> None:
    first = made(tmp_path, figures(by_tightness))
    assert set(first) == FILES
    assert made(tmp_path / "again", Figures.read(tmp_path / "study" / "figures.json")) == first


@pytest.mark.skipif(not (RESULTS / "figures.json").exists(), reason="no study is committed")
def test_the_committed_study_follows_from_its_figures(tmp_path: Path) -> None:
    assert main(["--figures", str(RESULTS / "figures.json"), "--to", str(tmp_path)]) == 0
    for name in FILES - {"study.svg"}:  # another version of matplotlib draws other paths
        assert (tmp_path / name).read_text() == (RESULTS / name).read_text()


@pytest.mark.parametrize(
    ("truth", "alone", "beyond", "better"),
    [
        pytest.param(by_tightness, "predicted by tightness (natural −", "predicted by none", True, id="tightness"),
        pytest.param(
            by_cosine_too,
            "predicted by tightness (natural −",
            "predicted by gradient cosine (natural +",
            True,
            id="cosine, too",
        ),
        pytest.param(by_nothing, "predicted by none", "predicted by none", False, id="nothing"),
    ],
)
def test_it_says_what_was_put_in(truth: Callable[[dict[str, float]], float], alone: str, beyond: str, better: bool) -> None:
    given = figures(truth)
    findings = find(given)
    said = sentences(given, findings)
    assert said[0].startswith("Accuracy certified by the own relaxation, from one property: ")
    assert alone in said[0]
    assert beyond in said[1]
    assert findings.evaluation.better == better
    assert any(sentence.startswith("A small model predicts") for sentence in said) == better


def test_what_was_not_measured_is_left_out_and_named() -> None:
    given = figures(by_tightness)
    without = [each for each in given.measured if each.relaxation != "R3"]
    given = replace(given, measured=tuple(without), unfinished=("a", "b"))
    findings = find(given)
    said = " ".join(sentences(given, findings))
    assert "R3" not in findings.study.relaxations
    assert "Left out, because another method certifies what they train: Mixed (by IBP)." in said
    assert "Left out, because not all of their properties are measured on every network: R3." in said
    assert "Not finished yet: 2 of the table's runs." in said


def test_relaxations_without_verdicts_leave_exact_accuracy_out() -> None:
    given = figures(by_tightness)
    given = replace(given, trained=tuple(replace(each, exact=None, undecided=None) for each in given.trained))
    assert {each.outcome for each in find(given).correlations.each} == {"certified"}


def test_too_few_relaxations_say_so() -> None:
    with pytest.raises(UserError, match="expected at least 5 relaxations"):
        find(figures(by_tightness, relaxations=4))


@pytest.mark.parametrize(
    ("text", "message"),
    [pytest.param("{", "JSONDecodeError", id="no JSON"), pytest.param("{}", "KeyError: 'setting'", id="nothing in it")],
)
def test_other_files_are_refused_in_a_line(text: str, message: str, tmp_path: Path, capsys) -> None:
    (tmp_path / "figures.json").write_text(text)
    assert main(["--figures", str(tmp_path / "figures.json"), "--to", str(tmp_path)]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert len(error.strip().splitlines()) == 1


def test_predictions_need_the_runs(tmp_path: Path, capsys) -> None:
    assert main(["--figures", "figures.json", "--prediction", str(tmp_path)]) == 2
    assert "leave out --figures" in capsys.readouterr().err


def test_a_line_of_the_figures_is_a_record(tmp_path: Path) -> None:
    made(tmp_path, figures(by_tightness, relaxations=6))
    text = (tmp_path / "study" / "figures.json").read_text()
    assert len([line for line in text.splitlines() if '"curve"' in line]) == 6 * 4
    assert json.loads(text)["setting"]["eps"] == 0.1
