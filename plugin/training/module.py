"""The certified loss as a torch module, for training loops of one's own."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from newrelax.arguments import UNIT_RANGE, DataRange, check_eps
from newrelax.errors import UserError
from newrelax.methods.method import Method
from newrelax.registry import Registry
from plugin.certification.bounding import Bounding
from plugin.certification.region import Region
from plugin.training.losses.base import Batch, Learner, Loss, Terms
from plugin.training.losses.catalogue import default_loss, read_loss
from plugin.training.schedule import Values


class CertifiedLoss(nn.Module):
    """κ·natural + (1 − κ)·worst case of a network, differentiable in its weights.

    The network is a submodule, so `loss.parameters()` are its own. Optimise them with anything from `torch.optim`. Under
    DistributedDataParallel wrap this module, not the network: `DDP(CertifiedLoss(model, …))`. Autocast is off inside: a bound
    in half precision would not be one.

    Args:
        model: inputs [n, *input_shape] to logits [n, classes], in float32 or float64.
        method: a name such as "CROWN-IBP" or a Method; see `python -m plugin.train --method list`.
        input_shape: of one input, such as (1, 28, 28).
        loss: a name with parameters ("certified", "fused", "adversarial:steps=10") or a `plugin.Loss`; default the method's.
        data_range: (smallest, largest) input, numbers or one for each feature; None: the ball is not clipped.
        engine, memory: whose passes bound, and the largest memory for them in MiB.
        registry: where names are looked up; `newrelax.Registry.load(["mine.py"])` knows those of a file.

    Raises:
        UserError: a method, loss or network that it cannot take.
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
        if isinstance(model, nn.parallel.DistributedDataParallel):
            raise UserError(
                "expected the network itself, got it wrapped in DistributedDataParallel: wrap CertifiedLoss instead"
            )
        if not input_shape:
            raise UserError("expected input_shape, the shape of one input such as (1, 28, 28), got none")
        registry = registry or Registry.load()
        chosen = registry.get_method(method) if isinstance(method, str) else method
        self.model = model
        self.loss = loss if isinstance(loss, Loss) else read_loss(loss or default_loss(chosen), registry)
        self.loss.check(chosen)
        bounding = Bounding(engine, memory, registry.operators)
        self._learner = Learner(bounding.network(model, tuple(input_shape), chosen), Region(data_range))

    @property
    def terms(self) -> tuple[str, ...]:
        """The names of the loss's terms."""
        return self.loss.terms(self._learner.method)

    def forward(
        self, x: Tensor, y: Tensor, eps: float | Tensor, *, kappa: float | None = None, beta: float = 1.0, observe: bool = False
    ) -> Terms:
        """The terms of a batch x [n, *input_shape] with classes y [n]; minimise `terms.loss`, a scalar.

        Args:
            eps: radius of the L∞ ball in input units: a number, or one for each example, feature, or both.
            kappa: share of the natural loss; default 0, and 1 for natural training.
            beta: share of the method's bounds, the rest being the intervals'.
            observe: measure crossing neurons, and terms that count nothing, too.

        Raises:
            UserError: an input, radius or share that it cannot take.
        """
        kappa = float(self.loss.name == "natural") if kappa is None else kappa
        for name, share in (("kappa", kappa), ("beta", beta)):
            if not 0 <= share <= 1:
                raise UserError(f"{name}: expected a number in [0, 1], got {share}")
        dtype = next((p.dtype for p in self.model.parameters() if p.is_floating_point()), x.dtype)
        with torch.autocast(x.device.type, enabled=False):
            x = x.to(dtype)
            values = Values(check_eps(eps, x), kappa, beta, 0.0)
            return self.loss(self._learner, Batch(x, y, len(x), observe), values)
