"""What one setting is: its type is the field's, its range, help and spelling stand beside it.

A table of settings is a subclass of `Table`. Command-line options, range checks, the JSON that is kept and read
back, and lists for people all derive from its fields.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from contextlib import suppress
from typing import Any, NamedTuple, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic.fields import FieldInfo

from newrelax.errors import UserError
from newrelax.names import nearest


class Traits(NamedTuple):
    """What pydantic does not know of a setting.

    default: in words, where it is not the field's own (a recipe's, a data set's). resumable: a resumed run may change it.
    quiet: left out of a spelling where it is at its default.
    """

    default: str | None = None
    resumable: bool = False
    quiet: bool = False


def setting(
    help_text: str,
    default: Any = ...,
    *,
    said: str | None = None,
    resumable: bool = False,
    quiet: bool = False,
    **limits: Any,
) -> Any:
    """A field of a `Table`. `limits` are pydantic's: gt, ge, lt, le, pattern.

    `said`: the default in words, where something else than the field decides it. Without a default and without words the
    setting must be given.
    """
    extra: Any = {"traits": Traits(said, resumable, quiet)}
    return Field(default, description=help_text, json_schema_extra=extra, **limits)


class Table(BaseModel):
    """A frozen, typed set of settings; unknown names and wrong values are a `UserError` of one line.

    A setting that people call by a word of Python's (from, lambda) is a field with `_` behind it (from_).
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, validate_default=False)

    @classmethod
    def read(cls, values: Mapping[str, Any], *, what: str = "setting") -> Self:
        """The table with these values, as JSON types or as text from a command line.

        Raises:
            UserError: an unknown name, a missing one, or a value out of its type or range.
        """
        fields = {_said(name): name for name in cls.model_fields}
        refuse_unknown(what, values, fields)
        try:
            return cls.model_validate({fields[name]: value for name, value in values.items()})
        except ValidationError as problem:
            raise UserError(_line(problem, cls.model_fields)) from problem

    def to_json(self) -> dict[str, Any]:
        """JSON types that `read` reads back to an equal value."""
        return {_said(name): value for name, value in json.loads(self.model_dump_json()).items()}


def traits(field: FieldInfo) -> Traits:
    """The traits of a field that `setting` made."""
    extra = field.json_schema_extra
    found = extra.get("traits") if isinstance(extra, dict) else None
    return found if isinstance(found, Traits) else Traits()


def refuse_unknown(what: str, names: Iterable[str], known: Iterable[str]) -> None:
    """Raises UserError for the first name that is not among the known ones, with the nearest of them."""
    known = list(known)
    for name in names:
        if name not in known:
            hint = nearest(name, known)
            raise UserError(f"unknown {what} {name!r}{hint} (known: {', '.join(sorted(known)) or 'none'})")


_KINDS = {"int": "a whole number", "float": "a number", "bool": "true or false", "string": "text", "finite": "a finite number"}
_LIMITS = ("greater_than", "greater_than_equal", "less_than", "less_than_equal", "finite_number")


def limits(field: FieldInfo) -> str:
    """The range of a number in words: `in (0, 1]`, `at least 1`; empty where there is none."""
    found: dict[str, Any] = {}
    for part in field.metadata:
        found |= {name: value for name in ("gt", "ge", "lt", "le") if (value := getattr(part, name, None)) is not None}
    low = next((found[name] for name in ("gt", "ge") if name in found), None)
    high = next((found[name] for name in ("lt", "le") if name in found), None)
    if low is not None and high is not None:
        return f"in {'(' if 'gt' in found else '['}{_short(low)}, {_short(high)}{')' if 'lt' in found else ']'}"
    if low is not None:
        return f"{'above' if 'gt' in found else 'at least'} {_short(low)}"
    return "" if high is None else f"{'below' if 'lt' in found else 'at most'} {_short(high)}"


def _said(field: str) -> str:
    return field.removesuffix("_")


def _short(number: float) -> str:
    return "2^63" if number == 2**63 else f"{number:g}"


def _line(problem: ValidationError, fields: Mapping[str, FieldInfo]) -> str:
    """The first error of a validation as one line: where, what was expected, what came."""
    error = problem.errors(include_url=False)[0]
    name = str(error["loc"][0]) if error["loc"] else ""
    where, kind = _said(name).replace("_", "-"), error["type"]
    if kind == "value_error":
        reason = str(error["ctx"]["error"])
        return f"{where}: {reason}" if where else reason
    if kind == "missing":
        return f"{where}: expected a value, got none"
    if kind == "literal_error":
        expected = "one of " + ", ".join(re.findall(r"'([^']*)'", error["ctx"]["expected"]))
    elif kind in _LIMITS and name in fields and limits(fields[name]):
        expected = limits(fields[name])
    else:
        expected = _KINDS.get(kind.split("_")[0]) or error["msg"].removeprefix("Input should be ")
    return f"{where}: expected {expected}, got {_shown(error['input']) if kind in _LIMITS else repr(error['input'])}"


def _shown(value: object) -> str:
    """What came, as people typed it: text that is a number without quotes."""
    if isinstance(value, str):
        with suppress(ValueError):
            float(value)
            return value
    return repr(value)
