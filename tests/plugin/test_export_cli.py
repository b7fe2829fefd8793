"""`python -m plugin.export`: what it writes, and that `--model NET.onnx` is a model wherever one is taken."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from newrelax.errors import UserError
from plugin.data import load
from plugin.evaluate import main as evaluate
from plugin.export import main as export
from plugin.formats.extras import installed
from plugin.formats.runtime import Runtime
from plugin.formats.vnnlib import read_property
from plugin.models.build import build
from plugin.models.weights import load_weights
from plugin.train import main as train

PACKAGES = ("onnx", "onnxscript", "onnx2torch", "onnxruntime", "vnnlib")
pytestmark = pytest.mark.skipif(not all(map(installed, PACKAGES)), reason='no ONNX here: pip install "newrelax[onnx]"')

QUICK = ["--limit-train", "300", "--epochs", "1", "--device", "cpu", "--batch-size", "50"]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("export") / "run"
    arguments = ["--method", "IBP", "--dataset", "digits", "--model", "CONV", "--lr", "1e-2", "--limit-test", "12"]
    assert train([*arguments, *QUICK, "--out", str(folder)]) == 0
    return folder


@pytest.fixture(scope="module")
def exported(run: Path) -> Path:
    assert export(["--run", str(run), "--out", str(run.parent / "out"), "--eps", "0.05", "--device", "cpu"]) == 0
    return run.parent / "out"


def test_the_file_has_the_runs_logits(run: Path, exported: Path) -> None:
    digits = load("digits")
    model = build("CONV", digits.input_shape, 10, digits.mean, digits.std).eval()
    load_weights(model, run / "model.pt")
    with torch.no_grad():
        logits = model(digits.test_x[:50])
    assert (Runtime.of(exported / "model.onnx").outputs(digits.test_x[:50]) - logits).abs().max() <= 1e-5


def test_each_correctly_classified_image_has_its_ball_as_a_property(exported: Path) -> None:
    digits = load("digits")
    logits = Runtime.of(exported / "model.onnx").outputs(digits.test_x[:12])
    correct = (logits.argmax(1) == digits.test_y[:12]).nonzero().flatten().tolist()
    lines = (exported / "instances.csv").read_text().splitlines()
    assert lines == [f"model.onnx,vnnlib/image_{image}.vnnlib,120" for image in correct]
    assert 0 < len(correct) < 12, "some are wrong, and left out"
    for image in correct:
        asked = read_property(exported / f"vnnlib/image_{image}.vnnlib")
        (case,) = asked.cases
        x, label = digits.test_x[image].flatten(), int(digits.test_y[image])
        assert torch.equal(case.lower, (x - 0.05).clamp(0, 1).double())
        assert torch.equal(case.upper, (x + 0.05).clamp(0, 1).double())
        others = [j for j in range(10) if j != label]
        assert [each.matrix[0].nonzero().flatten().tolist() for each in case.unsafe] == [sorted((label, j)) for j in others]


def test_version_2_says_the_same(run: Path, exported: Path, tmp_path: Path) -> None:
    options = ["--run", str(run), "--eps", "0.05", "--vnnlib", "2", "--timeout", "9.5", "--device", "cpu"]
    assert export([*options, "--out", str(tmp_path / "two")]) == 0
    lines = (tmp_path / "two" / "instances.csv").read_text().splitlines()
    assert lines
    for line in lines:
        network, name, seconds = line.split(",")
        assert (network, seconds) == ("model.onnx", "9.5")
        first, second = read_property(exported / name), read_property(tmp_path / "two" / name)
        assert first.cases[0].lower.equal(second.cases[0].lower)
        assert first.cases[0].upper.equal(second.cases[0].upper)
        for mine, theirs in zip(first.cases[0].unsafe, second.cases[0].unsafe, strict=True):
            assert mine.matrix.equal(theirs.matrix)


def test_a_file_is_evaluated_without_weights_as_its_run_is(run: Path, exported: Path, tmp_path: Path) -> None:
    figures = []
    for source in (["--run", str(run)], ["--model", str(exported / "model.onnx"), "--limit", "12", "--method", "IBP"]):
        assert evaluate([*source, "--eps", "0.05", "--device", "cpu", "--json", str(tmp_path / "figures.json")]) == 0
        (result,) = json.loads((tmp_path / "figures.json").read_text())["results"]
        figures.append({name: result[name] for name in ("natural_accuracy", "pgd_accuracy", "certified_accuracy")})
    assert figures[0] == figures[1]


def test_training_starts_from_a_files_weights(exported: Path, tmp_path: Path) -> None:
    """At a learning rate of almost nothing it ends where it starts; the run can be evaluated by itself."""
    model = str(exported / "model.onnx")
    options = ["--method", "IBP", "--dataset", "digits", "--model", model, "--lr", "1e-30", "--l1", "0"]
    assert train([*options, *QUICK, "--limit-test", "12", "--out", str(tmp_path / "again")]) == 0
    assert evaluate(["--run", str(tmp_path / "again"), "--device", "cpu", "--eps", "0.05"]) == 0
    again = str(tmp_path / "out")
    assert export(["--run", str(tmp_path / "again"), "--out", again, "--device", "cpu", "--limit", "2"]) == 0
    x = load("digits").test_x[:20]
    before, after = (Runtime.of(path).outputs(x) for path in (exported / "model.onnx", tmp_path / "out" / "model.onnx"))
    assert torch.allclose(before, after, atol=1e-5)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--model", "none.onnx"], "network none.onnx: no such file"),
        (["--model", "CONV"], "expected --run DIR, or --model NAME with --weights FILE, or --model NET.onnx"),
        (["--model", "{net}", "--eps", "0"], "eps: expected above 0"),
    ],
    ids=["no file", "no weights", "no radius"],
)
def test_mistakes_are_one_line(
    arguments: list[str], message: str, exported: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = [each.replace("{net}", str(exported / "model.onnx")) for each in arguments]
    capsys.readouterr()
    assert export([*given, "--out", str(tmp_path / "out"), "--device", "cpu"]) == 2
    told = capsys.readouterr().err
    assert message in told
    assert told.count("\n") == 1


def test_a_file_for_other_data_is_told_in_one_line(exported: Path) -> None:
    with pytest.raises(UserError, match=r"model\.onnx: takes images of shape \(1, 8, 8\), the data has rows of 3 features$"):
        build(str(exported / "model.onnx"), (3,), 10, (0.0,) * 3, (1.0,) * 3)
