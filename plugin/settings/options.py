"""Option types that click lacks."""

from __future__ import annotations

import click


class _Numbers(click.ParamType):
    """Numbers with commas between them, as a tuple of floats."""

    name = "numbers"

    def __init__(self, pair: bool) -> None:
        self._pair = pair

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> tuple[float, ...]:
        if isinstance(value, tuple):
            return value
        try:
            numbers = tuple(float(part) for part in str(value).split(",") if part.strip())
        except ValueError:
            self.fail(f"expected numbers with commas between them, got {value!r}", param, ctx)
        if not self._pair:
            return numbers
        if len(numbers) not in (1, 2):
            self.fail(f"expected START,END or one number, got {value!r}", param, ctx)
        return (numbers[0], numbers[-1])


class _Radius(click.ParamType):
    """A number, or a fraction such as 8/255, as a float."""

    name = "radius"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> float:
        numerator, _, denominator = str(value).partition("/")
        try:
            return float(numerator) / float(denominator or 1)
        except (ValueError, ZeroDivisionError):
            self.fail(f"expected a number or a fraction such as 8/255, got {value!r}", param, ctx)


RADIUS = _Radius()
FLOATS = _Numbers(pair=False)
PAIR = _Numbers(pair=True)
