"""Properties as texts in VNN-LIB 1.0 and 2.0, which `vnnlib.read_property` reads back to the same boxes and half-spaces."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from plugin.formats.property import Case, Conjunction, Property


def write_property(
    asked: Property, version: int = 1, *, comment: str = "", input_shape: Sequence[int] = (), output_shape: Sequence[int] = ()
) -> str:
    """The property's text. version: 1 or 2. comment: the first line.

    input_shape, output_shape: of the network's tensors, which 2.0 names entries by; otherwise they are flat.
    """
    shapes = {"X": tuple(input_shape) or (asked.inputs,), "Y": tuple(output_shape) or (asked.outputs,)}
    names = _Second(asked, shapes) if version == 2 else _First(asked, shapes)
    head = [f"; {' '.join(comment.split())}"] if comment else []
    return "\n".join([*head, *names.declarations(), "", *_assertions(asked, names)]) + "\n"


@dataclass(frozen=True)
class _Names(ABC):
    """How a version declares and names inputs and outputs."""

    asked: Property
    shapes: Mapping[str, tuple[int, ...]]

    @abstractmethod
    def declarations(self) -> list[str]: ...

    @abstractmethod
    def name(self, kind: str, index: int) -> str: ...


class _First(_Names):
    def declarations(self) -> list[str]:
        counts = (("X", self.asked.inputs), ("Y", self.asked.outputs))
        return [f"(declare-const {self.name(kind, i)} Real)" for kind, count in counts for i in range(count)]

    def name(self, kind: str, index: int) -> str:
        return f"{kind}_{index}"


class _Second(_Names):
    def declarations(self) -> list[str]:
        return [
            "(vnnlib-version <2.0>)",
            "(declare-network N",
            f"  (declare-input X float32 {_bracketed(self.shapes['X'])})",
            f"  (declare-output Y float32 {_bracketed(self.shapes['Y'])}))",
        ]

    def name(self, kind: str, index: int) -> str:
        return f"{kind}{_bracketed(np.unravel_index(index, self.shapes[kind]))}"


def _bracketed(sizes: Iterable[object]) -> str:
    return f"[{','.join(map(str, sizes))}]"


def number(value: float) -> str:
    """The shortest decimal that reads back to the same float64; without an exponent, which neither version has."""
    return np.format_float_positional(value, unique=True, trim="0")


def _assertions(asked: Property, names: _Names) -> Iterable[str]:
    if len(asked.cases) == 1:
        (case,) = asked.cases
        return [f"(assert {each})" for each in [*_box(case, names), _any([_all(_rows(u, names)) for u in case.unsafe])]]
    cases = [_all([*_box(case, names), _any([_all(_rows(u, names)) for u in case.unsafe])]) for case in asked.cases]
    return [f"(assert {_any(cases)})"]


def _box(case: Case, names: _Names) -> list[str]:
    ends = zip(case.lower.tolist(), case.upper.tolist(), strict=True)
    return [
        text
        for i, (lower, upper) in enumerate(ends)
        for text in (f"(>= {names.name('X', i)} {number(lower)})", f"(<= {names.name('X', i)} {number(upper)})")
    ]


def _rows(unsafe: Conjunction, names: _Names) -> list[str]:
    return [
        _row(row, limit, names)
        for row, limit in zip(unsafe.matrix, unsafe.limit.tolist(), strict=True)
        if bool(torch.any(row != 0)) or limit < 0
    ]


def _row(row: torch.Tensor, limit: float, names: _Names) -> str:
    """One half-space; two outputs are compared as most readers expect it, who know no sums."""
    factors = {j: factor for j, factor in enumerate(row.tolist()) if factor}
    if limit == 0 and sorted(factors.values()) == [-1.0, 1.0]:
        less, more = sorted(factors, key=lambda j: -factors[j])
        return f"(<= {names.name('Y', less)} {names.name('Y', more)})"
    if list(factors.values()) == [-1.0]:
        return f"(>= {names.name('Y', next(iter(factors)))} {number(0.0 - limit)})"
    return f"(<= {_sum(row, names)} {number(limit)})"


def _sum(row: torch.Tensor, names: _Names) -> str:
    terms = [
        names.name("Y", j) if factor == 1 else f"(* {number(factor)} {names.name('Y', j)})"
        for j, factor in enumerate(row.tolist())
        if factor
    ]
    if not terms:
        return "0.0"
    return terms[0] if len(terms) == 1 else f"(+ {' '.join(terms)})"


def _all(parts: Sequence[str]) -> str:
    return f"(and {' '.join(parts)})"


def _any(parts: Sequence[str]) -> str:
    return "\n  ".join(["(or", *parts]) + ")"
