"""First weights: the network's own unless another start is asked for; Shi's keeps intervals as wide as they come in."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from newrelax.bounds import BoundedNetwork
from newrelax.errors import UserError
from newrelax.registry import Registry
from plugin.models.build import build
from plugin.training.regularizers.shi import entering_relus
from plugin.training.starts import Start, draw, list_starts, read_start
from tests.support.tiny_runs import REGISTRY, resolved

SHAPE = (1, 28, 28)


def network(name: str = "CONV") -> nn.Module:
    return build(name, SHAPE, 10, (0.5,), (0.25,), seed=0)


def started(spelling: str, name: str = "CONV", seed: int = 0) -> nn.Module:
    model = network(name)
    draw(read_start(spelling, REGISTRY), model, seed)
    return model


def layers(model: nn.Module) -> list[nn.Linear | nn.Conv2d]:
    return [module for module in model.modules() if isinstance(module, (nn.Linear, nn.Conv2d))]


def test_the_networks_own_stay_bit_for_bit() -> None:
    for name, tensor in started("torch").state_dict().items():
        assert torch.equal(tensor, network().state_dict()[name]), name


def test_shi_draws_by_the_formula() -> None:
    *hidden, last = layers(started("shi"))
    for layer in hidden:
        assert float(layer.weight.detach().std()) * layer.weight[0].numel() == pytest.approx(math.sqrt(2 * math.pi), rel=0.1)
        assert layer.bias is not None and not layer.bias.any()
    assert torch.equal(last.weight, layers(network())[-1].weight)


def test_shi_keeps_intervals_from_growing() -> None:
    """Without it they explode: that is what it is for."""

    def growth(model: nn.Module) -> float:
        net = BoundedNetwork(model, SHAPE, REGISTRY.get_method("IBP"))
        x = torch.rand(10, *SHAPE, generator=torch.Generator().manual_seed(0))
        with torch.no_grad():
            boxes = entering_relus(net.problem(x - 0.1, x + 0.1))
        return float(boxes[-1].radius.mean() / boxes[0].radius.mean())

    own, shi = growth(started("torch", "CNN7").eval()), growth(started("shi", "CNN7").eval())
    assert own > 100
    assert 0.3 < shi < 3


def test_it_draws_from_the_seed_and_leaves_torchs_stream_alone() -> None:
    torch.manual_seed(5)
    before = torch.get_rng_state()
    one, again, other = (layers(started("shi", seed=seed))[0].weight for seed in (0, 0, 1))
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(one, again)
    assert not torch.equal(one, other)


def test_a_layer_with_computed_weights_keeps_them() -> None:
    model = nn.Sequential(nn.utils.parametrizations.weight_norm(nn.Linear(4, 4)), nn.ReLU(), nn.Linear(4, 2))
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    draw(read_start("shi", REGISTRY), model, 0)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


class Halved(Start):
    """Half of the network's own."""

    name = "halved"
    factor: float = 0.5

    def draw(self, model: nn.Module, stream: torch.Generator) -> None:
        for weight in model.parameters():
            weight.mul_(self.factor)


def test_a_plugin_brings_one() -> None:
    registry = Registry((), extensions=(("mine.py", Halved),))
    assert "Half of the network's own.  [mine.py]" in list_starts(registry)
    model = network()
    draw(read_start("halved:factor=0.25", registry), model, 0)
    assert torch.equal(layers(model)[0].weight, layers(network())[0].weight / 4)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"init": "shy"}, r"unknown init 'shy'; did you mean shi\? \(known: torch, shi\)"),
        ({"init": "shi:gain=2"}, "unknown parameter of init shi 'gain'"),
        ({"init": "shi", "weights": "w.pt"}, "--init draws the weights that --weights reads"),
    ],
    ids=["name", "parameter", "weights beside it"],
)
def test_what_it_refuses(given: dict[str, str], message: str) -> None:
    with pytest.raises(UserError, match=message):
        resolved("IBP", **given)


def test_weights_take_the_place_of_a_recipes_start() -> None:
    assert resolved("IBP", recipe="modern", weights="w.pt").init == "torch"
