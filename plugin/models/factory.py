"""Functions of the user's own by their import paths: `package.module:factory`, with parameters if they take some."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from pydantic import TypeAdapter, ValidationError
from pydantic.errors import PydanticUserError

from newrelax.errors import UserError
from newrelax.names import nearest, read_spelling


@dataclass(frozen=True)
class Factory:
    """A function or class that makes something, and the parameters that were spelled with it.

    Attributes:
        label: what it is and how it was spelled, as messages begin: "model own.nets:small:width=5".
        make: the function itself.
        params: what the user gave, of the types that the function's annotations ask for.
    """

    label: str
    make: Callable[..., object]
    params: Mapping[str, object] = field(default_factory=dict)

    @classmethod
    def find(cls, kind: str, spelling: str) -> Factory:
        """The factory of a spelling such as `own.nets:small` or `own.nets:small:width=5,depth=2`.

        Args:
            kind: what it makes, for messages: "model", "data set".

        Raises:
            UserError: a module that cannot be imported, a name that is not in it or is no function, a parameter that
                the function does not take, or a value of another type than its annotation.
        """
        label = f"{kind} {spelling}"
        module, _, rest = spelling.partition(":")
        name, text = read_spelling(rest)
        make = _imported(label, module, name)
        return cls(label, make, _read_params(label, make, text))

    def __call__(self, **offered: object) -> object:
        """What the function gives for those of `offered` that it takes by keyword, and the user's parameters.

        Raises:
            UserError: the function fails, or the user gave one of `offered`.
        """
        for key in self.params:
            if key in offered:
                raise UserError(f"{self.label}: {key} is given by this program, leave it out")
        taken = _keywords(self.make)
        accepted = {key: value for key, value in offered.items() if taken is None or key in taken}
        try:
            return self.make(**accepted, **self.params)
        except Exception as problem:
            raise UserError(f"{self.label}: its factory failed ({brief(problem)})") from problem


def brief(problem: BaseException) -> str:
    """An exception in one line."""
    return f"{type(problem).__name__}: {' '.join(str(problem).split())}"


def _imported(label: str, module_name: str, name: str) -> Callable[..., object]:
    try:
        module = importlib.import_module(module_name)
    except Exception as problem:  # the user's module may fail in any way when it is imported
        raise UserError(f"{label}: cannot be imported ({brief(problem)})") from problem
    if not hasattr(module, name):
        public = [each for each in vars(module) if not each.startswith("_")]
        raise UserError(f"{label}: cannot be imported (module {module_name} has no {name!r}{nearest(name, public)})")
    make = getattr(module, name)
    if not (inspect.isclass(make) or inspect.isroutine(make)):
        raise UserError(f"{label}: expected a function or class, got {type(make).__name__}")
    return make


def _signature(make: Callable[..., object]) -> inspect.Signature | None:
    try:
        return inspect.signature(make, eval_str=True)
    except NameError:  # an annotation that stands for type checkers only
        return inspect.signature(make)
    except ValueError:  # some classes written in C tell nothing about their arguments
        return None


def _keywords(make: Callable[..., object]) -> Mapping[str, Any] | None:
    """The names that the function takes by keyword, with their annotations; None: it takes every name."""
    signature = _signature(make)
    if signature is None:
        return {}
    parameters = signature.parameters.values()
    if any(p.kind is p.VAR_KEYWORD for p in parameters):
        return None
    return {p.name: _annotation(p) for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)}


def _annotation(parameter: inspect.Parameter) -> Any:
    """What a parameter's values are: as annotated, else of its default's type, else text."""
    if parameter.annotation is not parameter.empty:
        return parameter.annotation
    return type(parameter.default) if isinstance(parameter.default, (bool, int, float)) else str


def _read_params(label: str, make: Callable[..., object], text: Mapping[str, str]) -> dict[str, object]:
    """The values that a user gave as text, by the function's annotations."""
    taken = _keywords(make)
    values: dict[str, object] = {}
    for key, given in text.items():
        if taken is not None and key not in taken:
            known = ", ".join(taken) or "none"
            raise UserError(f"{label}: unknown parameter {key!r}{nearest(key, taken)} (its parameters: {known})")
        values[key] = given if taken is None else _read(label, key, given, taken[key])
    return values


def _read(label: str, key: str, given: str, annotation: Any) -> object:
    try:
        return TypeAdapter(annotation).validate_python(given)
    except ValidationError as problem:
        expected = problem.errors(include_url=False)[0]["msg"].removeprefix("Input should be ")
        raise UserError(f"{label}: parameter {key}: expected {expected}, got {given!r}") from problem
    except PydanticUserError as problem:  # a type that pydantic does not know
        name = getattr(annotation, "__name__", annotation)
        raise UserError(f"{label}: parameter {key} takes a {name}, which cannot be given as text") from problem
