"""VNN-LIB 2.0, through its official parser: one network with one input and one output tensor, indexed like X[0,3]."""

from __future__ import annotations

import json
from functools import reduce
from typing import Any, Literal

from plugin.formats.extras import require
from plugin.formats.files import Misread
from plugin.formats.formula import All, AnyOf, AtMost, Formula, Linear, Statement, Variable


def read(text: str) -> Statement:
    """What a text says.

    Raises:
        Misread: the parser refuses it, or it has more than boxes, `and`, `or`, <=, >=, == and linear sums.
        UserError: the parser is not installed.
    """
    parser = require("vnnlib", "reading VNN-LIB 2.0")
    try:
        query = parser.parse_query_string(text)
    except parser.VNNLibException as problem:
        raise _refusal(str(problem)) from problem
    return _Reader(parser, query).statement()


class _Reader:
    """What the parser found, in this room's own terms."""

    def __init__(self, parser: Any, query: Any) -> None:
        self._parser, self._query = parser, query

    def statement(self) -> Statement:
        networks = self._query.networks
        if len(networks) != 1:
            raise Misread(None, f"expected one network, got {len(networks)}")
        (network,) = networks
        if network.hidden:
            raise Misread(None, f"expected inputs and outputs only, got the hidden {network.hidden[0].name}")
        counts = {}
        for what, tensors in (("inputs", network.inputs), ("outputs", network.outputs)):
            if len(tensors) != 1:
                raise Misread(None, f"expected one tensor of {what}, got {len(tensors)}")
            counts[what] = _entries(tensors[0].shape)
        if not self._query.assertions:
            raise Misread(None, "asserts nothing")
        return Statement(formula=All(tuple(self._formula(each.expr) for each in self._query.assertions)), **counts)

    def _formula(self, found: Any) -> Formula:
        parser = self._parser
        if isinstance(found, (parser.And, parser.Or)):
            parts = tuple(self._formula(each) for each in found.args)
            return All(parts) if isinstance(found, parser.And) else AnyOf(parts)
        line = _line(found)
        if not isinstance(found, (parser.LessEqual, parser.GreaterEqual, parser.Equal)):
            words = f"expected <=, >= or ==, got {str(found).strip()!r:.60}"
            raise Misread(line, f"{words}: strict constraints have no exact answer here")
        left, right = self._sum(found.lhs, line), self._sum(found.rhs, line)
        less, more = AtMost(left.plus(right, -1.0), line), AtMost(right.plus(left, -1.0), line)
        if isinstance(found, parser.Equal):
            return All((less, more))
        return less if isinstance(found, parser.LessEqual) else more

    def _sum(self, found: Any, line: int | None) -> Linear:
        """By its own arithmetic: the parser's leaves out factors that it thinks too small."""
        parser = self._parser
        if isinstance(found, parser.Var):
            return Linear({self._variable(found): 1.0})
        if isinstance(found, parser.Literal):
            return Linear(constant=float(found.lexeme))
        if isinstance(found, parser.Negate):
            return self._sum(found.expr, line).times(-1.0)
        first, *rest = (self._sum(each, line) for each in found.children())
        if isinstance(found, parser.Multiply):
            return reduce(lambda a, b: a.product(b, line), rest, first)
        sign = {parser.Plus: 1.0, parser.Minus: -1.0}[type(found)]
        return reduce(lambda a, b: a.plus(b, sign), rest, first)

    def _variable(self, found: Any) -> Variable:
        kind: Literal["X", "Y"] = "X" if found.kind == self._parser.SymbolKind.Input else "Y"
        flat = 0
        for index, size in zip(found.indices, found.shape, strict=True):
            flat = flat * size + index
        return Variable(kind, flat)


def _entries(shape: list[int]) -> int:
    count = 1
    for size in shape:
        count *= size
    return count


def _line(found: Any) -> int | None:
    """The line of the first variable or number below; the parser keeps none for operators."""
    own = getattr(found, "line", None)
    if own is not None:
        return int(own)
    return next((line for child in found.children() if (line := _line(child)) is not None), None)


def _refusal(words: str) -> Misread:
    """The parser's own words: JSON with a list of errors, or one sentence."""
    try:
        first = json.loads(words)["errors"][0]
        return Misread(int(first["line"]), f"{first['message']} {first['offendingSymbol']}: {first['hint']}")
    except (ValueError, KeyError, IndexError, TypeError):
        return Misread(None, " ".join(words.split()))
