"""A recipe: the settings that train a method, from rules that say for what each of them holds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from newrelax.methods.method import Method

LENGTHS = ("warmup", "ramp", "milestones", "halve_every")
"""Settings in epochs, which shrink and grow with the whole."""

FACTOR = "train_eps_factor"
"""A recipe's own setting: the ratio of the radius trained at to the radius certified at."""

Settings = dict[str, Any]
"""Values by the names of `Config`'s fields, and FACTOR."""


@dataclass(frozen=True)
class Case:
    """What a recipe is asked for. epochs: how long training will take; None: as long as the recipe takes.

    loss: the name of the loss that was asked for, without parameters.
    """

    dataset: str
    model: str
    method: Method
    loss: str
    eps: float
    epochs: int | None = None


@dataclass(frozen=True)
class Condition:
    """What holds for a case when every word of it does; an empty one always holds.

    dataset, model, loss: names. method: names of methods, or of the families that they follow (`Method.recipe`).
    eps_below, epochs_below: the case's are smaller.
    """

    dataset: tuple[str, ...] = ()
    model: tuple[str, ...] = ()
    method: tuple[str, ...] = ()
    loss: tuple[str, ...] = ()
    eps_below: float | None = None
    epochs_below: int | None = None

    def holds(self, case: Case) -> bool:
        said = [
            (self.dataset, {case.dataset}),
            (self.model, {case.model}),
            (self.method, {case.method.name, case.method.recipe}),
            (self.loss, {case.loss}),
        ]
        return (
            all(not names or not found.isdisjoint(names) for names, found in said)
            and (self.eps_below is None or case.eps < self.eps_below)
            and (self.epochs_below is None or (case.epochs is not None and case.epochs < self.epochs_below))
        )


@dataclass(frozen=True)
class Rule:
    """Settings for the cases of `when`, but for those of `unless` (None: for all of them)."""

    settings: Settings
    when: Condition = field(default_factory=Condition)
    unless: Condition | None = None

    def holds(self, case: Case) -> bool:
        return self.when.holds(case) and (self.unless is None or not self.unless.holds(case))


@dataclass(frozen=True)
class Recipe:
    """Settings and rules that change them, the later ones what the earlier ones said.

    base: the recipe whose settings hold where this one says nothing.
    """

    name: str
    summary: str
    settings: Settings
    rules: tuple[Rule, ...] = ()
    base: Recipe | None = None

    def at(self, case: Case) -> Settings:
        """All that the recipe says of a case.

        Lengths are epochs out of `epochs`: where a later part says another `epochs`, earlier lengths keep their proportions.
        Methods without bounds: natural training keeps κ at 1, an attack's at 0, neither has a start or regulariser for bounds.
        """
        found = {FACTOR: 1.0} if self.base is None else self.base.at(case)
        for settings in (self.settings, *(rule.settings for rule in self.rules if rule.holds(case))):
            if "epochs" in settings and "epochs" in found:
                found |= stretched(found, settings["epochs"] / found["epochs"])
            found |= settings
        if not case.method.gives_bounds:
            kappa = 1.0 if case.method.propagation.name == "none" else 0.0
            found |= {"kappa": (kappa, kappa), FACTOR: 1.0, "regularizer": None}
        return found


def stretched(settings: Mapping[str, Any], ratio: float) -> Settings:
    """Those of the settings that are lengths of time, multiplied by the ratio."""

    def multiplied(length: Any) -> Any:
        if isinstance(length, (list, tuple)):
            return tuple(each * ratio for each in length)
        return None if length is None else length * ratio

    return {name: multiplied(settings[name]) for name in LENGTHS if name in settings}
