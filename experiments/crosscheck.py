"""Command line: do others agree? A sample of our verdicts, asked again of Marabou, counterexamples replayed by onnxruntime.

python -m experiments.crosscheck --run runs/digits --out experiments/results/crosscheck.md
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click
from tqdm import tqdm

from experiments.crosschecking.comparison import Compared, compare
from experiments.crosschecking.marabou import Marabou
from experiments.crosschecking.sample import read_verdicts, sample, verdict_folder
from newrelax.cli import debug_option, run_command
from newrelax.document import Grid, Heading, Paragraph, markdown
from newrelax.errors import UserError
from plugin.fitting.subject import FOLDER, Asked, Subject, find_subject, subject_options
from plugin.formats.onnx_writer import to_onnx
from plugin.formats.property import robustness
from plugin.formats.runtime import Runtime
from plugin.process.files import write_output
from plugin.process.tensors import weights_digest

DISAGREED = 1  # exit code


@click.command(context_settings={"max_content_width": 120})
@subject_options
@click.option("--verdicts", type=FOLDER, help="Folder made by plugin.evaluate --complete; default the run's.")
@click.option("--sample", "count", type=click.IntRange(min=1), default=20, show_default=True, help="Verdicts to ask about.")
@click.option("--seconds", type=click.FloatRange(min=1), default=60, show_default=True, help="For Marabou, an image.")
@click.option("--out", type=click.Path(path_type=Path), help="Markdown file; default standard output.")
@debug_option
def command(asked: Asked, verdicts: Path | None, count: int, seconds: float, out: Path | None) -> int:
    """Asks Marabou about a sample of our verdicts; exit code 1 where it or onnxruntime contradicts one."""
    question, lines = read_verdicts(verdict_folder(asked.run, verdicts))
    subject = find_subject(asked)
    if weights_digest(subject.model) != question["weights"]:
        raise UserError("the verdicts are of other weights: choose the network that they were made with")
    chosen = sample(lines, count)
    compared = crosscheck(subject, float(question["eps"]), chosen, seconds)
    text = document(subject, question, compared, len(lines), seconds)
    if out is None:
        click.echo(text)
    else:
        write_output(out, text)
    return DISAGREED if any(each.disagreement for each in compared) else 0


def crosscheck(subject: Subject, eps: float, lines: Sequence[Any], seconds: float) -> list[Compared]:
    """Each verdict beside Marabou's. Raises UserError where a package is not installed, or the network cannot be read."""
    content = to_onnx(subject.model, subject.dataset.input_shape)
    stranger, runtime = Marabou(content), Runtime(content)
    x, y = subject.dataset.test_x, subject.dataset.test_y
    outputs = runtime.outputs(x[:1]).shape[1]
    found = []
    for line in tqdm(lines, unit="image", disable=None, leave=False):
        image = slice(line.image, line.image + 1)
        lower, upper = subject.region.box(x[image], eps)
        asked = robustness(lower, upper, int(y[line.image]), outputs)
        found.append(compare(line, asked, x[image].cpu(), stranger, runtime.outputs, seconds))
    return found


def document(subject: Subject, question: dict[str, Any], compared: Sequence[Compared], count: int, seconds: float) -> str:
    """The table as Markdown: in a sentence who disagrees, then image by image."""
    verdicts = Counter(each.line.verdict for each in compared)
    kinds = ", ".join(f"{number} {name}" for name, number in sorted(verdicts.items()))
    answers = Counter(each.theirs.verdict for each in compared)
    ours = [each.ours_holds for each in compared if each.ours_holds is not None]
    theirs = [each.theirs_holds for each in compared if each.theirs_holds is not None]
    said = [
        f"Verdicts of ours that somebody contradicts: {sum(bool(each.disagreement) for each in compared) or 'none'}",
        f"onnxruntime confirms {sum(ours)} of our {len(ours)} counterexamples, and {sum(theirs)} of Marabou's {len(theirs)}",
        f"Marabou denies {sum(each.refuted for each in compared)} that onnxruntime confirms",
        f"it left {answers['timeout'] + answers['unknown']} open, and its `unsat` is void for {answers['void']}, "
        "whose balls it calls empty",
    ]
    rows = [
        [
            str(each.line.image),
            each.line.verdict,
            each.line.rung,
            each.theirs.verdict,
            f"{each.theirs.seconds:.1f}",
            _said(each.ours_holds),
            _said(each.theirs_holds),
            each.disagreement or each.remark,
        ]
        for each in compared
    ]
    return markdown(
        [
            Heading("Our verdicts, asked of somebody else", 1),
            Paragraph(
                f"{subject.name} on {subject.dataset.name}, ε = {question['eps']:g}; {len(compared)} of {count} verdicts, from "
                f"each rung in turn ({kinds}). The network is exported as ONNX. Marabou has {seconds:g} s an image."
            ),
            Paragraph("; ".join(said) + "."),
            Grid.of(("image", "ours", "by", "Marabou", "s", "ours replayed", "its replayed", "disagreement or remark"), rows),
            Paragraph(
                "Again: `python -m plugin.evaluate --run … --complete`, then `python -m experiments.crosscheck --run …`."
            ),
        ]
    )


def _said(holds: bool | None) -> str:
    return "" if holds is None else "holds" if holds else "fails"


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command line and returns its exit code."""
    return run_command(command, argv, "python -m experiments.crosscheck")


if __name__ == "__main__":
    sys.exit(main())
