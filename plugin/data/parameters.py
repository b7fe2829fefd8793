"""The arguments of somebody's function: what was typed, converted and checked by its annotations."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any

from pydantic import PydanticUserError, TypeAdapter, ValidationError

from newrelax.errors import UserError
from plugin.data.words import one_line, with_type
from plugin.settings.table import refuse_unknown

_KEYWORD = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
_PLAIN = (bool, int, float, str)


def parameters(function: Callable[..., object]) -> dict[str, inspect.Parameter]:
    """What can be given to the function by name; nothing where it does not tell."""
    try:
        found = inspect.signature(function).parameters
    except (TypeError, ValueError):  # some classes written in C
        return {}
    return {name: parameter for name, parameter in found.items() if parameter.kind in _KEYWORD}


def arguments(
    what: str, function: Callable[..., object], typed: Mapping[str, str], offered: Mapping[str, object]
) -> dict[str, object]:
    """The keyword arguments to call the function with.

    Args:
        what: whose parameters they are, for messages: "data set two-moons".
        typed: text, as it came from a command line. A parameter without annotation has its default's type.
        offered: values that the function gets if it takes them and they were not typed.

    Raises:
        UserError: an unknown name, a value that the annotation refuses, or a parameter that must be given and is not.
    """
    known = parameters(function)
    refuse_unknown(f"parameter of {what}", typed, [name for name in known if name not in offered or name in typed])
    given = {**{name: value for name, value in offered.items() if name in known}, **typed}
    for name, parameter in known.items():
        if name not in given and parameter.default is parameter.empty:
            raise UserError(f"{what}: expected a value for its parameter {name}; give it as :{name}=VALUE")
    types = _annotations(what, function) if given else {}
    return {name: _converted(f"{what}: parameter {name}", types.get(name, Any), value) for name, value in given.items()}


def _annotations(what: str, function: Callable[..., object]) -> dict[str, Any]:
    try:
        found = inspect.signature(function, eval_str=True).parameters
    except Exception as problem:  # an annotation is any expression, evaluated in the user's module
        raise UserError(f"{what}: the annotations of its parameters cannot be read ({with_type(problem)})") from problem
    types: dict[str, Any] = {}
    for name, parameter in found.items():
        if parameter.annotation is not parameter.empty:
            types[name] = parameter.annotation
        elif type(parameter.default) in _PLAIN:
            types[name] = type(parameter.default)
    return types


def _converted(what: str, annotation: Any, value: object) -> object:
    try:
        return TypeAdapter(annotation).validate_python(value)
    except ValidationError as problem:
        error = problem.errors(include_url=False)[0]
        expected = error["msg"].removeprefix("Input should be ").removeprefix("Value error, ")
        raise UserError(f"{what}: expected {expected}, got {value!r}") from problem
    except PydanticUserError as problem:
        raise UserError(f"{what}: its type {annotation!r} cannot be given as text ({one_line(problem)})") from problem
