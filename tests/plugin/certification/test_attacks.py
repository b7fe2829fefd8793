"""The attack: inside the ball, effective, repeatable, and leaving no trace in the model."""

import itertools
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from newrelax.bounds import box
from plugin.certification.attacks import pgd, worst_margin
from plugin.certification.region import Region
from plugin.data import Dataset
from plugin.models.build import build
from plugin.models.weights import load_weights


@pytest.fixture
def network() -> nn.Module:
    return build("CONV", (1, 8, 8), 10, (0.3,), (0.4,), seed=0)


@pytest.fixture
def batch() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    return torch.rand(6, 1, 8, 8, generator=generator).round(decimals=1), torch.arange(6)


def test_worst_margin_is_against_the_best_other_class() -> None:
    logits = torch.tensor([[3.0, 1.0, 2.0], [3.0, 1.0, 2.0], [-1.0, -4.0, -1.0]])
    assert worst_margin(logits, torch.tensor([0, 2, 1])).tolist() == [1.0, -1.0, -3.0]


@pytest.mark.parametrize("eps", [0.01, 0.3, 1.0])
def test_points_stay_in_the_box_exactly(network: nn.Module, batch: tuple[Tensor, Tensor], eps: float) -> None:
    x, y = batch
    point = pgd(network, x, y, eps, steps=3, restarts=2, generator=torch.Generator().manual_seed(0))
    lower, upper = box(x, eps)
    assert (point >= lower).all()
    assert (point <= upper).all()
    assert point.min() >= 0
    assert point.max() <= 1


def test_the_data_range_clips(network: nn.Module, batch: tuple[Tensor, Tensor]) -> None:
    x, y = batch
    point = pgd(network, x * 0.5, y, 0.3, steps=3, region=Region((-0.1, 0.5)))
    assert point.min() >= -0.1
    assert point.max() <= 0.5
    assert point.min() < 0


def test_same_stream_same_points(network: nn.Module, batch: tuple[Tensor, Tensor]) -> None:
    x, y = batch

    def attack(seed: int) -> Tensor:
        return pgd(network, x, y, 0.05, steps=3, generator=torch.Generator().manual_seed(seed))

    before = torch.get_rng_state()
    assert torch.equal(attack(0), attack(0))
    assert not torch.equal(attack(0), attack(1))
    assert torch.equal(torch.get_rng_state(), before)


def test_the_model_is_left_as_it_was(batch: tuple[Tensor, Tensor]) -> None:
    x, y = batch
    network = build("CNN7", (1, 8, 8), 10, (0.3,), (0.4,), seed=0)
    network.train()
    network.layers[2].eval()
    network(x).sum().backward()
    gradients = [parameter.grad.clone() for parameter in network.parameters()]
    state = {key: value.clone() for key, value in network.state_dict().items()}
    with torch.no_grad():
        point = pgd(network, x, y, 0.1, steps=2)
    assert not point.requires_grad
    assert not x.requires_grad
    assert network.training
    assert not network.layers[2].training
    assert network.layers[5].training
    assert all(torch.equal(p.grad, g) for p, g in zip(network.parameters(), gradients, strict=True))
    assert all(torch.equal(value, state[key]) for key, value in network.state_dict().items())


def test_a_linear_model_falls_to_its_optimum() -> None:
    """With two classes and a linear model the worst point is known: a corner of the box."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(16, 2))
    x, y = torch.rand(8, 1, 4, 4), torch.randint(0, 2, (8,))
    lower, upper = box(x, 0.2)
    direction = model[1].weight[y] - model[1].weight[1 - y]
    corner = torch.where(direction.view_as(x) > 0, lower, upper)
    found = worst_margin(model(pgd(model, x, y, 0.2, steps=20)), y)
    torch.testing.assert_close(found, worst_margin(model(corner), y), atol=1e-5, rtol=0)


def test_more_effort_never_helps_the_defender(network: nn.Module, batch: tuple[Tensor, Tensor]) -> None:
    """Points met stay met: further restarts only lower the margin, and none is above the clean one."""
    x, y = batch
    network.eval()
    margins = [worst_margin(network(x), y)]
    for restarts in (1, 2, 4):
        point = pgd(network, x, y, 0.05, steps=4, restarts=restarts, generator=torch.Generator().manual_seed(0))
        margins.append(worst_margin(network(point), y))
    for weaker, stronger in itertools.pairwise(margins):
        assert (stronger <= weaker + 1e-6).all()
    assert (margins[1] < margins[0] - 1e-3).all()


def test_published_robust_network_resists_and_falls_beyond(reference_dir: Path, mnist: Dataset) -> None:
    """IBP's CONV has 86.83 % certified at 0.3: the attack must leave at least that share; far beyond, it must win."""
    model = build("CONV", (1, 28, 28), 10, mnist.mean, mnist.std)
    load_weights(model, reference_dir / "mnist_CONV_box.pt")
    x, y = mnist.test_x[:200], mnist.test_y[:200]

    def accuracy(eps: float) -> float:
        point = pgd(model, x, y, eps, steps=10, generator=torch.Generator().manual_seed(0))
        return (worst_margin(model(point), y) > 0).float().mean().item()

    assert accuracy(0.3) > 0.8
    assert accuracy(0.7) < 0.2
