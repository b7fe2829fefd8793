"""Properties in VNN-LIB, the language of the verifiers' competition: one reader for both of its versions.

Strict inequalities are refused: at the edge of what they leave out, an answer for the closed form would be another one.
"""

from __future__ import annotations

import re
from pathlib import Path

from plugin.formats import vnnlib1, vnnlib2
from plugin.formats.files import Misread, read_text
from plugin.formats.formula import to_property
from plugin.formats.property import Case, Conjunction, Property
from plugin.formats.sexpr import Form, Group, Symbol, parse

__all__ = ["Case", "Conjunction", "Property", "read_property"]

_VERSION = re.compile(r"<(\d+)\.(\d+)>")


def read_property(path: Path | str) -> Property:
    """The property in a file .vnnlib or .vnnlib.gz, of VNN-LIB 1.0 or 2.0.

    Raises:
        UserError: the file is absent, damaged, of another kind, or says what is no box of inputs with linear constraints on
            outputs; with the line where there is one.
    """
    path = Path(path)
    text = read_text("property", path)
    try:
        forms = parse(text)
        statement = vnnlib2.read(text) if _major(forms) == 2 else vnnlib1.read(forms)
        return to_property(statement)
    except Misread as problem:
        raise problem.of("property", path) from problem


def _major(forms: list[Form]) -> int:
    """The version that the first form names; 1 where it names none."""
    if not forms:
        raise Misread(None, "is empty: expected declarations and assertions in VNN-LIB")
    first = forms[0]
    if not isinstance(first, Group) or first.head != "vnnlib-version":
        return 1
    said = first.items[1] if len(first.items) == 2 else None
    match = _VERSION.fullmatch(said.text) if isinstance(said, Symbol) else None
    if match is None or int(match[1]) != 2:
        raise Misread(first.line, "expected (vnnlib-version <2.0>), or no version for 1.0")
    return 2
