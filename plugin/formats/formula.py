"""Linear inequalities with `and` and `or` over a network's inputs and outputs, and the boxes and half-spaces that they are."""

from __future__ import annotations

import math
from array import array
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

import torch

from plugin.formats.files import Misread
from plugin.formats.property import Case, Conjunction, Property

LARGEST = 10_000
"""Conjunctions of a normal form: a product of disjunctions grows beyond any memory."""


@dataclass(frozen=True, order=True)
class Variable:
    """One input (X) or output (Y), by its place in the flat tensor."""

    kind: Literal["X", "Y"]
    index: int

    def __str__(self) -> str:
        return f"{self.kind}_{self.index}"


@dataclass(frozen=True)
class Linear:
    """A sum of variables with factors, and a constant."""

    factors: dict[Variable, float] = field(default_factory=dict)
    constant: float = 0.0

    def plus(self, other: Linear, factor: float = 1.0) -> Linear:
        """self + factor · other."""
        factors = dict(self.factors)
        for variable, value in other.factors.items():
            factors[variable] = factors.get(variable, 0.0) + factor * value
        return Linear({v: value for v, value in factors.items() if value}, self.constant + factor * other.constant)

    def times(self, factor: float) -> Linear:
        return Linear().plus(self, factor)

    def product(self, other: Linear, line: int | None) -> Linear:
        """self · other, one of which is a number. Raises Misread where none is."""
        if self.factors and other.factors:
            raise Misread(line, "expected a number in every product, got two variables: only linear constraints are read")
        return self.times(other.constant) if self.factors else other.times(self.constant)


@dataclass(frozen=True)
class AtMost:
    """sum <= 0."""

    sum: Linear
    line: int | None


@dataclass(frozen=True)
class All:
    parts: tuple[Formula, ...]


@dataclass(frozen=True)
class AnyOf:
    parts: tuple[Formula, ...]


Formula = AtMost | All | AnyOf


@dataclass(frozen=True)
class Statement:
    """What a file says: a counterexample is a point with outputs for which the formula holds."""

    inputs: int
    outputs: int
    formula: Formula


def normal_form(formula: Formula) -> list[list[AtMost]]:
    """The formula as a disjunction of conjunctions.

    Raises:
        Misread: it has more than LARGEST of them.
    """
    if isinstance(formula, AtMost):
        return [[formula]]
    parts = [normal_form(part) for part in formula.parts]
    count = sum(map(len, parts)) if isinstance(formula, AnyOf) else math.prod(map(len, parts))
    if count > LARGEST:
        raise Misread(None, f"expected at most {LARGEST:,} conjunctions in normal form, got {count:,}: split the property")
    if isinstance(formula, AnyOf):
        return [conjunction for part in parts for conjunction in part]
    common = [each for part in parts if len(part) == 1 for each in part[0]]
    found: list[list[AtMost]] = [[]]
    for part in parts:
        if len(part) != 1:
            found = [left + right for left in found for right in part]
    return [common + each for each in found]


def to_property(statement: Statement) -> Property:
    """The statement as boxes with what is unsafe in each; conjunctions with the same box share a case.

    A conjunction that no input meets is left out.

    Raises:
        Misread: a constraint that mixes inputs, an input without an end, or no conjunction that any input meets.
    """
    common, rest = _split(statement.formula)
    base = _Box([-math.inf] * statement.inputs, [math.inf] * statement.inputs)
    always = [each for each in common if not base.take(each)]
    boxes: dict[tuple[bytes, bytes], tuple[_Box, list[Conjunction]]] = {}
    empty: Misread | None = None
    for conjunction in normal_form(All(tuple(rest))):
        box = base.copy()
        try:
            rows = always + [each for each in conjunction if not box.take(each)]
        except _Empty as problem:
            empty = empty or problem
            continue
        boxes.setdefault(box.key(), (box, []))[1].append(_half_spaces(rows, statement.outputs))
    if not boxes:
        raise empty or Misread(None, "expected a counterexample to look for, got an empty disjunction")
    return Property(statement.inputs, statement.outputs, tuple(box.case(unsafe) for box, unsafe in boxes.values()))


def _split(formula: Formula) -> tuple[list[AtMost], list[Formula]]:
    """What always holds, which is most of a file, apart from what has alternatives."""
    if isinstance(formula, AtMost):
        return [formula], []
    if isinstance(formula, AnyOf):
        return [], [formula]
    parts = [_split(part) for part in formula.parts]
    return [each for common, _ in parts for each in common], [each for _, rest in parts for each in rest]


class _Empty(Misread):
    """No input meets a conjunction."""


class _Box:
    """The ends of every input, as far as they are known."""

    def __init__(self, lower: list[float], upper: list[float]) -> None:
        self.lower, self.upper = lower, upper

    def copy(self) -> _Box:
        return _Box(self.lower.copy(), self.upper.copy())

    def take(self, constraint: AtMost) -> bool:
        """Narrows the box; false for a constraint on outputs.

        Raises:
            _Empty: no input is left.
            Misread: several inputs, or inputs with outputs, in one constraint.
        """
        terms, constant, line = constraint.sum.factors, constraint.sum.constant, constraint.line
        if not terms:
            if constant > 0:
                raise _Empty(line, f"no input meets {constant:g} <= 0")
            return True
        if all(variable.kind == "Y" for variable in terms):
            return False
        if len(terms) > 1:
            names = ", ".join(map(str, terms))
            raise Misread(line, f"expected each input bounded by numbers, got one constraint on {names}: only boxes are read")
        ((variable, factor),) = terms.items()
        end, i = -constant / factor, variable.index
        if factor > 0:
            self.upper[i] = min(self.upper[i], end)
        else:
            self.lower[i] = max(self.lower[i], end)
        if self.lower[i] > self.upper[i]:
            raise _Empty(line, f"{variable} is at least {self.lower[i]:g} and at most {self.upper[i]:g}: no input meets that")
        return True

    def key(self) -> tuple[bytes, bytes]:
        """Equal for equal boxes. Raises Misread for an input without both ends."""
        for name, ends, missing in (("lower", self.lower, -math.inf), ("upper", self.upper, math.inf)):
            if missing in ends:
                free = Variable("X", ends.index(missing))
                raise Misread(None, f"expected {name} ends for every input, got none for {free}")
        return array("d", self.lower).tobytes(), array("d", self.upper).tobytes()

    def case(self, unsafe: Sequence[Conjunction]) -> Case:
        lower, upper = (torch.tensor(end, dtype=torch.float64) for end in (self.lower, self.upper))
        return Case(lower, upper, tuple(unsafe))


def _half_spaces(rows: Sequence[AtMost], outputs: int) -> Conjunction:
    matrix = torch.zeros(len(rows), outputs, dtype=torch.float64)
    for row, constraint in enumerate(rows):
        for variable, factor in constraint.sum.factors.items():
            matrix[row, variable.index] = factor
    limit = torch.tensor([0.0 - constraint.sum.constant for constraint in rows], dtype=torch.float64)
    return Conjunction(matrix, limit)
