"""Where decided networks come from: folders of `plugin.evaluate --complete`, and runs that were decided."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from experiments.deciding.network import Network
from experiments.runner.store import RESULT, VERDICTS, read_json
from newrelax.errors import UserError
from plugin.runs.folder import finished_in, verdicts_folder

OWN = "own.json"
"""Beside complete.json: what `plugin.evaluate --method METHOD --json` said of the same images."""


def read_folder(spec: str, origin: str) -> Network:
    """The network of METHOD=FOLDER, a folder of `plugin.evaluate --complete` with own.json beside the verdicts.

    Raises:
        UserError: another form, a file that is missing, or one that speaks of other images, another ε, or no certificate.
    """
    method, equals, folder = spec.partition("=")
    verdicts, own = read_json(Path(folder) / VERDICTS), read_json(Path(folder) / OWN)
    if not equals or verdicts is None or own is None:
        raise UserError(
            f"expected METHOD=FOLDER with {VERDICTS} made by plugin.evaluate --complete and {OWN} by plugin.evaluate "
            f"--method METHOD --json, got {spec!r}"
        )
    (result,) = own["results"]
    if (own["images"], result["eps"], own["weights"]) != (verdicts["count"], verdicts["eps"], verdicts["weights"]):
        raise UserError(f"{folder}: {OWN} and {VERDICTS} speak of other images, weights or eps: evaluate both alike")
    return _network(origin, method, None, verdicts, result["certified_accuracy"])


def read_runs(folder: Path) -> list[Network]:
    """The decided runs in a folder of runs, or the one run that it is; runs without verdicts, or whose own bounds certify
    nothing, are left out.

    Raises:
        UserError: no such run.
    """
    networks = []
    for run in finished_in(folder):
        result = read_json(run / RESULT) or {}
        verdicts = read_json(verdicts_folder(run, result.get("eps", 0)) / VERDICTS)
        if verdicts is None or not result["sound"] or verdicts["count"] != result["test_images"]:
            continue
        networks.append(_network(_length(result), result["method"], result["seed"], verdicts, result["certified_accuracy"]))
    if not networks:
        raise UserError(f"expected finished runs decided on all of their test images in {folder}, found none")
    return networks


def _length(result: Mapping[str, Any]) -> str:
    words = f"trained here, {result['epochs']} epochs"
    return words if result.get("limit_train") is None else f"{words} of {result['limit_train']:,} images"


def _network(origin: str, method: str, seed: int | None, verdicts: Mapping[str, Any], own: float) -> Network:
    images = int(verdicts["count"])

    def count(share: float) -> int:
        return round(share * images)

    return Network(
        origin=origin,
        dataset=verdicts["dataset"],
        model=verdicts["model"],
        eps=verdicts["eps"],
        method=method,
        seed=seed,
        images=images,
        natural=count(verdicts["natural_accuracy"]),
        attacked=count(verdicts["pgd_accuracy"]),
        own=count(own),
        verified=count(verdicts["verified"]),
        falsified=count(verdicts["falsified"]),
        rungs={name: rung["decided"] for name, rung in verdicts["rungs"].items()},
        seconds=round(verdicts["seconds"], 1),
        ladder=verdicts["ladder"],
        timeout=verdicts["timeout"],
        device=verdicts["device"],
    )
