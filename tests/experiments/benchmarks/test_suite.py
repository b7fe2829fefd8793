"""The suite's table: ratios, the floor, and what operations are."""

from __future__ import annotations

import torch

from experiments.benchmarks.suite import count_operations, matrix_product, paired_ratio, table
from newrelax.document import markdown
from tests.experiments.benchmarks.tables import rows

CPU = torch.device("cpu")


def test_ratios_are_of_the_same_round() -> None:
    """A machine that slows down in one round does not move them."""
    rounds = {"natural": [1.0, 10.0, 1.0], "IBP": [2.0, 20.0, 2.2], "IBP plain": [4.0, 60.0, 8.8]}
    assert paired_ratio(rounds, "IBP", "natural") == 2.0
    assert paired_ratio(rounds, "IBP plain", "IBP") == 3.0
    assert paired_ratio(rounds, "CROWN", "natural") is None
    _head, _natural, ibp = rows(markdown([table(rounds, {}, {})]))
    assert ibp == ["IBP", "2200.0", "", "2.00", "1.00", "8800.0", "3.00×", "", ""]


def test_the_floor_is_the_steps_operations_at_the_products_speed() -> None:
    rounds = {"matrix product": [0.2, 0.1, 0.1], "natural": [1.0, 1.0, 1.0]}
    head, natural = rows(markdown([table(rounds, {"matrix product": 50, "natural": 200})]))
    assert head[2] == "arithmetic alone, ms"
    assert natural[2] == "400.0"


def test_operations_are_those_of_products_and_convolutions() -> None:
    assert count_operations(matrix_product(CPU)) == 2 * 1024**3
    # Forward, weights' gradient, and the input's but for the first layer: 48 images' patches at 4 × 4 positions.
    network = torch.nn.Sequential(torch.nn.Conv2d(1, 5, 3), torch.nn.Flatten(), torch.nn.Linear(80, 10))
    images = torch.rand(48, 1, 6, 6)
    assert count_operations(lambda: network(images).sum().backward()) == 2 * 48 * (2 * 16 * 9 * 5 + 3 * 80 * 10)
