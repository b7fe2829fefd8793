"""Architectures, the user's own models, and weights from files that may be anything."""

import pickle
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from newrelax.errors import UserError
from plugin.data.builtin import Dataset
from plugin.models import build as models

SHAPES = {"digits": (1, 8, 8), "mnist": (1, 28, 28), "cifar10": (3, 32, 32), "oblong": (2, 20, 12)}


def build(name: str, shape: tuple[int, int, int] = (1, 28, 28), seed: int | None = 0) -> nn.Module:
    channels = shape[0]
    return models.build(name, shape, 10, (0.1307,) * channels, (0.3081,) * channels, seed=seed)


def parameter_shapes(model: nn.Module) -> list[tuple[int, ...]]:
    return [tuple(parameter.shape) for parameter in model.parameters() if parameter.dim() > 1]


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
@pytest.mark.parametrize("name", models.ARCHITECTURES)
def test_every_architecture_adapts_to_the_image(name: str, shape: tuple[int, int, int]) -> None:
    x = torch.rand(2, *shape)
    model = build(name, shape)
    logits = model(x)
    assert logits.shape == (2, 10)
    assert logits.isfinite().all()
    logits.sum().backward()
    assert all(parameter.grad is not None for parameter in model.parameters())


@pytest.mark.parametrize(
    ("name", "shape", "expected"),
    [
        ("FC", (1, 28, 28), [(400, 784), (200, 400), (100, 200), (100, 100), (10, 100)]),
        ("CONV", (1, 28, 28), [(16, 1, 4, 4), (100, 3136), (10, 100)]),
        ("CONV+", (3, 32, 32), [(16, 3, 4, 4), (32, 16, 4, 4), (100, 32 * 12 * 12), (10, 100)]),
        ("CONV+", (1, 8, 8), [(16, 1, 4, 4), (32, 16, 3, 3), (100, 32), (10, 100)]),
    ],
    ids=["FC", "CONV", "CONV+", "CONV+ on digits"],
)
def test_layers_are_the_papers(name: str, shape: tuple[int, int, int], expected: list[tuple[int, ...]]) -> None:
    assert parameter_shapes(build(name, shape)) == expected


def test_cnn7_is_the_batch_norm_network_of_certified_training() -> None:
    model = build("CNN7", (3, 32, 32))
    convolutions = [m for m in model.modules() if isinstance(m, nn.Conv2d)]
    assert [(m.out_channels, m.stride[0], m.padding[0]) for m in convolutions] == [
        (64, 1, 1),
        (64, 1, 1),
        (128, 2, 1),
        (128, 1, 1),
        (128, 1, 1),
    ]
    assert [tuple(m.weight.shape) for m in model.modules() if isinstance(m, nn.Linear)] == [(512, 32768), (10, 512)]
    kinds = [type(m).__name__ for m in model.layers[1:]]
    assert kinds == ["Conv2d", "BatchNorm2d", "ReLU"] * 5 + ["Flatten", "Linear", "BatchNorm1d", "ReLU", "Linear"]


def test_normalisation_is_inside_and_not_stored() -> None:
    model = models.build("FC", (3, 8, 8), 10, (0.1, 0.2, 0.3), (0.5, 0.6, 0.7))
    x = torch.rand(2, 3, 8, 8)
    by_hand = torch.stack([(x[:, c] - m) / s for c, (m, s) in enumerate(((0.1, 0.5), (0.2, 0.6), (0.3, 0.7)))], 1)
    torch.testing.assert_close(model.layers[0](x), by_hand)
    assert not [key for key in model.state_dict() if key.startswith("layers.0.")]
    assert model.double()(x.double()).dtype == torch.float64


def test_a_seed_decides_the_weights_and_disturbs_nothing() -> None:
    before = torch.get_rng_state()
    first, again, other = build("CONV", seed=3), build("CONV", seed=3), build("CONV", seed=4)
    assert torch.equal(torch.get_rng_state(), before)
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), again.parameters(), strict=True))
    assert not torch.equal(first.layers[1].weight, other.layers[1].weight)
    build("CONV", seed=None)
    assert not torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize(("network", "weights"), [("FC", "box"), ("FC", "crown"), ("CONV", "crownibp1to1")])
def test_published_weights_give_published_logits(
    network: str, weights: str, reference_dir: Path, mnist: Dataset, expected_bounds: dict[str, np.ndarray]
) -> None:
    model = build(network)
    models.load_weights(model, reference_dir / f"mnist_{network}_{weights}.pt")
    expected = torch.from_numpy(expected_bounds[f"{network}|{weights}|logits"])
    with torch.no_grad():
        torch.testing.assert_close(model(mnist.test_x[: len(expected)]), expected, atol=1e-4, rtol=0)


@pytest.mark.parametrize("wrapped", [False, True], ids=["state dict", "under the key model"])
@pytest.mark.parametrize("name", models.ARCHITECTURES)
def test_weights_return_from_a_file(name: str, wrapped: bool, tmp_path: Path) -> None:
    saved, other = build(name, (1, 8, 8), seed=1), build(name, (1, 8, 8), seed=2)
    saved(torch.rand(8, 1, 8, 8))  # moves batch-norm statistics
    state = saved.state_dict()
    torch.save({"model": state, "epoch": 3} if wrapped else state, tmp_path / "w.pt")
    models.load_weights(other, tmp_path / "w.pt")
    assert all(torch.equal(value, other.state_dict()[key]) for key, value in state.items())


class Bomb:
    """Its unpickling would write a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[str, str]]:
        return open, (str(self.path), "w")


def write_bad_file(kind: str, path: Path) -> None:
    state = build("FC").state_dict()
    if kind == "missing":
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
        content = bytearray(path.read_bytes())
        content[len(content) // 2] ^= 1
        path.write_bytes(content)
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
        ("missing", "no such file"),
        ("folder", "cannot be read"),
        ("empty", "damaged"),
        ("garbage", "damaged"),
        ("text", "damaged"),
        ("truncated", "damaged"),
        ("changed byte", "damaged"),
        ("pickle code", "more than tensors"),
        ("plain pickle code", "more than tensors"),
        ("whole model", "more than tensors"),
        ("tensor", "expected a state dict"),
        ("numbers", "expected a state dict"),
        ("other network", "do not fit"),
        ("other size", r"layers\.2\.weight is \(400, 64\), expected \(400, 784\)"),
        ("fewer layers", r"layers\.10\.bias is missing"),
        ("other normalisation", r"mean \[0\.5\]"),
    ],
    ids=lambda value: value if isinstance(value, str) and "\\" not in value else "",
)
def test_bad_weights_are_refused_in_one_line(kind: str, words: str, tmp_path: Path) -> None:
    write_bad_file(kind, tmp_path / "w.pt")
    model = build("FC")
    before = [parameter.clone() for parameter in model.parameters()]
    with pytest.raises(UserError, match=words) as caught:
        models.load_weights(model, tmp_path / "w.pt")
    assert "\n" not in str(caught.value)
    assert str(tmp_path / "w.pt") in str(caught.value)
    assert all(torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True))
    assert not (tmp_path / "ran").exists()


OWN = """
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

constant = 3
model = plain()
"""


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The name of an importable module with factories of every kind."""
    (tmp_path / "own_networks.py").write_text(OWN)
    (tmp_path / "own_broken.py").write_text("import nothing_like_this\n")
    monkeypatch.syspath_prepend(tmp_path)
    for name in ("own_networks", "own_broken"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    return "own_networks"


@pytest.mark.parametrize("factory", ["plain", "partly", "everything", "Residual"])
def test_own_models_get_the_arguments_they_name(factory: str, own: str) -> None:
    model = build(f"{own}:{factory}", (1, 8, 8))
    assert model(torch.rand(3, 1, 8, 8)).shape == (3, 10)
    assert all(module.training for module in model.modules())
    again = build(f"{own}:{factory}", (1, 8, 8))
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), again.parameters(), strict=True))


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("FCC", "unknown model 'FCC'.*FC, CONV, CONV\\+, CNN7, or package.module:factory"),
        ("own_nowhere:plain", "own_nowhere:plain: cannot be imported"),
        ("own_broken:plain", "cannot be imported.*nothing_like_this"),
        (":plain", "cannot be imported"),
        ("own_networks:absent", "cannot be imported.*absent"),
        ("own_networks:constant", "expected a function or class"),
        ("own_networks:model", "expected a function or class"),
        ("own_networks:wrong_output", r"expected logits of shape \(2, 10\).*got \(2, 64\)"),
        ("own_networks:wrong_size", r"fails on images of shape \(1, 8, 8\)"),
        ("own_networks:not_a_module", "give an nn.Module, got int"),
        ("own_networks:fails", "factory failed.*ValueError: no luck"),
        ("own_networks:needs", "factory failed.*depth"),
    ],
    ids=lambda value: value if ":" in value and " " not in value else "",
)
def test_bad_models_are_refused_in_one_line(name: str, words: str, own: str) -> None:
    with pytest.raises(UserError, match=words) as caught:
        build(name, (1, 8, 8))
    assert "\n" not in str(caught.value)
