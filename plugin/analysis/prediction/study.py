"""The table that predictions rest on: what was measured of relaxations, and what they were trained to."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np

from newrelax.errors import UserError
from plugin.analysis.prediction.model import FEATURES, Matrix, Vector
from plugin.analysis.prediction.properties import NAMED

DATA = Path(__file__).parent / "data"
FILE = "study.json"

Measured = Mapping[str, Mapping[str, float]]
"""Kind of network → property → figure."""


@dataclass(frozen=True)
class Setting:
    """What a prediction is about: data set, network and radius, the seeds that were trained, and their certifier."""

    dataset: str
    model: str
    eps: float
    seeds: tuple[int, ...]

    def words(self, relaxations: int) -> str:
        """The setting in one phrase."""
        return (
            f"{self.dataset}, {self.model}, ε = {self.eps:g}, {relaxations} relaxations × {len(self.seeds)} seeds, "
            "each certified by its own relaxation"
        )


@dataclass(frozen=True)
class Studied:
    """A relaxation of the study. certified: accuracy in percent, by seed. properties: on the common networks of one seed."""

    certified: tuple[float, ...]
    properties: Measured

    @property
    def mean(self) -> float:
        """Certified accuracy in percent, mean over seeds."""
        return sum(self.certified) / len(self.certified)


@dataclass(frozen=True)
class Study:
    """The whole table. networks: kind → weights beside the file. protocol: options of `plugin.analyze`, the seed included.

    origin: commit, versions and device of what was run, for people.
    """

    setting: Setting
    protocol: Mapping[str, float]
    networks: Mapping[str, str]
    relaxations: Mapping[str, Studied]
    origin: Mapping[str, Any]

    @classmethod
    def read(cls, folder: Path = DATA) -> Self:
        """The study in a folder. Raises UserError where there is none, or a damaged one."""
        path = folder / FILE
        try:
            data = json.loads(path.read_text(encoding="utf-8"))
            setting = Setting(**{**data["setting"], "seeds": tuple(data["setting"]["seeds"])})
            studied = {
                label: Studied(tuple(each["certified"]), each["properties"]) for label, each in data["relaxations"].items()
            }
            return cls(setting, data["protocol"], data["networks"], studied, data["origin"])
        except (OSError, ValueError, KeyError, TypeError) as problem:
            raise UserError(
                f"{path} is no study ({type(problem).__name__}: {problem}): expected what python -m experiments.study wrote"
            ) from problem

    def text(self) -> str:
        """The file's text, the same for equal studies."""
        return json.dumps(asdict(self), indent=1, ensure_ascii=False) + "\n"

    @property
    def words(self) -> str:
        """What a prediction rests on, in one phrase."""
        return self.setting.words(len(self.relaxations))

    def table(self, without: str | None = None) -> tuple[tuple[str, ...], Matrix, Vector]:
        """Names, FEATURES [n, FEATURES] and accuracies [n] of all relaxations, or of all but one."""
        chosen = {name: each for name, each in self.relaxations.items() if name != without}
        x = np.array([features(each.properties, self.networks) for each in chosen.values()])
        return tuple(chosen), x, np.array([each.mean for each in chosen.values()])


def features(measured: Measured, kinds: Iterable[str]) -> Vector:
    """A model's input: each of FEATURES as the model sees it, mean over the kinds of networks.

    Raises KeyError where a property was not measured.
    """
    kinds = list(kinds)
    return np.array([np.mean([NAMED[name].scaled(measured[kind][name]) for kind in kinds]) for name in FEATURES])
