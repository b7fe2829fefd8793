"""The programs of `shared/cases`, where they are present: each does what its README says is right."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import REPOSITORY


@pytest.fixture(scope="session")
def cases_dir(shared_dir: Path) -> Path:
    folder = shared_dir / "cases"
    if not folder.is_dir():
        pytest.skip(f"no programs in {folder}")
    return folder


def _run(cases_dir: Path, name: str) -> subprocess.CompletedProcess[str]:
    """A program, from the project's root."""
    found = list(cases_dir.glob(f"{name}*.py"))
    if not found:
        pytest.skip(f"no program {name} in {cases_dir}")
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY), "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [sys.executable, str(found[0])], capture_output=True, text=True, cwd=REPOSITORY, timeout=600, env=environment
    )


def _printed(cases_dir: Path, name: str) -> str:
    """What a program that ends well prints."""
    done = _run(cases_dir, name)
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


def _refusal(cases_dir: Path, name: str) -> str:
    """The line that a program ends with which nobody saves from a refusal."""
    done = _run(cases_dir, name)
    assert done.returncode != 0
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith("newrelax.errors.UserError: ")
    return last


def _numbers(text: str) -> list[float]:
    return [float(part) for part in re.findall(r"-?\d+\.\d+(?:e-?\d+)?", text)]


def test_01_one_logit(cases_dir: Path) -> None:
    assert "(4, 1)" in _printed(cases_dir, "01")


def test_02_inputs_outside_the_range(cases_dir: Path) -> None:
    text = _refusal(cases_dir, "02")
    for part in ("120 to 200", "[0, 1]", "data_range", "None"):
        assert part in text


def test_03_constant_that_broadcasts_up(cases_dir: Path) -> None:
    lines = _printed(cases_dir, "03").splitlines()
    assert lines
    for line in lines:
        assert max(_numbers(line.split(" but ")[0])) <= 230.4 + 1e-3


def test_04_branch_on_values(cases_dir: Path) -> None:
    assert "line 8 of 04_branch_on_values.py: if x.mean() < 0.3" in _refusal(cases_dir, "04")


@pytest.mark.parametrize("name", ["05", "07"])
def test_bounds_below_the_least_margin(cases_dir: Path, name: str) -> None:
    least = float("inf")
    for line in _printed(cases_dir, name).splitlines():
        if "least margin" in line:
            least = _numbers(line)[-1]
        else:
            assert _numbers(line)[-1] <= least + 1e-6, line


def test_09_radii_and_labels(cases_dir: Path) -> None:
    assert "expected eps" in _refusal(cases_dir, "09")


@pytest.mark.parametrize("name", ["10", "11", "12", "14", "15", "17", "19"])
def test_everything_works(cases_dir: Path, name: str) -> None:
    done = _run(cases_dir, name)
    assert done.returncode == 0, done.stderr[-2000:]
    assert "Error" not in done.stdout
    assert done.stderr == ""


def test_18_arguments(cases_dir: Path) -> None:
    for line in _printed(cases_dir, "18").splitlines():
        assert "-> UserError " in line or re.search(r" \(\d+, \d+\)$", line), line


@pytest.mark.slow
def test_zoo(cases_dir: Path) -> None:
    last = _printed(cases_dir, "zoo").splitlines()[-1]
    assert last == "135 cells: 135 bounded, 0 refused in one line, 0 tracebacks, 0 unsound"
