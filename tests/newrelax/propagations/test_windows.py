"""Back-substitution in windows: the bounds and gradients of whole images' coefficients, with fewer of them."""

from __future__ import annotations

import functools

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from newrelax.bounds import BoundedNetwork, MarginBounds, box
from newrelax.propagations import linear_pass
from newrelax.propagations.windows import Windows
from newrelax.registry import Registry
from tests.support.nets import Net, under

REGISTRY = Registry.load()
SHAPE = (2, 20, 20)


def plain() -> nn.Module:
    """Strides, paddings, a kernel of even size, batch norm between a convolution and its ReLU."""
    return nn.Sequential(
        nn.Conv2d(2, 3, 3, stride=2, padding=1),
        nn.ReLU(),
        nn.Conv2d(3, 4, 3, padding=1),
        nn.BatchNorm2d(4),
        nn.ReLU(),
        nn.Conv2d(4, 2, 2, stride=2, padding=1),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(2 * 6 * 6, 5),
    )


def residual() -> nn.Module:
    """A block with a 1×1 shortcut and a stride, and one with an identity; batch norm before the additions."""

    def run(m: Net, x: Tensor) -> Tensor:
        x = F.relu(m.stem(x))
        x = F.relu(m.norm(m.second(F.relu(m.first(x)))) + m.shortcut(x))
        x = F.relu(m.fourth(F.relu(m.third(x))) + x)
        return m.out(x.flatten(1))

    return Net(
        run,
        stem=nn.Conv2d(2, 3, 3, padding=1),
        first=nn.Conv2d(3, 4, 3, stride=2, padding=1),
        second=nn.Conv2d(4, 4, 3, padding=1),
        norm=nn.BatchNorm2d(4),
        shortcut=nn.Conv2d(3, 4, 1, stride=2),
        third=nn.Conv2d(4, 4, 3, padding=1),
        fourth=nn.Conv2d(4, 4, 3, padding=1),
        out=nn.Linear(400, 5),
    )


def before_activation() -> nn.Module:
    """Pre-activation blocks: convolutions follow additions without a ReLU between, so that padding has to be taken out."""

    def run(m: Net, x: Tensor) -> Tensor:
        x = m.stem(x)
        x = x + m.first(F.relu(m.norm(x)))
        x = m.second(x)
        return m.out(F.relu(m.third(F.relu(x))).flatten(1))

    return Net(
        run,
        stem=nn.Conv2d(2, 3, 3, stride=2, padding=1),
        norm=nn.BatchNorm2d(3),
        first=nn.Conv2d(3, 3, 3, padding=1),
        second=nn.Conv2d(3, 3, 3, padding=1),
        third=nn.Conv2d(3, 2, 3, stride=2, padding=1),
        out=nn.Linear(50, 5),
    )


def pooled() -> nn.Module:
    """Average and max pooling (overlapping, padded), a concatenation and a slice of channels."""

    def run(m: Net, x: Tensor) -> Tensor:
        x = F.avg_pool2d(F.relu(m.stem(x)), 2)
        x = torch.cat([F.relu(m.first(x)), F.max_pool2d(x, 3, 1, 1)], 1)
        x = F.max_pool2d(F.relu(m.second(x[:, 1:])), 2)
        return m.out(F.relu(m.third(x)).flatten(1))

    return Net(
        run,
        stem=nn.Conv2d(2, 3, 3, padding=1),
        first=nn.Conv2d(3, 2, 3, padding=1),
        second=nn.Conv2d(4, 3, 3, padding=1),
        third=nn.Conv2d(3, 2, 3, padding=1),
        out=nn.Linear(50, 5),
    )


NETS = {"plain": plain, "residual": residual, "pre-activation": before_activation, "pooled": pooled}


@functools.cache
def traced(net: str) -> BoundedNetwork:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = NETS[net]().double().eval()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.copy_(torch.linspace(-0.2, 0.3, len(module.running_mean)))
    return BoundedNetwork(model, SHAPE, REGISTRY["IBP"])


def found(net: str, method: str, **options: object) -> tuple[MarginBounds, list[Tensor]]:
    """Bounds, and their sum's gradients."""
    x = torch.rand(3, *SHAPE, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    bounds = under(traced(net), REGISTRY[method], **options)
    result = bounds.bounds(*box(x, 0.05), torch.tensor([0, 1, 4]))
    gradients = torch.autograd.grad(result.margins.sum(), list(bounds.model.parameters()), materialize_grads=True)
    return result, list(gradients)


@functools.cache
def of_whole_images(net: str, method: str) -> tuple[MarginBounds, list[Tensor]]:
    """What windows are to give, without any."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Windows, "of", lambda *_: None)
        return found(net, method, memory=1 << 28)


def assert_same(one: tuple[MarginBounds, list[Tensor]], other: tuple[MarginBounds, list[Tensor]]) -> None:
    (bounds, gradients), (other_bounds, other_gradients) = one, other
    torch.testing.assert_close(bounds.margins, other_bounds.margins, rtol=1e-9, atol=1e-9)
    for ends, other_ends in zip(bounds.layers, other_bounds.layers, strict=True):
        torch.testing.assert_close(ends, other_ends, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(gradients, other_gradients, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("net", NETS)
@pytest.mark.parametrize("method", ["CROWN", "CROWN-0-C", "DeepZ", "hBox", "hBox-Diag-C"])
@pytest.mark.parametrize("memory", [1 << 28, 1 << 14, 1 << 10], ids=["whole", "pieces", "bands"])
def test_equal_to_whole_images(method: str, net: str, memory: int, monkeypatch: pytest.MonkeyPatch) -> None:
    windows, used = Windows.of, []

    def counted(*given: object) -> Windows | None:
        used.append(windows(*given))
        return used[-1]

    monkeypatch.setattr(Windows, "of", counted)
    in_windows = found(net, method, memory=memory)
    assert any(used)
    assert_same(in_windows, of_whole_images(net, method))


@pytest.mark.parametrize("net", ["plain", "residual", "pre-activation"])
@pytest.mark.parametrize("method", ["CROWN", "DeepZ"])
def test_equal_to_auto_lirpa(method: str, net: str) -> None:
    assert_same(found(net, method), found(net, method, engine="auto_LiRPA"))


def test_memory_bounds_the_coefficients_of_a_piece(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever goes through the network at a time keeps within the memory, or is one row of one channel."""
    sizes: list[int] = []
    substitute = linear_pass.substitute

    def measured(network: object, start: int, a: Tensor, *rest: object, **options: object) -> Tensor:
        windows = options["windows"]
        if isinstance(windows, Windows):
            sizes.append(3 * a.shape[1] * windows.widest * a.element_size())
        return substitute(network, start, a, *rest, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(linear_pass, "substitute", measured)
    found("residual", "CROWN", memory=1 << 19)
    assert sizes
    assert max(sizes) <= 1 << 19
