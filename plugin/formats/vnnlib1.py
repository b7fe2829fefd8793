"""VNN-LIB 1.0: a part of SMT-LIB with inputs X_0, X_1, … and outputs Y_0, Y_1, …; its assertions describe a counterexample."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from functools import reduce
from typing import Literal

from newrelax.names import nearest
from plugin.formats.files import Misread
from plugin.formats.formula import All, AnyOf, AtMost, Formula, Linear, Statement, Variable
from plugin.formats.sexpr import Form, Group, Symbol

_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")
_NAME = re.compile(r"([XY])_(\d+)")
_STRICT = ("<", ">")
_IGNORED = ("set-logic", "set-info", "set-option", "check-sat", "exit")


def read(forms: Sequence[Form]) -> Statement:
    """What the forms of a file say.

    Raises:
        Misread: anything that is not boxes, `and`, `or`, <=, >= and linear sums.
    """
    reader = _Reader()
    for form in forms:
        reader.take(form)
    return reader.statement()


class _Reader:
    def __init__(self) -> None:
        self._declared: set[Variable] = set()
        self._asserted: list[Formula] = []

    def take(self, form: Form) -> None:
        """One form of the file's own level."""
        if not isinstance(form, Group):
            raise Misread(form.line, f"expected a declaration or an assertion, got {form.text!r:.40}")
        if form.head == "declare-const":
            self._declare(form)
        elif form.head == "assert":
            (argument,) = _arguments(form, 1)
            self._asserted.append(self._formula(argument))
        elif form.head not in _IGNORED:
            raise Misread(form.line, f"expected declare-const or assert, got {form.head or 'a group'!r}")

    def statement(self) -> Statement:
        counts = {}
        for kind, what in (("X", "inputs"), ("Y", "outputs")):
            indices = sorted(variable.index for variable in self._declared if variable.kind == kind)
            if not indices:
                raise Misread(None, f"declares no {what}: expected (declare-const {kind}_0 Real)")
            missing = next((i for i, index in enumerate(indices) if i != index), None)
            if missing is not None:
                raise Misread(None, f"declares {kind}_{indices[-1]}, but not {kind}_{missing}")
            counts[what] = len(indices)
        if not self._asserted:
            raise Misread(None, "asserts nothing: the file is cut short, or no property")
        return Statement(formula=All(tuple(self._asserted)), **counts)

    def _declare(self, form: Group) -> None:
        name, sort = _arguments(form, 2)
        match = _NAME.fullmatch(name.text) if isinstance(name, Symbol) else None
        if match is None or not isinstance(sort, Symbol) or sort.text != "Real":
            raise Misread(form.line, "expected (declare-const X_0 Real), for inputs X_… and outputs Y_…")
        variable = _variable(match)
        if variable in self._declared:
            raise Misread(form.line, f"declares {variable} twice")
        self._declared.add(variable)

    def _formula(self, form: Form) -> Formula:
        if not isinstance(form, Group):
            raise Misread(form.line, f"expected a constraint, got {form.text!r:.40}")
        if form.head in ("and", "or"):
            parts = tuple(self._formula(each) for each in form.items[1:])
            return All(parts) if form.head == "and" else AnyOf(parts)
        if form.head in _STRICT:
            raise Misread(form.line, f"expected <= or >=, got {form.head}: strict constraints have no exact answer here")
        if form.head not in ("<=", ">=", "="):
            raise Misread(form.line, f"expected and, or, <=, >= or =, got {form.head or 'a group'}")
        left, right = (self._sum(each) for each in _arguments(form, 2))
        less = AtMost(left.plus(right, -1.0), form.line)
        more = AtMost(right.plus(left, -1.0), form.line)
        if form.head == "=":
            return All((less, more))
        return less if form.head == "<=" else more

    def _sum(self, form: Form) -> Linear:
        if isinstance(form, Symbol):
            return self._symbol(form)
        parts = [self._sum(each) for each in form.items[1:]]
        if not parts or form.head not in ("+", "-", "*"):
            raise Misread(form.line, f"expected a sum of +, - and *, got {form.head or 'a group'}")
        if form.head == "*":
            return reduce(lambda a, b: a.product(b, form.line), parts)
        if form.head == "-" and len(parts) == 1:
            return parts[0].times(-1.0)
        sign = 1.0 if form.head == "+" else -1.0
        return reduce(lambda a, b: a.plus(b, sign), parts)

    def _symbol(self, symbol: Symbol) -> Linear:
        if _NUMBER.fullmatch(symbol.text):
            value = float(symbol.text)
            if math.isinf(value):
                raise Misread(symbol.line, f"expected a finite number, got {symbol.text}")
            return Linear(constant=value)
        match = _NAME.fullmatch(symbol.text)
        if match is None or _variable(match) not in self._declared:
            hint = nearest(symbol.text, map(str, sorted(self._declared)))
            raise Misread(symbol.line, f"unknown symbol {symbol.text!r:.40}{hint}: expected a number or what is declared above")
        return Linear({_variable(match): 1.0})


def _variable(match: re.Match[str]) -> Variable:
    kind: Literal["X", "Y"] = "X" if match[1] == "X" else "Y"
    return Variable(kind, int(match[2]))


def _arguments(form: Group, count: int) -> tuple[Form, ...]:
    if len(form.items) != count + 1:
        raise Misread(form.line, f"expected {count} argument{'s' * (count > 1)} of {form.head}, got {len(form.items) - 1}")
    return form.items[1:]
