"""Correlations beside scipy's and textbook formulas; findings where something was put in, and none where nothing was."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import spearmanr

from experiments.studying.correlations import Correlations, correlate, spearman

COUNT = 27


def drawn(seed: int, *names: str) -> dict[str, np.ndarray]:
    generator = np.random.default_rng(seed)
    return {name: generator.normal(size=COUNT) for name in ("tightness", *names)}


def found(correlations: Correlations, name: str):
    (each,) = (each for each in correlations.each if each.property == name)
    return each


@pytest.mark.parametrize("seed", range(3))
def test_spearman_is_scipys_ties_included(seed: int) -> None:
    generator = np.random.default_rng(seed)
    x, y = generator.integers(5, size=(2, 20)).astype(float)
    assert spearman(y.tolist(), x.tolist()) == pytest.approx(spearmanr(y, x).statistic)


def test_what_is_the_same_for_all_correlates_with_nothing() -> None:
    assert spearman([1.0, 2.0, 3.0], [4.0, 4.0, 4.0]) == 0


def test_partial_correlation_is_the_textbook_s() -> None:
    x = drawn(0, "slope")
    y = x["tightness"] + x["slope"] + np.random.default_rng(9).normal(size=COUNT)
    yx, yz, xz = (spearmanr(*pair).statistic for pair in ((y, x["slope"]), (y, x["tightness"]), (x["slope"], x["tightness"])))
    expected = (yx - yz * xz) / np.sqrt((1 - yz**2) * (1 - xz**2))
    assert found(correlate({"certified": y}, {"natural": x}), "slope").partial.rho == pytest.approx(expected)


def test_what_was_put_in_is_found_and_what_only_goes_with_tightness_is_not() -> None:
    x = drawn(1, "slope", "order")
    noise = np.random.default_rng(5).normal(size=(2, COUNT))
    x["spread"] = x["tightness"] + 0.3 * noise[0]
    y = -2 * x["tightness"] + 2 * x["slope"] + 0.3 * noise[1]
    every = correlate({"certified": y}, {"natural": x})
    assert found(every, "tightness").plain.stands
    assert found(every, "slope").partial.stands
    assert found(every, "spread").plain.stands
    assert not found(every, "spread").partial.stands
    assert not found(every, "order").plain.stands


def test_among_many_properties_chance_finds_nothing_in_nineteen_of_twenty_studies() -> None:
    """20 studies of ten properties that have nothing to do with accuracy, each looked at alone and beyond tightness."""
    findings = 0
    for seed in range(20):
        x = drawn(seed, *(f"p{number}" for number in range(9)))
        every = correlate({"certified": np.random.default_rng(1000 + seed).normal(size=COUNT)}, {"natural": x})
        findings += any(each.plain.stands or (each.partial is not None and each.partial.stands) for each in every.each)
    assert findings <= 5


def test_intervals_hold_the_truth() -> None:
    """ρ of a bivariate normal is 6/π·arcsin(r/2) in the population; 40 samples, 95 %."""
    r, held = 0.6, 0
    truth = 6 / np.pi * np.arcsin(r / 2)
    for seed in range(40):
        x = drawn(seed)
        y = r * x["tightness"] + np.sqrt(1 - r**2) * np.random.default_rng(500 + seed).normal(size=COUNT)
        estimate = found(correlate({"certified": y}, {"natural": x}), "tightness").plain
        held += estimate.low <= truth <= estimate.high
    assert held >= 35


def test_more_properties_raise_the_threshold() -> None:
    y = {"certified": np.random.default_rng(0).normal(size=COUNT)}
    few, many = (correlate(y, {"natural": drawn(2, *(f"p{i}" for i in range(count)))}).threshold for count in (1, 20))
    assert 0.35 < few < many < 0.8
