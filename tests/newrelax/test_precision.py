"""Bounds are computed in full float32, whatever a GPU is allowed to do elsewhere."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator

import pytest
import torch
from torch import nn

from newrelax.bounds import BoundedNetwork, box, certify
from newrelax.methods.method import Method
from newrelax.precision import full_precision
from newrelax.relaxations.base import relaxation
from tests.conftest import REPOSITORY

EXACT = ("highest", False)


def settings() -> tuple[str, bool]:
    return torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32


@pytest.fixture(params=[("highest", True), ("high", True), ("medium", False), EXACT], ids=str)
def before(request: pytest.FixtureRequest) -> Iterator[tuple[str, bool]]:
    """What the user has set."""
    found = settings()
    torch.set_float32_matmul_precision(request.param[0])
    torch.backends.cudnn.allow_tf32 = request.param[1]
    yield request.param
    torch.set_float32_matmul_precision(found[0])
    torch.backends.cudnn.allow_tf32 = found[1]


def test_the_settings_come_back(before: tuple[str, bool]) -> None:
    def fails() -> None:
        with full_precision(), full_precision():
            assert settings() == EXACT
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fails()
    assert settings() == before


def test_the_newer_settings_come_back_too() -> None:
    """In a process of its own: torch refuses the old names from then on."""
    if not hasattr(torch.backends.cudnn, "conv"):
        pytest.skip(f"torch {torch.__version__} has the old settings only")
    program = """
import torch
from newrelax.precision import full_precision
conv, matmul = torch.backends.cudnn.conv, torch.backends.cuda.matmul
with full_precision():
    pass
torch.backends.fp32_precision = "tf32"  # matmul follows it, as if nothing had been here
with full_precision():
    print(conv.fp32_precision, matmul.fp32_precision)
print(conv.fp32_precision, matmul.fp32_precision)
torch.backends.fp32_precision = "ieee"
print(matmul.fp32_precision)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=REPOSITORY)
    assert done.stdout.split() == ["ieee", "ieee", "tf32", "tf32", "ieee"], done.stderr


def test_bounds_never_use_less(before: tuple[str, bool]) -> None:
    seen: list[tuple[str, bool]] = []

    @relaxation("Asks")
    def asks(lower: torch.Tensor, upper: torch.Tensor) -> tuple[torch.Tensor | float, ...]:
        seen.append(settings())
        return 0.0, 0.0, 1.0, -lower

    class Watched(nn.ReLU):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            seen.append(settings())
            return super().forward(x)

    model = nn.Sequential(nn.Flatten(), nn.Linear(9, 5), Watched(), nn.Linear(5, 3))
    net = BoundedNetwork(model, (1, 3, 3), Method("Asks", propagation="ibp+backward", relaxation=asks))
    x, y = torch.rand(2, 1, 3, 3), torch.tensor([0, 2])
    seen.clear()
    net(x)
    net.bounds(*box(x, 0.1), y)
    net.cross_entropy(*box(x, 0.1), y)
    assert seen == [EXACT] * 3
    assert settings() == before


@pytest.mark.gpu
def test_bounds_on_a_gpu_are_those_of_the_cpu() -> None:
    """With TF32 they would differ by some 1e-3."""
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(1, 16, 4, 2, 1), nn.ReLU(), nn.Flatten(), nn.Linear(3136, 100), nn.ReLU(), nn.Linear(100, 10)
    )
    x, y = torch.rand(8, 1, 28, 28), torch.arange(8)
    for method in ("IBP", "CROWN-IBP-R", "CROWN", "DeepZ", "hBox"):
        found = []
        for device in ("cpu", "cuda"):
            with torch.no_grad():
                found.append(certify(model.to(device), x.to(device), y.to(device), 0.05, method).cpu())
        torch.testing.assert_close(found[0], found[1], rtol=1e-5, atol=1e-5)
