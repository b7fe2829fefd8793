"""A study's findings in words. Each sentence follows from figures by a rule, so that new figures make new sentences."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from experiments.studying.correlations import Correlation, Estimate
from experiments.studying.evaluation import Evaluation, name_of
from experiments.studying.figures import Figures
from experiments.studying.findings import CERTIFIED, EXACT, Findings
from plugin.analysis.prediction.model import MISSED
from plugin.analysis.prediction.properties import PROPERTIES, TIGHTNESS


def sentences(figures: Figures, findings: Findings) -> list[str]:
    """All that the study says, what predicts and what does not alike."""
    every = findings.correlations
    outcomes = list(dict.fromkeys(each.outcome for each in every.each))
    said = []
    for outcome in outcomes:
        own = [each for each in every.each if each.outcome == outcome]
        said += _outcome(outcome, own)
    return [
        *said,
        _looked(findings),
        *_model(figures, findings),
        *_propagation(figures, findings),
        *_left_out(figures, findings),
    ]


def said_estimate(estimate: Estimate) -> str:
    """A correlation with its interval: −0.52 [−0.80, −0.11]."""
    return f"{_signed(estimate.rho)} [{_signed(estimate.low)}, {_signed(estimate.high)}]"


def _outcome(outcome: str, own: Sequence[Correlation]) -> list[str]:
    what = {CERTIFIED: "Accuracy certified by the own relaxation", EXACT: "Exact accuracy, as the ladder decides"}[outcome]
    by_name = {each.name: [one for one in own if one.property == each.name] for each in PROPERTIES}
    plain = {name: [(one, one.plain) for one in ones] for name, ones in by_name.items()}
    partial = {
        name: [(one, one.partial) for one in ones if one.partial] for name, ones in by_name.items() if name != TIGHTNESS.name
    }
    return [
        _verdicts(f"{what}, from one property", plain),
        _verdicts(f"{what}, from one property beyond tightness", partial),
    ]


def _verdicts(what: str, found: dict[str, list[tuple[Correlation, Estimate]]]) -> str:
    """Which properties stand, which only seem to, and which show nothing."""
    stands, seems, nothing = [], [], []
    for name, ones in found.items():
        sure = [(one, estimate) for one, estimate in ones if estimate.stands]
        likely = [(one, estimate) for one, estimate in ones if estimate.excludes_zero]
        if sure:
            stands.append(f"{name} ({_listed(f'{one.kind} {said_estimate(estimate)}' for one, estimate in sure)})")
        elif likely:
            seems.append(name)
        else:
            nothing.append(name)
    parts = [
        f"predicted by {'; '.join(stands)}." if stands else "predicted by none.",
        f"Intervals that leave out 0 on some network, but no more than chance brings up among so many: {', '.join(seems)}."
        if seems
        else "",
        f"No sign of a prediction on any network: {', '.join(nothing)}." if nothing else "",
    ]
    return f"{what}: " + " ".join(filter(None, parts))


def _looked(findings: Findings) -> str:
    every = findings.correlations
    partial = [each.partial for each in every.each if each.partial]
    loose = sum(each.plain.excludes_zero for each in every.each) + sum(each.excludes_zero for each in partial)
    count = len(every.each) + len(partial)
    return (
        f"Looked at: {len(every.each)} correlations and {len(partial)} partial ones; {loose} of the {count} intervals leave "
        f"out 0, where about {count / 20:.0f} would by chance. When accuracies are shuffled, the largest of all reaches "
        f"{every.threshold:.2f} (partial {every.partial_threshold:.2f}) once in twenty: only what is larger is a finding."
    )


def _model(figures: Figures, findings: Findings) -> list[str]:
    held, packaged = findings.evaluation, findings.packaged
    inside, given = packaged.covered
    intervals = (
        f"Of {given} intervals for relaxations left out, meant to hold {100 * (1 - MISSED):.0f} % of them, {inside} hold the "
        f"accuracy measured; they are {packaged.width:.0f} points wide on average. {len(packaged.held) - given} relaxations "
        "get none when left out, being unlike all others."
        if given
        else "No relaxation left out got an interval: each is unlike all others."
    )
    return [
        f"{_better(held)} All relaxations together choose the properties {name_of(held.chosen)}. "
        f"When a whole family of relaxations is left out ({_families(figures, findings)}), the error is "
        f"{held.family_error:.1f} points against {held.family_baseline:.1f} by the mean of the others.",
        f"Relaxations differ by {findings.spread:.1f} points (standard deviation), seeds of one by {findings.seed_spread:.1f}.",
        f"As plugin.analyze predicts, from the networks of one seed: {_better(packaged)} {intervals}",
    ]


def _families(figures: Figures, findings: Findings) -> str:
    found = dict.fromkeys(each.family for each in figures.trained if each.relaxation in findings.study.relaxations)
    return _listed(found)


def _better(held: Evaluation) -> str:
    errors = (
        f"a leave-one-relaxation-out error of {held.error:.1f} points against {held.baseline:.1f} by the mean of the others "
        f"(difference {_signed(held.error - held.baseline, 1)} [{_signed(held.low, 1)}, {_signed(held.high, 1)}])"
    )
    if held.better:
        return f"A small model predicts unseen relaxations better than their mean does: {errors}."
    return f"A small model is not shown to predict unseen relaxations better than their mean does: {errors}."


def _propagation(figures: Figures, findings: Findings) -> list[str]:
    means = {name: [each.propagation for each in figures.of(name)] for name in findings.study.relaxations}
    centers = sorted((sum(values) / len(values), name) for name, values in means.items())
    (low, lowest), (high, highest) = centers[0], centers[-1]
    return [
        "Propagation tightness is a property of a network: on a common one it is the same for all relaxations and predicts "
        f"nothing. On the networks that relaxations trained, it goes from {low:.2f} ({lowest}) to {high:.2f} ({highest}); its "
        f"rank correlation with their certified accuracy is {_signed(findings.propagation)}. That is a trace of training, "
        "known only after it."
    ]


def _left_out(figures: Figures, findings: Findings) -> list[str]:
    """Which relaxations have accuracies, but no place in the correlations, and why."""
    out = [figures.of(name)[0] for name in figures.relaxations if name not in findings.study.relaxations]
    mixed = [f"{each.relaxation} (by {each.certifier})" for each in out if each.certifier != each.relaxation]
    unmeasured = [each.relaxation for each in out if each.certifier == each.relaxation]
    said = []
    if mixed:
        said.append(
            f"Left out, because another method certifies what they train: {_listed(mixed)}. Training fades from one to the "
            "other, and properties of the first would not be those of what is minimised."
        )
    if unmeasured:
        said.append(f"Left out, because not all of their properties are measured on every network: {_listed(unmeasured)}.")
    if figures.unfinished:
        said.append(f"Not finished yet: {len(figures.unfinished)} of the table's runs.")
    return said


def _listed(parts: Iterable[str]) -> str:
    return ", ".join(parts)


def _signed(value: float, decimals: int = 2) -> str:
    value = round(value, decimals) + 0.0  # without the sign of −0
    return f"{value:{'+' if value else ''}.{decimals}f}".replace("-", "−")
