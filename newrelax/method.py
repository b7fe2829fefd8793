"""A method: a relaxation, a propagation and a mixing rule, under one name."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from newrelax.errors import UserError
from newrelax.relaxation import (
    Relaxation,
    check_name,
    check_number,
    check_propagation,
    format_label,
)

_DEFAULT_RECIPE = {
    "none": "IBP",
    "attack": "IBP",
    "interval": "IBP",
    "backward": "CROWN",
    "ibp+backward": "CROWN-IBP-R",
    "forward": "hBox",
    "hybrid": "hBox",
    "cauchy": "DeepZ",
    "cauchy-hybrid": "hBox",
}
_NEEDS_NO_LINES = {"none", "attack", "interval"}
_ESTIMATES = {"cauchy", "cauchy-hybrid"}
RECIPES = ("IBP", "hBox", "CROWN", "DeepZ", "CROWN-IBP-R", "CROWN-IBP")
"""The rows of the paper's training recipes."""


@dataclass(frozen=True)
class Method:
    """What ``--method NAME`` selects, for training and for certifying.

    Attributes:
        name: the name users type, without parameters.
        summary: one line for ``--method list``.
        propagation: how lines become bounds: "none" (natural training),
            "attack" (adversarial training), "interval", "backward" (every layer
            by back-substitution), "ibp+backward" (hidden layers by intervals,
            margins by back-substitution), "forward", "hybrid" (hybrid zonotope),
            "cauchy" and "cauchy-hybrid" (random-projection estimates).
        relaxation: the lines; None where no line is needed.
        beta: start and end of the logit mixing weight in
            (1 - beta) * IBP + beta * this method; None means no mixing (1).
        certify_with: name of the method that certifies what this one trained;
            None means this method itself.
        sound: False for estimates, which never count as certified.
        recipe: which of the paper's training recipes is the default.
        random_slopes: crossing neurons get random lower slopes, moved by one
            signed gradient step (Lee et al., "Loss landscape matters").
        k: number of Cauchy projections; None for every other propagation.
    """

    name: str
    summary: str = ""
    propagation: str = "backward"
    relaxation: Relaxation | None = None
    beta: tuple[float, float] | None = None
    certify_with: str | None = None
    sound: bool = True
    recipe: str = ""
    random_slopes: bool = False
    k: int | None = None

    def __post_init__(self) -> None:
        check_name(self.name)
        check_propagation(self.name, self.propagation)
        if self.relaxation is None and self.propagation not in _NEEDS_NO_LINES:
            raise UserError(
                f"{self.name}: propagation {self.propagation!r} needs a relaxation, got None"
            )
        if self.propagation in _ESTIMATES and self.k is None:
            raise UserError(f"{self.name}: propagation {self.propagation!r} needs k projections")
        recipe = self.recipe or _DEFAULT_RECIPE[self.propagation]
        if recipe not in RECIPES:
            raise UserError(f"{self.name}: unknown recipe {recipe!r}; known: {', '.join(RECIPES)}")
        lines_sound = self.relaxation is None or self.relaxation.sound
        sound = self.sound and lines_sound and self.propagation not in _ESTIMATES
        object.__setattr__(self, "recipe", recipe)
        object.__setattr__(self, "sound", sound)
        if not self.summary:
            text = self.relaxation.summary if self.relaxation else self.name
            object.__setattr__(self, "summary", text)

    @classmethod
    def from_relaxation(cls, value: Relaxation) -> Method:
        """The method that a bare relaxation stands for: its default propagation."""
        return cls(name=value.name, propagation=value.propagation, relaxation=value)

    @property
    def params(self) -> Mapping[str, float]:
        """All parameters with their values: the relaxation's, then k."""
        params = dict(self.relaxation.params) if self.relaxation else {}
        if self.k is not None:
            params["k"] = self.k
        return params

    @property
    def label(self) -> str:
        """Canonical spelling with parameters, such as ``CROWN-Soft:gamma=1``."""
        return format_label(self.name, self.params)

    @property
    def gives_bounds(self) -> bool:
        """False for natural and adversarial training."""
        return self.propagation not in ("none", "attack")

    def with_params(self, **params: float) -> Method:
        """The same method with other parameter values.

        Raises:
            UserError: an unknown parameter or a value it cannot take.
        """
        for key in params:
            if key not in self.params:
                known = ", ".join(self.params) or "none"
                raise UserError(f"{self.name} has no parameter {key!r}; its parameters: {known}")
        changes: dict[str, object] = {}
        own = dict(params)
        if "k" in own and self.k is not None:
            value = check_number(self.name, "k", own.pop("k"), minimum=1)
            if value != int(value):
                raise UserError(f"{self.name}: parameter k must be a whole number, got {value:g}")
            changes["k"] = int(value)
        if own and self.relaxation is not None:
            changes["relaxation"] = self.relaxation.with_params(**own)
        return replace(self, **changes)
