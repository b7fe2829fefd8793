"""A training loop of your own: any optimiser, any schedule, the certified loss as a module.

python -m experiments.example_loop
"""

import torch
from torch import nn

import plugin
from plugin.data import load


def main(epochs: int = 40, limit: int | None = None) -> float:
    """Trains on the embedded digits and prints accuracies on their test set; returns the certified one.

    limit: examples to train and to test with, at most.
    """
    torch.manual_seed(0)
    digits = load("digits", limit_train=limit)
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10))
    loss = plugin.CertifiedLoss(model, "CROWN-IBP", digits.input_shape)
    optimizer = torch.optim.AdamW(loss.parameters(), lr=3e-3)
    for epoch in range(epochs):
        ramp = min(1.0, 2 * epoch / epochs)  # the radius, and the certified loss's share, grow in the first half
        for index in torch.randperm(len(digits.train_y)).split(50):
            terms = loss(digits.train_x[index], digits.train_y[index], eps=0.1 * ramp, kappa=1 - ramp, beta=1 - ramp)
            optimizer.zero_grad()
            terms.loss.backward()
            optimizer.step()
    measured = plugin.evaluate(model, digits.test_x[:limit], digits.test_y[:limit], eps=0.1, method="CROWN-IBP")
    print(f"natural {measured.natural_accuracy:.1%}, PGD {measured.pgd_accuracy:.1%}, ", end="")
    print(f"certified {measured.certified_accuracy:.1%} at eps {measured.eps}")
    return measured.certified_accuracy or 0.0


if __name__ == "__main__":
    main()
