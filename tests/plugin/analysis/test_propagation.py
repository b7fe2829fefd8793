"""What intervals lose on their way, where it can be multiplied out by hand."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from plugin.analysis.propagation import Propagation

IMAGES, FEATURES, CLASSES = 6, 5, 3
X = torch.rand(IMAGES, FEATURES, generator=torch.Generator().manual_seed(1))
Y = torch.arange(IMAGES) % CLASSES


def margins_matrix(y: int) -> Tensor:
    """One row for each other class j: 1 at y, −1 at j."""
    unit = torch.eye(CLASSES, dtype=torch.float64)
    return torch.stack([unit[y] - unit[j] for j in range(CLASSES) if j != y])


def by_hand(first: nn.Linear, second: nn.Linear) -> float:
    """|C W₂ D W₁|·1 / (|C W₂| D |W₁|·1), D the ReLUs as at x; mean over images and margins."""
    shares = []
    w1, w2 = first.weight.detach().double(), second.weight.detach().double()
    for x, y in zip(X.double(), Y.tolist(), strict=True):
        on = torch.diag((first.weight.double() @ x + first.bias.double() > 0).double())
        last = margins_matrix(y) @ w2
        shares.append((last @ on @ w1).abs().sum(1) / (last.abs() @ on @ w1.abs()).sum(1))
    return float(torch.stack(shares).mean())


def test_two_layers_as_multiplied_out() -> None:
    torch.manual_seed(3)
    first, second = nn.Linear(FEATURES, 7), nn.Linear(7, CLASSES)
    found = Propagation(nn.Sequential(first, nn.ReLU(), second), X, Y).tightness()
    assert found == pytest.approx(by_hand(first, second), rel=1e-6)
    assert found < 1


def test_one_layer_loses_nothing() -> None:
    assert Propagation(nn.Sequential(nn.Linear(FEATURES, CLASSES)), X, Y).tightness() == pytest.approx(1)


def test_weights_without_signs_lose_nothing() -> None:
    """Where the weights of a margin have the same sign on every path, intervals are exact (Mao et al.)."""
    model = nn.Sequential(nn.Linear(FEATURES, 4), nn.ReLU(), nn.Linear(4, 2))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.abs_()
        model[2].weight[1] *= -1
    assert Propagation(model, X, torch.zeros(IMAGES, dtype=torch.long)).tightness() == pytest.approx(1)


def test_other_weights_are_measured_without_tracing_again() -> None:
    torch.manual_seed(4)
    models = [nn.Sequential(nn.Linear(FEATURES, 7), nn.ReLU(), nn.Linear(7, CLASSES)) for _ in range(2)]
    propagation = Propagation(models[0], X, Y)
    propagation.model.load_state_dict(models[1].state_dict())
    assert propagation.tightness() == Propagation(models[1], X, Y).tightness()
