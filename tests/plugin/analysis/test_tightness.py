"""The area under the certified fraction, where it is known."""

import math

import pytest
import torch
from torch import Tensor

from plugin.analysis.tightness import tightness

RADII = torch.tensor([0.03437, 0.11173, 0.0, 0.15536, 0.92071], dtype=torch.float64)
"""Largest certified radius of each image; an image of 0 is misclassified."""


def margins(radius: Tensor, y: Tensor, eps: float) -> Tensor:
    worst = torch.where(radius > 0, radius - eps, torch.full_like(radius, -1.0))
    return torch.stack([worst + 0.5, worst], dim=1)


@pytest.mark.parametrize("step", [0.01, 0.003, 0.0001])
@pytest.mark.parametrize("batch", [1, 2, 50])
def test_the_area_is_the_mean_radius(step: float, batch: int) -> None:
    found = tightness(margins, RADII, torch.zeros(5), step=step, batch=batch)
    assert found.radius == pytest.approx(100 * float(RADII.mean()), abs=100 * step / 2)
    expected = [(math.floor(float(r) / step) + 0.5) * step * 100 if r > 0 else 0.0 for r in RADII]
    assert found.radii == pytest.approx(expected)
    trapezoids = sum((a + b) / 2 for a, b in zip(found.certified, (*found.certified[1:], 0.0), strict=False))
    assert found.radius == pytest.approx(trapezoids * step * 100)


def test_curve_starts_with_natural_accuracy_and_falls() -> None:
    found = tightness(margins, RADII, torch.zeros(5))
    assert found.certified[0] == 0.8
    assert list(found.certified) == sorted(found.certified, reverse=True)
    assert found.eps[1] == 0.01
    assert found.certified[-1] == 0


def test_the_interval_covers_the_mean_of_the_population() -> None:
    """95 % of samples of 100 images: at least 90 of 100 intervals hold the true mean."""
    covered = 0
    for seed in range(100):
        radii = torch.rand(100, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) * 0.2 + 1e-6
        found = tightness(margins, radii, torch.zeros(100), step=0.005)
        covered += found.low <= 10 <= found.high
    assert 90 <= covered <= 100


def test_gap_is_between_attack_and_certificate() -> None:
    def attack(radius: Tensor, y: Tensor, eps: float) -> Tensor:
        return margins(radius, y, eps) + 0.25

    found = tightness(margins, RADII, torch.zeros(5), upper=attack, upper_eps=0.1, batch=2)
    assert found.gap == pytest.approx(0.25)
    assert found.gap_eps == 0.1


def test_an_image_counts_up_to_its_first_failure() -> None:
    def wavy(x: Tensor, y: Tensor, eps: float) -> Tensor:
        return torch.where(torch.tensor(abs(eps - 0.02) < 1e-9), -torch.ones(len(x), 1), (0.05 - x + 1e-9 - eps)[:, None])

    assert tightness(wavy, torch.zeros(3), torch.zeros(3)).radius == pytest.approx(1.5)


def test_refuses_empty_and_absurd() -> None:
    with pytest.raises(ValueError, match="at least one image"):
        tightness(margins, RADII[:0], torch.zeros(0))
    with pytest.raises(ValueError, match="step"):
        tightness(margins, RADII, torch.zeros(5), step=0.0)
