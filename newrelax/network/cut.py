"""A network in two: what leads up to an activation, and the network from there on."""

from __future__ import annotations

from dataclasses import dataclass

from newrelax.errors import UserError
from newrelax.network.network import Network, Step, Structure


@dataclass(frozen=True)
class Cut:
    """Where a network is cut: behind the step `step` (−1: at the input), and what is left of it.

    layer: which of the layers whose bounds are reported (`MarginBounds.layers`) the step is; None at the input.
    rest: the network of the step's values, [batch, *shape of the step] → outputs.
    """

    step: int
    layer: int | None
    rest: Network


def cut(network: Network, layers: int) -> Cut:
    """The network cut so that the last `layers` of its activations come after the cut.

    What counts are ReLUs (and functions made of bends) that everything behind them sees the network through: not those on one
    of two ways, as in a residual block.

    Raises:
        UserError: the network has fewer of them.
    """
    structure = network.structure
    places = [-1, *(i for i in structure.bent if _separates(network, i))]
    if not 0 < layers < len(places):
        raise UserError(f"expected a split of 1 to {len(places) - 1} activation layers (that all ways pass), got {layers}")
    step = places[-1 - layers]
    plans, key = structure.plans, ("rest", step)
    rest = tuple(
        Step(each.operator, tuple(i - step - 1 for i in each.inputs), each.shape, each.place, each.source)
        for each in network.steps[step + 1 :]
    )
    shape = network.input_shape if step < 0 else network.steps[step].shape
    if key not in plans:
        plans[key] = Structure(rest, shape)
    layer = None if step < 0 else structure.bent.index(step)
    return Cut(step, layer, Network(rest, shape, plans[key], network.training))


def _separates(network: Network, index: int) -> bool:
    """Whether all that comes later depends on the input through this step alone."""
    later = network.steps[index + 1 :]
    return bool(later) and all(i >= index for step in later for i in step.inputs)
