"""Types of settings, each read from a number, from JSON, or from the text that people type."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator


def _radius(value: Any) -> Any:
    """A number, or a fraction such as 8/255."""
    if not isinstance(value, str):
        return value
    numerator, _, denominator = value.partition("/")
    try:
        return float(numerator) / float(denominator or 1)
    except (ValueError, ZeroDivisionError):
        raise ValueError(f"expected a number or a fraction such as 8/255, got {value!r}") from None


def _numbers(value: Any) -> Any:
    """Numbers with commas between them."""
    if not isinstance(value, str):
        return value
    try:
        return tuple(float(part) for part in value.split(",") if part.strip())
    except ValueError:
        raise ValueError(f"expected numbers with commas between them, got {value!r}") from None


def _pair(value: Any) -> Any:
    """START,END, or one number for both."""
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return (value, value)
    numbers = _numbers(value)
    if isinstance(value, str) and len(numbers) not in (1, 2):
        raise ValueError(f"expected START,END or one number, got {value!r}")
    return (numbers[0], numbers[-1]) if isinstance(value, str) else value


def _range(value: Any) -> Any:
    """`data`, `none`, or smallest and largest with a comma between them."""
    if value is None:
        return "none"
    if not isinstance(value, str) or value in ("data", "none"):
        return value
    numbers = _numbers(value)
    if len(numbers) != 2:
        raise ValueError(f"expected data, none, or SMALLEST,LARGEST, got {value!r}")
    return numbers


Radius = Annotated[float, BeforeValidator(_radius)]
Numbers = Annotated[tuple[float, ...], BeforeValidator(_numbers)]
Pair = Annotated[tuple[float, float], BeforeValidator(_pair)]
Range = Annotated[Literal["data", "none"] | tuple[float, float], BeforeValidator(_range)]

METAVARS = {_radius: "RADIUS", _numbers: "NUMBERS", _pair: "START,END", _range: "SMALLEST,LARGEST"}
"""How a command line's help shows a value of a type, by what reads it."""
