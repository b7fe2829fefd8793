"""A ladder: certifiers, cheap ones first; an example climbs until it is decided."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

from newrelax.errors import UserError
from newrelax.names import read_spelling, split_spellings, unknown
from newrelax.registry import Registry
from plugin.certification.certifiers.attack import Attack
from plugin.certification.certifiers.base import Certifier, Example, Question
from plugin.certification.certifiers.bound import Bound
from plugin.certification.certifiers.branch import Branch
from plugin.certification.certifiers.exact import Exact

DEFAULT = "IBP,CROWN-IBP-R,CROWN,alpha-CROWN,exact"
BUILTIN: dict[str, Callable[..., Certifier]] = {"attack": Attack, "exact": Exact}
"""Certifiers that are no bounds; every method that bounds is one, too."""


@dataclass(frozen=True)
class Ladder:
    """Certifiers in the order in which examples meet them; an attack comes first unless it stands elsewhere."""

    rungs: tuple[Certifier, ...]

    @classmethod
    def read(cls, spelling: str, registry: Registry) -> Ladder:
        """`IBP,CROWN,exact`; rungs may have parameters: `attack:steps=100,restarts=5,IBP`.

        Raises:
            UserError: an unknown rung or parameter, one that decides nothing, or no rung.
        """
        rungs = [_rung(spec, registry) for spec in split_spellings(spelling)]
        if not rungs:
            raise UserError("--ladder: expected certifiers with commas between them, got nothing")
        if not any(isinstance(rung, Attack) for rung in rungs):
            rungs.insert(0, Attack())
        return cls(tuple(rungs))

    @property
    def label(self) -> str:
        return ",".join(rung.label for rung in self.rungs)

    def climb(self, question: Question, examples: Sequence[Example], seconds: float) -> Iterator[Example]:
        """Each example as soon as it is decided, or has met every rung. seconds: for one example at a time, on rungs that take
        one."""
        open_ones = list(examples)
        for rung in self.rungs:
            for start in range(0, len(open_ones), rung.batch):
                part = open_ones[start : start + rung.batch]
                rung(question, part, time.monotonic() + seconds * len(part))
                yield from (example for example in part if not example.open)
            open_ones = [example for example in open_ones if example.open]
        yield from open_ones


def _rung(spec: str, registry: Registry) -> Certifier:
    name, params = read_spelling(spec)
    if name == "branch":
        method = registry.get_method(params.pop("method", "CROWN"))
        return _made(spec, partial(Branch, method), params)
    if name in BUILTIN:
        return _made(spec, BUILTIN[name], params)
    if name not in registry:
        raise unknown(
            "certifier", name, [*BUILTIN, "branch", *(each for each, method in registry.items() if method.gives_bounds)]
        )
    return Bound(registry.get_method(spec))


def _made(spec: str, certifier: Callable[..., Certifier], params: Mapping[str, str]) -> Certifier:
    try:
        return certifier(**{key: int(value) for key, value in params.items()})
    except (TypeError, ValueError):
        raise UserError(f"--ladder: {spec!r}: expected whole-number parameters of {read_spelling(spec)[0]}") from None
