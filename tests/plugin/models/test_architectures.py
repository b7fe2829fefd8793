"""The built-in networks: the papers' layers for every image, and for rows of features where that makes sense."""

import pytest
import torch
from torch import nn

from newrelax.bounds import BoundedNetwork
from newrelax.errors import UserError
from newrelax.registry import Registry
from plugin.models.architectures import ARCHITECTURES, Normalize
from plugin.models.build import build as build_model

SHAPES = {"digits": (1, 8, 8), "mnist": (1, 28, 28), "cifar10": (3, 32, 32), "oblong": (2, 20, 12)}


def build(name: str, shape: tuple[int, ...]) -> nn.Module:
    return build_model(name, shape, 10, (0.1307,) * shape[0], (0.3081,) * shape[0], seed=0)


def parameter_shapes(model: nn.Module) -> list[tuple[int, ...]]:
    return [tuple(parameter.shape) for parameter in model.parameters() if parameter.dim() > 1]


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
@pytest.mark.parametrize("name", ARCHITECTURES)
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
        ("FC", (3,), [(400, 3), (200, 400), (100, 200), (100, 100), (10, 100)]),
    ],
    ids=["FC", "CONV", "CONV+", "CONV+ on digits", "FC on rows"],
)
def test_layers_are_the_papers(name: str, shape: tuple[int, ...], expected: list[tuple[int, ...]]) -> None:
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
    model = build_model("FC", (3, 8, 8), 10, (0.1, 0.2, 0.3), (0.5, 0.6, 0.7))
    x = torch.rand(2, 3, 8, 8)
    by_hand = torch.stack([(x[:, c] - m) / s for c, (m, s) in enumerate(((0.1, 0.5), (0.2, 0.6), (0.3, 0.7)))], 1)
    torch.testing.assert_close(model.layers[0](x), by_hand)
    assert not [key for key in model.state_dict() if key.startswith("layers.0.")]
    assert model.double()(x.double()).dtype == torch.float64


def test_rows_are_normalised_feature_by_feature() -> None:
    normalize = Normalize((1.0, 20.0, -300.0), (1.0, 10.0, 100.0), (3,))
    x = torch.tensor([[2.0, 30.0, -200.0], [1.0, 0.0, -500.0]])
    assert normalize(x).tolist() == [[1.0, 1.0, 1.0], [0.0, -2.0, -2.0]]


def test_rows_have_bounds() -> None:
    model = build_model("FC", (3,), 4, (0.0, 10.0, 100.0), (1.0, 10.0, 100.0), seed=0)
    x, y = torch.rand(5, 3) * torch.tensor([1.0, 10.0, 100.0]), torch.arange(5) % 4
    radius = torch.tensor([0.01, 0.1, 1.0])
    network = BoundedNetwork(model, (3,), Registry.load().get_method("CROWN-IBP-R"))
    lower = network.bounds(x - radius, x + radius, y).margins
    for corner in (-1, 0, 1):
        logits = model(x + corner * radius)
        margins = (logits.gather(1, y[:, None]) - logits)[torch.arange(4) != y[:, None]].view(5, 3)
        assert (lower <= margins + 1e-6).all()


@pytest.mark.parametrize("name", ["CONV", "CONV+", "CNN7"])
@pytest.mark.parametrize(
    ("shape", "said"),
    [((3,), "rows of 3 features"), ((1,), "rows of 1 feature"), ((2, 9), r"inputs of shape \(2, 9\)")],
    ids=str,
)
def test_what_is_no_image_is_refused(name: str, shape: tuple[int, ...], said: str) -> None:
    expected = f"takes images \\[channels, height, width\\], got {said}: use FC or a network of your own"
    with pytest.raises(UserError, match=expected) as caught:
        build(name, shape)
    assert str(caught.value).startswith(f"{name} takes")


@pytest.mark.parametrize(
    ("mean", "std", "shape", "words"),
    [
        ((0.5,), (0.5,), (3, 8, 8), "a mean and a std for each of 3 channels, got 1 and 1"),
        ((0.5, 0.5), (0.5,), (2,), "a mean and a std for each of 2 features, got 2 and 1"),
        ((0.5, 0.5), (0.5, 0.0), (2,), "every std above 0, got 0"),
        ((0.5,), (float("nan"),), (1,), "every std above 0, got nan"),
    ],
    ids=["too few channels", "too few deviations", "constant feature", "no number"],
)
def test_bad_normalisation_is_refused(
    mean: tuple[float, ...], std: tuple[float, ...], shape: tuple[int, ...], words: str
) -> None:
    with pytest.raises(UserError, match=words):
        Normalize(mean, std, shape)
