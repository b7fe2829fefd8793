"""What is foretold of a relaxation, and when nothing is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from newrelax.registry import Registry
from plugin.analysis.prediction.forecast import Predicted, Refused, forecast, foretell
from plugin.analysis.prediction.properties import PROPERTIES
from plugin.analysis.prediction.study import Studied, Study
from tests.plugin.analysis.prediction.made_up import KINDS, Figures, alike, middle, study


def by_tightness(figures: Figures) -> float:
    return 90 - 20 * figures["tightness"]


STUDY = study(by_tightness, relaxations=60)


def test_what_predicts_is_used_and_the_truth_lies_in_the_interval() -> None:
    found = foretell(STUDY, "mine", alike(middle()))
    assert isinstance(found, Predicted)
    assert "tightness" in found.used
    assert found.interval.low < by_tightness(middle()) < found.interval.high
    assert found.interval.high - found.interval.low < 10


def test_a_relaxation_of_the_study_is_foretold_from_the_others() -> None:
    name, studied = next(iter(STUDY.relaxations.items()))
    lied = replace(studied, certified=(0.0, 0.0, 0.0))
    changed = replace(STUDY, relaxations={**STUDY.relaxations, name: lied})
    first, second = (foretell(each, name, studied.properties) for each in (STUDY, changed))
    if isinstance(first, Predicted) and isinstance(second, Predicted):
        assert first.interval == second.interval
        assert (first.measured, second.measured) == (pytest.approx(studied.mean), 0.0)
    else:
        assert first == second


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        pytest.param({"tightness": 50.0}, "its tightness (mean certified radius × 100) lies above that of", id="too tight"),
        pytest.param({"gradient cosine": -1.0}, "gradient cosine (mean cosine of gradients", id="turning"),
    ],
)
def test_no_number_outside_of_what_was_seen(changes: Figures, reason: str) -> None:
    few = study(by_tightness, relaxations=8)
    found = foretell(few, "mine", alike(middle() | changes))
    assert isinstance(found, Refused)
    assert reason in found.reason


def test_no_number_for_a_mixture_that_was_not_seen() -> None:
    """Each property lies inside the study's range, but tightness and cosine always went together there."""
    shares = [number / 10 for number in range(11)]
    together = [alike(middle() | {"tightness": 1 + share, "gradient cosine": share}) for share in shares]
    studied = {f"R{share}": Studied((80.0 + share,), properties) for share, properties in zip(shares, together, strict=True)}
    made = replace(STUDY, relaxations=studied)
    assert isinstance(foretell(made, "mine", alike(middle() | {"tightness": 1.75, "gradient cosine": 0.75})), Predicted)
    apart = foretell(made, "mine", alike(middle() | {"tightness": 1.9, "gradient cosine": 0.1}))
    assert isinstance(apart, Refused)
    assert "standard deviations away" in apart.reason


def test_no_number_without_every_measurement() -> None:
    figures = {name: value for name, value in middle().items() if name != "gradient cosine"}
    found = foretell(STUDY, "mine", alike(figures))
    assert found == Refused("mine", "its gradient cosine could not be measured on every network")


def test_no_number_for_what_another_method_certifies() -> None:
    found = forecast(STUDY, Registry.load().get_method("CROWN-IBP"), {})
    assert isinstance(found, Refused)
    assert found.reason.startswith("IBP certifies it")


def record(figures: Figures) -> dict[str, dict[str, float]]:
    """As plugin.analyze writes it."""
    parts: dict[str, dict[str, float]] = {}
    for each in PROPERTIES:
        parts.setdefault(each.part, {})[each.key] = figures[each.name]
    return parts


def test_records_of_an_analysis_say_the_same_as_their_properties() -> None:
    method = Registry.load().get_method("CROWN")
    records = {kind: record(middle()) for kind in KINDS}
    assert forecast(STUDY, method, records) == foretell(STUDY, "CROWN", alike(middle()))


@pytest.mark.parametrize("truth", [by_tightness, lambda figures: 80.0], ids=["by tightness", "by nothing"])
def test_its_sentence_says_what_it_rests_on(truth: Callable[[Figures], float]) -> None:
    made = study(truth, noise=0.5)
    found = foretell(made, "mine", alike(middle()))
    assert isinstance(found, Predicted)
    line = found.line(made.words)
    assert "90 % interval" in line
    assert "digits, CONV, ε = 0.1, 25 relaxations × 3 seeds" in line
    assert ("no property foretells more" in line) == (not found.used)
    assert found.nearest in STUDY.relaxations


def test_accuracies_stay_between_0_and_100() -> None:
    found = foretell(study(lambda figures: 99.5, noise=5), "mine", alike(middle()))
    assert isinstance(found, Predicted)
    assert 0 <= found.interval.low <= found.interval.high <= 100


def test_a_study_is_read_as_it_was_written(tmp_path) -> None:  # type: ignore[no-untyped-def]
    (tmp_path / "study.json").write_text(STUDY.text())
    assert Study.read(tmp_path).text() == STUDY.text()
    assert Study.read(tmp_path).words == STUDY.words
