"""Back-substitution in windows: the bounds and gradients of whole images' coefficients, with fewer of them."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from newrelax.bounds import BoundedNetwork, MarginBounds, box
from newrelax.registry import Registry
from newrelax.windows import Windows

REGISTRY = Registry.load()
SHAPE = (2, 20, 20)


def net() -> nn.Module:
    """Strides, paddings, a kernel of even size, batch norm between a convolution and its ReLU."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        layers = [
            nn.Conv2d(2, 3, 3, stride=2, padding=1), nn.ReLU(), nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(),
            nn.Conv2d(4, 2, 2, stride=2, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(2 * 6 * 6, 5),
        ]  # fmt: skip
        return nn.Sequential(*layers).double().eval()


def found(method: str, **options: object) -> tuple[MarginBounds, list[Tensor]]:
    model, generator = net(), torch.Generator().manual_seed(1)
    x = torch.rand(3, *SHAPE, generator=generator, dtype=torch.float64)
    bounds = BoundedNetwork(model, SHAPE, REGISTRY.get_method(method), **options)
    result = bounds.bounds(*box(x, 0.05), torch.tensor([0, 1, 4]))
    result.margins.sum().backward()
    return result, [torch.zeros_like(p) if p.grad is None else p.grad for p in model.parameters()]


def assert_same(one: tuple[MarginBounds, list[Tensor]], other: tuple[MarginBounds, list[Tensor]]) -> None:
    (bounds, gradients), (other_bounds, other_gradients) = one, other
    torch.testing.assert_close(bounds.margins, other_bounds.margins, rtol=1e-9, atol=1e-9)
    for ends, other_ends in zip(bounds.layers, other_bounds.layers, strict=True):
        torch.testing.assert_close(ends, other_ends, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(gradients, other_gradients, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("method", ["CROWN", "CROWN-0-C", "DeepZ", "hBox", "hBox-Diag-C"])
@pytest.mark.parametrize("memory", [1 << 28, 1 << 14], ids=["whole", "pieces"])
def test_equal_to_whole_images(method: str, memory: int, monkeypatch: pytest.MonkeyPatch) -> None:
    windows, used = Windows.of, []

    def counted(*given: object) -> Windows | None:
        used.append(windows(*given))
        return used[-1]

    monkeypatch.setattr(Windows, "of", counted)
    in_windows = found(method, memory=memory)
    assert used and all(used)
    monkeypatch.setattr(Windows, "of", lambda *_: None)
    assert_same(in_windows, found(method, memory=memory))


@pytest.mark.parametrize("method", ["CROWN", "DeepZ"])
def test_equal_to_auto_lirpa(method: str) -> None:
    assert_same(found(method), found(method, plain=True))
