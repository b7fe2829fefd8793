"""What people bring as a function: found by `package.module:name`, called with what they typed, read by its annotations."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from pydantic import PydanticUserError, TypeAdapter, ValidationError

from newrelax.errors import UserError, one_line, with_type
from newrelax.names import nearest, read_spelling
from newrelax.plugins import Extension
from plugin.settings.table import refuse_unknown

_BY_NAME = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
_PLAIN = (bool, int, float, str)


@dataclass(frozen=True)
class Factory:
    """A function or class that makes something, and the parameters that were typed for it.

    Attributes:
        kind: what it makes, as messages begin: "model", "data set".
        name: what people type for it: "own.nets:small".
        make: the function itself.
        typed: text by the parameters' names.
    """

    kind: str
    name: str
    make: Callable[..., object]
    typed: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def find(cls, kind: str, spelling: str) -> Factory:
        """The factory of a spelling such as `own.nets:small` or `own.nets:small:width=5,depth=2`.

        Raises:
            UserError: a module that cannot be imported, or a name that is not in it or is no function, class or named noun
                (`newrelax.plugins.Extension`).
        """
        module, _, rest = spelling.partition(":")
        name, typed = read_spelling(rest)
        path = f"{module}:{name}"
        return cls(kind, path, _imported(f"{kind} {path}", module, name), typed)

    @property
    def what(self) -> str:
        """How messages about it begin."""
        return f"{self.kind} {self.name}"

    def __call__(self, **offered: object) -> object:
        """What the function gives for the typed parameters, and for those of `offered` that it takes and nobody typed.

        Text is converted to what the parameter is annotated with, else to the type of its default or of what is offered.

        Raises:
            UserError: an unknown parameter, one that is missing or has a wrong value, or a function that fails.
        """
        given = self._arguments(offered)
        try:
            return self.make(**given)
        except UserError:
            raise
        except Exception as problem:  # somebody else's code may fail in any way
            raise UserError(f"{self.what}: its factory failed ({with_type(problem)})") from problem

    def _arguments(self, offered: Mapping[str, object]) -> dict[str, object]:
        known, examples = parameters(self.make), offered
        if not _takes_any(self.make):
            own = [name for name in known if name not in offered or name in self.typed]
            refuse_unknown(f"parameter of {self.what}", self.typed, own)
            offered = {name: value for name, value in offered.items() if name in known}
        given = {**offered, **self.typed}
        for name, parameter in known.items():
            if name not in given and parameter.default is parameter.empty:
                raise UserError(f"{self.what}: expected a value for its parameter {name}; give it as :{name}=VALUE")
        return {name: self._converted(name, value, examples.get(name)) for name, value in given.items()}

    def _converted(self, name: str, value: object, example: object) -> object:
        if not isinstance(value, str):
            return value
        annotation, where = self._annotation(name, example), f"{self.what}: parameter {name}"
        try:
            return TypeAdapter(annotation).validate_python(value)
        except ValidationError as problem:
            error = problem.errors(include_url=False)[0]
            expected = error["msg"].removeprefix("Input should be ").removeprefix("Value error, ")
            raise UserError(f"{where}: expected {expected}, got {value!r}") from problem
        except PydanticUserError as problem:
            raise UserError(f"{where}: its type {annotation!r} cannot be given as text ({one_line(problem)})") from problem

    def _annotation(self, name: str, example: object) -> Any:
        """What a parameter's values are: as annotated, else of the type of its default or example, else anything."""
        parameter = parameters(self.make).get(name)
        if parameter is None or parameter.annotation is parameter.empty:
            values = [example] if parameter is None else [parameter.default, example]
            return next((type(value) for value in values if type(value) in _PLAIN), Any)
        try:
            return inspect.signature(self.make, eval_str=True).parameters[name].annotation
        except Exception as problem:  # an annotation is any expression, evaluated in the user's module
            raise UserError(
                f"{self.what}: the annotations of its parameters cannot be read ({with_type(problem)})"
            ) from problem


def parameters(function: Callable[..., object]) -> dict[str, inspect.Parameter]:
    """What can be given to the function by name; nothing where it does not tell."""
    return {name: parameter for name, parameter in _signature(function).items() if parameter.kind in _BY_NAME}


def _takes_any(function: Callable[..., object]) -> bool:
    return any(parameter.kind is parameter.VAR_KEYWORD for parameter in _signature(function).values())


def _signature(function: Callable[..., object]) -> Mapping[str, inspect.Parameter]:
    try:
        return inspect.signature(function).parameters
    except (TypeError, ValueError):  # some classes written in C
        return {}


def _imported(what: str, module_name: str, name: str) -> Callable[..., object]:
    try:
        module = importlib.import_module(module_name)
    except Exception as problem:  # somebody else's module may fail in any way when it is imported
        raise UserError(f"{what}: module {module_name} cannot be imported ({with_type(problem)})") from problem
    if not hasattr(module, name):
        public = [each for each in vars(module) if not each.startswith("_")]
        raise UserError(f"{what}: module {module_name} has no {name!r}{nearest(name, public)}")
    made: object = getattr(module, name)
    if inspect.isclass(made) or inspect.isroutine(made) or (isinstance(made, Extension) and callable(made)):
        return made
    raise UserError(f"{what}: expected a function or class, got {type(made).__name__}")
