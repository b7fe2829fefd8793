"""The table of exact accuracies: from verdicts to a document beside the paper's figures."""

from __future__ import annotations

import json
from pathlib import Path

from click.testing import CliRunner

from experiments.exact import command, main

FIGURES = {
    "model": "CONV",
    "dataset": "mnist",
    "eps": 0.3,
    "ladder": "attack,IBP,exact",
    "timeout": 60.0,
    "device": "a CPU",
    "count": 1000,
    "natural_accuracy": 0.95,
    "pgd_accuracy": 0.9,
    "verified": 0.87,
    "falsified": 0.12,
    "undecided": 0.01,
    "seconds": 7200.0,
    "rungs": {"IBP": {"decided": 870, "mean_seconds": 0.1}},
}


def test_a_row_has_the_papers_figure_and_the_difference(tmp_path: Path) -> None:
    (tmp_path / "complete.json").write_text(json.dumps(FIGURES))
    shown = CliRunner().invoke(command, [f"DeepZ={tmp_path}"]).output
    assert "| DeepZ | 1,000 | 95.00 | 90.00 | 87.00 | 1.00 | 69.8 | +17.2 | 2.00 |" in shown
    assert "DeepZ: IBP 870" in shown


def test_a_folder_without_verdicts_is_refused(tmp_path: Path) -> None:
    assert main([f"DeepZ={tmp_path}"]) == 2
