"""How people spell things: `NAME:key=value,key=value`, and what to say where a name is unknown."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable
from typing import NamedTuple

from newrelax.errors import UserError


class Spelling(NamedTuple):
    """A name and the parameters given with it, as text."""

    name: str
    params: dict[str, str]


def read_spelling(spec: str) -> Spelling:
    """The parts of a spelling such as `IBP-Round:omega=0.5,F=10`.

    Raises:
        UserError: no such form, or a parameter that stands twice.
    """
    name, colon, text = spec.strip().partition(":")
    params: dict[str, str] = {}
    for part in text.split(",") if colon else ():
        key, equals, value = (piece.strip() for piece in part.partition("="))
        if not equals or not key:
            raise UserError(f"expected NAME:key=value,key=value, got {spec!r}")
        if key in params:
            raise UserError(f"{spec!r} gives parameter {key!r} twice")
        params[key] = value
    return Spelling(name, params)


def split_spellings(text: str) -> list[str]:
    """The spellings of a list with commas, where a comma also separates a spelling's parameters: NAME:a=1,b=2.

    What has no name of its own belongs to the one before.
    """
    parts: list[str] = []
    for part in (piece.strip() for piece in text.split(",")):
        if parts and ":" in parts[-1] and re.fullmatch(r"\w+=[^:]*", part):
            parts[-1] += f",{part}"
        elif part:
            parts.append(part)
    return parts


def nearest(name: str, known: Iterable[str]) -> str:
    """ "; did you mean …?" with the names most like it, or nothing where none is."""
    spelled = {each.lower(): each for each in known}
    close = difflib.get_close_matches(name.lower(), spelled, n=3, cutoff=0.6)
    return f"; did you mean {' or '.join(spelled[key] for key in close)}?" if close else ""


def unknown(kind: str, name: str, known: Iterable[str]) -> UserError:
    """What to raise for a name that is not among the known ones: the nearest, then all."""
    known = list(known)
    return UserError(f"unknown {kind} {name!r}{nearest(name, known)} (known: {', '.join(known)})")
