"""A study as a document: what predicts, every relaxation, every correlation, and how all was measured."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence

from experiments.studying.correlations import Correlation
from experiments.studying.evaluation import Evaluation
from experiments.studying.figures import Figures
from experiments.studying.findings import CERTIFIED, EXACT, Findings
from experiments.studying.picture import TITLE, draw
from experiments.studying.sentences import said_estimate, sentences
from newrelax.document import Block, Bullets, Column, Definitions, Grid, Heading, Paragraph, Picture
from plugin.analysis.prediction.properties import PROPERTIES

OUTCOMES = {CERTIFIED: "certified by the own relaxation", EXACT: "exact"}


def build(figures: Figures, findings: Findings, commands: Sequence[str]) -> list[Block]:
    """The document's blocks. commands: that made it, in their order."""
    setting = figures.setting
    kinds = ", ".join(figures.kinds)
    return [
        Heading(TITLE, 1),
        Paragraph(
            f"{setting['dataset']}, {setting['model']}, ε = {setting['eps']:g}: {len(findings.study.relaxations)} relaxations, "
            f"trained with {_seeds(figures, findings)} and measured on networks that are the same for all "
            f"({_count_networks(figures)}, trained by {kinds})."
        ),
        Heading("What it says"),
        Bullets(sentences(figures, findings)),
        Picture(
            "study",
            TITLE,
            draw(findings),
            caption="Filled: findings. Grey: what chance reaches among so many. Right: each relaxation as predicted from the "
            "others, from the networks of one seed, as plugin.analyze does; crosses would be refused.",
        ),
        Heading("Relaxations"),
        _relaxations(figures, findings),
        *(
            block
            for outcome in dict.fromkeys(each.outcome for each in findings.correlations.each)
            for block in _correlations(outcome, findings)
        ),
        Heading("Models"),
        _models({"all seeds' networks": findings.evaluation, "one seed's": findings.packaged}),
        Heading("Common networks"),
        _networks(figures),
        Heading("How it was measured"),
        Definitions({each.name: each.meaning for each in PROPERTIES}),
        Paragraph(
            f"On each common network: {setting['probe']} images for loss and bounds, {setting['budget']} evaluations for "
            f"jumps, {setting['single_weights']} weights a layer, {setting['images']} test images and ε in steps of "
            f"{setting['step']:g} for tightness; spread, difference and cosine at ten points along the gradient, learning rate "
            f"{setting['learning_rate']:g}. Correlations and models see the mean over seeds. Relaxations are resampled and "
            "left out as if independent, though some are variants of each other, so that intervals are rather too narrow. "
            "The properties, the sets that a model may choose from and its penalty were written down before any of them was "
            "held against an accuracy."
        ),
        Paragraph("Every figure: [figures.json](figures.json); all findings: [study.json](study.json). Made by:"),
        Bullets([f"`{command}`" for command in commands]),
        Grid.of(["", ""], [(name, ", ".join(values)) for name, values in figures.origin.items()]),
    ]


def _seeds(figures: Figures, findings: Findings) -> str:
    counts = {len(figures.of(name)) for name in findings.study.relaxations}
    return f"{max(counts)} seeds each" if len(counts) == 1 else f"{min(counts)} to {max(counts)} seeds"


def _count_networks(figures: Figures) -> int:
    return len({(each.kind, each.seed) for each in figures.measured})


def _relaxations(figures: Figures, findings: Findings) -> Grid:
    """A line for each relaxation, the best first."""
    kinds = figures.kinds
    columns = [
        Column("relaxation"),
        Column("certified %", "By the own relaxation, mean over seeds ± standard deviation."),
        Column("exact %"),
        Column("left open %"),
        Column("predicted %", "From the others, by the networks of one seed, as plugin.analyze does."),
        *(Column(f"tightness, {kind}") for kind in kinds),
        *(Column(f"{name}, {kinds[0]}") for name in ("largest jump", "curved share", "unpredicted", "gradient cosine")),
        Column("propagation tightness", "Of its own networks."),
    ]

    def row(name: str) -> list[str]:
        own = figures.of(name)
        held, studied = findings.packaged.held.get(name), findings.study.relaxations.get(name)
        cells = [name, _spread([each.certified for each in own])]
        cells += [_mean([each.exact for each in own]), _mean([each.undecided for each in own])]
        if held is None:
            cells.append("")
        elif held.interval is None:
            cells.append("refused")
        else:
            cells.append(f"{held.predicted:.1f} ({held.interval.low:.1f} to {held.interval.high:.1f})")
        if studied is None:
            cells += [""] * (len(kinds) + 4)
        else:
            properties = studied.properties
            cells += [f"{properties[kind]['tightness']:.2f}" for kind in kinds]
            first = properties[kinds[0]]
            cells += [f"{first['largest jump']:.1e}" if first["largest jump"] > 0 else "0"]
            cells += [f"{first[name]:.2g}" for name in ("curved share", "unpredicted", "gradient cosine")]
        return [*cells, _mean([each.propagation for each in own], 2)]

    best_first = sorted(figures.relaxations, key=lambda name: -statistics.fmean(each.certified for each in figures.of(name)))
    return Grid.of(columns, (row(name) for name in best_first))


def _correlations(outcome: str, findings: Findings) -> list[Block]:
    """The correlations of one outcome: a line for each property, two columns for each kind of network."""
    own = [each for each in findings.correlations.each if each.outcome == outcome]
    kinds = tuple(dict.fromkeys(each.kind for each in own))
    by_place: Mapping[tuple[str, str], Correlation] = {(each.property, each.kind): each for each in own}

    def row(name: str) -> list[str]:
        cells = [name]
        for each in (by_place[name, kind] for kind in kinds):
            cells.append(said_estimate(each.plain) + (" *" if each.plain.stands else ""))
            cells.append("" if each.partial is None else said_estimate(each.partial) + (" *" if each.partial.stands else ""))
        return cells

    columns = ["property", *(f"{what}{kind}" for kind in kinds for what in ("", "beyond tightness, "))]
    return [
        Heading(f"Rank correlations with accuracy, {OUTCOMES[outcome]}"),
        Grid.of(columns, (row(each.name) for each in PROPERTIES)),
        Paragraph(
            "Spearman's ρ [95 % bootstrap interval over relaxations]; * stands up to the number of them that were looked at."
        ),
    ]


def _models(evaluations: Mapping[str, Evaluation]) -> Grid:
    """Leave-one-relaxation-out errors of every set of properties, and of choosing one."""
    first = next(iter(evaluations.values()))
    rows = [[name, *(f"{each.candidates[name]:.2f}" for each in evaluations.values())] for name in first.candidates]
    rows.append(["chosen without the relaxation left out", *(f"{each.error:.2f}" for each in evaluations.values())])
    return Grid.of(["properties of the model: error in points", *evaluations], rows)


def _networks(figures: Figures) -> Grid:
    rows = [
        [each.kind, str(each.seed), f"{each.natural:.1f}", f"{each.pgd:.1f}", f"{each.certified:.1f}", each.certifier]
        for each in figures.networks
    ]
    return Grid.of(["trained with", "seed", "natural %", "PGD %", "certified %", "by"], rows)


def _spread(values: Sequence[float]) -> str:
    spread = f" ± {statistics.stdev(values):.1f}" if len(values) > 1 else ""
    return f"{statistics.fmean(values):.1f}{spread}"


def _mean(values: Sequence[float | None], decimals: int = 1) -> str:
    known = [value for value in values if value is not None]
    return f"{statistics.fmean(known):.{decimals}f}" if known else ""
