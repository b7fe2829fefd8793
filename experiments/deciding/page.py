"""The page: how much of the paradox is the training's, and how much the certifier's, from the kept networks alone."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby

from experiments.deciding.bars import Panel, draw
from experiments.deciding.comparison import BASELINE, CLEAR, Range, Row, compare, whole
from experiments.deciding.network import Network
from newrelax.document import Block, Bullets, Cell, Details, Grid, Heading, Paragraph, Picture
from newrelax.names import read_spelling

PAPER = ("IBP", "CROWN-IBP", "hBox", "DeepZ", "CROWN-IBP-R", "CROWN")
"""The paper's relaxations; others are folded away, where there are any."""

_HEADER = (
    "trained with",
    "certified by its own relaxation",
    "exact",
    "the certifier loses",
    f"behind {BASELINE}, own certifiers",
    f"behind {BASELINE}, exact",
    "the training's share",
    "the certifier's share",
)
_DECIDED = ("network", "images", "natural", "attack leaves", "verified", "falsified", "undecided", "hours", "decided by")


def build_page(networks: Sequence[Network]) -> list[Block]:
    """The blocks; `networks` in the order of their file."""
    groups = [(group, compare(each)) for group, each in groupby(networks, key=lambda network: network.group)]
    titles = {group: _title(rows) for group, rows in groups}
    blocks: list[Block] = [
        Heading("How much of the paradox is the training's, how much the certifier's?", 1),
        Paragraph(
            "A network that is certified with the relaxation that trained it is judged together with its certifier. Here each "
            "image is decided, proven or broken by whatever means, which judges the network alone. What stays of its distance "
            f"to {BASELINE}'s network is the training's; what goes away was its certifier's."
        ),
    ]
    for group, rows in groups:
        blocks += [Heading(titles[group]), *_answer(rows), *_grids(rows)]
    panels = [Panel(titles[group], [row for row in rows if row.method in PAPER]) for group, rows in groups]
    if content := draw([panel for panel in panels if len(panel.rows) > 1]):
        words = "From what its own relaxation certifies of each network to what is true, beside IBP's"
        blocks.append(Picture("exact", words, content))
    blocks += [
        Heading("What the figures are"),
        Bullets(
            [
                f"In percent of the first images of the test set; distances in points, to {BASELINE}'s network on the same "
                "images. ± is the sample standard deviation over seeds.",
                "A range is what undecided images leave open; a share is of the distance by own certifiers.",
                f"Clear is a distance of more than {CLEAR:g} standard errors: over seeds, or of drawing the images where there "
                "is one network; what is not clear by own certifiers has no shares.",
                f"A certifier's share below zero: its network gains less than {BASELINE}'s when decided.",
                "Again, with networks of yours: `python -m experiments.exact --help`.",
            ]
        ),
        Heading("Who decided"),
    ]
    for group, rows in groups:
        blocks += [Paragraph(titles[group] + "."), *_deciders(rows)]
    return blocks


def _title(rows: Sequence[Row]) -> str:
    network, most = rows[0].networks[0], max(row.images for row in rows)
    return f"{network.model} on {network.dataset}, ε = {network.eps:g}, {most:,} images: {network.origin}"


def _answer(rows: Sequence[Row]) -> list[Block]:
    """Two or three sentences that the figures write; nothing where there is nobody to compare."""
    others = [(row, row.distance) for row in rows if row.distance and row.method in PAPER]
    clear = [(row, distance) for row, distance in others if distance.is_clear]
    share = whole([row for row, _ in clear])
    if share is None:
        return []
    by_share = sorted(clear, key=lambda each: each[1].exact.middle / each[1].own)
    ends = by_share if len(by_share) < 2 else [by_share[0], by_share[-1]]
    parts = [
        f"{most} for {row.method} ({distance.own:.1f} points by own certifiers, {_range(distance.exact)} decided exactly)"
        for most, (row, distance) in zip(("largest", "smallest"), ends, strict=False)
    ]
    sentences = [
        f"Of the distance to {BASELINE}'s network {share:.0f} % is the training's, {100 - share:.0f} % the certifiers'.",
        f"The certifier's part is {' and '.join(parts)}.",
    ]
    behind = [row.method for row, distance in others if distance.is_behind]
    ahead = [row.method for row, distance in others if distance.is_ahead]
    rest = [row.method for row, _ in others if row.method not in (*behind, *ahead)]
    found = {"behind": behind, "ahead": ahead, "neither": rest}
    said = "; ".join(f"{word}: {', '.join(names)}" for word, names in found.items() if names)
    sentences.append(
        f"Decided exactly, clearly {said}." if behind or ahead else "Decided exactly, none is clearly behind or ahead."
    )
    return [Paragraph(" ".join(sentences))]


def _grids(rows: Sequence[Row]) -> list[Block]:
    most = max(row.images for row in rows)
    shown = [row for row in rows if row.method in PAPER]
    folded = [row for row in rows if row.method not in PAPER]
    blocks: list[Block] = [Grid.of(_HEADER, [_line(row, most) for row in shown])] if shown else []
    if folded:
        share = whole(folded)
        words = f"{len(folded)} other relaxation{'s' if len(folded) > 1 else ''}"
        words += "" if share is None else f": of the distance {share:.0f} % is the training's"
        blocks.append(Details(words, [Grid.of(_HEADER, [_line(row, most) for row in folded])]))
    return blocks


def _line(row: Row, most: int) -> list[str | Cell]:
    seeds = len(row.networks)
    remarks = [f"first {row.images:,} images"] if row.images < most else []
    remarks += [f"{seeds} seeds"] if seeds > 1 else []
    own, exact = f"{row.own.mean:.1f}", _range(row.exact)
    if row.own.spread is not None and row.proven.spread is not None:
        own, exact = f"{own} ± {row.own.spread:.1f}", f"{exact} ± {row.proven.spread:.1f}"
    line: list[str | Cell] = [Cell(row.method, ", ".join(remarks)), own, exact, _range(row.lost)]
    if row.distance is None:
        return [*line, "", "", "", ""]
    shares = [row.distance.training_share, row.distance.certifier_share]
    return [
        *line,
        f"{row.distance.own:.1f}",
        _range(row.distance.exact),
        *("—" if share is None else f"{_range(share, 0)} %" for share in shares),
    ]


def _deciders(rows: Sequence[Row]) -> list[Block]:
    networks = [network for row in rows for network in row.networks]
    questions = dict.fromkeys(f"{each.ladder}; {each.timeout:g} s an image; {each.device}" for each in networks)
    lines = [
        [
            _name(each),
            f"{each.images:,}",
            *(f"{100 * count / each.images:.2f}" for count in (each.natural, each.attacked, each.verified, each.falsified)),
            f"{100 * each.undecided / each.images:.2f}",
            f"{each.seconds / 3600:.2f}",
            ", ".join(f"{read_spelling(rung).name} {count:,}" for rung, count in each.rungs.items()),
        ]
        for each in networks
    ]
    return [
        Bullets([f"Ladder: {question}." for question in questions]),
        Details(f"{len(networks)} networks, rung by rung", [Grid.of(_DECIDED, lines)]),
    ]


def _name(network: Network) -> str:
    return network.method if network.seed is None else f"{network.method}, seed {network.seed}"


def _range(figure: Range, digits: int = 1) -> str:
    low, high = (f"{round(end, digits) + 0.0:.{digits}f}" for end in (figure.low, figure.high))  # no minus before a zero
    return low if low == high else f"{low} to {high}"
