"""Texts in parentheses, as SMT-LIB has them: symbols and groups with their lines, comments left out."""

from __future__ import annotations

import re
from dataclasses import dataclass

from plugin.formats.files import Misread

DEEPEST = 100
"""Groups within groups: more than any property has, few enough for readers that call themselves."""

_TOKEN = re.compile(r";[^\n]*|[()]|[^\s();]+|\n")


@dataclass(frozen=True)
class Symbol:
    """A name, an operator or a number."""

    text: str
    line: int


@dataclass(frozen=True)
class Group:
    """What stands between two parentheses."""

    items: tuple[Form, ...]
    line: int

    @property
    def head(self) -> str:
        """Its first symbol; empty where there is none."""
        return self.items[0].text if self.items and isinstance(self.items[0], Symbol) else ""


Form = Symbol | Group


def parse(text: str) -> list[Form]:
    """The forms of a text.

    Raises:
        Misread: parentheses that do not match, or stand too deep.
    """
    line = 1
    found: list[list[Form]] = [[]]
    opened: list[int] = []
    for token in _TOKEN.findall(text):
        if token == "\n":
            line += 1
        elif token == "(":
            if len(opened) == DEEPEST:
                raise Misread(line, f"expected at most {DEEPEST} groups within each other, got more")
            found.append([])
            opened.append(line)
        elif token == ")":
            if not opened:
                raise Misread(line, "expected a group before this ), got none")
            items = tuple(found.pop())
            found[-1].append(Group(items, opened.pop()))
        elif not token.startswith(";"):
            found[-1].append(Symbol(token, line))
    if opened:
        raise Misread(opened[-1], "the group that begins here has no ): the file is cut short")
    return found[0]
