"""`python -m experiments.bench bounds`: both sides give the same bounds."""

from __future__ import annotations

import pytest
import torch

from experiments.bench import main
from tests.experiments.benchmarks.tables import rows


def test_both_sides_bound_alike(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--model", "experiments.benchmarks.residual_networks:two_blocks", "--repeat", "1"]
    threads = torch.get_num_threads()
    try:
        assert main(["bounds", *words]) == 0
    finally:
        torch.set_num_threads(threads)
    _, (name, own, other, speedup, apart) = rows(capsys.readouterr().out)
    assert name == "two_blocks"
    assert min(float(own), float(other), float(speedup.rstrip("×"))) > 0
    assert float(apart) < 1e-5
