"""The open noun: a function that gives a data set, under a name."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from newrelax.errors import UserError
from newrelax.plugins import Extension
from plugin.data.arrays import from_returned
from plugin.data.dataset import Dataset
from plugin.process.streams import seeded
from plugin.settings.factories import Factory, parameters

OFFERED = ("data_dir", "seed")
_FORBIDDEN = set(" \t\n:,=/\\")


@dataclass(frozen=True)
class NamedData(Extension):
    """A data set that people ask for by name.

    Attributes:
        name: what people type, `NAME` or `NAME:key=value,key=value`.
        function: `(*, parameters) → Dataset`, or x_train, y_train, x_test, y_test as a tuple or a mapping. It gets
            `data_dir` (text, unless it is annotated as a path) and `seed` if it takes them.
        summary: a line for lists.
        eps, model: what one trains with on this data set, unless told otherwise; None: it does not say.
    """

    name: str
    function: Callable[..., object]
    summary: str = ""
    eps: float | None = None
    model: str | None = None

    def __post_init__(self) -> None:
        # A plugin's own values are told from what it imports by the module that they were made in.
        object.__setattr__(self, "__module__", getattr(self.function, "__module__", ""))

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """The function itself."""
        return self.function(*args, **kwargs)

    @property
    def label(self) -> str:
        """The name with its own parameters and their defaults, as one may type it: `two-moons:points=200`."""
        own = [p for name, p in parameters(self.function).items() if name not in OFFERED]
        typed = ",".join(f"{p.name}={'…' if p.default is p.empty else p.default}" for p in own)
        return f"{self.name}:{typed}" if typed else self.name

    def make(self, typed: Mapping[str, str], *, data_dir: Path, seed: int) -> Dataset:
        """The data set with these parameters, checked. torch's random stream starts from `seed` and is put back.

        Raises:
            UserError: an unknown or wrong parameter, a function that fails, or arrays that cannot be trained with.
        """
        with seeded(seed):
            returned = Factory("data set", self.name, self.function, typed)(data_dir=str(data_dir), seed=seed)
        return from_returned(self.name, returned)


def dataset(name: str, *, eps: float | None = None, model: str | None = None) -> Callable[[Callable[..., object]], NamedData]:
    """Makes a function a data set that `--dataset NAME` finds; the first line of its docstring is its summary.

    Args:
        eps, model: what one trains with on it by default.

    Raises:
        UserError: a name that could not be typed.
    """
    if not name or set(name) & _FORBIDDEN:
        raise UserError(f"expected a data set's name without spaces and : , = / \\, got {name!r}")

    def decorate(function: Callable[..., object]) -> NamedData:
        summary = (inspect.getdoc(function) or name).strip().splitlines()[0]
        return NamedData(name, function, summary, eps, model)

    return decorate
