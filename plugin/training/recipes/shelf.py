"""Recipes by their names, and from files: TOML with `settings` and `rule`s."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

from newrelax.errors import UserError
from newrelax.names import unknown
from plugin.settings.table import refuse_unknown
from plugin.training.recipes.recipe import FACTOR, Condition, Recipe, Rule, Settings

SHELF = Path(__file__).parent
DEFAULT = "paradox"
"""What a recipe of one's own builds upon unless it names another `base`."""

SETTINGS = (
    "epochs", "batch_size", "accumulate", "warmup", "ramp", "loss", "init", "regularizer", "average", "smoothing", "kappa",
    "beta", "l1", "optimizer", "lr", "lr_decay", "milestones", "halve_every", "momentum", "clip_grad", "augment", "eps_start",
    "train_eps", FACTOR,
)  # fmt: skip
"""What a recipe may set: all that makes training better or worse, and nothing that asks for another experiment."""


def names() -> list[str]:
    """The recipes that come along."""
    return sorted(path.stem for path in SHELF.glob("*.toml"))


def read_recipe(spelling: str) -> Recipe:
    """The recipe of a name, or in a file that ends in .toml.

    Raises:
        UserError: no such name or file, a file that is no TOML, or one that says what a recipe cannot say.
    """
    return _read(spelling, ())


def list_recipes() -> str:
    """A line for each recipe that comes along."""
    width = max(map(len, names()))
    return "\n".join(f"{name:<{width}}  {read_recipe(name).summary}" for name in names())


def is_file(spelling: str) -> bool:
    """Whether a recipe is spelled as a file."""
    return spelling.endswith(".toml")


def _read(spelling: str, above: tuple[Path, ...]) -> Recipe:
    """above: the files that build upon this one."""
    if not is_file(spelling) and spelling not in names():
        raise unknown("recipe", spelling, [*names(), "FILE.toml"])
    path = Path(spelling).expanduser().resolve() if is_file(spelling) else SHELF / f"{spelling}.toml"
    what = f"recipe {spelling}"
    if path in above:
        raise UserError(f"{what}: builds upon itself; its base must be another recipe")
    content = _content(path, what)
    refuse_unknown(f"key of {what}", content, ("summary", "base", "settings", "rule"))
    base = content.get("base", None if path.parent == SHELF else DEFAULT)
    rules = content.get("rule", [])
    if not isinstance(rules, list):
        raise UserError(f"{what}: expected rules as [[rule]], got [rule]")
    return Recipe(
        name=spelling,
        summary=str(content.get("summary", "")),
        settings=_settings(content.get("settings", {}), what),
        rules=tuple(_rule(rule, what) for rule in rules),
        base=None if base is None else _read(_beside(str(base), path), (*above, path)),
    )


def _beside(base: str, path: Path) -> str:
    """A base that is a file is looked for from where the file is that names it."""
    return str(path.parent / Path(base).expanduser()) if is_file(base) else base


def _content(path: Path, what: str) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text())
    except OSError as problem:
        raise UserError(f"{what}: cannot be read ({problem.strerror or problem})") from problem
    except ValueError as problem:
        raise UserError(f"{what}: no TOML ({problem})") from problem


def _rule(rule: Mapping[str, Any], what: str) -> Rule:
    refuse_unknown(f"key of a rule of {what}", rule, ("when", "unless", "set"))
    unless = rule.get("unless")
    return Rule(
        settings=_settings(rule.get("set", {}), what),
        when=_condition(rule.get("when", {}), what),
        unless=None if unless is None else _condition(unless, what),
    )


def _condition(said: Mapping[str, Any], what: str) -> Condition:
    known = {part.name.replace("_", "-"): part.name for part in fields(Condition)}
    refuse_unknown(f"condition of {what}", said, known)
    values: dict[str, Any] = {}
    for spelled, value in said.items():
        number = isinstance(value, (int, float)) and not isinstance(value, bool)
        if spelled.endswith("-below"):
            if not number:
                raise UserError(f"{what}: expected {spelled} as a number, got {value!r}")
            values[known[spelled]] = value
        else:
            found = tuple(value) if isinstance(value, list) else (value,)
            if not all(isinstance(name, str) for name in found):
                raise UserError(f"{what}: expected {spelled} as a name or a list of names, got {value!r}")
            values[known[spelled]] = found
    return Condition(**values)


def _settings(said: Mapping[str, Any], what: str) -> Settings:
    """Settings by the names of `Config`'s fields; "none" is none."""
    known = {name.replace("_", "-"): name for name in SETTINGS}
    refuse_unknown(f"setting of {what}", said, known)
    found = {known[spelled]: None if value == "none" else value for spelled, value in said.items()}
    for name in ("epochs", FACTOR):
        value = found.get(name, 1)
        if not isinstance(value, (int, float)) or value <= 0:
            raise UserError(f"{what}: expected {name.replace('_', '-')} above 0, got {value!r}")
    return found
