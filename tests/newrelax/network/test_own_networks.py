"""Networks with other layers than the paper's train from the command line, are certified, and analysed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from newrelax.bounds import BoundedNetwork, box, worst_logits
from newrelax.registry import Registry
from plugin import analyze, train
from plugin.evaluate import main as evaluate
from tests.support import own_networks

NETWORKS = ["dropout", "leaky_relu", "max_pool", "layer_norm", "tanh", "batch_norm", "weight_norm"]
METHODS = ["IBP", "CROWN-IBP", "CROWN", "hBox"]
# Every network by an interval and by a backward pass in turn: training knows networks and methods, but no pair of them; all
# pairs are bounded in test_zoo.py.
PAIRS = [(network, METHODS[(i + k) % 4]) for i, network in enumerate(NETWORKS) for k in (0, 1)]
TINY = "--epochs 2 --ramp 1 --warmup 0 --limit-train 60 --limit-test 10 --batch-size 30 --eps 0.02 --kappa 0.5 --device cpu"


@pytest.mark.parametrize(("network", "method"), PAIRS)
def test_trains_and_certifies(network: str, method: str, tmp_path: Path) -> None:
    run = tmp_path / "run"
    model = f"tests.support.own_networks:{network}"
    assert train.main(["--method", method, "--model", model, "--out", str(run), *TINY.split()]) == 0
    result = json.loads((run / "result.json").read_text())
    assert evaluate(["--run", str(run), "--json", str(tmp_path / "again.json")]) == 0
    again = json.loads((tmp_path / "again.json").read_text())["results"][0]
    assert again["certified_accuracy"] == result["certified_accuracy"]


@pytest.mark.parametrize("network", ["tanh", "layer_norm", "max_pool"])
def test_analysis(network: str, tmp_path: Path) -> None:
    """In float64, also of a network without ReLU."""
    out = tmp_path / "analysis"
    model = f"tests.support.own_networks:{network}"
    little = "--methods IBP,CROWN --limit 4 --budget 240 --single-weights 1"
    assert analyze.main(["--model", model, *little.split(), "--out", str(out)]) == 0
    found = json.loads((out / "analysis.json").read_text())
    assert {"IBP", "CROWN"} <= set(json.dumps(found).replace('"', " ").split())


@pytest.mark.parametrize("network", NETWORKS)
def test_one_step_follows_the_gradient(network: str) -> None:
    """A small step against the gradient of the certified loss lowers it, in training mode, dropout or not."""
    torch.manual_seed(0)
    model = getattr(own_networks, network)().double().train()
    net = BoundedNetwork(model, (1, 8, 8), Registry.load().get_method("CROWN-IBP-R"))
    x, y = torch.rand(8, 1, 8, 8, dtype=torch.float64), torch.arange(8)

    def loss() -> torch.Tensor:
        clean = net.observe(x)
        margins = net.bounds(*box(x, 0.02), y, statistics=clean.statistics).margins
        return F.cross_entropy(worst_logits(margins, y), y)

    before = loss()
    gradients = torch.autograd.grad(before, list(model.parameters()), allow_unused=True)
    square = sum(float(g.square().sum()) for g in gradients if g is not None)
    with torch.no_grad():
        for parameter, gradient in zip(model.parameters(), gradients, strict=True):
            if gradient is not None:
                parameter.sub_(1e-5 * gradient)
    assert (before - loss()).item() == pytest.approx(1e-5 * square, rel=0.02)
