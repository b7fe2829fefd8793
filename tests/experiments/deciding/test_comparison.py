"""Distances to the baseline's network, and whose they are."""

from __future__ import annotations

import math

import pytest

from experiments.deciding.comparison import Distance, Range, Row, compare, whole
from experiments.deciding.network import Network
from tests.support.decided import decided

IBP = decided("IBP", own=880, verified=890)


def distance_of(*networks: Network) -> Distance:
    """Of the one method beside IBP."""
    (row,) = (row for row in compare(networks) if row.method != "IBP")
    assert row.distance is not None
    return row.distance


def ends(figure: Range | None) -> tuple[float, float]:
    assert figure is not None
    return figure.low, figure.high


def test_what_stays_of_a_distance_is_the_trainings_and_the_rest_the_certifiers() -> None:
    distance = distance_of(IBP, decided("DeepZ", own=680, verified=820))
    assert distance.own == pytest.approx(20.0)
    assert ends(distance.exact) == pytest.approx((7.0, 7.0))
    assert ends(distance.training_share) == pytest.approx((35.0, 35.0))
    assert ends(distance.certifier_share) == pytest.approx((65.0, 65.0))


def test_what_is_left_open_widens_every_figure_that_rests_on_it() -> None:
    network = decided("DeepZ", own=680, verified=820, falsified=160)
    row = Row("DeepZ", (network,))
    distance = distance_of(IBP, network)
    assert ends(row.exact) == pytest.approx((82.0, 84.0))
    assert ends(row.lost) == pytest.approx((14.0, 16.0))
    assert ends(distance.exact) == pytest.approx((5.0, 7.0))
    assert ends(distance.training_share) == pytest.approx((25.0, 35.0))
    assert ends(distance.certifier_share) == pytest.approx((65.0, 75.0))


def test_an_image_that_only_its_own_relaxation_certifies_is_robust_all_the_same() -> None:
    assert ends(Row("DeepZ", (decided("DeepZ", own=700, verified=690, falsified=290),)).exact) == pytest.approx((70.0, 71.0))


def test_a_part_of_the_images_is_laid_beside_the_baselines_same_part() -> None:
    networks = [decided("IBP", own=9000, verified=9100, images=10_000), IBP, decided("CROWN", own=680, verified=820)]
    baseline, row = compare(networks)
    assert baseline.images == 10_000
    assert row.distance is not None and row.distance.own == pytest.approx(20.0)


def test_without_the_baseline_on_the_same_images_there_is_no_distance() -> None:
    networks = [decided("IBP", own=9000, verified=9100, images=10_000), decided("CROWN", own=680, verified=820)]
    assert [row.distance for row in compare(networks)] == [None, None]


@pytest.mark.parametrize(
    ("own", "is_clear"),
    [(875, False), (852, False), (848, True), (890, False)],
    ids=["half a point", "just below two errors", "just above two errors", "ahead"],
)
def test_only_a_clear_distance_has_shares(own: int, is_clear: bool) -> None:
    distance = distance_of(IBP, decided("CROWN", own=own, verified=890))
    assert (distance.training_share is not None, distance.certifier_share is not None) == (is_clear, is_clear)


def test_several_seeds_give_means_and_the_error_of_their_difference() -> None:
    seeds = [decided("IBP", own=own, verified=900, seed=seed) for seed, own in enumerate((870, 880, 890))]
    seeds += [decided("hBox", own=own, verified=850, seed=seed) for seed, own in enumerate((780, 800, 820))]
    distance = distance_of(*seeds)
    assert distance.own == pytest.approx(8.0)
    assert distance.own_error == pytest.approx(math.sqrt((1.0**2 + 2.0**2) / 3))


@pytest.mark.parametrize(
    ("verified", "falsified", "is_behind", "is_ahead"),
    [(850, 150, True, False), (885, 115, False, False), (930, 70, False, True), (850, 50, False, False)],
    ids=["behind", "neither", "ahead", "open"],
)
def test_decided_networks_are_clearly_behind_clearly_ahead_or_neither(
    verified: int, falsified: int, is_behind: bool, is_ahead: bool
) -> None:
    distance = distance_of(IBP, decided("CROWN", own=700, verified=verified, falsified=falsified))
    assert (distance.is_behind, distance.is_ahead) == (is_behind, is_ahead)


def test_the_baseline_stands_first_and_the_best_next() -> None:
    networks = [decided("CROWN", 700, 800), decided("hBox", 700, 850), IBP]
    assert [row.method for row in compare(networks)] == ["IBP", "hBox", "CROWN"]


def test_all_clear_distances_together_have_one_share() -> None:
    rows = compare([IBP, decided("DeepZ", 680, 820), decided("hBox", 780, 800), decided("CROWN-IBP", 879, 880)])
    assert whole(rows) == pytest.approx(100 * (7 + 9) / (20 + 10))
    assert whole(rows[:1]) is None
