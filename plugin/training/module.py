"""The certified loss as a torch module, for training loops of one's own."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any, Self

import torch
from torch import Tensor, nn

from newrelax.arguments import UNIT_RANGE, DataRange, check_eps, check_labels, check_model, check_range, model_dtype
from newrelax.errors import UserError
from newrelax.methods.method import Method
from newrelax.registry import Registry
from plugin.certification.bounding import Bounding
from plugin.certification.given import example, find_method, logits_of, refuse_unsound
from plugin.certification.region import Region
from plugin.training.losses.base import Batch, Learner, Loss, Terms
from plugin.training.losses.catalogue import default_loss, read_loss
from plugin.training.losses.given import take_terms
from plugin.training.schedule import Values


class CertifiedLoss(nn.Module):
    """κ·natural + (1 − κ)·worst case of a network, differentiable in its weights.

    The network is a submodule, so `loss.parameters()` are its own. Optimise them with anything from `torch.optim`. Under
    DistributedDataParallel wrap this module, not the network: `DDP(CertifiedLoss(model, …))`. Autocast is off inside: a bound
    in half precision would not be one (leave it before `backward`, as torch asks for). A copy (`copy.deepcopy`) traces its own
    copy of the network.

    Args:
        model: inputs [n, *input_shape] to logits [n, classes], in float32 or float64.
        method: a name such as "CROWN-IBP" or a Method; see `python -m plugin.train --method list`.
        input_shape: of one input, such as (1, 28, 28).
        loss: a name with parameters ("certified", "fused", "adversarial:steps=10") or a `plugin.Loss`; default the method's.
        data_range: (smallest, largest) input, numbers or one for each feature; None: the ball is not clipped.
        engine, memory: whose passes bound, and the largest memory for them in MiB.
        registry: where names are looked up; `newrelax.Registry.load(["mine.py"])` knows those of a file.

    Raises:
        UserError: a method, loss or network that it cannot take; a relaxation that does not bound its activation.
    """

    def __init__(
        self,
        model: nn.Module,
        method: str | Method = "CROWN-IBP",
        input_shape: Sequence[int] = (),
        *,
        loss: str | Loss | None = None,
        data_range: DataRange = UNIT_RANGE,
        engine: str = "newrelax",
        memory: int | None = None,
        registry: Registry | None = None,
    ) -> None:
        super().__init__()
        if isinstance(model, (nn.parallel.DistributedDataParallel, nn.DataParallel)):
            raise UserError(
                f"expected the network itself, got it wrapped in {type(model).__name__}: wrap CertifiedLoss instead, by "
                "DistributedDataParallel"
            )
        shape = _shape(input_shape)
        sample = example(check_model(model), shape)
        limits = check_range(data_range, sample[:0])
        chosen, registry = find_method(method, registry or Registry.load())
        refuse_unsound(chosen, registry)
        self.model = model
        self.loss = _loss(loss, chosen, registry)
        self._classes = logits_of(model, sample)
        bounding = Bounding(engine, memory, registry.operators)
        self._learner = Learner(bounding.network(model, shape, chosen), Region(limits))
        self._again: dict[str, Any] = {
            "method": chosen,
            "input_shape": shape,
            "loss": self.loss,
            "data_range": limits,
            "engine": engine,
            "memory": memory,
            "registry": registry,
        }

    @property
    def terms(self) -> tuple[str, ...]:
        """The names of the loss's terms."""
        return self.loss.terms(self._learner.method)

    def forward(
        self, x: Tensor, y: Tensor, eps: float | Tensor, *, kappa: float | None = None, beta: float = 1.0, observe: bool = False
    ) -> Terms:
        """The terms of a batch x [n, *input_shape] with classes y [n]; minimise `terms.loss`, a scalar.

        Shapes and types are always checked; values of x and y only on a CPU, since to look at them makes a GPU wait. So does
        an eps that is a tensor on a GPU. x is taken in the network's type.

        Args:
            eps: radius of the L∞ ball in input units: a number, or one for each example, feature, or both.
            kappa: share of the natural loss; default 0, and 1 for natural training.
            beta: share of the method's bounds, the rest being the intervals'.
            observe: measure crossing neurons, and terms that count nothing, too.

        Raises:
            UserError: an input, class, radius or share that it cannot take.
        """
        kappa = float(self.loss.name == "natural") if kappa is None else _share("kappa", kappa)
        beta = _share("beta", beta)
        dtype = model_dtype(self.model)
        if dtype not in (torch.float32, torch.float64):
            raise UserError(f"expected the network in float32 or float64, got {dtype}: autocast may be around, not inside")
        self._check_batch(x, y)
        with torch.autocast(x.device.type, enabled=False):
            x = x.to(dtype)
            values = Values(check_eps(eps, x), kappa, beta, 0.0)
            return take_terms(self.loss, self._learner, Batch(x, y.long(), len(x), observe), values)

    def _check_batch(self, x: object, y: object) -> None:
        shape = self._learner.net.input_shape
        if not isinstance(x, Tensor) or not x.is_floating_point():
            raise UserError(f"expected x as a floating tensor [n, {', '.join(map(str, shape))}], got {_kind(x)}")
        if tuple(x.shape[1:]) != shape or len(x) == 0:
            raise UserError(f"expected x of shape [n, {', '.join(map(str, shape))}] with n of at least 1, got {tuple(x.shape)}")
        if not isinstance(y, Tensor) or y.is_floating_point() or y.dtype == torch.bool or y.shape != (len(x),):
            raise UserError(f"expected y as whole numbers (classes) of shape ({len(x)},), got {_kind(y)}")
        if y.device.type == "cpu":
            check_labels(y, len(x), self._classes)
        if x.device.type == "cpu":
            if not bool(torch.isfinite(x).all()):
                raise UserError("x holds NaN or infinite values")
            check_range(self._learner.region.data_range, x)

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        """Another of its kind around a copy of the network: what was traced belongs to the first one's weights."""
        made = type(self)(copy.deepcopy(self.model, memo), **self._again)
        made.training = self.training
        memo[id(self)] = made
        return made


def _shape(given: object) -> tuple[int, ...]:
    shape = tuple(given) if isinstance(given, Sequence) and not isinstance(given, str) else ()
    if not shape or not all(isinstance(size, int) and size > 0 for size in shape):
        raise UserError(f"expected input_shape, the shape of one input such as (1, 28, 28), got {given!r}")
    return shape


def _loss(given: object, method: Method, registry: Registry) -> Loss:
    if given is not None and not isinstance(given, (str, Loss)):
        raise UserError(f"expected loss as a name such as 'adversarial:steps=10' or a plugin.Loss, got {given!r:.80}")
    loss = given if isinstance(given, Loss) else read_loss(given or default_loss(method), registry)
    loss.check(method)
    return loss


def _share(name: str, given: float) -> float:
    try:
        share = float(given)
    except (TypeError, ValueError):
        raise UserError(f"{name}: expected a number in [0, 1], got {given!r:.80}") from None
    if not 0 <= share <= 1:
        raise UserError(f"{name}: expected a number in [0, 1], got {share:g}")
    return share


def _kind(value: object) -> str:
    if isinstance(value, Tensor):
        return f"{str(value.dtype).removeprefix('torch.')} tensor of shape {tuple(value.shape)}"
    return type(value).__name__
