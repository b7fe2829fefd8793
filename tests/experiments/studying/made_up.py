"""A study that was never run: figures whose dependences are known, because they were put there."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from experiments.studying.figures import Figures, Measured, Network, Trained
from plugin.analysis.prediction.properties import PROPERTIES

KINDS = ("natural", "PGD")
SEEDS = (0, 1)
FAMILIES = ("interval", "backward")


def figures(accuracy: Callable[[dict[str, float]], float], relaxations: int = 24, noise: float = 0.5) -> Figures:
    """Relaxations with random properties in (0, 1), alike on all networks, each trained to `accuracy` of them, give or take."""
    generator = np.random.default_rng(7)
    trained, measured = [], []
    for number in range(relaxations):
        properties = {each.name: float(generator.uniform()) for each in PROPERTIES}
        for seed in SEEDS:
            certified = accuracy(properties) + noise * float(generator.normal())
            trained.append(
                Trained(
                    f"R{number}",
                    FAMILIES[number % 2],
                    seed,
                    95.0,
                    90.0,
                    certified,
                    f"R{number}",
                    certified + 2,
                    0.0,
                    0.5 + number / 100,
                )
            )
            measured += [Measured(kind, seed, f"R{number}", _jittered(properties, generator), (1.0, 0.5)) for kind in KINDS]
    trained.append(Trained("Mixed", FAMILIES[0], 0, 96.0, 91.0, 86.0, "IBP", 87.0, 0.0, 0.9))
    networks = tuple(Network(kind, seed, 98.0, 60.0, 10.0, "CROWN-IBP-R") for kind in KINDS for seed in SEEDS)
    setting = {"dataset": "digits", "model": "CONV", "eps": 0.1, "learning_rate": 5e-4}
    setting |= {"probe": 2, "budget": 240, "single_weights": 1, "images": 4, "step": 0.05}
    origin = {"commits": ["0" * 40], "python": ["3.11"], "torch": ["2.8"], "devices": ["none"]}
    return Figures(setting, origin, (), networks, tuple(trained), tuple(measured))


def _jittered(properties: dict[str, float], generator: np.random.Generator) -> dict[str, float | None]:
    return {name: value + 0.01 * float(generator.uniform()) for name, value in properties.items()}
