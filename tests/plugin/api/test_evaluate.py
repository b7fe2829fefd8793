"""`plugin.evaluate`: natural, PGD and certified accuracy of anybody's network."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import plugin
from newrelax import Method, Registry, certify, relaxation
from plugin.data import load
from plugin.evaluate import main
from plugin.models.build import build
from tests.plugin.api.tiny import network, rows, weights
from tests.support.calls import invoke
from tests.support.tiny_runs import train_cli

X, Y = rows(24)


@relaxation("Shrunk")
def shrunk(lower: Tensor, upper: Tensor) -> tuple[Any, Any, Any, Any]:
    """Not above ReLU."""
    chord = upper / (upper - lower)
    return torch.zeros_like(lower), torch.zeros_like(lower), chord, -0.5 * chord * lower


def trained(outputs: int = 3, y: Tensor = Y) -> nn.Module:
    """A network that has learnt the rows a little."""
    model = network(outputs=outputs)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.05)
    loss = plugin.CertifiedLoss(model, "CROWN-IBP", (4,))
    for _ in range(60):
        optimizer.zero_grad()
        loss(X, y, 0.05, kappa=0.5).loss.backward()
        optimizer.step()
    return model


@pytest.fixture(scope="module")
def model() -> nn.Module:
    return trained()


def test_is_what_the_command_line_says_of_a_run(tmp_path: Path) -> None:
    train_cli(tmp_path / "run", "--method", "IBP", "--epochs", "8", "--eps", "0.02", "--lr", "5e-3", "--model", "FC")
    options = ["--run", str(tmp_path / "run"), "--json", str(tmp_path / "found.json"), "--eps", "0.01", "--seed", "3"]
    assert invoke(main, [*options, "--method", "CROWN", "--pgd-steps", "5", "--limit", "30", "--device", "cpu"]).exit_code == 0
    (told,) = json.loads((tmp_path / "found.json").read_text())["results"]
    digits = load("digits")
    net = build("FC", digits.input_shape, digits.classes, digits.mean, digits.std)
    net.load_state_dict(torch.load(tmp_path / "run" / "model.pt", weights_only=True))
    found = plugin.evaluate(net, digits.test_x[:30], digits.test_y[:30], 0.01, "CROWN", pgd_steps=5, seed=3)
    assert found.to_json() == told
    assert 0 < (found.certified_accuracy or 0) <= found.pgd_accuracy <= found.natural_accuracy


def test_margins_are_those_that_certify_gives(model: nn.Module) -> None:
    found = plugin.evaluate(model, X, Y, 0.05)
    torch.testing.assert_close(found.margins, certify(model, X, Y, 0.05, "CROWN-IBP-R").detach())
    assert found.method.label == "CROWN-IBP-R"
    assert torch.equal(found.labels, Y)
    assert torch.equal(found.predictions, model(X).argmax(1))
    assert 0 < (found.certified_accuracy or 0) < 1


@pytest.mark.parametrize("count", [24, 4, 1], ids=["rows", "as many rows as features", "one row"])
def test_radii_of_each_feature(model: nn.Module, count: int) -> None:
    eps = torch.tensor([0.2, 0.0, 0.01, 0.05])
    found = plugin.evaluate(model, X[:count], Y[:count], eps)
    expected = certify(model, X[:count], Y[:count], eps.expand(count, 4).contiguous(), "CROWN-IBP-R")
    torch.testing.assert_close(found.margins, expected.detach())
    tighter = plugin.evaluate(model, X[:count], Y[:count], 0.2)
    assert (found.margins >= tighter.margins - 1e-6).all()
    assert (found.pgd_margins >= tighter.margins.min(1).values - 1e-6).all()


def test_a_radius_that_is_a_tensor_of_one_is_a_number(model: nn.Module) -> None:
    assert plugin.evaluate(model, X, Y, torch.tensor(0.05)).eps == pytest.approx(0.05)


def test_ranges_of_each_feature(model: nn.Module) -> None:
    low, high = X.amin(0), X.amax(0)
    found = plugin.evaluate(model, X, Y, 0.3, "IBP", data_range=(low, high))
    torch.testing.assert_close(found.margins, certify(model, X, Y, 0.3, "IBP", data_range=(low, high)).detach())


def test_one_logit_decides_by_its_sign() -> None:
    y = (Y > 0).long()
    model = trained(outputs=1, y=y)
    found = plugin.evaluate(model, X, y.tolist(), 0.02)
    assert found.margins.shape == (24, 1)
    assert found.natural_accuracy == ((model(X)[:, 0] > 0).long() == y).float().mean().item()
    assert 0 < (found.certified_accuracy or 0) <= found.pgd_accuracy


def test_a_network_in_training_stays_as_it_was() -> None:
    model = network(nn.BatchNorm1d(8), nn.Dropout(0.5)).train()
    model[1].eval()
    before, stream = weights(model), torch.get_rng_state()
    found = plugin.evaluate(model, X, Y, 0.05, pgd_steps=2)
    assert [module.training for module in model] == [True, False, True, True, True]
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())
    assert torch.equal(stream, torch.get_rng_state())
    assert torch.equal(found.predictions, model.eval()(X).argmax(1))


def test_a_method_that_only_trains_stands_for_the_one_that_certifies(model: nn.Module) -> None:
    assert plugin.evaluate(model, X, Y, 0.05, "PGD", pgd_steps=1).method.label == "CROWN-IBP-R"
    assert plugin.evaluate(model, X, Y, 0.05, "CROWN-IBP", pgd_steps=1).method.label == "IBP"


@pytest.mark.parametrize(
    "method", ["DeepZ-Cauchy:k=5", Method("Shrunk", relaxation=shrunk, sound=False)], ids=["Cauchy", "by its own word"]
)
def test_an_estimate_is_no_certificate(model: nn.Module, method: Any) -> None:
    found = plugin.evaluate(model, X, Y, 0.05, method)
    assert found.certified_accuracy is None
    assert found.estimated_accuracy is not None


def test_a_method_of_ones_own_is_searched_once_more_under_any_name(tmp_path: Path, model: nn.Module) -> None:
    file = tmp_path / "shrunk.py"
    file.write_text(
        "import torch\nfrom newrelax import relaxation\n\n@relaxation('Shrunk')\ndef shrunk(lower, upper):\n"
        "    chord = upper / (upper - lower)\n    return torch.zeros_like(lower), torch.zeros_like(lower), chord, "
        "-0.5 * chord * lower\n"
    )
    registry = Registry.load([file])
    for method, known in (
        ("Shrunk", registry),
        (registry["Shrunk"], None),
        (Method("CROWN", relaxation=shrunk), None),
    ):
        with pytest.raises(plugin.UserError, match="is not sound and certifies nothing: .* is below ReLU"):
            plugin.evaluate(model, X, Y, 0.05, method, registry=known)


def test_progress_is_told(model: nn.Module) -> None:
    seen: list[int] = []
    plugin.evaluate(model, X, Y, 0.05, batch_size=10, progress=seen.append)
    assert seen == [10, 10, 4]


WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "other features": ({"x": X[:, :3]}, r"the network fails on inputs of shape \(3,\)"),
    "nothing": ({"x": X[:0], "y": Y[:0]}, "expected at least one input to evaluate, got none"),
    "another type": ({"x": X.double()}, r"expected x in the network's type float32, got float64"),
    "NaN": ({"x": X * torch.nan}, "x holds NaN or infinite values"),
    "outside the range": ({"x": 2 * X}, r"inputs range from .* expected \[0, 1\]"),
    "no class": ({"y": Y + 1}, "expected classes from 0 to 2, got 1 to 3"),
    "fewer labels": ({"y": Y[:5]}, r"expected y of shape \(24,\)"),
    "negative radius": ({"eps": -0.1}, "expected eps as a number of at least 0"),
    "radii of each example": ({"eps": torch.full((24,), 0.1)}, "got one for each example"),
    "unknown method": ({"method": "CRWN"}, "unknown method 'CRWN'; did you mean CROWN"),
    "no method": ({"method": 3}, "expected method as a name or a newrelax.Method, got int"),
    "no network": ({"model": torch.relu}, "expected a torch.nn.Module, got builtin_function_or_method"),
    "no logits": ({"model": nn.Unflatten(1, (2, 2))}, r"expected logits \[n, classes\] from the network, got the shape"),
    "two outputs": ({"model": nn.LSTM(4, 3)}, r"expected logits \[n, classes\] from the network, got tuple"),
    "batch size": ({"batch_size": 0}, "batch_size: expected at least 1, got 0"),
    "steps": ({"pgd_steps": -1}, "pgd_steps: expected at least 1, got -1"),
    "engine": ({"engine": "lirpa"}, "unknown engine 'lirpa'"),
}


@pytest.mark.parametrize(("given", "message"), WRONG.values(), ids=list(WRONG))
def test_mistakes_are_one_line(model: nn.Module, given: dict[str, Any], message: str) -> None:
    with pytest.raises(plugin.UserError, match=message) as caught:
        plugin.evaluate(**{"model": model, "x": X, "y": Y, "eps": 0.05, **given})
    assert "\n" not in str(caught.value)


def test_the_name_is_the_function_before_and_after_the_command_is_imported() -> None:
    program = (
        "import plugin, torch\n"
        "net, x = torch.nn.Linear(2, 2), torch.rand(3, 2)\n"
        "before = plugin.evaluate(net, x, [0, 1, 0], 0.1, pgd_steps=1).margins\n"
        "import plugin.evaluate\n"
        "after = plugin.evaluate(net, x, [0, 1, 0], 0.1, pgd_steps=1).margins\n"
        "from plugin import evaluate\n"
        "again = evaluate(net, x, [0, 1, 0], 0.1, pgd_steps=1).margins\n"
        "assert torch.equal(before, after) and torch.equal(after, again) and plugin.evaluate.main\n"
    )
    subprocess.run([sys.executable, "-W", "error", "-c", program], check=True, timeout=120)
