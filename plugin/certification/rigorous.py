"""Certificates of the same images as the network computes them, in float64, and with every rounding counted."""

from __future__ import annotations

import copy
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from newrelax.methods.method import Method
from newrelax.rigorous import RigorousNetwork
from plugin.certification.bounding import Bounding
from plugin.certification.evaluation import Evaluation
from plugin.certification.region import Region


@dataclass(frozen=True)
class Comparison:
    """Margins of the same images, (images, classes − 1) each, on the CPU.

    plain: in the network's own precision. double: by the same method in float64. rigorous: of the network as it runs.
    These know each hidden neuron's interval, too, which may outweigh what they allow for rounding. seconds: an image, for them.
    """

    eps: float
    plain: Tensor
    double: Tensor
    rigorous: Tensor
    seconds: float

    def to_json(self) -> dict[str, Any]:
        """Fractions certified by each, differences of margins, and how many verdicts change."""
        plain, double, rigorous = map(_certified, (self.plain, self.double, self.rigorous))
        rounded = _finite((self.plain.double() - self.double).abs())
        allowed = _finite(self.double - self.rigorous)
        return {
            "eps": self.eps,
            "certified_accuracy": _share(plain),
            "certified_float64": _share(double),
            "certified_rigorous": _share(rigorous),
            "verdicts_changed_by_float64": int((plain != double).sum()),
            "images_taken_away": int((plain & ~rigorous).sum()),
            "largest_difference_plain_float64": float(rounded.max()),
            "mean_difference_plain_float64": float(rounded.mean()),
            "largest_difference_float64_rigorous": float(allowed.max()),
            "mean_difference_float64_rigorous": float(allowed.mean()),
            "seconds_per_image": self.seconds,
        }


class Rigor:
    """A network made ready for comparisons with a method; raises UserError where rigorous bounds have no way through it."""

    def __init__(self, model: nn.Module, shape: Sequence[int], method: Method, bounding: Bounding) -> None:
        memory = None if bounding.memory is None else bounding.memory << 20
        self._network = RigorousNetwork(model, shape, method, operators=bounding.operators, memory=memory)
        self._double = bounding.network(copy.deepcopy(model).double().eval(), shape, method)

    def compare(
        self, evaluation: Evaluation, x: Tensor, y: Tensor, region: Region, batch_size: int | None = None
    ) -> Comparison:
        """The margins of an evaluation beside the others; x, y, region: what was evaluated."""
        size = batch_size or evaluation.method.propagation.batch
        double, rigorous, seconds = [], [], 0.0
        with torch.no_grad():
            for part_x, part_y in zip(x.split(size), y.split(size), strict=True):
                lower, upper = region.box(part_x, evaluation.eps)
                double.append(self._double.bounds(lower.double(), upper.double(), part_y).margins.cpu())
                started = time.perf_counter()
                rigorous.append(self._network.margins(lower, upper, part_y))
                seconds += time.perf_counter() - started
        return Comparison(evaluation.eps, evaluation.margins, torch.cat(double), torch.cat(rigorous), seconds / len(y))


def comparison_table(comparisons: Sequence[Comparison]) -> str:
    """For people: certified as the network's own precision, float64 and rigorous bounds have it, and how far they are apart."""
    lines = [
        "certified rigorously: for the network as it runs, in any order of summation",
        f"{'eps':>8}  {'plain':>9}  {'float64':>9}  {'rigorous':>9}  {'largest |plain − float64|':>25}  "
        f"{'largest float64 − rigorous':>26}",
    ]
    for each in comparisons:
        values = each.to_json()
        shares = (values[f"certified_{name}"] for name in ("accuracy", "float64", "rigorous"))
        lines.append(
            f"{each.eps:>8.4g}  {'  '.join(f'{100 * share:>7.2f} %' for share in shares)}  "
            f"{values['largest_difference_plain_float64']:>25.3g}  {values['largest_difference_float64_rigorous']:>26.3g}"
        )
    return "\n".join(lines)


def _certified(margins: Tensor) -> Tensor:
    return (margins > 0).all(1)


def _share(flags: Tensor) -> float:
    return int(flags.sum()) / len(flags)


def _finite(values: Tensor) -> Tensor:
    """Those that are numbers, or a zero where none is."""
    found = values[values.isfinite()]
    return found if len(found) else values.new_zeros(1)
