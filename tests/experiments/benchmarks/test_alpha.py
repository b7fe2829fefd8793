"""The comparison of α-CROWN with auto_LiRPA's own runs, and ours is never looser than CROWN."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch

from experiments.bench import main
from plugin import data
from plugin.models.build import build


def weights_of(folder: Path, seed: int) -> Path:
    digits = data.load("digits", folder, "cpu")
    model = build("CONV", digits.input_shape, digits.classes, digits.mean, digits.std, seed=seed)
    path = folder / "weights.pt"
    torch.save(model.state_dict(), path)
    return path


def test_three_rows_for_each_network(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--dataset", "digits", "--eps", "0.6", "--limit", "10", "--steps", "4"]
    threads = torch.get_num_threads()
    try:
        assert main(["alpha", str(weights_of(tmp_path, 0)), *words]) == 0
    finally:
        torch.set_num_threads(threads)
    shown = capsys.readouterr().out
    margins = {name: float(margin) for name, margin in re.findall(r"^\| (\S.*?) \| (-?[\d.]+) \|", shown, re.M)}
    assert set(margins) == {"CROWN", "alpha-CROWN:steps=4", "auto_LiRPA, 4 steps"}
    assert margins["alpha-CROWN:steps=4"] > margins["CROWN"]


def test_networks_of_ones_own_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--dataset", "digits", "--model", "tests.support.own_networks:perceptron"]
    assert main(["alpha", str(weights_of(tmp_path, 0)), *words]) == 2
    assert capsys.readouterr().err.count("\n") == 1
