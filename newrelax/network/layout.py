"""Where the examples lie in a network's tensors.

Bounds keep every step's values as [batch, *shape], of one axis at least. A network may fold examples into another axis
(`x.view(batch·16, …)`), put them behind another one (a sequence first, then the batch), or keep a number for each, [batch].
A layout moves between the two.
"""

from __future__ import annotations

import math
from collections.abc import Collection
from dataclasses import dataclass, replace

from torch import Tensor


@dataclass(frozen=True)
class Layout:
    """axis: where the network has its examples; multiple: entries of that axis for each of them; before: how many of these
    each come in a block of all examples (1: an example's entries one after another; multiple: all examples' first entries,
    then all their second ones). alone: there is no other axis, where bounds have one of length 1."""

    axis: int = 0
    multiple: int = 1
    before: int = 1
    alone: bool = False

    @classmethod
    def of(cls, axis: int, multiple: int, rank: int, before: int = 1) -> Layout:
        """The layout of a network's tensor with `rank` axes."""
        return cls(axis, multiple, before, alone=rank == multiple == 1)

    @property
    def is_plain(self) -> bool:
        """Whether the network has them as bounds have."""
        return self == Layout()

    def like(self, others: Collection[Layout]) -> Layout:
        """The same with entries ordered as in the layouts that a step's inputs all have."""
        orders = {(other.multiple, other.before) for other in others}
        return replace(self, before=orders.pop()[1]) if len(orders) == 1 and next(iter(orders))[0] == self.multiple else self

    def shape(self, sizes: tuple[int, ...]) -> tuple[int, ...]:
        """The shape of one example, from the network's sizes for a batch of one."""
        if self.alone:
            return (1,)
        rest = (*sizes[: self.axis], *sizes[self.axis + 1 :])
        return rest if self.multiple == 1 else (self.multiple, *rest)

    def sizes(self, shape: tuple[int, ...], n: int = 1) -> tuple[int, ...]:
        """The network's sizes for n examples of a shape."""
        if self.alone:
            return (n,)
        rest = shape if self.multiple == 1 else shape[1:]
        return (*rest[: self.axis], self.multiple * n, *rest[self.axis :])

    def axis_of(self, dim: int, shape: tuple[int, ...]) -> int | None:
        """The axis of [n, *shape] that the network counts as `dim`, negative from the end; None for the examples' own."""
        dim %= len(self.sizes(shape))
        if dim == self.axis:
            return None
        return dim - (dim > self.axis) + (2 if self.multiple > 1 else 1)

    def after_view(self, shape: tuple[int, ...], axis: int, sizes: tuple[int, ...]) -> Layout | None:
        """The layout after a view of examples of this shape; None where that takes examples apart.

        axis, sizes: of the examples, and of all axes for a batch of one, afterwards.
        """
        outside = math.prod(self.sizes(shape)[: self.axis]) * self.before
        before, rest = divmod(outside, max(1, math.prod(sizes[:axis])))
        if rest or before < 1 or sizes[axis] % before:
            return None
        return Layout.of(axis, sizes[axis], len(sizes), before)

    def native(self, x: Tensor) -> Tensor:
        """[n, *shape] as the network has it."""
        if self.alone:
            return x.squeeze(1)
        if self.before > 1:
            x = x.unflatten(1, (self.before, self.multiple // self.before)).movedim(0, 1).flatten(0, 2)
        elif self.multiple > 1:
            x = x.flatten(0, 1)
        return x.movedim(0, self.axis) if self.axis else x

    def canonical(self, x: Tensor) -> Tensor:
        """The network's tensor as [n, *shape]."""
        if self.alone:
            return x.unsqueeze(1)
        x = x.movedim(self.axis, 0) if self.axis else x
        if self.before > 1:
            after = self.multiple // self.before
            blocks: Tensor = x.unflatten(0, (self.before, len(x) // self.multiple, after))
            return blocks.movedim(1, 0).flatten(1, 2)
        if self.multiple > 1:
            x = x.unflatten(0, (len(x) // self.multiple, self.multiple))
        return x


PLAIN = Layout()
"""The examples first."""
