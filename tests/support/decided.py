"""Decided networks with few words, and the folders that they are read from."""

import json
from pathlib import Path
from typing import Any

from experiments.deciding.network import Network

VERDICTS: dict[str, Any] = {
    "model": "CONV",
    "dataset": "digits",
    "weights": "model.pt",
    "eps": 0.1,
    "ladder": "attack,IBP,exact",
    "timeout": 20.0,
    "device": "a CPU",
    "count": 360,
    "natural_accuracy": 351 / 360,
    "pgd_accuracy": 330 / 360,
    "verified": 320 / 360,
    "falsified": 38 / 360,
    "undecided": 2 / 360,
    "seconds": 8.84299,
    "rungs": {"attack": {"decided": 38, "mean_seconds": 0.1}, "IBP": {"decided": 320, "mean_seconds": 0.1}},
}
OWN = {"weights": "model.pt", "images": 360, "results": [{"eps": 0.1, "certified_accuracy": 300 / 360}]}
RESULT = {
    "method": "DeepZ",
    "eps": 0.1,
    "seed": 2,
    "epochs": 60,
    "limit_train": None,
    "sound": True,
    "certified_accuracy": 300 / 360,
    "test_images": 360,
}


def decided(method: str, own: int, verified: int, falsified: int | None = None, **given: Any) -> Network:
    """A network of 1,000 images, all decided unless `falsified` says otherwise."""
    images = given.get("images", 1000)
    falsified = images - verified if falsified is None else falsified
    values: dict[str, Any] = {
        "origin": "the authors' released weights",
        "dataset": "mnist",
        "model": "CONV",
        "eps": 0.3,
        "seed": None,
        "images": images,
        "natural": images,
        "attacked": images - falsified,
        "rungs": {"attack": falsified, "IBP": verified},
        "seconds": 7200.0,
        "ladder": "attack,IBP,exact",
        "timeout": 60.0,
        "device": "a CPU",
    }
    return Network(**{**values, "method": method, "own": own, "verified": verified, "falsified": falsified, **given})


def write(folder: Path, **files: object) -> Path:
    """The folder, with these JSON files in it."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (folder / f"{name}.json").write_text(json.dumps(content))
    return folder


def run(folder: Path, verdicts: object = VERDICTS, **changes: object) -> Path:
    """A finished run that was decided."""
    write(folder / "complete-eps0.1", complete=verdicts)
    return write(folder, result={**RESULT, **changes})
