"""Data of your own: a table whose features differ in scale, with ε as a multiple of each feature's range.

python -m experiments.example_data
"""

import torch
from torch import Tensor, nn

import plugin


def moons(count: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Two interleaved half circles, and a third feature of about 1000 that tells a little more; x: [count, 3], y: [count]."""
    draw = torch.Generator().manual_seed(seed)
    y = torch.arange(count) % 2
    angle, side = torch.pi * torch.rand(count, generator=draw), 1 - 2 * y
    moon = torch.stack([y + side * angle.cos(), y / 2 + side * angle.sin()], 1) + 0.1 * torch.randn(count, 2, generator=draw)
    pressure = 1000 - 20 * side + 60 * torch.rand(count, generator=draw)
    return torch.cat([moon, pressure[:, None]], 1), y


def main(epochs: int = 40) -> plugin.Result:
    """Trains, and prints accuracies where each feature may be off by 3 % of its range."""
    torch.manual_seed(0)
    x, y = moons(600)
    model = nn.Sequential(nn.BatchNorm1d(3, affine=False), nn.Linear(3, 32), nn.ReLU(), nn.Linear(32, 2))
    data = {"x_train": x[:400], "y_train": y[:400], "x_test": x[400:], "y_test": y[400:]}
    result = plugin.fit(
        model, data, "CROWN-IBP", 0.03, eps_unit="range", epochs=epochs, batch_size=20, lr=5e-3, validation=0.1, progress=False
    )
    print(result)
    print("on the held-back part:", result.values["validation"])
    return result


if __name__ == "__main__":
    main()
