"""α-CROWN: never looser than CROWN, sound, with slopes of its own for each row."""

from __future__ import annotations

import pytest
import torch

from newrelax import certify
from newrelax.bounds import BoundedNetwork, box
from newrelax.registry import Registry
from tests.support.nets import batch, make

REGISTRY = Registry.load()
RELU_NETS = ["mlp", "residual"]


@pytest.mark.parametrize("depth", [1, 2], ids=["margins", "layers too"])
@pytest.mark.parametrize("name", RELU_NETS)
def test_it_is_tighter_than_crown_and_below_every_point(name: str, depth: int) -> None:
    model = make(name)
    x, y = batch()
    eps = 0.1
    crown = certify(model, x, y, eps, "CROWN")
    alpha = certify(model, x, y, eps, f"alpha-CROWN:steps=10,depth={depth}")
    assert (alpha >= crown).all()
    assert (alpha > crown + 1e-4).any()
    lower, upper = box(x, eps)
    for seed in range(10):
        points = lower + torch.rand(x.shape, generator=torch.Generator().manual_seed(seed), dtype=x.dtype) * (upper - lower)
        logits = model(points)
        own = logits.gather(1, y[:, None]) - logits
        others = own[torch.arange(logits.shape[1]).expand_as(logits) != y[:, None]].view(len(x), -1)
        assert (alpha <= others + 1e-5).all()


def test_more_steps_are_tighter() -> None:
    name = RELU_NETS[0]
    model, (x, y) = make(name), batch()
    found = [certify(model, x, y, 0.1, f"alpha-CROWN:steps={steps}") for steps in (1, 3, 30)]
    assert (found[0] >= certify(model, x, y, 0.1, "CROWN")).all()
    assert found[1].mean() > found[0].mean()
    assert found[2].mean() >= found[1].mean()


def test_a_row_is_bounded_as_if_it_were_alone() -> None:
    """Slopes are a row's own: what other rows ask for does not matter."""
    name = RELU_NETS[0]
    model, (x, _) = make(name), batch()
    net = BoundedNetwork(model, x.shape[1:], REGISTRY.get_method("alpha-CROWN:steps=5"))
    matrix = torch.eye(net.outputs, dtype=x.dtype).expand(len(x), -1, -1)
    together = net.linear_bounds(*box(x, 0.05), matrix).lower
    alone = torch.cat([net.linear_bounds(*box(x, 0.05), matrix[:, row : row + 1]).lower for row in range(net.outputs)], 1)
    assert torch.allclose(together, alone, atol=1e-5)


def test_it_trains() -> None:
    name = RELU_NETS[0]
    model, (x, y) = make(name), batch()
    margins = certify(model, x, y, 0.05, "alpha-CROWN:steps=3")
    margins.sum().backward()
    gradients = [p.grad for p in model.parameters()]
    assert all(g is not None and torch.isfinite(g).all() for g in gradients)
    assert any((g != 0).any() for g in gradients if g is not None)
