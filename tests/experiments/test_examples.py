"""The examples of a loop and of data of one's own do what they say, also when there is little time."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from experiments import example_data, example_loop


def test_a_loop_of_ones_own(capsys: pytest.CaptureFixture[str]) -> None:
    certified = example_loop.main(epochs=4, limit=300)
    assert capsys.readouterr().out.rstrip().endswith(f"certified {certified:.1%} at eps 0.1")
    assert certified > 0


def test_data_of_ones_own(capsys: pytest.CaptureFixture[str]) -> None:
    result = example_data.main(epochs=8)
    printed = capsys.readouterr()
    assert printed.err == ""
    assert "eps 0.03 of each range" in printed.out
    assert result.values["validation"]["images"] == 40
    assert 0.5 < (result.certified_accuracy or 0) <= result.pgd_accuracy


@pytest.mark.parametrize("example", [example_loop, example_data], ids=lambda module: str(module.__name__))
def test_an_example_is_short(example: object) -> None:
    lines = Path(str(getattr(example, "__file__", ""))).read_text().splitlines()
    assert 0 < len(lines) <= 40


def test_the_moons_third_feature_is_of_another_scale() -> None:
    x, y = example_data.moons(200)
    widths = (x.amax(0) - x.amin(0)).tolist()
    assert math.isclose(x[:, 2].mean().item(), 1000, rel_tol=0.1)
    assert widths[2] > 20 * widths[0]
    assert y.bincount().tolist() == [100, 100]
