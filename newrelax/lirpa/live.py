"""What a traced network's bound operators look up: the network of the running call."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from newrelax.network.network import Network
from newrelax.propagations.choice import Relaxations


@dataclass
class Live:
    """A network's graph is traced once, but its operators are made anew with the weights of each moment.

    like: any tensor of the call's type and device. widened: intervals before activations are replaced as the relaxation of
    ReLU wants them.
    """

    network: Network
    relaxations: Relaxations
    like: Tensor
    widened: bool = False
