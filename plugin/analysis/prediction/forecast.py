"""What the study foretells of one relaxation: an accuracy with its interval, or why there is none."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from newrelax.methods.method import Method
from plugin.analysis.prediction.model import MISSED, Interval, fit, jackknife, others
from plugin.analysis.prediction.properties import read_properties
from plugin.analysis.prediction.study import DATA, FILE, Measured, Study, features
from plugin.analysis.prediction.support import Support

LOWEST, HIGHEST = 0.0, 100.0
"""Accuracies in percent."""


@dataclass(frozen=True)
class Predicted:
    """A predicted certified accuracy in percent. used: the properties it is made of; none: the mean of the study.

    nearest: the most similar relaxation of the study. measured: accuracy of this very relaxation where the study has it, which
    the prediction has not seen.
    """

    method: str
    interval: Interval
    used: tuple[str, ...]
    nearest: str
    measured: float | None = None

    def line(self, rests_on: str) -> str:
        """One sentence with the number, its interval and what it rests on."""
        low, center, high = self.interval.low, self.interval.center, self.interval.high
        by = f"from its {', '.join(self.used)}" if self.used else "the mean of all, since no property foretells more"
        known = "" if self.measured is None else f" Measured: {self.measured:.1f} %, which the prediction has not seen."
        return (
            f"{self.method}: trained, about {center:.1f} % certified, {low:.1f} to {high:.1f} % "
            f"({100 * (1 - MISSED):.0f} % interval; {by}; most like {self.nearest}). Rests on {rests_on}.{known}"
        )

    def to_json(self) -> dict[str, Any]:
        """JSON types."""
        return {
            "certified": {"low": self.interval.low, "center": self.interval.center, "high": self.interval.high},
            "level": 1 - MISSED,
            "used": list(self.used),
            "nearest": self.nearest,
            "measured": self.measured,
        }


@dataclass(frozen=True)
class Refused:
    """No prediction, and why."""

    method: str
    reason: str

    def line(self, rests_on: str) -> str:
        """One sentence with the reason and what a prediction would rest on."""
        return f"{self.method}: no prediction, since {self.reason}. It would rest on {rests_on}."

    def to_json(self) -> dict[str, Any]:
        """JSON types."""
        return {"certified": None, "refused": self.reason}


Forecast = Predicted | Refused


def elsewhere() -> list[str]:
    """What an analysis of any other network says about predictions; nothing where no study is at hand."""
    if not (DATA / FILE).exists():
        return []
    return [f"No prediction of the trained accuracy: it rests on {Study.read().words}. Leave out --run and --model for one."]


def forecast(study: Study, method: Method, records: Mapping[str, Mapping[str, Any]]) -> Forecast:
    """The accuracy that a relaxation will be trained to, from records of `plugin.analyze` with the study's protocol.

    records: kind of network → the relaxation's record there.
    """
    if method.certify_with is not None:
        reason = f"{method.certify_with} certifies it, and the study's relaxations certify what they train themselves"
        return Refused(method.label, reason)
    measured = {kind: read_properties(record) for kind, record in records.items()}
    known = {kind: {name: value for name, value in each.items() if value is not None} for kind, each in measured.items()}
    return foretell(study, method.label, known)


def foretell(study: Study, method: str, measured: Measured) -> Forecast:
    """The accuracy that a relaxation will be trained to, from its properties; one of the study's, from the others alone."""
    names, x, y = study.table(without=method)
    try:
        found = features(measured, study.networks)
    except KeyError as missing:
        return Refused(method, f"its {missing.args[0]} could not be measured on every network")
    support = Support(names, x)
    if objection := support.objection(found):
        return Refused(method, objection)
    model = fit(x, y)
    interval = jackknife(others(x, y), x, y, found, model(found))
    own = study.relaxations.get(method)
    clipped = Interval(*(min(max(each, LOWEST), HIGHEST) for each in (interval.low, interval.center, interval.high)))
    return Predicted(method, clipped, model.used, support.nearest(found)[0], None if own is None else own.mean)
