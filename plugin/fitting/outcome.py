"""What a trained network is worth: the figures of result.json and the table at the end."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from tqdm import tqdm

from plugin.callbacks.validation import Validation
from plugin.certification.evaluation import accuracies, certifying_method, evaluate, outside_counterexample
from plugin.process.device import device_name
from plugin.runs.versions import versions
from plugin.training.callback import Callback

if TYPE_CHECKING:
    from plugin.fitting.run import Prepared


def conclude(prepared: Prepared, hooks: Sequence[Callback] = (), *, progress: bool = True) -> dict[str, object]:
    """Evaluates the trained network on the test set, which nothing has looked at before; the content of result.json.

    A network trained with lines that do not bound has no certified accuracy: what its own method says is an estimate.
    """
    state, registry, sound = prepared.state, prepared.registry, prepared.sound
    config, dataset = state.config, state.dataset
    method = registry.get_method(config.method)
    certifier = certifying_method(method, registry)
    if certifier.relaxation != method.relaxation:  # the run has searched the other one's lines before it trained
        sound = outside_counterexample(certifier, registry) is None
    if not sound:
        certifier = replace(certifier, sound=False)
    x, y = dataset.test_x[: config.limit_test], dataset.test_y[: config.limit_test]
    started = time.perf_counter()
    silent = not (progress and sys.stderr.isatty())
    with tqdm(total=len(y), desc="certifying", unit="image", leave=False, disable=silent) as bar:
        evaluation = evaluate(
            state.model, x, y, config.eps, certifier, region=state.learner.region, bounding=state.bounding, progress=bar.update
        )
    measured = next((hook for hook in hooks if isinstance(hook, Validation)), None)
    return {
        "method": config.method,
        "loss": state.loss.label,
        "dataset": config.dataset,
        "model": config.model,
        "eps": config.eps,
        **({} if config.eps_unit == "input" else {"eps_unit": config.eps_unit}),
        "train_eps": config.train_eps,
        "epochs": config.epochs,
        "steps": state.step,
        "seed": config.seed,
        **accuracies(evaluation),
        **({} if measured is None else {"validation": measured.last}),
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
    held_back = result.get("validation")
    if isinstance(held_back, Mapping):
        figures = {name: value for name, value in held_back.items() if name.endswith("_accuracy")}
        rows += [(f"validation, {name.removesuffix('_accuracy')}", _percent(value)) for name, value in figures.items()]
    if result["sound"]:
        rows.append((f"certified accuracy ({by})", _percent(result["certified_accuracy"])))
    else:
        rows.append((f"estimate, NOT certified ({by})", _percent(result["estimated_accuracy"])))
    width = max(len(name) for name, _ in rows)
    head = (
        f"{result['method']} on {result['dataset']}, {result['model']}, eps {result['eps']:.4g}"
        f"{' of each range' if result.get('eps_unit') == 'range' else ''}, "
        f"{result['epochs']} epochs, seed {result['seed']}, {result['test_images']} test images"
    )
    if result["scale"] is not None:
        head += f"\nshortened to {result['scale']:g} of the recipe's length"
    if result["limit_train"] is not None:
        head += f"\ntrained on a part of {result['train_images']} images"
    lines = [f"{name:<{width}}  {value:>8}" for name, value in rows]
    return "\n".join([head, *lines, f"{'training time':<{width}}  {float(str(result['seconds'])):>6.1f} s"])


def _percent(fraction: object) -> str:
    return "—" if fraction is None else f"{100 * float(str(fraction)):.2f} %"
