"""A rehearsal for the GPU: no tensor of the CPU takes part in bounds of a network on another device."""

from __future__ import annotations

import functools
import subprocess
import sys

import pytest
import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode

from newrelax.bounds import BoundedNetwork, box
from newrelax.registry import Registry
from tests.newrelax.propagations.test_windows import NETS, SHAPE
from tests.support.nets import under

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


def traced(name: str) -> BoundedNetwork:
    return BoundedNetwork(ALL[name](), SHAPE, REGISTRY["IBP"])


@functools.cache
def on_meta(name: str) -> BoundedNetwork:
    """Traced on the CPU, moved to a device without memory, in training mode."""
    net = traced(name)
    net.model.to("meta").train()
    return net


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("net", ALL)
def test_on_the_meta_device(net: str, method: str) -> None:
    """Clean pass, mixed bounds and gradients."""
    bounded = under(on_meta(net), REGISTRY[method])
    x, y = torch.empty(2, *SHAPE, device="meta"), torch.zeros(2, dtype=torch.long, device="meta")
    clean = bounded.observe(x)
    margins = bounded.bounds(*box(x, 0.1), y, beta=0.5, statistics=clean.statistics).margins
    gradients = torch.autograd.grad(margins.sum(), list(bounded.model.parameters()), allow_unused=True)
    assert margins.device.type == clean.logits.device.type == "meta"
    assert all(g is None or g.device.type == "meta" for g in gradients)
    assert any(g is not None for g in gradients)


TRIED = """
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
with FakeTensorMode():
    weight = torch.empty(2, device="cuda", requires_grad=True)
    (weight * 2)[torch.zeros(1, dtype=torch.long, device="cuda")]
"""


@pytest.fixture(scope="session")
def fake_gpu() -> None:
    """Skips where autograd asks the driver about a fake tensor's GPU, as in torch 2.8, and ends the process without one."""
    if torch.cuda.is_available():
        return
    if subprocess.run([sys.executable, "-c", TRIED], capture_output=True, check=False).returncode:
        pytest.skip("this torch takes no fake tensors of a GPU that is not there")


@functools.cache
def on_a_gpu(name: str) -> tuple[BoundedNetwork, FakeTensorMode]:
    """Traced on the CPU; its tensors are fake ones of a GPU then."""
    net, mode = traced(name), FakeTensorMode()
    with mode:
        for module in net.model.modules():
            for key, parameter in module._parameters.items():
                if parameter is not None:
                    module._parameters[key] = nn.Parameter(torch.empty(parameter.shape, device="cuda"))
            for key, buffer in module._buffers.items():
                if buffer is not None:
                    module._buffers[key] = torch.empty(buffer.shape, dtype=buffer.dtype, device="cuda")
    return net, mode


@pytest.mark.parametrize("method", [name for name in METHODS if "Random" not in name])
@pytest.mark.parametrize("net", ["plain", "residual", "pre-activation", "bent"])
def test_on_fake_tensors_of_a_gpu(net: str, method: str, fake_gpu: None) -> None:
    """A fake tensor refuses to meet one of another device, as the GPU would.

    Without a GPU autograd cannot run backward on them, so passes that do so themselves are left to the meta device.
    """
    moved, mode = on_a_gpu(net)
    bounded = under(moved, REGISTRY[method], memory=1 << 28)
    with mode:
        x, y = torch.empty(2, *SHAPE, device="cuda"), torch.zeros(2, dtype=torch.long, device="cuda")
        margins = bounded.bounds(*box(x, 0.1), y, beta=0.5).margins
        assert margins.device.type == "cuda"
