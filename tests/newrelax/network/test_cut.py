"""Networks in two: the second part is the function of the cut layer's values that the whole network computes."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from newrelax import Registry, UserError
from newrelax.bounds import BoundedNetwork
from newrelax.network.cut import cut
from newrelax.network.network import Network
from tests.support.nets import SHAPE, MaxPooled, Net, Normalised, Residual, mlp

IBP = Registry.load().get_method("IBP")


def network_of(model: nn.Module) -> Network:
    torch.manual_seed(0)
    return BoundedNetwork(model.eval(), SHAPE, IBP).graph.network()


def twice(self: nn.Module, x: Tensor) -> Tensor:
    """The last ReLU is on one of two ways."""
    hidden = torch.relu(self.first(x.flatten(1)))
    return self.last(hidden + torch.relu(self.second(hidden)))


NETS = {
    "perceptron": (mlp(), 2),
    "convolutions": (Normalised((1, 3, 1, 1)), 2),
    "residual": (Residual(), 2),
    "max pooling": (MaxPooled(), 1),
    "two ways": (Net(twice, first=nn.Linear(192, 8), second=nn.Linear(8, 8), last=nn.Linear(8, 5)), 1),
}


@pytest.mark.parametrize(("model", "layers"), NETS.values(), ids=NETS)
def test_the_rest_goes_on_where_the_cut_is(model: nn.Module, layers: int) -> None:
    network = network_of(model)
    x = torch.rand(4, *SHAPE)
    values = network.values(x)
    for count in range(1, layers + 1):
        found = cut(network, count)
        before = x if found.step < 0 else values[found.step]
        torch.testing.assert_close(found.rest.forward(before), values[-1])
        assert found.rest.input_shape == before.shape[1:]


@pytest.mark.parametrize(("model", "layers"), NETS.values(), ids=NETS)
def test_all_layers_that_every_way_passes_leave_the_input(model: nn.Module, layers: int) -> None:
    network = network_of(model)
    assert cut(network, layers).layer is None
    assert cut(network, layers).rest.input_shape == SHAPE
    for count in (0, layers + 1):
        with pytest.raises(UserError, match=f"expected a split of 1 to {layers} activation layers .*, got {count}"):
            cut(network, count)


def test_the_layer_is_the_one_whose_bounds_are_reported() -> None:
    net = BoundedNetwork(mlp().eval(), SHAPE, IBP)
    x = torch.rand(3, *SHAPE)
    found = cut(net.graph.network(), 1)
    assert found.layer == 0
    layers = net.bounds(x, x, torch.zeros(3, dtype=torch.long)).layers
    torch.testing.assert_close(layers[found.layer][0].relu(), net.graph.network().values(x)[found.step])
