"""What the tests of training share: a run small enough to be repeated many times."""

import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from newrelax.registry import Registry
from plugin import data
from plugin.fitting.datasets import data_traits
from plugin.fitting.resolve import resolve
from plugin.models.build import build
from plugin.settings.config import Config
from plugin.train import main
from plugin.training.loop import TrainState
from plugin.training.losses import Batch, Terms
from plugin.training.schedule import Values

REGISTRY = Registry.load()

# Three steps an epoch, four epochs, all three phases; ends in about a second.
TINY = (
    "--model",
    "CONV",
    "--limit-train",
    "60",
    "--limit-test",
    "20",
    "--batch-size",
    "20",
    "--epochs",
    "4",
    "--warmup",
    "1",
    "--ramp",
    "2",
    "--device",
    "cpu",
)


def tiny_config(method: str = "IBP", **given: Any) -> Config:
    """A config like TINY's."""
    defaults: dict[str, Any] = {
        "model": "CONV",
        "limit_train": 60,
        "batch_size": 20,
        "epochs": 4,
        "warmup": 1,
        "ramp": 2,
        "device": "cpu",
    }
    return resolved(method, **{**defaults, **given})


def resolved(method: str, **given: Any) -> Config:
    """The config of these settings on the digits, or on the named data set."""
    return resolve(given, REGISTRY.get_method(method), REGISTRY, data_traits(given.get("dataset", "digits"), REGISTRY))


def terms_of(state: TrainState, x: Tensor, y: Tensor, values: Values, *, observe: bool = False) -> Terms:
    """The terms of the run's loss on a batch."""
    return state.loss(state.learner, Batch.whole(x, y, observe=observe), values)


def tiny_state(method: str = "IBP", model: torch.nn.Module | None = None, **given: Any) -> TrainState:
    """A run at its start."""
    config = tiny_config(method, **given)
    dataset = data.load("digits", device=config.device, limit_train=config.limit_train, seed=config.seed)
    if model is None:
        model = build(config.model, dataset.input_shape, dataset.classes, dataset.mean, dataset.std, seed=config.seed)
    return TrainState.create(config, REGISTRY.get_method(method), model.to(config.device), dataset)


def train_cli(out: Path, *options: str, code: int = 0) -> None:
    """Runs `plugin.train` in this process and expects the exit code."""
    assert main([*TINY, "--out", str(out), *options]) == code


def fingerprint(folder: Path) -> dict[str, Any]:
    """All of a finished run that must not depend on interruptions."""
    result = json.loads((folder / "result.json").read_text())
    return {
        "weights": torch.load(folder / "model.pt", weights_only=True),
        "metrics": (folder / "metrics.jsonl").read_text(),
        "result": {key: value for key, value in result.items() if "seconds" not in key},
    }


def assert_same_run(one: Path, other: Path) -> None:
    """Weights bit for bit, metrics letter for letter, the same result."""
    first, second = fingerprint(one), fingerprint(other)
    assert first["weights"].keys() == second["weights"].keys()
    for name, tensor in first["weights"].items():
        assert torch.equal(tensor, second["weights"][name]), name
    assert first["metrics"] == second["metrics"]
    assert first["result"] == second["result"]
