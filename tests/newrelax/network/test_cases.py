"""The programs of `shared/cases`, where they are present: each does what its README says is right."""

from __future__ import annotations

import re
import runpy
from pathlib import Path

import pytest
import torch

from newrelax import UserError


@pytest.fixture(scope="session")
def cases_dir(shared_dir: Path) -> Path:
    folder = shared_dir / "cases"
    if not folder.is_dir():
        pytest.skip(f"no programs in {folder}")
    return folder


def _run(cases_dir: Path, name: str) -> None:
    """Runs a program here: one of its own would spend most of its time on importing torch."""
    found = list(cases_dir.glob(f"{name}*.py"))
    if not found:
        pytest.skip(f"no program {name} in {cases_dir}")
    with torch.random.fork_rng(devices=[]):
        runpy.run_path(str(found[0]), run_name="__main__")


def _printed(cases_dir: Path, name: str, capfd: pytest.CaptureFixture[str]) -> str:
    """What a program that ends well prints, with nothing beside it."""
    _run(cases_dir, name)
    printed, beside = capfd.readouterr()
    assert beside == ""
    return printed


def _refusal(cases_dir: Path, name: str) -> str:
    """The line that a program ends with which nobody saves from a refusal."""
    with pytest.raises(UserError) as caught:
        _run(cases_dir, name)
    text = str(caught.value)
    assert "\n" not in text
    return text


def _numbers(text: str) -> list[float]:
    return [float(part) for part in re.findall(r"-?\d+\.\d+(?:e-?\d+)?", text)]


def test_01_one_logit(cases_dir: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert "(4, 1)" in _printed(cases_dir, "01", capfd)


def test_02_inputs_outside_the_range(cases_dir: Path) -> None:
    text = _refusal(cases_dir, "02")
    for part in ("120 to 200", "[0, 1]", "data_range", "None"):
        assert part in text


def test_03_constant_that_broadcasts_up(cases_dir: Path, capfd: pytest.CaptureFixture[str]) -> None:
    lines = _printed(cases_dir, "03", capfd).splitlines()
    assert lines
    for line in lines:
        assert max(_numbers(line.split(" but ")[0])) <= 230.4 + 1e-3


def test_04_branch_on_values(cases_dir: Path) -> None:
    assert "line 8 of 04_branch_on_values.py: if x.mean() < 0.3" in _refusal(cases_dir, "04")


@pytest.mark.parametrize("name", ["05", "07"])
def test_bounds_below_the_least_margin(cases_dir: Path, name: str, capfd: pytest.CaptureFixture[str]) -> None:
    least = float("inf")
    for line in _printed(cases_dir, name, capfd).splitlines():
        if "least margin" in line:
            least = _numbers(line)[-1]
        else:
            assert _numbers(line)[-1] <= least + 1e-6, line


def test_09_radii_and_labels(cases_dir: Path) -> None:
    assert "expected eps" in _refusal(cases_dir, "09")


@pytest.mark.parametrize("name", ["10", "11", "12", "14", "15", "17", "19"])
def test_everything_works(cases_dir: Path, name: str, capfd: pytest.CaptureFixture[str]) -> None:
    assert "Error" not in _printed(cases_dir, name, capfd)


def test_18_arguments(cases_dir: Path, capfd: pytest.CaptureFixture[str]) -> None:
    for line in _printed(cases_dir, "18", capfd).splitlines():
        assert "-> UserError " in line or re.search(r" \(\d+, \d+\)$", line), line


@pytest.mark.slow
def test_zoo(cases_dir: Path, capfd: pytest.CaptureFixture[str]) -> None:
    last = _printed(cases_dir, "zoo", capfd).splitlines()[-1]
    assert last == "135 cells: 135 bounded, 0 refused in one line, 0 tracebacks, 0 unsound"
