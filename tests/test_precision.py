"""Bounds are computed in full float32, whatever a GPU is allowed to do elsewhere."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator

import pytest
import torch
from torch import nn

from newrelax.bounds import BoundedNetwork, box, certify
from newrelax.method import Method
from newrelax.precision import full_precision
from newrelax.relaxation import relaxation
from tests.conftest import REPOSITORY

SWITCHES = {"cudnn": torch.backends.cudnn, "matmul": torch.backends.cuda.matmul}


def allowed() -> dict[str, bool]:
    return {name: owner.allow_tf32 for name, owner in SWITCHES.items()}


@pytest.fixture(params=[True, False], ids=["tf32", "float32"])
def before(request: pytest.FixtureRequest) -> Iterator[bool]:
    """What the user has set."""
    found = allowed()
    for owner in SWITCHES.values():
        owner.allow_tf32 = request.param
    yield request.param
    for name, owner in SWITCHES.items():
        owner.allow_tf32 = found[name]


def test_the_settings_come_back(before: bool) -> None:
    with pytest.raises(ZeroDivisionError), full_precision():
        assert allowed() == {"cudnn": False, "matmul": False}
        1 / 0  # noqa: B018
    assert allowed() == {"cudnn": before, "matmul": before}


def test_the_newer_settings_come_back_too() -> None:
    """In a process of its own: torch refuses the old names from then on."""
    if not hasattr(torch.backends.cudnn, "conv"):
        pytest.skip(f"torch {torch.__version__} has the old settings only")
    program = """
import torch
from newrelax.precision import full_precision
conv, matmul = torch.backends.cudnn.conv, torch.backends.cuda.matmul
matmul.fp32_precision = conv.fp32_precision = "tf32"
with full_precision():
    print(conv.fp32_precision, matmul.fp32_precision)
print(conv.fp32_precision, matmul.fp32_precision)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=REPOSITORY)
    assert done.stdout.split() == ["ieee", "ieee", "tf32", "tf32"], done.stderr


def test_bounds_never_use_tf32(before: bool) -> None:
    seen: list[dict[str, bool]] = []

    @relaxation("Asks")
    def asks(lower: torch.Tensor, upper: torch.Tensor) -> tuple[torch.Tensor | float, ...]:
        seen.append(allowed())
        return 0.0, 0.0, 1.0, -lower

    class Watched(nn.ReLU):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            seen.append(allowed())
            return super().forward(x)

    model = nn.Sequential(nn.Flatten(), nn.Linear(9, 5), Watched(), nn.Linear(5, 3))
    net = BoundedNetwork(model, (1, 3, 3), Method("Asks", propagation="ibp+backward", relaxation=asks))
    x, y = torch.rand(2, 1, 3, 3), torch.tensor([0, 2])
    seen.clear()
    net(x)
    net.bounds(*box(x, 0.1), y)
    net.cross_entropy(*box(x, 0.1), y)
    assert len(seen) == 3 and all(found == {"cudnn": False, "matmul": False} for found in seen)
    assert allowed() == {"cudnn": before, "matmul": before}


@pytest.mark.gpu
def test_bounds_on_a_gpu_are_those_of_the_cpu() -> None:
    """With TF32 they would differ by some 1e-3."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(1, 16, 4, 2, 1), nn.ReLU(), nn.Flatten(), nn.Linear(3136, 100), nn.ReLU(), nn.Linear(100, 10))
    x, y = torch.rand(8, 1, 28, 28), torch.arange(8)
    for method in ("IBP", "CROWN-IBP-R", "CROWN", "DeepZ", "hBox"):
        found = []
        for device in ("cpu", "cuda"):
            with torch.no_grad():
                found.append(certify(model.to(device), x.to(device), y.to(device), 0.05, method).cpu())
        torch.testing.assert_close(found[0], found[1], rtol=1e-5, atol=1e-5)
