"""Data of one's own, by the command lines and from Python: an archive, a folder of pictures, a factory, a table."""

from __future__ import annotations

import importlib
import json
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import Tensor, nn

import plugin
from newrelax import certify
from plugin.analyze import main as analyze
from plugin.evaluate import main as evaluate
from plugin.models.build import build
from plugin.train import main as train
from tests.support.calls import invoke

QUICK = ("--batch-size", "10", "--epochs", "2", "--warmup", "0", "--ramp", "1", "--method", "CROWN-IBP", "--device", "cpu")
SHORT = ("--limit", "2", "--probe", "1", "--budget", "240", "--single-weights", "1", "--eps-step", "0.1", "--methods", "IBP")
PYTHON: dict[str, Any] = {"epochs": 2, "batch_size": 10, "warmup": 0, "ramp": 1, "device": "cpu", "progress": False}
RANGES = torch.tensor([[0.0, 1.0], [-50.0, 1000.0], [1e-3, 2e-3]])
"""Three features of very different ranges."""

MODULE = """
import numpy as np
from torch import nn


def pictures(seed=0):
    draw = np.random.default_rng(seed)
    y = np.arange(30) % 2
    x = (draw.random((30, 1, 6, 6)) / 2 + y[:, None, None, None] / 2).astype("float32")
    return x, y, x[:20], y[:20]


def small(input_shape, classes, mean, std):
    features = int(np.prod(input_shape))
    norm = nn.BatchNorm1d(features, affine=False)
    return nn.Sequential(nn.Flatten(), norm, nn.Linear(features, 6), nn.ReLU(), nn.Linear(6, classes))


def fails():
    raise ValueError("the server\\nis down")


three = 3
"""
SMALL = ("--model", "own_things:small")


@pytest.fixture(autouse=True)
def outside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder outside the repository, with a module in it, from which commands are called."""
    (tmp_path / "own_things.py").write_text(MODULE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    sys.modules.pop("own_things", None)
    importlib.invalidate_caches()
    return tmp_path


def pictures(count: int = 30) -> tuple[np.ndarray, np.ndarray]:
    """Grey pictures as bytes, the brighter half being class 1."""
    y = np.arange(count) % 2
    x = np.random.default_rng(0).integers(0, 128, (count, 1, 6, 6)) + 127 * y[:, None, None, None]
    return x.astype(np.uint8), y


def table(count: int = 40, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Rows of three features, the first and the second of which tell the class."""
    share = torch.rand(count, 3, generator=torch.Generator().manual_seed(seed))
    share[0], share[1] = 0, 1  # both ends occur
    return RANGES[:, 0] + share * (RANGES[:, 1] - RANGES[:, 0]), (share[:, 0] + share[:, 1] > 1).long()


def write_archive(path: Path, **arrays: Any) -> Path:
    x, y = pictures()
    np.savez(path, **{"x_train": x, "y_train": y, "x_test": x[:20], "y_test": y[:20], **arrays})
    return path


def write_table(path: Path) -> Path:
    (x, y), (test_x, test_y) = table(), table(20, seed=1)
    return write_archive(path, x_train=x.numpy(), y_train=y.numpy(), x_test=test_x.numpy(), y_test=test_y.numpy())


def write_folder(path: Path) -> Path:
    for part, count in (("train", 30), ("test", 20)):
        for number, (x, label) in enumerate(zip(*pictures(count), strict=True)):
            folder = path / part / ("dark", "bright")[label]
            folder.mkdir(parents=True, exist_ok=True)
            Image.fromarray(x[0]).save(folder / f"{number}.png")
    return path


def result_of(run: Path) -> dict[str, Any]:
    return dict(json.loads((run / "result.json").read_text()))


def called(main: Callable[..., int], *arguments: object, code: int = 0) -> str:
    found = invoke(main, list(map(str, arguments)))
    assert found.exit_code == code, found.output
    return found.output


SOURCES: dict[str, Callable[[Path], str]] = {
    "archive": lambda folder: str(write_archive(folder / "mine.npz")),
    "folder": lambda folder: str(write_folder(folder / "pictures")),
    "factory": lambda folder: "own_things:pictures",
}


@pytest.mark.parametrize("write", SOURCES.values(), ids=list(SOURCES))
def test_is_trained_validated_certified_and_analysed(outside: Path, write: Callable[[Path], str]) -> None:
    options = ("--dataset", write(outside), *SMALL, "--eps", "0.05", "--validation", "0.2", "--validate-every", "1")
    shown = called(train, *QUICK, *options, "--out", "run")
    assert "24 training, 6 validation, 20 test images" in shown
    result = result_of(outside / "run")
    assert (result["train_images"], result["test_images"]) == (24, 20)
    assert result["validation"]["epoch"] == 2
    for name in ("natural_accuracy", "pgd_accuracy", "certified_accuracy"):
        assert 0 <= result["validation"][name] <= 1
    scalars = EventAccumulator(str(outside / "run")).Reload().Tags()["scalars"]
    assert {"validation/natural", "validation/pgd", "validation/certified"} <= set(scalars)
    called(evaluate, "--run", "run", "--json", "found.json")
    (found,) = json.loads((outside / "found.json").read_text())["results"]
    assert all(found[name] == result[name] for name in ("natural_accuracy", "pgd_accuracy", "certified_accuracy"))
    assert "| IBP |" in called(analyze, "--run", "run", *SHORT)


@pytest.mark.parametrize("write", SOURCES.values(), ids=list(SOURCES))
def test_the_test_set_is_looked_at_once_at_the_end(
    outside: Path, write: Callable[[Path], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    looked: list[int] = []
    for name in ("plugin.fitting.outcome", "plugin.callbacks.validation"):
        module = importlib.import_module(name)

        def counted(model: nn.Module, x: Tensor, *rest: Any, original: Any = module.evaluate, **more: Any) -> Any:
            looked.append(len(x))
            return original(model, x, *rest, **more)

        monkeypatch.setattr(module, "evaluate", counted)
    options = ("--dataset", write(outside), *SMALL, "--eps", "0.05", "--validation", "0.2", "--validate-every", "1")
    called(train, *QUICK, *options, "--out", "run")
    assert looked == [6, 6, 20]


@pytest.mark.parametrize("model", ["FC", "own_things:small"])
def test_a_table_with_radii_of_each_features_range(outside: Path, model: str) -> None:
    data = write_table(outside / "table.npz")
    options = ("--dataset", data, "--model", model, "--eps", "0.05", "--eps-unit", "range", "--validation", "0.2")
    shown = called(train, *QUICK, *options, "--lr", "5e-3", "--epochs", "8", "--out", "run")
    assert "32 training, 8 validation, 20 test rows of 3 features" in shown
    assert "range [0, 1] × [-50, 1000] × [0.001, 0.002]" in shown
    assert "eps 0.05 of each range" in shown
    result = result_of(outside / "run")
    assert (result["eps"], result["eps_unit"]) == (0.05, "range")
    assert result["certified_accuracy"] > 0
    assert "0.05" in called(evaluate, "--run", "run", "--per-example", "margins.csv")
    assert "| IBP |" in called(analyze, "--run", "run", *SHORT)

    # What was certified holds at every sampled point of the box, whose half-width in each feature is ε times its range.
    x, y = table(20, seed=1)
    train_x = table()[0]
    mean, std = train_x.mean(0), train_x.std(0)
    net = build(model, (3,), 2, mean.tolist(), std.tolist())
    net.load_state_dict(torch.load(outside / "run" / "model.pt", weights_only=True))
    net.eval()
    radius = 0.05 * (RANGES[:, 1] - RANGES[:, 0])
    margins = certify(net, x, y, radius, result["certify_method"], data_range=(RANGES[:, 0], RANGES[:, 1]))
    rows = [line.split(",") for line in (outside / "margins.csv").read_text().splitlines()]
    column = rows[0].index("certified")
    certified = torch.tensor([row[column] == "1" for row in rows[1:]])
    assert torch.equal(certified, (margins > 0).all(1))
    assert certified.float().mean().item() == pytest.approx(result["certified_accuracy"])
    low, high = torch.maximum(x - radius, RANGES[:, 0]), torch.minimum(x + radius, RANGES[:, 1])
    corners = torch.cartesian_prod(*[torch.tensor([0.0, 1.0])] * 3)
    shares = torch.cat([corners, torch.rand(300, 3, generator=torch.Generator().manual_seed(2))])
    points = low[:, None] + shares * (high - low)[:, None]
    predicted = net(points.flatten(0, 1)).argmax(1).view(20, -1)
    assert (predicted == y[:, None])[certified].all()


def test_a_width_of_zero_would_certify_more(outside: Path) -> None:
    """The radius reaches every feature: without any one of them, some margin grows."""
    data = write_table(outside / "table.npz")
    called(train, *QUICK, "--dataset", data, *SMALL, "--eps", "0.05", "--eps-unit", "range", "--out", "run", "--epochs", "8")
    net = importlib.import_module("own_things").small((3,), 2, None, None)
    net.load_state_dict(torch.load(outside / "run" / "model.pt", weights_only=True))
    net.eval()
    x, y = table(20, seed=1)
    limits = (RANGES[:, 0], RANGES[:, 1])
    radius = 0.05 * (RANGES[:, 1] - RANGES[:, 0])
    whole = certify(net, x, y, radius, "IBP", data_range=limits)
    for feature in range(3):
        less = radius.clone()
        less[feature] = 0
        assert (certify(net, x, y, less, "IBP", data_range=limits) > whole).any()


def test_an_archive_from_python_in_a_few_lines(outside: Path) -> None:
    result = plugin.fit("own_things:small", write_archive(outside / "mine.npz"), eps=0.05, validation=0.2, **PYTHON)
    assert result.values["validation"]["images"] == 6
    assert 0 <= (result.certified_accuracy or 0) <= result.pgd_accuracy <= result.natural_accuracy


def test_a_folder_from_python_in_a_few_lines(outside: Path) -> None:
    result = plugin.fit("own_things:small", str(write_folder(outside / "pictures")), eps=0.05, **PYTHON)
    assert result.values["test_images"] == 20


def test_a_factory_from_python_in_a_few_lines() -> None:
    assert plugin.fit("own_things:small", "own_things:pictures", eps=0.05, **PYTHON).values["dataset"] == "own_things:pictures"


def test_a_table_from_python_in_a_few_lines() -> None:
    model = nn.Sequential(nn.BatchNorm1d(3, affine=False), nn.Linear(3, 8), nn.ReLU(), nn.Linear(8, 2))
    result = plugin.fit(model, (*table(), *table(20, seed=1)), eps=0.05, eps_unit="range", **PYTHON)
    low, high = RANGES.unbind(1)
    x, y = table(20, seed=1)
    found = plugin.evaluate(model, x, y, 0.05 * (high - low), result.values["certify_method"], data_range=(low, high))
    assert found.certified_accuracy == result.certified_accuracy


def pickled(folder: Path) -> str:
    np.savez(folder / "bad.npz", x_train=np.array([{"a": 1}], dtype=object), y_train=[0], x_test=[[0.0]], y_test=[0])
    return str(folder / "bad.npz")


def text(folder: Path) -> str:
    (folder / "bad.npz").write_text("no archive")
    return str(folder / "bad.npz")


def other_members(folder: Path) -> str:
    with zipfile.ZipFile(folder / "bad.npz", "w") as archive:
        archive.writestr("letter.txt", "hello")
    return str(folder / "bad.npz")


def bad(**arrays: Any) -> Callable[[Path], str]:
    return lambda folder: str(write_archive(folder / "bad.npz", **arrays))


def empty_class(folder: Path) -> str:
    write_folder(folder / "bad")
    (folder / "bad" / "train" / "grey").mkdir()
    return str(folder / "bad")


def unknown_class(folder: Path) -> str:
    write_folder(folder / "bad")
    (folder / "bad" / "test" / "dark").rename(folder / "bad" / "test" / "drak")
    return str(folder / "bad")


def no_picture(folder: Path) -> str:
    write_folder(folder / "bad")
    (folder / "bad" / "train" / "dark" / "0.png").write_text("no picture")
    return str(folder / "bad")


def said(spec: str) -> Callable[[Path], str]:
    return lambda _: spec


PIXELS, LABELS = pictures()
NANS = np.where(np.arange(30)[:, None, None, None] == 3, np.nan, PIXELS / 255).astype("float32")
WRONG: dict[str, tuple[Callable[[Path], str], str]] = {
    "a label that is no class": (bad(y_test=LABELS[:20] + 1), r"y_test[1] is 2, which is no class: expected 0 to 1"),
    "a label below zero": (bad(y_train=LABELS - 1), "y_train[0] is -1, which is no class"),
    "labels that are numbers": (bad(y_train=LABELS / 2), "y_train: expected whole numbers (classes), got float64"),
    "labels with gaps": (bad(y_train=2 * LABELS), "y_train has labels up to 2, but none is 1"),
    "NaN": (
        bad(x_train=NANS, x_test=PIXELS[:20] / np.float32(255)),
        "x_train: NaN or infinite values, 36 of 1080, the first nan at x_train[3, 0, 0, 0]",
    ),
    "an empty split": (bad(x_test=PIXELS[:0], y_test=LABELS[:0]), "x_test is empty, of the shape (0, 1, 6, 6)"),
    "fewer labels": (bad(y_train=LABELS[:7]), "x_train has 30 examples, y_train 7 labels"),
    "another shape": (bad(x_test=PIXELS[:20, :, :5]), "x_train has inputs of 1×6×6, x_test of 1×5×6"),
    "no channels": (bad(x_train=PIXELS[:, 0]), "x[:, None] gives grey images their channel"),
    "something pickled": (pickled, "x_train"),
    "no archive": (text, "bad.npz"),
    "another archive": (other_members, "bad.npz"),
    "a missing array": (lambda folder: (np.savez(folder / "bad.npz", x_train=PIXELS), str(folder / "bad.npz"))[1], "y_train"),
    "no such file": (said("nowhere/data.npz"), "found nothing at that path"),
    "an empty class": (empty_class, "found none"),
    "a class that training lacks": (unknown_class, "class 'drak' is not among those of training; did you mean dark"),
    "no picture": (no_picture, "0.png"),
    "a factory that raises": (said("own_things:fails"), "its factory failed (ValueError: the server is down)"),
    "a factory that is none": (said("own_things:three"), "own_things:three: expected a function"),
    "no such factory": (said("own_things:picture"), "has no 'picture'; did you mean pictures"),
    "no such module": (said("own_thinks:pictures"), "own_thinks cannot be imported (ModuleNotFoundError"),
    "an unknown name": (said("digit"), "unknown data set 'digit'; did you mean digits"),
}


@pytest.mark.parametrize(("write", "message"), WRONG.values(), ids=list(WRONG))
def test_what_cannot_be_trained_with_is_one_line(outside: Path, write: Callable[[Path], str], message: str) -> None:
    arguments = (*QUICK, *SMALL, "--eps", "0.05", "--dataset", write(outside), "--out", "run")
    output = called(train, *arguments, code=2)
    assert output.startswith("error: ")
    assert output.count("\n") == 1
    assert message in output
    assert not (outside / "run").exists()
    with pytest.raises(plugin.UserError):
        called(train, *arguments, "--debug")


NET = "from torch import nn\n\ndef wide():\n    return nn.Sequential(nn.Conv2d(3, 2, 3), nn.Flatten(), nn.Linear(32, 2))\n"
OPTIONS: dict[str, tuple[tuple[str, ...], str]] = {
    "no radius": ((*SMALL,), "has no default eps: expected its radius, give --eps"),
    "another number of channels": (
        ("--model", "own_net:wide", "--eps", "0.1"),
        "takes inputs of 3 channels, the data has 1",
    ),
    "a radius wider than the data": ((*SMALL, "--eps", "1.5"), "eps: expected a radius in (0, 1]"),
    "a range that does not hold the data": (
        (*SMALL, "--eps", "0.1", "--data-range", "0,0.5"),
        "outside the data range [0, 0.5]",
    ),
    "radii without a range": (
        (*SMALL, "--eps", "0.1", "--eps-unit", "range", "--data-range", "none"),
        "--eps-unit range: expected a data range to measure eps by",
    ),
    "nothing held back": ((*SMALL, "--eps", "0.1", "--validation", "0.001"), "leaves 30 to train and 0 to validate"),
    "an unknown option": ((*SMALL, "--eps", "0.1", "--epoch", "3"), "--epochs"),
}


@pytest.mark.parametrize(("options", "message"), OPTIONS.values(), ids=list(OPTIONS))
def test_settings_that_do_not_fit_the_data_are_one_line(outside: Path, options: tuple[str, ...], message: str) -> None:
    (outside / "own_net.py").write_text(NET)
    write_archive(outside / "mine.npz")
    output = called(train, *QUICK, "--dataset", "mine.npz", *options, "--out", "run", code=2)
    assert output.startswith("error: ")
    assert output.count("\n") == 1
    assert message in output
    assert not (outside / "run").exists()
