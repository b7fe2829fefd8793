"""How cost grows with size: files, exponents, and networks of the size that was asked for."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from experiments.benchmarks import size
from experiments.benchmarks.step import Cost

CPU = torch.device("cpu")


def test_size_benchmark(tmp_path: Path) -> None:
    sizes = {"batch": (2, 4), "width": (8, 16), "depth": (1, 2)}
    base = {"batch": 2, "width": 8, "depth": 1}
    points = size.measure(["natural", "CROWN"], CPU, sizes=sizes, base=base, budget=0.0)
    assert len(points) == 12
    assert all(point.cost.seconds and point.cost.memory for point in points)
    size.write(tmp_path / "out", points, "a machine")
    text = (tmp_path / "out" / "size.md").read_text()
    assert "a machine" in text
    assert text.count("| CROWN |") == 3
    picture = (tmp_path / "out" / "size.png").read_bytes()
    assert picture.startswith(b"\x89PNG")
    assert len(picture) < 150_000
    content = json.loads((tmp_path / "out" / "size.json").read_text())
    assert len(content["results"]) == 12
    assert content["results"][0]["cost"]["memory"] > 0


def test_exponents_are_those_of_powers() -> None:
    def points(law: dict[int, float | None]) -> list[size.Point]:
        return [size.Point("IBP", "width", width, Cost(value, 1)) for width, value in law.items()]

    square = {size: 1e-6 * size**2 for size in (32, 64, 128, 256)}
    assert size.exponent(points(square), "seconds") == pytest.approx(2.0)
    # Small sizes, where fixed costs rule, do not count; what was not measured does not either.
    assert size.exponent(points({8: 1.0, **square, 512: None}), "seconds") == pytest.approx(2.0)
    assert size.exponent(points({8: 1.0}), "seconds") is None


def test_networks_are_as_deep_and_wide_as_asked() -> None:
    layers = [layer for layer in size.network(16, 3) if isinstance(layer, torch.nn.Linear)]
    assert [(layer.in_features, layer.out_features) for layer in layers] == [(64, 16), (16, 16), (16, 16), (16, 10)]
