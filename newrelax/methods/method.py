"""A method: a relaxation, a propagation and a mixing rule, under one name."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from newrelax.errors import UserError
from newrelax.propagations import BUILTIN_PROPAGATIONS, BackwardPropagation, Propagation
from newrelax.propagations.choice import Relaxations
from newrelax.relaxations import crown, deepz
from newrelax.relaxations.base import Relaxation, check_name, check_number, format_label

RECIPES = ("IBP", "hBox", "CROWN", "DeepZ", "CROWN-IBP-R", "CROWN-IBP")
"""The rows of the paper's training recipes."""


@dataclass(frozen=True)
class Method:
    """What `--method NAME` selects, for training and for certifying.

    name: the name users type, without parameters. summary: one line for `--method list`.
    propagation: how lines become bounds: a `Propagation`, or the name of a built-in one.
    relaxation: the lines of ReLU; None where no line is needed. activations: relaxations of other activations.
    beta: start and end of the logit mixing weight in (1 − β)·IBP + β·this method; None means no mixing (1).
    certify_with: name of the method that certifies what this one trained; None means this method itself.
    sound: false for estimates, which never count as certified. recipe: which of the paper's training recipes is the default.

    Raises `UserError` for parts that do not fit together.
    """

    name: str
    summary: str = ""
    propagation: Propagation = field(default_factory=BackwardPropagation)
    relaxation: Relaxation | None = None
    activations: tuple[Relaxation, ...] = ()
    beta: tuple[float, float] | None = None
    certify_with: str | None = None
    sound: bool = True
    recipe: str = ""

    def __post_init__(self) -> None:
        check_name(self.name)
        propagation = _propagation(self.name, self.propagation)
        object.__setattr__(self, "propagation", propagation)
        relaxation = self.relaxation
        if relaxation is not None and relaxation.activation != "relu":
            raise UserError(
                f"{self.name}: relaxation is for relu, {relaxation.name} is of {relaxation.activation}; see activations"
            )
        if relaxation is None and propagation.gives_bounds and propagation.name != "interval":
            raise UserError(f"{self.name}: propagation {propagation.name!r} needs a relaxation, got None")
        if propagation.needs_parallel and relaxation is not None and not self.parallel:
            raise UserError(
                f"{self.name}: {propagation.name} propagation needs parallel lines: one slope for both, and parallel=True"
            )
        recipe = self.recipe or propagation.recipe
        if recipe not in RECIPES:
            raise UserError(f"{self.name}: unknown recipe {recipe!r}; known: {', '.join(RECIPES)}")
        sound = self.sound and propagation.sound and all(part.sound for part in self.relaxations)
        object.__setattr__(self, "recipe", recipe)
        object.__setattr__(self, "sound", sound)
        if not self.summary:
            text = self.relaxations[-1].summary if self.relaxations else self.name
            object.__setattr__(self, "summary", text)

    @classmethod
    def from_relaxation(cls, value: Relaxation) -> Method:
        """The method that a bare relaxation stands for: its default propagation; beside one of another activation, ReLU has
        CROWN's lines, or DeepZ's where they have to be parallel."""
        if value.activation == "relu":
            return cls(name=value.name, propagation=value.propagation, relaxation=value)  # type: ignore[arg-type]
        relu = deepz.deepz if value.parallel else crown.crown
        return cls(name=value.name, propagation=value.propagation, relaxation=relu, activations=(value,))  # type: ignore[arg-type]

    @property
    def relaxations(self) -> tuple[Relaxation, ...]:
        """All relaxations, ReLU's first."""
        return (*(() if self.relaxation is None else (self.relaxation,)), *self.activations)

    @property
    def parallel(self) -> bool:
        """Whether all lines have one slope for both sides."""
        return bool(self.relaxations) and all(part.parallel for part in self.relaxations)

    @property
    def lines(self) -> Relaxations:
        """What bounds which activation."""
        return Relaxations(self.relaxation, {part.activation: part for part in self.activations}, self.parallel)

    @property
    def params(self) -> Mapping[str, float]:
        """All parameters with their values: the relaxations', then the propagation's."""
        own = {key: value for part in self.relaxations for key, value in part.params.items()}
        return {**own, **self.propagation.params}

    @property
    def label(self) -> str:
        """Canonical spelling with parameters, such as `CROWN-Soft:gamma=1`."""
        return format_label(self.name, self.params)

    @property
    def gives_bounds(self) -> bool:
        """False for natural and adversarial training."""
        return self.propagation.gives_bounds

    def with_params(self, **params: float) -> Method:
        """The same method with other parameter values.

        Raises `UserError` for an unknown parameter or a value it cannot take.
        """
        for key in params:
            if key not in self.params:
                known = ", ".join(self.params) or "none"
                raise UserError(f"{self.name} has no parameter {key!r}; its parameters: {known}")
        of_propagation = {key: value for key, value in params.items() if key in self.propagation.params}
        rest = {key: value for key, value in params.items() if key not in of_propagation}

        def changed(part: Relaxation) -> Relaxation:
            return part.with_params(**{key: value for key, value in rest.items() if key in part.params})

        return replace(
            self,
            propagation=_with_params(self.name, self.propagation, of_propagation),
            relaxation=None if self.relaxation is None else changed(self.relaxation),
            activations=tuple(changed(part) for part in self.activations),
        )


def _propagation(name: str, given: Propagation | str) -> Propagation:
    if isinstance(given, Propagation):
        return given
    known = {propagation.name: propagation for propagation in BUILTIN_PROPAGATIONS}
    if given not in known:
        raise UserError(f"{name}: unknown propagation {given!r}; known: {', '.join(known)}, or a Propagation of your own")
    return known[given]


def _with_params(name: str, propagation: Propagation, params: Mapping[str, float]) -> Propagation:
    if not params:
        return propagation
    whole = {}
    for key, given in params.items():
        value = check_number(name, key, given, minimum=1)
        if value != int(value):
            raise UserError(f"{name}: parameter {key} must be a whole number, got {value:g}")
        whole[key] = int(value)
    return replace(propagation, **whole)  # type: ignore[type-var]
