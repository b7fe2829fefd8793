"""From what a user gives to a complete config: the recipe of the method and the network fills in what is left out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from newrelax.errors import UserError
from newrelax.methods.method import Method
from newrelax.names import read_spelling
from newrelax.registry import Registry
from plugin.fitting.datasets import DataTraits
from plugin.formats.onnx_reader import is_network_file
from plugin.process.device import default_device
from plugin.settings.config import GIVEN, Config, PluginFile
from plugin.settings.table import refuse_unknown
from plugin.training.averaging import read_averaging
from plugin.training.losses import default_loss, read_loss
from plugin.training.recipes import DEFAULT, FACTOR, Case, Recipe, Settings, is_file, read_recipe, stretched
from plugin.training.regularizers import read_regularizer
from plugin.training.smoothing import read_smoothing
from plugin.training.starts import read_start

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
    if is_network_file(model):
        model = _absolute(model)
    recipe = read_recipe(str(given.get("recipe", DEFAULT)))
    asked = _loss(given, method)
    given |= {name: str(given[name]) for name in ("data_dir", "weights") if given.get(name) is not None}
    fixed = {
        "dataset": _absolute(str(given.get("dataset", traits.name))),
        "model": model,
        "method": method.label,
        "recipe": str(Path(recipe.name).expanduser().absolute()) if is_file(recipe.name) else recipe.name,
        "plugins": tuple(_plugin(each) for each in given.get("plugins", ())),
    }

    def read(case: Case) -> Config:
        """The settings of the recipe at its own length, under those that were given; every value is checked."""
        said = _said(recipe, case, method)
        return Config.read({**said, "eps": case.eps, **given, **fixed, "loss": _chosen(asked, said["loss"])})

    case = Case(traits.name, model, method, read_spelling(asked or default_loss(method)).name, traits.eps or 1.0)
    draft = read(case)  # the radius and the length that were given, checked
    case = replace(case, eps=draft.eps)
    case = replace(case, epochs=_epochs(draft, given, recipe.at(case)["epochs"]))
    draft = read(case)
    config = draft.model_copy(update=_fitted(draft, given, recipe.at(case), case))
    config = config.model_copy(update=_labels(config, registry))
    read_loss(config.loss, registry).check(method)
    _check(given, config, method)
    return config


def _said(recipe: Recipe, case: Case, method: Method) -> Settings:
    """All settings but those that say what a run is about. Raises UserError, with the recipe's name, for a wrong value."""
    said = recipe.at(case)
    del said[FACTOR]
    optimizer = said.get("optimizer", "adam")
    found = {"train_eps": 1.0, "beta": method.beta, "momentum": 0.9 if optimizer == "sgd" else 0.0, **said}
    found = {"loss": default_loss(method), "device": default_device(), **found}
    try:
        Config.read({"method": method.label, "dataset": case.dataset, "model": case.model, "eps": case.eps, **found})
    except UserError as problem:
        raise UserError(f"recipe {recipe.name}: {problem}") from problem
    return found


def _fitted(draft: Config, given: Mapping[str, Any], said: Settings, case: Case) -> dict[str, Any]:
    """What follows from the radius and the length, where it was not given."""
    assert case.epochs is not None
    own = {name: value for name, value in draft.model_dump().items() if name not in given}
    fitted = stretched(own, case.epochs / said["epochs"])
    if "train_eps" not in given and "train_eps" not in said:
        fitted["train_eps"] = draft.eps * said[FACTOR]
    if "optimizer" in given and "momentum" not in given and "momentum" not in said:
        fitted["momentum"] = 0.9 if draft.optimizer == "sgd" else 0.0
    if draft.weights is not None:
        fitted["weights"] = str(Path(draft.weights).expanduser().absolute())
    if (draft.weights is not None or is_network_file(draft.model)) and "init" not in given:
        fitted["init"] = "torch"
    return {**fitted, "epochs": case.epochs}


def _labels(draft: Config, registry: Registry) -> dict[str, Any]:
    """The nouns with all their parameters. Raises UserError for an unknown one."""
    found: dict[str, Any] = {"loss": read_loss(draft.loss, registry).label, "init": read_start(draft.init, registry).label}
    if draft.regularizer is not None:
        found["regularizer"] = read_regularizer(draft.regularizer, registry).label
    if draft.average is not None:
        found["average"] = read_averaging(draft.average, registry).label
    if draft.smoothing is not None:
        found["smoothing"] = read_smoothing(draft.smoothing, registry).label
    return found


def _epochs(draft: Config, given: Mapping[str, Any], own: int) -> int:
    """How long training takes; own: as long as the recipe takes."""
    if "epochs" in given:
        if draft.scale is not None:
            raise UserError("--scale shortens the recipe's epochs: give either --scale or --epochs")
        return draft.epochs
    return own if draft.scale is None else max(1, round(own * draft.scale))


def _check(given: Mapping[str, Any], config: Config, method: Method) -> None:
    """Raises UserError where settings do not go with the method or with each other."""
    if given.get("beta") is not None and method.propagation.name in ("none", "attack", "interval"):
        raise UserError(f"--beta mixes interval bounds with others: {method.name} has no others to mix")
    if config.capture and config.smoothing is not None:
        raise UserError(
            "--capture: a smoothed step draws its noise on the host and cannot be recorded: leave one of the two out"
        )
    if config.weights is not None and config.init != "torch":
        raise UserError("--init draws the weights that --weights reads: leave one of the two out")
    if config.regularizer is not None and not method.gives_bounds:
        raise UserError(f"--regularizer looks at bounds, and {method.label} gives none: leave it out")
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


def _chosen(asked: str | None, recipes: str) -> str:
    """The loss's spelling: what was asked for, with the recipe's parameters where only that name was; else the recipe's."""
    if asked is None:
        return recipes
    return recipes if asked == read_spelling(recipes).name else asked


def _loss(given: dict[str, Any], method: Method) -> str | None:
    """The loss's spelling where one was asked for; takes the shorthands out of `given`."""
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
    return None if spelled is None else str(spelled)


def _plugin(given: Any) -> dict[str, Any]:
    file = given if isinstance(given, PluginFile) else PluginFile.read(given)
    return file.model_dump()


def _absolute(name: str) -> str:
    """Files and folders by their absolute path: a run may be resumed from elsewhere."""
    path = Path(name).expanduser()
    return str(path.absolute()) if name != GIVEN and (path.suffix or "/" in name) and path.exists() else name
