"""What one setting is: its type is the field's, its range, help and spelling stand beside it.

A table of settings is a subclass of :class:`Table`. Command-line options, range checks, the JSON that is kept and read
back, and lists for people all derive from its fields.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic.fields import FieldInfo

from newrelax.errors import UserError
from newrelax.names import nearest


class Traits(NamedTuple):
    """What pydantic does not know of a setting.

    default: in words, where it is not the field's own (a recipe's, a data set's). resumable: a resumed run may change it.
    """

    default: str | None = None
    resumable: bool = False


def setting(help_text: str, default: Any = ..., *, said: str | None = None, resumable: bool = False, **limits: Any) -> Any:
    """A field of a :class:`Table`. ``limits`` are pydantic's: gt, ge, lt, le, pattern.

    ``said``: the default in words, where something else than the field decides it. Without a default and without words the
    setting must be given.
    """
    return Field(default, description=help_text, json_schema_extra={"traits": Traits(said, resumable)}, **limits)  # type: ignore[dict-item]


class Table(BaseModel):
    """A frozen, typed set of settings; unknown names and wrong values are a ``UserError`` of one line."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, hide_input_in_errors=False)

    @classmethod
    def read(cls, values: Mapping[str, Any], *, what: str = "setting") -> Self:
        """The table with these values, as JSON types or as text from a command line.

        Raises:
            UserError: an unknown name, a missing one, or a value out of its type or range.
        """
        refuse_unknown(what, values, cls.model_fields)
        try:
            return cls.model_validate(dict(values))
        except ValidationError as problem:
            raise UserError(_first(problem)) from problem

    def to_json(self) -> dict[str, Any]:
        """JSON types that :meth:`read` reads back to an equal value."""
        return dict(json.loads(self.model_dump_json()))


def traits(field: FieldInfo) -> Traits:
    """The traits of a field that :func:`setting` made."""
    extra = field.json_schema_extra
    found = extra.get("traits") if isinstance(extra, dict) else None
    return found if isinstance(found, Traits) else Traits()


def refuse_unknown(what: str, names: Iterable[str], known: Iterable[str]) -> None:
    """Raises UserError for the first name that is not among the known ones, with the nearest of them."""
    known = list(known)
    for name in names:
        if name not in known:
            raise UserError(f"unknown {what} {name!r}{nearest(name, known)}; known: {', '.join(sorted(known))}")


_LIMITS = {
    "greater_than": ("above {gt}", "gt"),
    "greater_than_equal": ("at least {ge}", "ge"),
    "less_than": ("below {lt}", "lt"),
    "less_than_equal": ("at most {le}", "le"),
}


def _first(problem: ValidationError) -> str:
    """The first error of a validation as one line: where, what was expected, what came."""
    error = problem.errors(include_url=False)[0]
    where = ".".join(str(part) for part in error["loc"]).replace("_", "-")
    kind, context = error["type"], error.get("ctx", {})
    if kind == "missing":
        return f"{where}: expected a value, got none"
    if kind in _LIMITS:
        expected = _LIMITS[kind][0].format(**context)
    elif kind == "value_error":
        return str(context["error"]) if not where else f"{where}: {context['error']}"
    else:
        expected = error["msg"].removeprefix("Input should be ")
    return f"{where}: expected {expected}, got {error['input']!r}"
