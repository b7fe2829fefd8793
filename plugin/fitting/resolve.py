"""From what a user gives to a complete config: the recipe of the method and the network fills in what is left out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from newrelax.errors import UserError
from newrelax.methods.method import Method
from newrelax.registry import Registry
from plugin.fitting.datasets import DataTraits
from plugin.process.device import default_device
from plugin.settings.config import GIVEN, Config, PluginFile
from plugin.settings.table import refuse_unknown
from plugin.training.losses import default_loss, read_loss
from plugin.training.recipes import Recipe, find_recipe

SHORTHANDS = {"loss_fusion": "short for --loss fused", "pgd_steps": "Steps of the attack in adversarial training"}
"""Older spellings of a loss, with what they say; they are no settings of their own."""


def resolve(given: Mapping[str, Any], method: Method, registry: Registry, traits: DataTraits) -> Config:
    """Completes the settings that a user gave.

    Args:
        given: names of `Config`'s fields or of SHORTHANDS, with JSON types or text; `plugins` as paths.
        method: what `given["method"]` names.

    Raises:
        UserError: an unknown name, a bad value, or values that do not go together.
    """
    refuse_unknown("setting", given, [*Config.model_fields, *SHORTHANDS])
    given = dict(given)
    for name, expected in (("eps", "its radius"), ("model", "a network")):
        if name not in given and getattr(traits, name) is None:
            raise UserError(f"data set {traits.name} has no default {name}: expected {expected}, give --{name}")
    model = str(given.get("model", traits.model))
    recipe = find_recipe(traits.name, model, method)
    loss = read_loss(_loss(given, method), registry)
    loss.check(method)
    given |= {name: str(given[name]) for name in ("data_dir", "weights") if given.get(name) is not None}
    # The recipe at its own length first: this checks every value that was given.
    draft = Config.read(
        {
            **_settings(recipe),
            "eps": traits.eps,
            "train_eps": 1.0,
            "beta": method.beta,
            "momentum": 0.9 if given.get("optimizer") == "sgd" else 0.0,
            "device": default_device(),
            **given,
            "dataset": _absolute(str(given.get("dataset", traits.name))),
            "model": model,
            "method": method.label,
            "loss": loss.label,
            "plugins": tuple(_plugin(each) for each in given.get("plugins", ())),
        }
    )
    fitted = {**_settings(recipe.scaled(_epochs(draft, given, recipe))), "train_eps": draft.eps * recipe.eps_factor}
    if draft.weights is not None:
        fitted["weights"] = str(Path(draft.weights).expanduser().absolute())
    config = draft.model_copy(update={name: value for name, value in fitted.items() if name == "weights" or name not in given})
    _check(given, config, method)
    return config


def _settings(recipe: Recipe) -> dict[str, Any]:
    return {name: value for name, value in asdict(recipe).items() if name in Config.model_fields}


def _epochs(draft: Config, given: Mapping[str, Any], recipe: Recipe) -> int:
    if "epochs" in given:
        if draft.scale is not None:
            raise UserError("--scale shortens the recipe's epochs: give either --scale or --epochs")
        return draft.epochs
    return recipe.epochs if draft.scale is None else max(1, round(recipe.epochs * draft.scale))


def _check(given: Mapping[str, Any], config: Config, method: Method) -> None:
    """Raises UserError where settings do not go with the method or with each other."""
    if given.get("beta") is not None and method.propagation.name in ("none", "attack", "interval"):
        raise UserError(f"--beta mixes interval bounds with others: {method.name} has no others to mix")
    if config.loss == "natural" and config.kappa != (1.0, 1.0):
        raise UserError(f"--kappa mixes in a certified loss: {method.name} training has none")
    if not config.analyze:
        for name in ("analyze_every", "analyze_budget"):
            if name in given:
                raise UserError(f"--{name.replace('_', '-')} is a setting of --analyze: give that, too")
    elif not method.gives_bounds or config.kappa == (1.0, 1.0):
        raise UserError(
            f"--analyze measures the certified loss in training: {method.name} has none here; "
            "analyze the trained network with python -m plugin.analyze"
        )


def _loss(given: dict[str, Any], method: Method) -> str:
    """The loss's spelling; takes the shorthands out of `given`."""
    fused, steps = given.pop("loss_fusion", None), given.pop("pgd_steps", None)
    if fused not in (None, True, False):
        raise UserError(f"loss-fusion: expected true or false, got {fused!r}")
    spelled = given.get("loss")
    default = default_loss(method)
    if spelled is not None and (fused or steps is not None):
        raise UserError("--loss-fusion and --pgd-steps are spellings of a loss: leave them out beside --loss")
    if fused:
        return "fused"
    if steps is not None and default == "adversarial":
        return f"adversarial:steps={steps}"
    return str(spelled or default)


def _plugin(given: Any) -> dict[str, Any]:
    file = given if isinstance(given, PluginFile) else PluginFile.read(given)
    return file.model_dump()


def _absolute(dataset: str) -> str:
    """Files and folders by their absolute path: a run may be resumed from elsewhere."""
    path = Path(dataset).expanduser()
    return str(path.absolute()) if dataset != GIVEN and (path.suffix or "/" in dataset) and path.exists() else dataset
