"""Weights from files that may be anything: read from every kind that people have, refused in one line where they do not fit."""

import pickle
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
from torch import nn

from newrelax.errors import UserError
from plugin.data import Dataset
from plugin.models.build import build as build_model
from plugin.models.weights import load_weights, misfit
from plugin.process.tensors import save_checked


def build(name: str, shape: tuple[int, ...] = (1, 28, 28), seed: int | None = 0) -> nn.Module:
    return build_model(name, shape, 10, (0.1307,) * shape[0], (0.3081,) * shape[0], seed=seed)


@pytest.mark.parametrize(("network", "weights"), [("FC", "box"), ("FC", "crown"), ("CONV", "crownibp1to1")])
def test_published_weights_give_published_logits(
    network: str, weights: str, reference_dir: Path, mnist: Dataset, expected_bounds: dict[str, np.ndarray]
) -> None:
    model = build(network)
    load_weights(model, reference_dir / f"mnist_{network}_{weights}.pt")
    expected = torch.from_numpy(expected_bounds[f"{network}|{weights}|logits"])
    with torch.no_grad():
        torch.testing.assert_close(model(mnist.test_x[: len(expected)]), expected, atol=1e-4, rtol=0)


def file_of(kind: str, state: dict[str, torch.Tensor], folder: Path) -> Path:
    """The state dict in a file, as one of those that people have."""
    path = folder / ("w.safetensors" if "safetensors" in kind else "w.pt")
    if kind == "this program's checkpoint":
        save_checked(path, {"model": state, "epoch": 3})
    elif kind == "safetensors":
        safetensors.torch.save_file(state, path)
    elif kind == "old format":
        torch.save(state, path, _use_new_zipfile_serialization=False)
    elif kind.startswith("under "):
        torch.save({kind.removeprefix("under "): state, "epoch": 3}, path)
    elif kind.endswith("."):
        torch.save({kind + name: tensor for name, tensor in state.items()}, path)
    else:
        torch.save(state, path)
    return path


KINDS = [
    "alone",
    "under model",
    "under state_dict",
    "this program's checkpoint",
    "safetensors",
    "old format",
    "module.",
    "_orig_mod.",
    "module._orig_mod.",
    "_orig_mod.module.",
]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", ["FC", "CNN7"])
def test_weights_return_from_a_file(name: str, kind: str, tmp_path: Path) -> None:
    saved, other = build(name, (1, 8, 8), seed=1), build(name, (1, 8, 8), seed=2)
    saved(torch.rand(8, 1, 8, 8))  # moves batch-norm statistics
    state = saved.state_dict()
    load_weights(other, file_of(kind, state, tmp_path))
    assert all(torch.equal(value, other.state_dict()[key]) for key, value in state.items())


def test_a_prefix_that_is_the_models_own_name_stays(tmp_path: Path) -> None:
    own = nn.ModuleDict({"module": nn.Linear(2, 2)})
    torch.save({name: torch.ones_like(tensor) for name, tensor in own.state_dict().items()}, tmp_path / "w.pt")
    load_weights(own, tmp_path / "w.pt")
    assert own["module"].bias.tolist() == [1, 1]


def test_a_prefix_of_some_names_only_is_left_over(tmp_path: Path) -> None:
    model = nn.Linear(2, 2)
    torch.save({"module.weight": torch.zeros(2, 2), "bias": torch.zeros(2)}, tmp_path / "w.pt")
    with pytest.raises(UserError, match=r"missing: weight; left over: module\.weight; choose"):
        load_weights(model, tmp_path / "w.pt")


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"a": (1,), "b": (2, 3)}, ""),
        ({"a": (1,)}, "missing: b"),
        ({}, "missing: a, b"),
        ({"a": (1,), "b": (2, 3), "c": (), "d": (), "e": (), "f": ()}, "left over: c, d (and 2 more)"),
        ({"a": (1,), "b": (3, 2), "c": ()}, "left over: c; other shape: b is (3, 2), expected (2, 3)"),
        ({"b": (), "c": ()}, "missing: a; left over: c; other shape: b is (), expected (2, 3)"),
    ],
    ids=["fits", "one missing", "all missing", "many left over", "other shape", "everything at once"],
)
def test_what_does_not_fit_is_said_by_name(given: dict[str, tuple[int, ...]], said: str) -> None:
    expected = {"a": torch.zeros(1), "b": torch.zeros(2, 3)}
    assert misfit({name: torch.zeros(shape) for name, shape in given.items()}, expected) == said


@pytest.mark.parametrize("kind", ["truncated", "garbage", "empty"])
def test_bad_safetensors_are_refused_in_one_line(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "w.safetensors"
    safetensors.torch.save_file(build("FC", (1, 8, 8)).state_dict(), path)
    content = path.read_bytes()
    path.write_bytes({"truncated": content[:-100], "garbage": b"hello" * 100, "empty": b""}[kind])
    with pytest.raises(UserError, match="expected a safetensors file, got a damaged one") as caught:
        load_weights(build("FC", (1, 8, 8)), path)
    assert "\n" not in str(caught.value)


class Bomb:
    """Its unpickling would write a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[str, str]]:
        return open, (str(self.path), "w")


def flip(path: Path, place: int) -> None:
    content = bytearray(path.read_bytes())
    content[place] ^= 1
    path.write_bytes(content)


def write_bad_file(kind: str, path: Path) -> None:
    state = build("FC").state_dict()
    if kind == "absent":
        return
    if kind == "empty":
        path.write_bytes(b"")
    elif kind == "garbage":
        path.write_bytes(np.random.default_rng(0).bytes(1000))
    elif kind == "text":
        path.write_text("hello\n")
    elif kind == "folder":
        path.mkdir()
    elif kind == "truncated":
        torch.save(state, path)
        path.write_bytes(path.read_bytes()[:-5000])
    elif kind == "changed byte":
        torch.save(state, path)
        flip(path, path.stat().st_size // 2)
    elif kind == "changed checkpoint":
        save_checked(path, {"model": state})
        flip(path, path.stat().st_size // 2)
    elif kind == "changed checksum":
        save_checked(path, {"model": state})
        flip(path, path.stat().st_size - 10)
    elif kind == "pickle code":
        torch.save({"model": Bomb(path.parent / "ran")}, path)
    elif kind == "plain pickle code":
        path.write_bytes(pickle.dumps(Bomb(path.parent / "ran"), protocol=2))
    elif kind == "whole model":
        torch.save(build("FC"), path)
    elif kind == "tensor":
        torch.save(torch.zeros(3), path)
    elif kind == "numbers":
        torch.save({"loss": 1.0}, path)
    elif kind == "other network":
        torch.save(build("CONV").state_dict(), path)
    elif kind == "other size":
        torch.save(build("FC", (1, 8, 8)).state_dict(), path)
    elif kind == "fewer layers":
        del state["layers.10.bias"]
        torch.save(state, path)
    elif kind == "other normalisation":
        torch.save(state | {"layers.0.mean": torch.tensor([0.5])}, path)


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("absent", "no such file"),
        ("folder", "cannot be read"),
        ("empty", "damaged"),
        ("garbage", "damaged"),
        ("text", "damaged"),
        ("truncated", "damaged"),
        ("changed byte", "damaged"),
        ("changed checkpoint", "damaged"),
        ("changed checksum", "damaged"),
        ("pickle code", "more than tensors"),
        ("plain pickle code", "more than tensors"),
        ("whole model", "more than tensors"),
        ("tensor", "expected a state dict"),
        ("numbers", "expected a state dict"),
        (
            "other network",
            r"do not fit.*missing: layers\.2\.weight, layers\.2\.bias \(and \d+ more\); left over: layers\.1\.weight",
        ),
        ("other size", r"layers\.2\.weight is \(400, 64\), expected \(400, 784\)"),
        ("fewer layers", r"do not fit the model: missing: layers\.10\.bias; choose"),
        ("other normalisation", r"mean \[0\.5\]"),
    ],
    ids=lambda value: value if isinstance(value, str) and "\\" not in value else "",
)
def test_bad_weights_are_refused_in_one_line(kind: str, words: str, tmp_path: Path) -> None:
    write_bad_file(kind, tmp_path / "w.pt")
    model = build("FC")
    before = [parameter.clone() for parameter in model.parameters()]
    with pytest.raises(UserError, match=words) as caught:
        load_weights(model, tmp_path / "w.pt")
    assert "\n" not in str(caught.value)
    assert str(tmp_path / "w.pt") in str(caught.value)
    assert all(torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True))
    assert not (tmp_path / "ran").exists()
