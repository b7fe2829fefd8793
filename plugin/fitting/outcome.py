"""What a trained network is worth: the figures of result.json and the table at the end."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from dataclasses import replace

from tqdm import tqdm

from newrelax.registry import Registry
from plugin.certification.evaluation import Evaluation, certifying_method, evaluate, outside_counterexample
from plugin.runs.folder import device_name, versions
from plugin.training.loop import TrainState


def conclude(state: TrainState, registry: Registry, sound: bool) -> dict[str, object]:
    """Evaluates the trained network on the test set; the content of result.json.

    ``sound``: whether the method's lines bound ReLU. A network trained with lines that do not has
    no certified accuracy: what its own method says is an estimate.
    """
    config, dataset = state.config, state.dataset
    method = registry.get_method(config.method)
    certifier = certifying_method(method, registry)
    if certifier.relaxation != method.relaxation:  # the run has searched the other one's lines before it trained
        sound = outside_counterexample(certifier, registry) is None
    if not sound:
        certifier = replace(certifier, sound=False)
    x, y = dataset.test_x[: config.limit_test], dataset.test_y[: config.limit_test]
    started = time.perf_counter()
    with tqdm(total=len(y), desc="certifying", unit="image", leave=False, disable=not sys.stderr.isatty()) as bar:
        evaluation = evaluate(state.model, x, y, config.eps, certifier, bounding=state.bounding, progress=bar.update)
    return {
        "method": config.method,
        "dataset": config.dataset,
        "model": config.model,
        "eps": config.eps,
        "train_eps": config.train_eps,
        "epochs": config.epochs,
        "steps": state.step,
        "seed": config.seed,
        **_accuracies(evaluation),
        "certify_method": certifier.label,
        "engine": evaluation.engine,
        "sound": certifier.sound,
        "allow_unsound": config.allow_unsound,
        "seconds": state.seconds,
        "evaluation_seconds": time.perf_counter() - started,
        "train_images": len(dataset.train_y),
        "test_images": len(y),
        "scale": config.scale,
        "limit_train": config.limit_train,
        "device": device_name(state.device),
        "versions": versions(),
    }


def table(result: Mapping[str, object]) -> str:
    """The result as a table for people."""
    rows = [
        ("natural accuracy", _percent(result["natural_accuracy"])),
        ("PGD accuracy", _percent(result["pgd_accuracy"])),
    ]
    by = str(result["certify_method"])
    if result.get("engine", "newrelax") != "newrelax":
        by += f", {result['engine']}"
    if result["sound"]:
        rows.append((f"certified accuracy ({by})", _percent(result["certified_accuracy"])))
    else:
        rows.append((f"estimate, NOT certified ({by})", _percent(result["estimated_accuracy"])))
    width = max(len(name) for name, _ in rows)
    head = (
        f"{result['method']} on {result['dataset']}, {result['model']}, eps {result['eps']:.4g}, "
        f"{result['epochs']} epochs, seed {result['seed']}, {result['test_images']} test images"
    )
    if result["scale"] is not None:
        head += f"\nshortened to {result['scale']:g} of the recipe's length"
    if result["limit_train"] is not None:
        head += f"\ntrained on a part of {result['train_images']} images"
    lines = [f"{name:<{width}}  {value:>8}" for name, value in rows]
    return "\n".join([head, *lines, f"{'training time':<{width}}  {float(str(result['seconds'])):>6.1f} s"])


def _accuracies(evaluation: Evaluation) -> dict[str, float | None]:
    return {
        "natural_accuracy": evaluation.natural_accuracy,
        "pgd_accuracy": evaluation.pgd_accuracy,
        "certified_accuracy": evaluation.certified_accuracy,
        "estimated_accuracy": evaluation.estimated_accuracy,
    }


def _percent(fraction: object) -> str:
    return "—" if fraction is None else f"{100 * float(str(fraction)):.2f} %"
