"""The benchmark of a GPU: what it writes, on a CPU in a GPU's place; and on one."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from experiments.benchmarks import gpu
from experiments.benchmarks.gpu import NETWORKS
from experiments.benchmarks.step import Case, Cost
from newrelax.document import markdown
from tests.experiments.benchmarks.tables import rows

CPU = torch.device("cpu")


def test_gpu_benchmark_but_for_the_gpu(tmp_path: Path) -> None:
    networks = [Case("", "CONV", "digits", 4, 0.1), Case("", "FC", "digits", 8, 0.1)]
    found = list(gpu.measure(networks, ["natural", "IBP"], CPU, budget=0.0, limit=60, captures=(False,)))
    captured = [(replace(case, capture=True), replace(what, seconds=what.seconds / 2)) for case, what in found[:-1]]
    captured.append((replace(found[-1][0], capture=True), Cost(note="out of memory")))
    gpu.write(tmp_path / "out", [*found, *captured], CPU)
    text = (tmp_path / "out" / "gpu.md").read_text()
    _head, *body = rows(text)
    assert [row[:3] for row in body] == [
        [f"{model}, digits shape", batch, method]
        for model, batch in (("CONV", "4"), ("FC", "8"))
        for method in ("natural", "IBP")
    ]
    assert body[0][-1] == "2.0×"
    assert body[-1][5:] == ["out of memory", "", ""]
    assert f"torch {torch.__version__}" in text
    assert "cuda " in text
    content = json.loads((tmp_path / "out" / "gpu.json").read_text())
    assert len(content["results"]) == 8
    assert content["results"][-1]["note"] == "out of memory"
    assert content["where"]["torch"] == torch.__version__


def test_gpu_table_tells_the_recipes_time() -> None:
    case = replace(NETWORKS[0], method="CROWN-IBP")
    found = [(case, Cost(0.002, 1)), (replace(case, capture=True), Cost(0.001, 1))]
    assert (
        markdown(gpu.table(found))
        .rstrip()
        .endswith("200 epochs of 600 CROWN-IBP steps at the fastest of these rates: 2.0 minutes.")
    )


@pytest.mark.gpu
def test_gpu_benchmark() -> None:
    networks = [Case("", "CONV", "digits", 4, 0.1)]
    cuda = torch.device("cuda")
    found = list(gpu.measure(networks, gpu.METHODS, cuda, budget=0.1, limit=60, captures=(False, True)))
    assert all(what.seconds and what.memory for _, what in found)
