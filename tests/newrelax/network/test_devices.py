"""A rehearsal for the GPU: no tensor of the CPU takes part in bounds of a network on another device."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode

from newrelax.bounds import BoundedNetwork, box
from newrelax.registry import Registry
from tests.newrelax.propagations.test_windows import NETS, SHAPE

REGISTRY = Registry.load()
METHODS = ["IBP", "IBP-Round", "CROWN", "CROWN-IBP", "CROWN-0-C", "DeepZ", "hBox", "hBox-Cauchy", "CROWN-IBP-RandomSlope"]


def smooth() -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(800, 6), nn.GELU(), nn.LayerNorm(6), nn.Linear(6, 5))


def bent() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(2, 3, 3),
        nn.LeakyReLU(0.1),
        nn.MaxPool2d(2),
        nn.PReLU(3),
        nn.Flatten(),
        nn.Linear(243, 5),
        nn.Tanh(),
        nn.Linear(5, 5),
    )


ALL = {**NETS, "smooth": smooth, "bent": bent}


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("net", ALL)
def test_on_the_meta_device(net: str, method: str) -> None:
    """Traced on the CPU, moved to a device without memory: clean pass, mixed bounds and gradients, in training mode."""
    model = ALL[net]()
    bounded = BoundedNetwork(model, SHAPE, REGISTRY.get_method(method))
    model.to("meta").train()
    x, y = torch.empty(2, *SHAPE, device="meta"), torch.zeros(2, dtype=torch.long, device="meta")
    clean = bounded.observe(x)
    margins = bounded.bounds(*box(x, 0.1), y, beta=0.5, statistics=clean.statistics).margins
    margins.sum().backward()
    assert margins.device.type == clean.logits.device.type == "meta"
    assert all(p.grad is None or p.grad.device.type == "meta" for p in model.parameters())


@pytest.mark.parametrize("method", [name for name in METHODS if "Random" not in name])
@pytest.mark.parametrize("net", ["plain", "residual", "pre-activation", "bent"])
def test_on_fake_tensors_of_a_gpu(net: str, method: str) -> None:
    """A fake tensor refuses to meet one of another device, as the GPU would.

    Without a GPU autograd cannot run backward on them, so passes that do so themselves are left to the meta device.
    """
    model = ALL[net]()
    bounded = BoundedNetwork(model, SHAPE, REGISTRY.get_method(method), memory=1 << 28)
    with FakeTensorMode():
        for module in model.modules():
            for name, parameter in module._parameters.items():
                if parameter is not None:
                    module._parameters[name] = nn.Parameter(torch.empty(parameter.shape, device="cuda"))
            for name, buffer in module._buffers.items():
                if buffer is not None:
                    module._buffers[name] = torch.empty(buffer.shape, dtype=buffer.dtype, device="cuda")
        x, y = torch.empty(2, *SHAPE, device="cuda"), torch.zeros(2, dtype=torch.long, device="cuda")
        margins = bounded.bounds(*box(x, 0.1), y, beta=0.5).margins
        assert margins.device.type == "cuda"
