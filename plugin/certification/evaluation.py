"""Natural, PGD and certified accuracy of a network on labelled images."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from newrelax.checks.soundness import Counterexample, find_counterexample
from newrelax.errors import UserError
from newrelax.methods.method import Method
from newrelax.network.modes import evaluating
from newrelax.registry import Registry
from plugin.certification.attacks import pgd
from plugin.certification.bounding import Bounding
from plugin.certification.classification import predictions as predicted
from plugin.certification.classification import worst_margin
from plugin.certification.region import Region
from plugin.process.streams import seeded

ESTIMATE = "estimate, not sound"
ATTACK_BATCH = 250


class UnsoundBounds(RuntimeError):
    """An attack broke what a sound method had certified: one of the two is wrong, and so would every figure be."""


@dataclass(frozen=True)
class Evaluation:
    """What was found for each of the images, in their order, on the CPU.

    eps: radius of the L∞ ball in the region's unit. method: the one that certified, at the end of `certify_with`. engine: whose
    passes.
    labels, predictions: (images,) int64.
    margins: (images, classes − 1), lower bounds of z_y − z_j, j ≠ y ascending; estimates of them if not method.sound.
    pgd_margins: (images,), the smallest margin that the attack met; the clean image counts as met.
    """

    eps: float
    method: Method
    labels: Tensor
    predictions: Tensor
    margins: Tensor
    pgd_margins: Tensor
    engine: str = "newrelax"

    def __str__(self) -> str:
        last = self.certified_accuracy if self.method.sound else self.estimated_accuracy
        kind = "certified" if self.method.sound else ESTIMATE
        shares = {"natural": self.natural_accuracy, "PGD": self.pgd_accuracy, f"{kind} ({self.method.label})": last}
        figures = ", ".join(f"{name} {100 * share:.2f} %" for name, share in shares.items() if share is not None)
        return f"{len(self.labels)} inputs, eps {self.eps:.4g}: {figures}"

    @property
    def natural(self) -> Tensor:
        """(images,) bool: classified rightly."""
        return self.predictions == self.labels

    @property
    def pgd(self) -> Tensor:
        """(images,) bool: classified rightly at every point that the attack met."""
        return self.pgd_margins > 0

    @property
    def positive(self) -> Tensor:
        """(images,) bool: every margin's bound is above zero; certified, if the method is sound."""
        return (self.margins > 0).all(dim=1)

    @property
    def natural_accuracy(self) -> float:
        return _share(self.natural)

    @property
    def pgd_accuracy(self) -> float:
        return _share(self.pgd)

    @property
    def certified_accuracy(self) -> float | None:
        """None for a method that is not sound: what it estimates is no certificate."""
        return _share(self.positive) if self.method.sound else None

    @property
    def estimated_accuracy(self) -> float | None:
        """What a method that is not sound would certify; None for a sound one."""
        return None if self.method.sound else _share(self.positive)

    def to_json(self) -> dict[str, object]:
        """Accuracies as fractions, under the names of a run's result; estimates under names of their own."""
        values: dict[str, object] = {
            "eps": self.eps,
            "images": len(self.labels),
            "natural_accuracy": self.natural_accuracy,
            "pgd_accuracy": self.pgd_accuracy,
            "certified_accuracy": self.certified_accuracy,
            "certify_method": self.method.label,
            "engine": self.engine,
            "sound": self.method.sound,
        }
        if not self.method.sound:
            values |= {"estimated_accuracy": self.estimated_accuracy, "note": ESTIMATE}
        return values


def accuracies(evaluation: Evaluation) -> dict[str, float | None]:
    """The four accuracies as fractions, under the names of a run's result; None for what does not apply."""
    return {
        "natural_accuracy": evaluation.natural_accuracy,
        "pgd_accuracy": evaluation.pgd_accuracy,
        "certified_accuracy": evaluation.certified_accuracy,
        "estimated_accuracy": evaluation.estimated_accuracy,
    }


def outside_counterexample(method: Method, registry: Registry) -> Counterexample | None:
    """Where a relaxation from outside does not bound its activation; None for built-in ones and for mere estimates."""
    if not method.sound or registry.is_builtin(method.name):
        return None
    return next((found for part in method.relaxations if (found := find_counterexample(part)) is not None), None)


def certifying_method(method: Method, registry: Registry) -> Method:
    """The method that certifies what `method` trained: itself, or the one its `certify_with` names."""
    return method if method.certify_with is None else registry.get_method(method.certify_with)


def evaluate(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    eps: float,
    method: Method,
    *,
    batch_size: int | None = None,
    pgd_steps: int = 40,
    pgd_restarts: int = 1,
    region: Region = Region(),  # noqa: B008 (a frozen value)
    seed: int = 0,
    bounding: Bounding | None = None,
    progress: Callable[[int], object] | None = None,
) -> Evaluation:
    """Classify, attack and certify the images x (images, ...) of classes y (images,) in evaluation mode.

    method: certifies; see `certifying_method` for methods that only train.
    batch_size: images at once; None chooses by the method's memory. region: which inputs are meant, and the unit of eps.
    bounding: how bounds are computed.
    progress: called with the number of images each time so many are done.
    The random streams are those of `seed`, and the model's mode, gradients and everybody's streams are left alone.
    Raises UserError for a method without bounds, and UnsoundBounds where the attack breaks a certified image.
    """
    if not method.gives_bounds:
        raise UserError(f"{method.label} gives no bounds: certify with {method.certify_with or 'another method'}")
    if len(y) == 0:
        raise UserError("expected at least one image to evaluate, got none")
    attack_batch = batch_size or ATTACK_BATCH
    bound_batch = batch_size or method.propagation.batch
    predictions, pgd_margins, margins = [], [], []
    with evaluating(model), seeded(seed, x.device), torch.no_grad():
        for part_x, part_y in zip(x.split(attack_batch), y.split(attack_batch), strict=True):
            logits = model(part_x)
            predictions.append(predicted(logits))
            attacked = pgd(model, part_x, part_y, eps, steps=pgd_steps, restarts=pgd_restarts, region=region)
            pgd_margins.append(torch.minimum(worst_margin(model(attacked), part_y), worst_margin(logits, part_y)))
        network = (bounding or Bounding()).network(model, x.shape[1:], method)
        for part_x, part_y in zip(x.split(bound_batch), y.split(bound_batch), strict=True):
            network.check_same(part_x)
            margins.append(network.bounds(*region.box(part_x, eps), part_y).margins)
            if progress is not None:
                progress(len(part_y))
    evaluation = Evaluation(
        eps=eps,
        method=method,
        engine=network.engine,
        labels=y.cpu(),
        predictions=torch.cat(predictions).cpu(),
        margins=torch.cat(margins).cpu(),
        pgd_margins=torch.cat(pgd_margins).cpu(),
    )
    if method.sound:
        _check_sound(evaluation)
    return evaluation


def _check_sound(evaluation: Evaluation) -> None:
    """No image may be certified and broken at once; so PGD accuracy cannot be below certified accuracy either."""
    broken = (evaluation.positive & ~evaluation.pgd).nonzero().flatten()
    if len(broken) == 0:
        return
    first = int(broken[0])
    raise UnsoundBounds(
        f"{evaluation.method.label} at eps {evaluation.eps:g} certifies {len(broken)} of {len(evaluation.labels)} images "
        f"that an attack breaks, the first being image {first}: certified margin {evaluation.margins[first].min():.6g}, "
        f"margin at the attacked point {evaluation.pgd_margins[first]:.6g}; its bounds are unsound, and no accuracy is given"
    )


def _share(flags: Tensor) -> float:
    return int(flags.sum()) / len(flags)
