"""The settings of one training run: a frozen, typed value that is checked once, where it is made."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import re
import types
import typing
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path

import torch

from newrelax.bounds import ENGINES, can_fuse
from newrelax.errors import UserError
from newrelax.methods.method import Method
from plugin.data import builtin as data
from plugin.training.recipes import find_recipe

DEFAULT_MODEL = {"digits": "CONV", "mnist": "CONV", "fashion-mnist": "CONV", "svhn": "CONV", "cifar10": "CONV+"}
DEFAULT_EPS = {"digits": 0.1, "mnist": 0.3, "fashion-mnist": 0.3, "svhn": 8 / 255, "cifar10": 8 / 255}
OPTIMIZERS = ("adam", "sgd")
LATER: Mapping[str, object] = {"engine": "newrelax"}
"""Settings that runs of earlier versions have not written down, with what they did."""


@dataclass(frozen=True)
class PluginFile:
    """A local file with relaxations: its absolute path and what it held when the run started."""

    path: str
    sha256: str

    @classmethod
    def read(cls, path: str | Path) -> PluginFile:
        """Raises UserError when there is no such file."""
        file = Path(path).expanduser().absolute()
        if not file.is_file():
            raise UserError(f"--plugin {path}: no such file")
        return cls(str(file), hashlib.sha256(file.read_bytes()).hexdigest())


@dataclass(frozen=True)
class Config:
    """Everything that decides what a run computes.

    ``eps`` is the radius certified at and ``train_eps`` the one that the ramp ends at, both in
    pixel units; ``warmup``, ``ramp``, ``milestones`` and ``halve_every`` are in epochs and may be
    fractions. ``beta`` None: the method does not mix two bounds. ``loss_fusion``: train on the
    cross-entropy's own bound (newrelax.fusion); evaluation keeps to the margins. ``capture``:
    replay steps as CUDA graphs (plugin.training.capture). ``engine``: whose passes compute bounds. ``scale`` is only the record of how the recipe's
    length was shortened. ``analyze_every`` is in epochs, ``analyze_budget`` in % of training time.

    Raises UserError when a value is out of its range.
    """

    method: str
    dataset: str
    model: str
    eps: float
    train_eps: float
    eps_start: float
    epochs: int
    batch_size: int
    accumulate: int
    warmup: float
    ramp: float
    kappa: tuple[float, float]
    beta: tuple[float, float] | None
    loss_fusion: bool
    l1: float
    optimizer: str
    lr: float
    lr_decay: float
    milestones: tuple[float, ...]
    halve_every: float | None
    momentum: float
    clip_grad: float | None
    pgd_steps: int
    augment: bool
    seed: int
    device: str
    capture: bool
    data_dir: str
    limit_train: int | None
    limit_test: int | None
    scale: float | None
    weights: str | None
    plugins: tuple[PluginFile, ...]
    allow_unsound: bool
    bound_memory: int | None
    engine: str
    checkpoint_every: str
    analyze: bool
    analyze_every: int
    analyze_budget: float

    def __post_init__(self) -> None:
        for name in ("eps", "train_eps"):
            value = getattr(self, name)
            _check(0 < value <= 1, name, "in (0, 1] (pixels are in [0, 1])", value)
        _check(0 <= self.eps_start <= 1, "eps_start", "in [0, 1]", self.eps_start)
        for name in ("epochs", "batch_size", "accumulate", "pgd_steps", "analyze_every"):
            _check(getattr(self, name) >= 1, name, "at least 1", getattr(self, name))
        for name in ("warmup", "ramp", "l1", "momentum"):
            _check(0 <= getattr(self, name) < float("inf"), name, "at least 0", getattr(self, name))
        for name in ("lr", "analyze_budget"):
            _check(0 < getattr(self, name) < float("inf"), name, "above 0", getattr(self, name))
        _check(0 < self.lr_decay <= 1, "lr_decay", "in (0, 1]", self.lr_decay)
        _check(all(0 <= m < float("inf") for m in self.milestones), "milestones", "at least 0", self.milestones)
        for name in ("kappa", "beta"):
            pair = getattr(self, name)
            if pair is not None:
                _check(all(0 <= end <= 1 for end in pair), name, "two numbers in [0, 1]", pair)
        for name in ("clip_grad", "halve_every", "scale", "limit_train", "limit_test", "bound_memory"):
            value = getattr(self, name)
            _check(value is None or 0 < value < float("inf"), name, "above 0", value)
        _check(0 <= self.seed < 2**63, "seed", "in [0, 2^63)", self.seed)
        _check(self.engine in ENGINES, "engine", f"one of {', '.join(ENGINES)}", self.engine)
        _check(self.optimizer in OPTIMIZERS, "optimizer", f"one of {', '.join(OPTIMIZERS)}", self.optimizer)
        _check(self.dataset in data.NAMES, "dataset", f"one of {', '.join(data.NAMES)}", self.dataset)
        if self.capture and self.device.split(":")[0] != "cuda":
            raise UserError(f"--capture records CUDA graphs: expected --device cuda, got {self.device}")
        if self.capture and self.optimizer != "adam":
            raise UserError(f"--capture: expected --optimizer adam, whose update can be recorded, got {self.optimizer}")
        self.checkpoint_interval()

    def checkpoint_interval(self) -> tuple[int, str]:
        """``checkpoint_every`` as a count and its unit, "epochs" or "steps"."""
        match = re.fullmatch(r"([1-9][0-9]*) ?(epochs?|steps?)?", self.checkpoint_every)
        _check(match is not None, "checkpoint_every", "like 2epochs or 500steps", self.checkpoint_every)
        assert match is not None
        return int(match[1]), "steps" if (match[2] or "").startswith("step") else "epochs"

    @property
    def run_name(self) -> str:
        """The default run folder's name: readable, and different for what people vary most."""
        label = f"{self.dataset}-{self.model}-{self.method}-eps{self.eps:.4g}-seed{self.seed}"
        return re.sub(r"[^A-Za-z0-9.+=_-]+", "_", label)

    def to_json(self) -> dict[str, object]:
        """A dict that JSON can hold and :meth:`from_json` reads back to an equal value."""
        return dict(json.loads(json.dumps(dataclasses.asdict(self))))

    @classmethod
    def from_json(cls, values: Mapping[str, object]) -> Config:
        """Raises UserError for an unknown or a missing key and for a value of another type."""
        hints = typing.get_type_hints(cls)
        _refuse_unknown(values, hints)
        values = {**LATER, **values}
        missing = [name for name in hints if name not in values]
        if missing:
            raise UserError(f"settings lack {', '.join(missing)}: the run was made by another version")
        return cls(**{name: _typed(name, values[name], hint) for name, hint in hints.items()})


def resolve(given: Mapping[str, object], method: Method) -> Config:
    """Completes the options a user gave with the recipe of the method and the network.

    ``given`` holds field names of :class:`Config` (``plugins`` as paths); whatever is absent
    comes from the recipe, scaled to ``epochs`` (or by ``scale``). ``method`` is what
    ``given["method"]`` names. Raises UserError for an unknown key or a bad value.
    """
    known = {field.name for field in fields(Config)}
    _refuse_unknown(given, known)
    dataset = str(given.get("dataset", "digits"))
    _check(dataset in data.NAMES, "dataset", f"one of {', '.join(data.NAMES)}", dataset)
    model = str(given.get("model", DEFAULT_MODEL[dataset]))
    recipe = find_recipe(dataset, model, method)
    recipe = recipe.scaled(_epochs(given, recipe.epochs))
    eps = typing.cast(float, given.get("eps", DEFAULT_EPS[dataset]))
    values: dict[str, object] = {
        "method": method.label,
        "dataset": dataset,
        "model": model,
        "eps": eps,
        "train_eps": eps * recipe.eps_factor,
        "eps_start": recipe.eps_start,
        "epochs": recipe.epochs,
        "batch_size": recipe.batch_size,
        "accumulate": 1,
        "warmup": recipe.warmup,
        "ramp": recipe.ramp,
        "kappa": recipe.kappa,
        "beta": method.beta,
        "loss_fusion": False,
        "l1": recipe.l1,
        "optimizer": "adam",
        "lr": recipe.lr,
        "lr_decay": 0.1,
        "milestones": recipe.milestones,
        "halve_every": recipe.halve_every,
        "momentum": 0.9 if given.get("optimizer") == "sgd" else 0.0,
        "clip_grad": None,
        "pgd_steps": 10,
        "augment": recipe.augment,
        "seed": 0,
        "device": default_device(),
        "capture": False,
        "data_dir": "data",
        "limit_train": None,
        "limit_test": None,
        "scale": None,
        "weights": None,
        "plugins": (),
        "allow_unsound": False,
        "bound_memory": None,
        "engine": "newrelax",
        "checkpoint_every": "1epochs",
        "analyze": False,
        "analyze_every": 1,
        "analyze_budget": 10.0,
    }
    values.update({name: value for name, value in given.items() if name != "method"})
    values["plugins"] = [
        dataclasses.asdict(entry if isinstance(entry, PluginFile) else PluginFile.read(entry))
        for entry in typing.cast(tuple[PluginFile | str | Path, ...], values["plugins"])
    ]
    if given.get("beta") is not None and method.propagation.name in ("none", "attack", "interval"):
        raise UserError(f"--beta mixes interval bounds with others: {method.name} has no others to mix")
    if method.propagation.name == "none" and tuple(typing.cast(typing.Any, values["kappa"])) != (1.0, 1.0):
        raise UserError(f"--kappa mixes in a certified loss: {method.name} training has none")
    if values["loss_fusion"] and not can_fuse(method):
        raise UserError(
            f"--loss-fusion bounds CROWN-IBP's loss with one row of back-substitution: {method.name} has no such row; "
            "CROWN-IBP, CROWN-IBP-R and their like have it"
        )
    _check_analysis(given, values, method)
    values["data_dir"] = str(values["data_dir"])
    if values["weights"] is not None:
        values["weights"] = str(Path(str(values["weights"])).expanduser().absolute())
    return Config.from_json(values)


def _check_analysis(given: Mapping[str, object], values: Mapping[str, object], method: Method) -> None:
    """Raises UserError when there is no certified loss to analyze, or settings of an analysis that is not asked for."""
    if not values["analyze"]:
        for name in ("analyze_every", "analyze_budget"):
            if name in given:
                raise UserError(f"--{name.replace('_', '-')} is a setting of --analyze: give that, too")
    elif not method.gives_bounds or tuple(typing.cast(typing.Any, values["kappa"])) == (1.0, 1.0):
        raise UserError(
            f"--analyze measures the certified loss in training: {method.name} has none here; "
            "analyze the trained network with python -m plugin.analyze"
        )


def default_device() -> str:
    """The GPU, where there is one."""
    return "cuda" if torch.cuda.is_available() else "cpu"


def _epochs(given: Mapping[str, object], recipe_epochs: int) -> int:
    scale = given.get("scale")
    if "epochs" in given:
        if scale is not None:
            raise UserError("--scale shortens the recipe's epochs: give either --scale or --epochs")
        epochs = given["epochs"]
        _check(isinstance(epochs, int) and epochs >= 1, "epochs", "at least 1", epochs)
        return typing.cast(int, epochs)
    if scale is None:
        return recipe_epochs
    _check(isinstance(scale, (int, float)) and 0 < scale <= 1, "scale", "in (0, 1]", scale)
    return max(1, round(recipe_epochs * typing.cast(float, scale)))


def _check(good: bool, name: str, expected: str, got: object) -> None:
    if not good:
        raise UserError(f"{name.replace('_', '-')}: expected {expected}, got {got}")


def _refuse_unknown(values: typing.Iterable[str], known: typing.Iterable[str]) -> None:
    unknown = sorted(set(values) - set(known))
    if unknown:
        raise UserError(f"unknown setting {', '.join(unknown)}; known: {', '.join(sorted(known))}")


def _typed(name: str, value: object, hint: typing.Any) -> typing.Any:
    """``value`` as the type of a field; lists become tuples, whole numbers floats where due."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        if value is None and type(None) in arguments:
            return None
        (hint,) = (argument for argument in arguments if argument is not type(None))
        return _typed(name, value, hint)
    if origin is tuple and isinstance(value, (list, tuple)):
        if arguments[-1] is Ellipsis:
            return tuple(_typed(name, item, arguments[0]) for item in value)
        if len(value) == len(arguments):
            return tuple(_typed(name, item, part) for item, part in zip(value, arguments, strict=False))
    elif hint is PluginFile and isinstance(value, Mapping):
        hints = typing.get_type_hints(PluginFile)
        _refuse_unknown(value, hints)
        return PluginFile(**{key: _typed(name, value.get(key), part) for key, part in hints.items()})
    elif hint is float and isinstance(value, (int, float)) and not isinstance(value, bool):
        return float(value)
    elif hint in (int, str, bool) and type(value) is hint:
        return value
    kind = hint.__name__ if isinstance(hint, type) and origin is None else str(hint)
    raise UserError(f"{name.replace('_', '-')}: expected {kind}, got {value!r}")
