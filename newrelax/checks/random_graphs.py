"""Random graphs of every operator that has a rule: bounds by every sound method, against points.

A graph is a pool of tensors that starts with the input; each operator takes one of them as it is where it fits, or several
mixed by a matrix, and adds its value, brought to the order of one. The outputs are linear functions of what was made last.
Everything follows from the seed.

`python -m newrelax.checks.random_graphs --points 1e7 --out FILE.md` writes what a long run found.
"""

from __future__ import annotations

import json
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import click
import torch
from torch import Tensor, nn

from newrelax.bounds import NO_STATISTICS
from newrelax.checks.samples import SAMPLES, WITHOUT, Sample
from newrelax.checks.steps import check_steps
from newrelax.cli import debug_option, run_command
from newrelax.errors import UserError, with_type
from newrelax.methods.builtin import BUILTIN
from newrelax.methods.method import Method
from newrelax.network.graph import Graph
from newrelax.network.rules import BUILTIN_RULES
from newrelax.network.same import check_traced
from newrelax.propagations.base import Problem
from newrelax.propagations.memory import Memory

OPERATORS = 16
"""In one graph."""

EACH = 20
"""Graphs that every operator is in, at the least, in a long run."""

OUTPUTS = 3
BOXES = 3
RADII = (0.003, 0.05, 0.4)
"""Of the boxes around points of the standard normal distribution."""

INPUTS: tuple[tuple[int, ...], ...] = ((4,), (2, 4, 4), (2, 6), (2, 3))

ROUNDING = {torch.float64: 1e-9, torch.float32: 2e-4}
"""How far a bound may lie beyond a point, relative to the size of what the graph computes."""

_MEMORY = Memory(1 << 26, 1 << 26)

NAMES: tuple[str, ...] = tuple(name for rule in BUILTIN_RULES for name in rule.names if name in SAMPLES)
"""Operators that are drawn: all but those of `WITHOUT`, which no trace can hold, each for the reason given there."""

_COMPOSED = {name for rule in BUILTIN_RULES for name in rule.names if rule.bounded == "composed"}

METHODS: tuple[Method, ...] = tuple(
    method
    for method in BUILTIN
    if method.gives_bounds and method.propagation.sound and (method.relaxation is None or method.relaxation.sound)
)
"""All that promise bounds."""


def unknown_names() -> list[str]:
    """Operators with a rule that are neither drawn nor said to be in no trace."""
    return [name for rule in BUILTIN_RULES for name in rule.names if name not in SAMPLES and name not in WITHOUT]


_GROWING = ("exp", "pow", "prod", "square", "sum")


def _takes_anything(name: str, sample: Sample) -> bool:
    """Whether an operator is defined for all numbers, and small for those that a graph has; others see a range of their own."""
    whole = (sample.low, sample.high) == (-2.0, 2.0)
    return whole and name not in _COMPOSED and not any(part in name.split(".")[1] for part in _GROWING)


class _Part(nn.Module):
    """An operator's call in a graph; sources: of its input in the pool; mix: None where it takes one as it is."""

    def __init__(self, name: str, sample: Sample, sources: tuple[int, ...], mix: nn.Linear | None) -> None:
        super().__init__()
        self.name, self.sample, self.sources, self.mix, self.size = name, sample, sources, mix, 1.0

    def forward(self, pool: list[Tensor]) -> Tensor:
        x = pool[self.sources[0]]
        if self.mix is not None:
            x = self.mix(torch.cat([pool[i].flatten(1) for i in self.sources], 1)).unflatten(1, self.sample.shape)
            if not _takes_anything(self.name, self.sample):
                x = self.sample.low + (self.sample.high - self.sample.low) * torch.sigmoid(x)
        # the samples' own constants are of float64
        found: Tensor = self.sample.call(x.double()).to(x.dtype)
        return found * self.size


class Drawn(nn.Module):
    """A random graph: [batch, *shape] → [batch, OUTPUTS]."""

    def __init__(self, shape: tuple[int, ...], parts: Sequence[_Part], last: nn.Linear, joined: tuple[int, ...]) -> None:
        super().__init__()
        self.shape, self.parts, self.last, self.joined = shape, nn.ModuleList(parts), last, joined

    @property
    def names(self) -> list[str]:
        """Of its operators."""
        return [str(part.name) for part in self.parts]

    def forward(self, x: Tensor) -> Tensor:
        pool = [x]
        for part in self.parts:
            pool.append(part(pool))
        found: Tensor = self.last(torch.cat([pool[i].flatten(1) for i in self.joined], 1))
        return found


def draw(names: Sequence[str], generator: torch.Generator) -> Drawn:
    """A graph of these operators, in this order, in float64; what an operator takes is drawn."""

    def number(count: int) -> int:
        return int(torch.randint(count, (), generator=generator))

    def layer(inputs: int, outputs: int) -> nn.Linear:
        made = nn.Linear(inputs, outputs, dtype=torch.float64)
        with torch.no_grad():
            made.weight.copy_(torch.randn(outputs, inputs, generator=generator, dtype=torch.float64) / inputs**0.5)
            made.bias.copy_(0.3 * torch.randn(outputs, generator=generator, dtype=torch.float64))
        return made

    shape = INPUTS[number(len(INPUTS))]
    pool = [torch.randn(5, *shape, generator=generator, dtype=torch.float64)]
    parts: list[_Part] = []
    with torch.no_grad():
        for name in names:
            sample = SAMPLES[name]
            fitting = [i for i, made in enumerate(pool) if tuple(made.shape[1:]) == sample.shape]
            if fitting and _takes_anything(name, sample) and number(3):
                part = _Part(name, sample, (fitting[-1 - number(min(3, len(fitting)))],), None)
            else:
                sources = tuple({len(pool) - 1 - number(min(len(pool), 6)) for _ in range(2)})
                width = sum(pool[i][0].numel() for i in sources)
                part = _Part(name, sample, sources, layer(width, torch.Size(sample.shape).numel()))
            value = part(pool)
            part.size = 1 / max(1.0, float(value.abs().max()))
            pool.append(value * part.size)
            parts.append(part)
    read = {i for part in parts for i in part.sources}
    joined = tuple(i for i in range(1, len(pool)) if i not in read or i == len(pool) - 1)
    width = sum(pool[i][0].numel() for i in joined)
    return Drawn(shape, parts, layer(width, OUTPUTS), joined).eval()


@dataclass
class Findings:
    """What a run looked at, and what it found wrong.

    points: at which some graph was evaluated; each counts for every method that bounded its box. worst: the most by which a
    point lay beyond a bound, relative to the size of what the graph computes, by type. failures: a line each.
    """

    graphs: int = 0
    points: int = 0
    steps: int = 0
    operators: Counter[str] = field(default_factory=Counter)
    methods: Counter[str] = field(default_factory=Counter)
    worst: dict[str, float] = field(default_factory=dict)
    closest: dict[str, float] = field(default_factory=dict)
    failures: list[str] = field(default_factory=list)


def plan(count: int | None, seed: int) -> list[tuple[int, tuple[str, ...]]]:
    """Seeds and operators of so many graphs; None: until every operator is in `EACH` of them.

    Operators come in the order of shuffled rounds, so that the first graphs already have each of them once.
    """
    generator = torch.Generator().manual_seed(seed)
    stream: list[str] = []
    rounds = EACH + 1 if count is None else -(-count * OPERATORS // len(NAMES))
    for _ in range(rounds):
        stream += [NAMES[i] for i in torch.randperm(len(NAMES), generator=generator).tolist()]
    groups = [tuple(stream[at : at + OPERATORS]) for at in range(0, len(stream), OPERATORS)]
    return [(seed * 100_003 + i, names) for i, names in enumerate(groups if count is None else groups[:count])]


def examine(seed: int, names: Sequence[str], methods: Sequence[Method], points: int, findings: Findings) -> None:
    """One graph, in both types: its steps, then all methods against points; adds to the findings."""
    generator = torch.Generator().manual_seed(seed)
    model = draw(names, generator)
    findings.graphs += 1
    findings.operators.update(set(model.names))
    where = f"graph {seed}"
    try:
        graph = Graph(model, model.shape, BUILTIN_RULES)
        for dtype in (torch.float64, torch.float32):  # weights are those of the moment, so their type is, too
            where = f"graph {seed}, {str(dtype).removeprefix('torch.')}"
            model = model.to(dtype)
            check_traced(graph)
            _against_points(graph, model, methods, points // 2, dtype, generator, findings, where)
    except UserError as error:
        findings.failures.append(f"{where}: refused: {error}")
    except Exception as error:  # what is wrong with one graph is no reason not to look at the next
        findings.failures.append(f"{where}: {with_type(error, 200)}")


def _against_points(
    graph: Graph,
    model: Drawn,
    methods: Sequence[Method],
    points: int,
    dtype: torch.dtype,
    generator: torch.Generator,
    findings: Findings,
    where: str,
) -> None:
    kind = str(dtype).removeprefix("torch.")
    center = torch.randn(BOXES, *model.shape, generator=generator, dtype=torch.float64).to(dtype)
    radius = torch.tensor(RADII, dtype=dtype).view(-1, *[1] * len(model.shape))
    lower, upper = center - radius, center + radius
    network = graph.network(NO_STATISTICS)
    findings.steps += len(network.steps)
    findings.failures += [f"{where}: {text}" for text in check_steps(network, lower, upper, generator)]
    least, most = _extremes(model, lower, upper, points, generator)
    findings.points += points
    scale = 1 + float(torch.maximum(least.abs(), most.abs()).max())
    eye = torch.eye(OUTPUTS, dtype=dtype).expand(BOXES, -1, -1)
    for method in methods:
        problem = Problem(graph.network(NO_STATISTICS), lower, upper, method.lines, _MEMORY)
        found = method.propagation.bounds(problem, torch.cat([eye, -eye], 1)).lower
        gradients = torch.autograd.grad(found.sum(), list(model.parameters()), allow_unused=True)
        findings.methods[method.label] += 1
        if not all(bool(part.isfinite().all()) for part in (found, *(g for g in gradients if g is not None))):
            findings.failures.append(f"{where}, {method.label}: a bound or a gradient is not finite")
            continue
        below, above = found.detach().chunk(2, dim=1)
        excess = float(torch.maximum(below - least, most + above).max()) / scale
        findings.worst[kind] = max(findings.worst.get(kind, -float("inf")), excess)
        share = float(((most - least) / (-above - below).clamp(min=1e-12)).mean())
        findings.closest[method.label] = max(findings.closest.get(method.label, 0.0), share)
        if excess > ROUNDING[dtype]:
            findings.failures.append(f"{where}, {method.label}: a point lies beyond its bound by {excess:.3g} of {scale:.3g}")


def _extremes(model: nn.Module, lower: Tensor, upper: Tensor, points: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Smallest and largest outputs met at so many points of all boxes together, [boxes, outputs] each."""
    least, most = torch.full((len(lower), OUTPUTS), float("inf"), dtype=lower.dtype), None
    rounds = _attacked(model, lower, upper)
    left = max(0, -(-points // len(lower)) - len(rounds))
    batches = [rounds]
    while left > 0:
        share = torch.rand(min(left, 2000), *lower.shape, generator=generator, dtype=lower.dtype)
        share[::2] = (share[::2] < 0.5).to(share)  # every other one a corner
        batches.append(lower + share * (upper - lower))
        left -= len(share)
    with torch.no_grad():
        for batch in batches:
            values = model(torch.minimum(torch.maximum(batch, lower), upper).flatten(0, 1)).unflatten(0, batch.shape[:2])
            least = torch.minimum(least, values.amin(0))
            most = values.amax(0) if most is None else torch.maximum(most, values.amax(0))
    assert most is not None
    return least, most


def _attacked(model: nn.Module, lower: Tensor, upper: Tensor, steps: int = 8) -> Tensor:
    """Points that go against and along each output's gradient from the middle, [points, boxes, *shape]."""
    half, found = (upper - lower) / 2, []
    for column in range(OUTPUTS):
        for sign in (1.0, -1.0):
            x = (lower + upper) / 2
            for step in range(steps):
                at = x.detach().requires_grad_()
                (gradient,) = torch.autograd.grad(model(at)[:, column].sum(), at, materialize_grads=True)
                stride = half * (2 if step == 0 else 0.5)  # first a corner, then back and forth
                x = torch.minimum(torch.maximum(x + sign * stride * gradient.sign(), lower), upper)
                found.append(x)
    return torch.stack(found)


def run(
    points: int,
    *,
    graphs: int | None = None,
    seed: int = 0,
    per_graph: int | None = None,
    said: Callable[[str], None] | None = None,
) -> Findings:
    """Examine so many graphs with so many points in all.

    graphs: None: as many as put every operator into `EACH` of them. per_graph: how many methods bound each graph, in turn;
    None: all. said: is told how far it is.
    """
    findings, planned = Findings(), plan(graphs, seed)
    for i, (graph_seed, names) in enumerate(planned):
        chosen = METHODS
        if per_graph is not None:
            chosen = tuple(METHODS[(i * per_graph + k) % len(METHODS)] for k in range(per_graph))
        share = points * (i + 1) // len(planned) - points * i // len(planned)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(graph_seed)  # a method that draws random slopes draws the same ones again
            examine(graph_seed, names, chosen, share, findings)
        if said is not None and (i + 1) % 10 == 0:
            said(f"{i + 1} of {len(planned)} graphs, {findings.points} points, {len(findings.failures)} failures")
    return findings


def as_markdown(findings: Findings, command_line: str, seconds: float) -> str:
    """What a long run found, to be kept."""
    least = min((findings.operators[name] for name in NAMES), default=0)
    lines = [
        "# Random graphs",
        "",
        f"`{command_line}`, torch {torch.__version__}, {seconds / 60:.0f} minutes: "
        f"{findings.graphs} graphs of {OPERATORS} operators, {findings.steps} steps, {findings.points:,} points.",
        "",
        f"- {len(NAMES)} operators, each in {least} graphs or more; {len(WITHOUT)} that no trace can hold are left out.",
        f"- {len(findings.methods)} methods, each on {min(findings.methods.values(), default=0)} graphs or more.",
        "- Points: half of those drawn are corners, half inside; and those that follow each output's gradient.",
        "- Most that a point lay beyond a bound, of the size of what the graph computes (below 0: inside): "
        + ", ".join(f"{worst:.2g} in {kind}" for kind, worst in sorted(findings.worst.items()))
        + ".",
        f"- Failures: {len(findings.failures)}.",
        "",
        "Largest share of a method's bounds that points filled, as a mean over boxes and outputs of a graph:",
        "",
        "| method | filled |",
        "|---|---|",
        *(f"| {name} | {share:.3f} |" for name, share in sorted(findings.closest.items())),
        "",
    ]
    if findings.failures:
        lines += ["Failures:", "", *(f"- {text}" for text in findings.failures), ""]
    return "\n".join(lines)


def as_dict(findings: Findings) -> dict[str, Any]:
    """Plain values, for JSON."""
    return {
        "graphs": findings.graphs,
        "points": findings.points,
        "steps": findings.steps,
        "operators": dict(findings.operators),
        "methods": dict(findings.methods),
        "worst": findings.worst,
        "failures": findings.failures,
    }


@click.command(help="Bounds of random graphs of every operator, by every sound method, against points.")
@click.option("--points", type=float, default=1e6, show_default=True, help="In all graphs together.")
@click.option("--graphs", type=int, help=f"How many; as many as put every operator into {EACH} of them by default.")
@click.option("--methods", "per_graph", type=int, help="How many bound each graph, in turn; all by default.")
@click.option("--seed", type=int, default=0, show_default=True)
@click.option("--out", type=click.Path(path_type=Path), help="A file to write: Markdown, or JSON where it ends so.")
@debug_option
def command(points: float, graphs: int | None, per_graph: int | None, seed: int, out: Path | None) -> int:
    """Print (or write) what was found; 0 when nothing was wrong, else 1."""
    torch.set_num_threads(1)  # the tensors are small: threads would only wait for each other
    begun = time.monotonic()
    found = run(int(points), graphs=graphs, seed=seed, per_graph=per_graph, said=lambda text: click.echo(text, err=True))
    options = f" --graphs {graphs}" * (graphs is not None) + f" --methods {per_graph}" * (per_graph is not None)
    line = f"python -m newrelax.checks.random_graphs --points {points:g}{options} --seed {seed}"
    text = as_markdown(found, line, time.monotonic() - begun)
    if out is None:
        click.echo(text)
    else:
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(json.dumps(as_dict(found), indent=2) if out.suffix == ".json" else text, encoding="utf-8")
    return 1 if found.failures else 0


def main(argv: Sequence[str] | None = None) -> int:
    """The command line; returns the exit code (1: something was wrong, 2: a user error)."""
    return run_command(command, argv, "python -m newrelax.checks.random_graphs")


if __name__ == "__main__":
    sys.exit(main())
