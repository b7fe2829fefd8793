"""Accuracies: the published ones, what must hold between them, and the command line."""

import csv
import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from newrelax.bounds import BoundedNetwork, MarginBounds, box, other_classes
from newrelax.errors import UserError
from newrelax.registry import Registry
from plugin.certification.attacks import pgd
from plugin.certification.evaluation import Evaluation, UnsoundBounds, certifying_method, evaluate
from plugin.data import Dataset, load
from plugin.evaluate import main as evaluate_command
from plugin.models.build import build
from plugin.models.weights import load_weights
from plugin.train import main as train

REGISTRY = Registry.load()


@pytest.fixture(scope="module")
def digits() -> Dataset:
    return load("digits")


@pytest.fixture(scope="module")
def small(digits: Dataset) -> nn.Module:
    """A network for digits after 100 steps with noisy images: right mostly, provable at small eps partly."""
    model = build("CONV", digits.input_shape, 10, digits.mean, digits.std, seed=0)
    optimizer = torch.optim.Adam(model.parameters(), lr=5e-3)
    generator = torch.Generator().manual_seed(0)
    for _ in range(100):
        chosen = torch.randint(0, len(digits.train_y), (100,), generator=generator)
        noise = 0.2 * torch.rand(100, 1, 8, 8, generator=generator) - 0.1
        x = (digits.train_x[chosen] + noise).clamp(0, 1)
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(x), digits.train_y[chosen]).backward()
        optimizer.step()
    model.zero_grad()
    return model


@pytest.fixture
def weights(small: nn.Module, tmp_path: Path) -> Path:
    torch.save(small.state_dict(), tmp_path / "digits.pt")
    return tmp_path / "digits.pt"


def published(network: str, weights: str, reference_dir: Path, mnist: Dataset) -> nn.Module:
    model = build(network, mnist.input_shape, 10, mnist.mean, mnist.std)
    load_weights(model, reference_dir / f"mnist_{network}_{weights}.pt")
    return model


@pytest.mark.parametrize(
    ("network", "weights", "method", "images", "percent"),
    [
        ("FC", "box", "IBP", 10_000, 74.02),
        ("FC", "crownibp1to0", "CROWN-IBP", 10_000, 77.86),
        ("FC", "crownibp1to1", "CROWN-IBP-R", 10_000, 70.46),
        ("CONV", "box", "IBP", 10_000, 86.83),
        ("CONV", "crownibp1to0", "CROWN-IBP", 10_000, 86.56),
        # The first 1,000 of the run that gave the published figure on all 10,000.
        ("CONV", "crownibp1to1", "CROWN-IBP-R", 1_000, 70.6),
        pytest.param("CONV", "crownibp1to1", "CROWN-IBP-R", 10_000, 75.41, marks=pytest.mark.slow),
    ],
)
def test_published_certified_accuracy(
    network: str, weights: str, method: str, images: int, percent: float, reference_dir: Path, mnist: Dataset
) -> None:
    model = published(network, weights, reference_dir, mnist)
    certifier = certifying_method(REGISTRY.get_method(method), REGISTRY)
    margins = []
    with torch.no_grad():
        bounded = BoundedNetwork(model, mnist.input_shape, certifier)
        for x, y in zip(mnist.test_x[:images].split(500), mnist.test_y[:images].split(500), strict=True):
            margins.append(bounded.bounds(*box(x, 0.3), y).margins)
    certified = (torch.cat(margins) > 0).all(1).float().mean().item()
    assert 100 * certified == pytest.approx(percent, abs=0.02)


@pytest.mark.parametrize("method", ["IBP", "CROWN-IBP-R", "CROWN"])
def test_figures_agree_with_the_examples(small: nn.Module, digits: Dataset, method: str) -> None:
    x, y = digits.test_x[:120], digits.test_y[:120]
    found = evaluate(small, x, y, 0.02, REGISTRY.get_method(method), pgd_steps=5)
    with torch.no_grad():
        assert found.natural_accuracy == int((small(x).argmax(1) == y).sum()) / len(y)
    assert found.certified_accuracy is not None
    assert 0 < found.certified_accuracy <= found.pgd_accuracy <= found.natural_accuracy
    assert not (found.positive & ~found.natural).any()
    assert not (found.positive & ~found.pgd).any()
    assert not (found.pgd & ~found.natural).any()


@pytest.mark.parametrize("method", ["IBP", "CROWN-IBP-R", "CROWN", "DeepZ", "hBox"])
@pytest.mark.parametrize("eps", [0.01, 0.1, 0.4])
def test_no_attacked_or_random_point_is_below_its_bound(small: nn.Module, digits: Dataset, method: str, eps: float) -> None:
    """Every margin, not only the worst, at attacked points, random points and random corners of the box."""
    x, y = digits.test_x[:20], digits.test_y[:20]
    generator = torch.Generator().manual_seed(0)
    lower, upper = box(x, eps)
    with torch.no_grad():
        bounds = BoundedNetwork(small, digits.input_shape, REGISTRY.get_method(method)).bounds(lower, upper, y).margins
    points = [pgd(small, x, y, eps, steps=10, generator=generator)]
    for _ in range(10):
        share = torch.rand(x.shape, generator=generator)
        points += [lower + share * (upper - lower), torch.where(share < 0.5, lower, upper)]
    others = other_classes(y, 10)
    for point in points:
        with torch.no_grad():
            logits = small(point)
        margins = logits.gather(1, y[:, None]) - logits.gather(1, others)
        assert (margins >= bounds - 1e-4 * (1 + bounds.abs())).all()


def test_batches_do_not_change_bounds(small: nn.Module, digits: Dataset) -> None:
    x, y = digits.test_x[:30], digits.test_y[:30]
    method = REGISTRY.get_method("CROWN-IBP-R")
    sizes: list[int] = []
    whole = evaluate(small, x, y, 0.05, method, pgd_steps=1)
    parts = evaluate(small, x, y, 0.05, method, pgd_steps=1, batch_size=7, progress=sizes.append)
    torch.testing.assert_close(whole.margins, parts.margins, atol=1e-4, rtol=1e-4)
    assert sizes == [7, 7, 7, 7, 2]


def test_evaluation_leaves_model_and_streams_alone(small: nn.Module, digits: Dataset) -> None:
    small.train()
    before = torch.get_rng_state()
    state = {key: value.clone() for key, value in small.state_dict().items()}
    first, second = (
        evaluate(small, digits.test_x[:9], digits.test_y[:9], 0.1, REGISTRY.get_method("IBP"), pgd_steps=2) for _ in range(2)
    )
    assert torch.equal(torch.get_rng_state(), before)
    assert small.training
    assert all(torch.equal(value, state[key]) for key, value in small.state_dict().items())
    assert all(parameter.grad is None for parameter in small.parameters())
    assert torch.equal(first.pgd_margins, second.pgd_margins)
    assert torch.equal(first.margins, second.margins)


def test_bounds_that_an_attack_breaks_stop_the_evaluation(
    small: nn.Module, digits: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Bounds computed for a thousandth of the ball claim too much at the whole."""
    honest = BoundedNetwork.bounds

    def too_good(self: BoundedNetwork, lower: Tensor, upper: Tensor, y: Tensor, **more: float) -> MarginBounds:
        center = (lower + upper) / 2
        return honest(self, center + (lower - center) / 1000, center + (upper - center) / 1000, y, **more)

    monkeypatch.setattr(BoundedNetwork, "bounds", too_good)
    method = REGISTRY.get_method("IBP")
    x, y = digits.test_x[:20], digits.test_y[:20]
    with pytest.raises(UnsoundBounds, match="IBP at eps 0.3 certifies .* of 20 images that an attack breaks"):
        evaluate(small, x, y, 0.3, method)
    estimate = evaluate(small, x, y, 0.3, replace(method, sound=False))
    assert estimate.certified_accuracy is None
    assert estimate.estimated_accuracy > estimate.pgd_accuracy


def test_estimates_are_never_called_certified() -> None:
    method = replace(REGISTRY.get_method("IBP"), sound=False)
    ones = torch.ones(4, 9)
    estimate = Evaluation(0.1, method, torch.zeros(4), torch.zeros(4), ones, torch.ones(4))
    values = estimate.to_json()
    assert values["certified_accuracy"] is None
    assert values["estimated_accuracy"] == 1.0
    assert values["note"] == "estimate, not sound"
    assert values["sound"] is False
    sound = replace(estimate, method=REGISTRY.get_method("IBP")).to_json()
    assert sound["certified_accuracy"] == 1.0
    assert "estimated_accuracy" not in sound
    assert "note" not in sound


def test_not_a_number_is_not_certified() -> None:
    margins = torch.ones(2, 9)
    margins[0, 3] = torch.nan
    found = Evaluation(0.1, REGISTRY.get_method("IBP"), torch.zeros(2), torch.zeros(2), margins, torch.ones(2))
    assert found.positive.tolist() == [False, True]


@pytest.mark.parametrize("name", ["natural", "PGD"])
def test_methods_without_bounds_are_certified_by_another(name: str, small: nn.Module, digits: Dataset) -> None:
    method = REGISTRY.get_method(name)
    assert certifying_method(method, REGISTRY).name == "CROWN-IBP-R"
    with pytest.raises(UserError, match="certify with CROWN-IBP-R"):
        evaluate(small, digits.test_x[:2], digits.test_y[:2], 0.1, method)


def test_command_prints_table_and_writes_figures_and_margins(
    weights: Path, small: nn.Module, digits: Dataset, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["--model", "CONV", "--weights", str(weights), "--method", "CROWN-IBP-R", "--limit", "40"]
    arguments += ["--eps", "0.02", "--eps", "8/255,0.3", "--pgd-steps", "5", "--device", "cpu"]
    arguments += ["--json", str(tmp_path / "o.json"), "--per-example", str(tmp_path / "o.csv")]
    assert evaluate_command(arguments) == 0
    printed = capsys.readouterr().out.splitlines()
    assert printed[0] == "CONV on digits, 40 test images, certified with CROWN-IBP-R"
    report = json.loads((tmp_path / "o.json").read_text())
    assert [result["eps"] for result in report["results"]] == [0.02, 8 / 255, 0.3]
    with open(tmp_path / "o.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 120
    for line, result in zip(printed[2:], report["results"], strict=True):
        mine = [row for row in rows if float(row["eps"]) == pytest.approx(result["eps"])]
        for column, key in (("natural", "natural"), ("pgd", "pgd"), ("certified", "certified")):
            share = sum(int(row[column]) for row in mine) / 40
            assert result[f"{key}_accuracy"] == pytest.approx(share)
            assert f"{100 * share:.2f} %" in line
    row = rows[5]
    label = int(row["label"])
    with torch.no_grad():
        bounded = BoundedNetwork(small, digits.input_shape, REGISTRY.get_method("CROWN-IBP-R"))
        margins = bounded.bounds(*box(digits.test_x[5:6], 0.02), digits.test_y[5:6]).margins[0].tolist()
    assert row[f"margin_{label}"] == ""
    assert label == digits.test_y[5]
    stored = [float(row[f"margin_{j}"]) for j in range(10) if j != label]
    assert stored == pytest.approx(margins, abs=1e-4)


@pytest.fixture(scope="module")
def finished_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "run"
    options = "--method CROWN-IBP --model CONV --limit-train 200 --limit-test 50 --batch-size 50 --epochs 2"
    assert train([*options.split(), "--eps", "0.02", "--device", "cpu", "--out", str(folder)]) == 0
    return folder


def test_a_run_is_evaluated_as_its_training_did(finished_run: Path, tmp_path: Path) -> None:
    assert evaluate_command(["--run", str(finished_run), "--device", "cpu", "--json", str(tmp_path / "o.json")]) == 0
    result = json.loads((finished_run / "result.json").read_text())
    (found,) = json.loads((tmp_path / "o.json").read_text())["results"]
    for key in ("eps", "natural_accuracy", "pgd_accuracy", "certified_accuracy", "certify_method"):
        assert found[key] == result[key]
    assert found["certify_method"] == "IBP"
    assert found["images"] == 50


def test_an_unfinished_run_is_evaluated_from_its_checkpoint(
    finished_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "run"
    shutil.copytree(finished_run, folder)
    (folder / "model.pt").unlink()
    command = ["--run", str(folder), "--device", "cpu", "--json", str(tmp_path / "o.json")]
    assert evaluate_command(command) == 0
    assert "not finished" in capsys.readouterr().err
    (found,) = json.loads((tmp_path / "o.json").read_text())["results"]
    result = json.loads((finished_run / "result.json").read_text())
    assert found["certified_accuracy"] == result["certified_accuracy"]  # its last step was saved
    checkpoint = bytearray((folder / "checkpoint.pt").read_bytes())
    checkpoint[len(checkpoint) // 2] ^= 1
    (folder / "checkpoint.pt").write_bytes(checkpoint)
    assert evaluate_command(command) == 2
    assert "damaged" in capsys.readouterr().err
    (folder / "checkpoint.pt").unlink()
    assert evaluate_command(command) == 2
    assert "has not saved anything yet" in capsys.readouterr().err


UNSOUND = """
from newrelax import relaxation

@relaxation("Wishful")
def wishful(lower, upper):
    half = lower.new_full(lower.shape, 0.5)
    zero = lower.new_zeros(lower.shape)
    return half, zero, half, zero
"""


def test_an_unsound_plugin_certifies_nothing(weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "wishful.py").write_text(UNSOUND)
    arguments = ["--model", "CONV", "--weights", str(weights), "--method", "Wishful", "--limit", "10"]
    arguments += ["--plugin", str(tmp_path / "wishful.py"), "--eps", "0.3", "--device", "cpu"]
    arguments += ["--json", str(tmp_path / "o.json"), "--per-example", str(tmp_path / "o.csv")]
    assert evaluate_command(arguments) == 0
    captured = capsys.readouterr()
    assert "estimate, not sound" in captured.out
    assert "certified" not in captured.out
    assert "Wishful is not sound" in captured.err
    (result,) = json.loads((tmp_path / "o.json").read_text())["results"]
    assert result["certified_accuracy"] is None
    assert 0 <= result["estimated_accuracy"] <= 1
    assert "certified" not in (tmp_path / "o.csv").read_text()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "expected --run DIR, or --model NAME with --weights FILE"),
        (["--model", "CONV"], "expected --run DIR, or --model NAME with --weights FILE"),
        (["--run", "{folder}/nowhere"], "holds no run"),
        (["--run", "{folder}", "--model", "FC"], "leave out --model"),
        (["--model", "CONVV", "--weights", "{weights}"], "unknown model 'CONVV'"),
        (["--model", "FC", "--weights", "{weights}"], "do not fit the model"),
        (["--model", "CONV", "--weights", "{folder}/none.pt"], "no such file"),
        (["--model", "CONV", "--weights", "{weights}", "--method", "IPB"], "unknown method 'IPB'"),
        (["--model", "CONV", "--weights", "{weights}", "--method", "IBP:gamma=1"], "no parameter 'gamma'"),
        (["--model", "CONV", "--weights", "{weights}", "--dataset", "mnits"], "unknown data set 'mnits'"),
        (["--model", "CONV", "--weights", "{weights}", "--eps", "0"], "(0, 1]"),
        (["--model", "CONV", "--weights", "{weights}", "--eps", "1.5"], "(0, 1]"),
        (["--model", "CONV", "--weights", "{weights}", "--eps", "nan"], "a finite number"),
        (["--model", "CONV", "--weights", "{weights}", "--eps", "8/0"], "fraction"),
        (["--model", "CONV", "--weights", "{weights}", "--limit", "0"], "--limit"),
        (["--model", "CONV", "--weights", "{weights}", "--device", "tpu"], "device"),
        (["--model", "CONV", "--weights", "{weights}", "--json", "{folder}/none/o.json"], "there is no folder"),
        (["--model", "CONV", "--weights", "{weights}", "--plugin", "{folder}/none.py"], "no plugin file"),
    ],
    ids=lambda value: " ".join(value[-2:]) if isinstance(value, list) else "",
)
def test_mistakes_are_told_in_one_line(
    arguments: list[str], words: str, weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    filled = [part.format(folder=tmp_path, weights=weights) for part in arguments]
    assert evaluate_command(filled) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.count("\n") == 1
    assert captured.err.startswith("error: ")
    assert words in captured.err


def test_broken_bounds_end_the_command_loudly(
    weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    honest = BoundedNetwork.bounds

    def too_good(self: BoundedNetwork, lower: Tensor, upper: Tensor, y: Tensor, **more: float) -> MarginBounds:
        return replace(honest(self, lower, upper, y, **more), margins=torch.ones(len(y), 9))

    monkeypatch.setattr(BoundedNetwork, "bounds", too_good)
    arguments = ["--model", "CONV", "--weights", str(weights), "--limit", "10", "--eps", "0.3"]
    assert evaluate_command([*arguments, "--json", str(tmp_path / "o.json")]) == 1
    captured = capsys.readouterr()
    assert "UNSOUND" in captured.err
    assert captured.out == ""
    assert not (tmp_path / "o.json").exists()
