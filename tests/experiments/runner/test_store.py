"""Where a run's verdicts are looked for, and which of them answer the table's question."""

from types import SimpleNamespace

import pytest

from experiments.runner.grid import Decision
from experiments.runner.store import RESULT, Place
from plugin.fitting.decide import SUMMARY, default_folder
from plugin.process.files import write_json

DECISION = Decision(ladder="CROWN,exact", timeout=5)
VERDICTS = {"ladder": "attack:steps=40,restarts=3,CROWN,exact", "timeout": 5.0, "count": 100, "verified": 0.5}


@pytest.fixture
def place(tmp_path):
    return Place(tmp_path, "run")


def settle(place, eps=0.1, **verdicts):
    """A finished run of that radius with verdicts where `plugin.evaluate --run FOLDER --complete` writes them."""
    accuracies = dict.fromkeys(("natural_accuracy", "pgd_accuracy", "certified_accuracy"), 0.4)
    said = {"method": "IBP", "dataset": "digits", "model": "FC", "seed": 0}
    subject = SimpleNamespace(weights=None, name="FC")
    for path, data in (
        (place.note("json"), {"options": {}, "seed": 0}),
        (place.folder / RESULT, {**said, **accuracies, "eps": eps, "test_images": 100}),
        (default_folder(place.folder, subject, eps) / SUMMARY, {**VERDICTS, **verdicts}),
    ):
        path.parent.mkdir(parents=True, exist_ok=True)
        write_json(path, data)


@pytest.mark.parametrize("eps", [0.1, 8 / 255, 1e-5])
def test_verdicts_are_found_at_the_run_s_radius(place, eps):
    settle(place, eps)
    assert place.read_verdicts(DECISION)["verified"] == 0.5


@pytest.mark.parametrize(
    "verdicts",
    [
        pytest.param({"timeout": 60.0}, id="another time"),
        pytest.param({"ladder": "attack:steps=40,restarts=3,IBP,exact"}, id="another ladder"),
        pytest.param({"ladder": "CROWN,attack,exact"}, id="attack elsewhere"),
        pytest.param({"count": 20}, id="a part of the examples"),
    ],
)
def test_verdicts_of_another_question_do_not_count(place, verdicts):
    settle(place, **verdicts)
    assert place.read_verdicts(DECISION) is None


def test_a_part_is_enough_where_a_part_is_asked_for(place):
    settle(place, count=20)
    assert place.read_verdicts(DECISION.model_copy(update={"limit": 20})) is not None


def test_without_a_result_there_are_no_verdicts(place):
    settle(place)
    (place.folder / RESULT).unlink()
    assert place.read_verdicts(DECISION) is None
