"""Models by name: the built-in ones drawn from a seed, and the user's own with the parameters they take."""

import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from newrelax.errors import UserError
from plugin.models.build import build as build_model


def build(name: str, shape: tuple[int, ...] = (1, 28, 28), seed: int | None = 0) -> nn.Module:
    return build_model(name, shape, 10, (0.1307,) * shape[0], (0.3081,) * shape[0], seed=seed)


def test_a_seed_decides_the_weights_and_disturbs_nothing() -> None:
    before = torch.get_rng_state()
    first, again, other = build("CONV", seed=3), build("CONV", seed=3), build("CONV", seed=4)
    assert torch.equal(torch.get_rng_state(), before)
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), again.parameters(), strict=True))
    assert not torch.equal(first.layers[1].weight, other.layers[1].weight)
    build("CONV", seed=None)
    assert not torch.equal(torch.get_rng_state(), before)


OWN = """
from typing import Literal
import torch
from torch import nn

def plain():
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 10))

def partly(input_shape, *, classes, width=5):
    size = input_shape[0] * input_shape[1] * input_shape[2]
    return nn.Sequential(nn.Flatten(), nn.Linear(size, width), nn.ReLU(), nn.Linear(width, classes))

def everything(**options):
    assert set(options) == {"input_shape", "classes", "mean", "std"}
    return plain()

class Residual(nn.Module):
    def __init__(self, classes, mean, std):
        super().__init__()
        self.register_buffer("mean", torch.tensor(mean).view(1, -1, 1, 1))
        self.convolution = nn.Conv2d(1, 1, 3, padding=1)
        self.norm = nn.BatchNorm2d(1)
        self.last = nn.Linear(64, classes)
    def forward(self, x):
        x = x - self.mean
        return self.last(torch.relu(x + self.norm(self.convolution(x))).flatten(1))

def wrong_output():
    return nn.Flatten()

def wrong_size():
    return nn.Linear(3, 3)

def not_a_module():
    return 3

def fails():
    raise ValueError("no\\nluck")

def needs(depth):
    return plain()

def sized(classes, *, width: int = 5, slope=0.1, bias: bool = True, norm: "Literal['none', 'batch']" = "none"):
    norms = [nn.BatchNorm1d(width)] if norm == "batch" else []
    first = nn.Linear(64, width, bias=bias)
    return nn.Sequential(nn.Flatten(), first, *norms, nn.LeakyReLU(slope), nn.Linear(width, classes))

def colours():
    return nn.Sequential(nn.ReLU(), nn.Conv2d(3, 2, 3), nn.Flatten(), nn.Linear(72, 10))

def later_colours():
    return nn.Sequential(nn.Conv2d(1, 2, 3), nn.Conv2d(3, 2, 3), nn.Flatten(), nn.Linear(32, 10))

def mnist_sized():
    return nn.Sequential(nn.Flatten(), nn.Linear(784, 10))

def two_logits():
    return nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2))

def one_logit(mean, std):
    assert len(mean) == len(std) == 3
    return nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 1))

model = plain()
"""


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The name of an importable module with factories of every kind."""
    (tmp_path / "own_networks.py").write_text(OWN)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "own_networks", raising=False)
    return "own_networks"


@pytest.mark.parametrize("factory", ["plain", "partly", "everything", "Residual"])
def test_own_models_get_the_arguments_they_name(factory: str, own: str) -> None:
    model = build(f"{own}:{factory}", (1, 8, 8))
    assert model(torch.rand(3, 1, 8, 8)).shape == (3, 10)
    assert all(module.training for module in model.modules())
    again = build(f"{own}:{factory}", (1, 8, 8))
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), again.parameters(), strict=True))


@pytest.mark.parametrize(
    ("params", "kinds"),
    [
        ("", ["Flatten", "Linear", "LeakyReLU", "Linear"]),
        (":width=7,slope=0.25,bias=no", ["Flatten", "Linear", "LeakyReLU", "Linear"]),
        (":norm=batch", ["Flatten", "Linear", "BatchNorm1d", "LeakyReLU", "Linear"]),
    ],
    ids=["defaults", "numbers and a truth value", "a choice"],
)
def test_parameters_are_read_by_the_annotations(params: str, kinds: list[str], own: str) -> None:
    model = build(f"{own}:sized{params}", (1, 8, 8))
    assert [type(layer).__name__ for layer in model] == kinds
    width = 7 if "width" in params else 5
    assert (model[1].out_features, model[-2].negative_slope) == (width, 0.25 if "slope" in params else 0.1)
    assert (model[1].bias is None) is ("bias=no" in params)


@pytest.mark.parametrize("factory", ["two_logits", "one_logit"])
def test_rows_of_features_with_two_classes(factory: str, own: str) -> None:
    model = build_model(f"{own}:{factory}", (3,), 2, (0.0,) * 3, (1.0,) * 3, seed=0)
    assert model(torch.rand(7, 3)).shape == (7, 2 if factory == "two_logits" else 1)


@pytest.mark.parametrize(
    ("factory", "words"),
    [
        ("two_logits", "takes inputs of 3 features, the data has 5: rows of 5 features"),
        ("colours", "fails on rows of 5 features"),
    ],
)
def test_other_features_are_refused_in_one_line(factory: str, words: str, own: str) -> None:
    with pytest.raises(UserError, match=words) as caught:
        build_model(f"{own}:{factory}", (5,), 2, (0.0,) * 5, (1.0,) * 5, seed=0)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("FCC", "unknown model 'FCC'; did you mean FC.*: expected one of FC, CONV, CONV\\+, CNN7, or package.module:factory"),
        ("FC:width=3", "model FC takes no parameters, got 'FC:width=3'"),
        ("own_nowhere:plain", "module own_nowhere cannot be imported"),
        ("own_networks:plian", "model own_networks:plian: module own_networks has no 'plian'; did you mean plain"),
        ("own_networks:model", "expected a function or class"),
        ("own_networks:wrong_output", r"expected logits of shape \(2, 10\).*got \(2, 64\)"),
        ("own_networks:wrong_size", r"fails on images of shape \(1, 8, 8\)"),
        ("own_networks:not_a_module", "give an nn.Module, got int"),
        ("own_networks:fails", "factory failed.*ValueError: no luck"),
        ("own_networks:needs", "expected a value for its parameter depth"),
        ("own_networks:sized:width", "expected NAME:key=value"),
        ("own_networks:sized:widht=5", "unknown parameter of model own_networks:sized 'widht'; did you mean width"),
        ("own_networks:sized:width=wide", "parameter width: expected a valid integer.*got 'wide'"),
        ("own_networks:sized:classes=5", r"expected logits of shape \(2, 10\).*got \(2, 5\)"),
        ("own_networks:colours", r"takes inputs of 3 channels, the data has 1: images of shape \(1, 8, 8\)"),
        ("own_networks:later_colours", r"fails on images of shape \(1, 8, 8\)"),
        ("own_networks:mnist_sized", r"takes inputs of 784 features, the data has 64: images of shape \(1, 8, 8\)"),
    ],
    ids=lambda value: value if " " not in value and "." not in value else "",
)
def test_bad_models_are_refused_in_one_line(name: str, words: str, own: str) -> None:
    with pytest.raises(UserError, match=words) as caught:
        build(name, (1, 8, 8))
    assert "\n" not in str(caught.value)
