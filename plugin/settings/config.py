"""The settings of one training run: the table from which options, checks, JSON and lists derive."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, field_validator, model_validator

from newrelax.bounds import Engine
from newrelax.errors import UserError
from plugin.settings.table import Table, setting, traits
from plugin.settings.types import Numbers, Pair, Radius, Range

RECIPE = "the recipe's"
DATASET = "the data set's"
GIVEN = "(given from Python)"
"""Data set or network of a run that was started with objects, not names."""


class PluginFile(BaseModel):
    """A local file with relaxations or other nouns: its absolute path and what it held when the run started."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    path: str
    sha256: str

    @classmethod
    def read(cls, path: str | Path) -> PluginFile:
        """Raises UserError when there is no such file."""
        file = Path(path).expanduser().absolute()
        if not file.is_file():
            raise UserError(f"--plugin {path}: no such file")
        return cls(path=str(file), sha256=hashlib.sha256(file.read_bytes()).hexdigest())


class Config(Table):
    """Everything that decides what a run computes, resolved: no value is left to be chosen.

    Lengths (warmup, ramp, milestones, …) are in epochs and may be fractions. Raises UserError when a value is out of its range.
    """

    method: str = setting('Like IBP or CROWN-Soft:gamma=1; "list" prints all.', said="CROWN-IBP")
    dataset: str = setting(
        'A name ("list" prints all), package.module:factory, a folder of class folders, or an .npz file.', said="digits"
    )
    model: str = setting("FC, CONV, CONV+, CNN7, package.module:factory or NET.onnx.", said=DATASET)
    eps: Radius = setting("Radius of the L∞ ball that is certified, in --eps-unit.", gt=0, said=DATASET)
    eps_unit: Literal["input", "range"] = setting(
        "ε is in input units (pixels), or a multiple of each feature's range.", "input"
    )
    train_eps: Radius = setting("Radius trained at, where it differs from --eps.", gt=0, said=RECIPE)
    eps_start: Radius = setting("ε where the ramp starts.", ge=0, said=RECIPE)
    data_range: Range = setting("Where inputs end: data (declared or computed), none, or two numbers.", "data")
    recipe: str = setting(
        'What decides the settings below that are not given: a name ("list" prints all) or FILE.toml.', "paradox"
    )
    epochs: int = setting("Length of training; the recipe's schedule is scaled to it.", ge=1, said=RECIPE)
    scale: float | None = setting("Shortens the recipe's length by this factor in (0, 1].", None, gt=0, le=1)
    batch_size: int = setting("Inputs a step.", ge=1, said=RECIPE)
    accumulate: int = setting("Pieces that a batch goes through in, to save memory.", 1, ge=1)
    warmup: float = setting("Epochs of natural training at the start.", ge=0, said=RECIPE)
    ramp: float = setting("Epochs in which ε, κ and β move from their start to their end.", ge=0, said=RECIPE)
    loss: str = setting('Like certified or adversarial:steps=10; "list" prints all.', said="the method's")
    init: str = setting('First weights: torch (the network\'s own) or shi; "list" prints all.', "torch", said=RECIPE)
    regularizer: str | None = setting(
        'Beside the loss, like shi:weight=0.5,tolerance=0.5, or none; "list" prints all.', None, said=RECIPE
    )
    average: str | None = setting(
        "Of the weights, kept and evaluated in their place: swa:from=0.9, ema:decay=0.999,from=0.8, or none.", None, said=RECIPE
    )
    kappa: Pair = setting("Share of the natural loss: START,END of the ramp, or one number.", said=RECIPE)
    beta: Pair | None = setting(
        "Share of the method's logits, the rest being IBP's: START,END, or one number.", None, said="the method's"
    )
    l1: float = setting("λ₁, the factor of the weights' L1 norm.", ge=0, said=RECIPE)
    optimizer: Literal["adam", "sgd"] = setting("The optimiser.", "adam")
    lr: float = setting("Learning rate.", gt=0, said=RECIPE)
    lr_decay: float = setting("The learning rate is multiplied by it at each milestone.", 0.1, gt=0, le=1)
    milestones: Numbers = setting("Epochs at which the learning rate drops: E1,E2,…", said=RECIPE)
    halve_every: float | None = setting(
        "After the ramp, halve the learning rate every so many epochs.", None, gt=0, said=RECIPE
    )
    momentum: float = setting("Of sgd.", ge=0, said="0.9 for sgd")
    clip_grad: float | None = setting("Largest L2 norm of the gradient.", None, gt=0)
    smoothing: str | None = setting('Average the loss over noise on the weights: rgs:sigma=0.01 …; "list" prints all.', None)
    augment: bool = setting("Random crop and flip.", said=RECIPE)
    seed: int = setting("Of weights, batches and random methods.", 0, ge=0, lt=2**63)
    device: str = setting("cpu, cuda or cuda:N.", said="cuda where there is one", resumable=True)
    capture: bool = setting("On a GPU: replay each step as one CUDA graph.", False)
    data_dir: str = setting("Folder of the data sets.", "data", resumable=True)
    limit_train: int | None = setting("Train on a stratified part of this many examples.", None, ge=1)
    limit_test: int | None = setting("Evaluate on the first examples of the test set only.", None, ge=1)
    validation: float = setting(
        "Share of the training set to hold back, stratified, and to measure along the way.", 0.0, ge=0, lt=1
    )
    validate_every: int = setting("Epochs between measurements of the held-back part.", 5, ge=1, resumable=True)
    weights: str | None = setting("Start from these weights (a state dict or safetensors).", None)
    plugins: tuple[PluginFile, ...] = setting("Python file with relaxations, losses, data sets … of your own.", ())
    allow_unsound: bool = setting("Train with a relaxation that bounds nothing.", False)
    bound_memory: int | None = setting("Largest memory for bounds, in MiB.", None, gt=0)
    engine: Engine = setting("Whose passes compute bounds: this project's, or auto_LiRPA's.", "newrelax")
    checkpoint_every: str = setting("Like 2epochs or 500steps.", "1epochs", resumable=True)
    analyze: bool = setting("Measure continuity, sensitivity and tightness along the way.", False, resumable=True)
    analyze_every: int = setting("Epochs between measurements.", 1, ge=1, resumable=True)
    analyze_budget: float = setting("Largest share of the training time for them, in %.", 10.0, gt=0, resumable=True)

    @field_validator("regularizer", "average", "smoothing", mode="before")
    @classmethod
    def _none(cls, said: Any) -> Any:
        return None if said == "none" else said

    @field_validator("kappa", "beta")
    @classmethod
    def _shares(cls, pair: tuple[float, float] | None) -> tuple[float, float] | None:
        if pair is not None and not all(0 <= end <= 1 for end in pair):
            raise ValueError(f"expected two numbers in [0, 1], got {pair}")
        return pair

    @field_validator("milestones")
    @classmethod
    def _epochs(cls, milestones: tuple[float, ...]) -> tuple[float, ...]:
        if not all(milestone >= 0 for milestone in milestones):
            raise ValueError(f"expected at least 0, got {milestones}")
        return milestones

    @field_validator("checkpoint_every")
    @classmethod
    def _interval(cls, text: str) -> str:
        read_interval(text)
        return text

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.capture and self.device.split(":")[0] != "cuda":
            raise ValueError(f"--capture records CUDA graphs: expected --device cuda, got {self.device}")
        if self.capture and self.optimizer != "adam":
            raise ValueError(f"--capture: expected --optimizer adam, whose update can be recorded, got {self.optimizer}")
        if self.eps_unit == "range" and self.data_range == "none":
            raise ValueError("--eps-unit range: expected a data range to measure eps by, got --data-range none")
        return self

    def checkpoint_interval(self) -> tuple[int, str]:
        """`checkpoint_every` as a count and its unit, "epochs" or "steps"."""
        return read_interval(self.checkpoint_every)

    @property
    def run_name(self) -> str:
        """The default run folder's name: readable, and different for what people vary most."""
        unit = "" if self.eps_unit == "input" else "range"
        data = Path(self.dataset).stem if "/" in self.dataset else self.dataset
        model = Path(self.model).stem if Path(self.model).is_absolute() else self.model
        label = f"{data}-{model}-{self.method}-eps{self.eps:.4g}{unit}-seed{self.seed}"
        return re.sub(r"[^A-Za-z0-9.+=_-]+", "_", label)

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Config:
        """The config that a run folder keeps, also one of an earlier version.

        Raises:
            UserError: an unknown or a missing key, or a value out of its type or range.
        """
        return cls.read(_of_today(values))


RESUMABLE = tuple(name for name, field in Config.model_fields.items() if traits(field).resumable)
"""What a resumed run may do differently: none of it changes what is computed."""


def read_interval(text: str) -> tuple[int, str]:
    """A count and its unit, "epochs" or "steps", of a text such as `500steps`. Raises ValueError for another form."""
    match = re.fullmatch(r"([1-9][0-9]*) ?(epochs?|steps?)?", text)
    if match is None:
        raise ValueError(f"expected something like 2epochs or 500steps, got {text!r}")
    return int(match[1]), "steps" if (match[2] or "").startswith("step") else "epochs"


def _of_today(values: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of version 0.1 in today's words: a loss was a method's, but for two settings of their own."""
    today = dict(values)
    if "loss" in today or "pgd_steps" not in today:
        return today
    fused, steps = today.pop("loss_fusion", False), today.pop("pgd_steps")
    by_method = {"natural": "natural", "PGD": f"adversarial:steps={steps}"}
    return {**today, "loss": "fused" if fused else by_method.get(str(today.get("method")), "certified")}
