"""Parts of methods on a network: the same wherever they are measured, and as many ticks as were announced."""

from __future__ import annotations

import pickle
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import nn

from newrelax.registry import Registry
from plugin.analysis.measure import PARTS, Protocol, cost, measure
from plugin.analysis.measurement import Failure, Measurement, Part
from plugin.analysis.probe import Analysed
from plugin.certification.region import Region
from plugin.training.smoothing import read_smoothing

REGISTRY = Registry.load()
GENERATOR = torch.Generator().manual_seed(0)
X, Y = torch.rand(9, 5, generator=GENERATOR), torch.arange(9) % 3
PROTOCOL = Protocol(eps=0.05, probe=2, budget=240, single_weights=1, images=6, step=0.02)


def network() -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(nn.Linear(5, 6), nn.ReLU(), nn.Linear(6, 3)).eval()


def record(found: dict[str, Any] | Failure) -> dict[str, Any]:
    assert isinstance(found, dict)
    return {name: value for name, value in found.items() if name != "seconds"}


@pytest.mark.parametrize("part", PARTS)
def test_another_process_measures_the_same(part: str) -> None:
    """With noise, so that smoothing crosses by its spelling, and with an estimate's random numbers."""
    smoothed = replace(PROTOCOL, smoothing=read_smoothing("rgs:sigma=0.02,pairs=2", REGISTRY))
    measurement = Measurement.of(network(), X, Y, Region(), smoothed)
    ticks: list[int] = []
    there = pickle.loads(pickle.dumps(measurement))(Part(part, "CROWN"), ticks.append)
    expected = measure(part, network(), Analysed(REGISTRY.get_method("CROWN")), X, Y, smoothed)
    assert record(there) == record(expected)
    assert sum(ticks) == cost(part, PROTOCOL, 4)


def test_only_the_images_that_are_measured_cross() -> None:
    images = torch.rand(20_000, 5)
    measurement = Measurement.of(network(), images, torch.zeros(20_000, dtype=torch.long), Region(), PROTOCOL)
    assert len(pickle.dumps(measurement)) < images.nbytes / 10


def test_bounds_that_are_not_finite_are_a_failure_and_all_ticks() -> None:
    broken = network()
    with torch.no_grad():
        broken[0].weight[0, 0] = float("inf")
    ticks: list[int] = []
    found = Measurement.of(broken, X, Y, Region(), PROTOCOL)(Part("continuity", "IBP"), ticks.append)
    assert isinstance(found, Failure)
    assert "IBP: the certified loss at eps 0.05 is" in found.reason
    assert sum(ticks) == PROTOCOL.budget
