"""What a certifier is: something that decides examples at one ε, as far as it can."""

from __future__ import annotations

import copy
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

import torch
from torch import Tensor, nn

from newrelax.bounds import BoundedNetwork
from newrelax.methods.method import Method
from newrelax.network.graph import Graph
from newrelax.network.modes import evaluating
from newrelax.network.network import Network
from newrelax.plugins import Extension
from newrelax.registry import Registry
from newrelax.rigorous import RigorousNetwork
from plugin.certification.bounding import Bounding
from plugin.certification.classification import predictions, worst_margin
from plugin.certification.region import Region


class Verdict(Enum):
    """What is known of an example."""

    VERIFIED = "verified"
    FALSIFIED = "falsified"
    UNDECIDED = "undecided"


@dataclass(frozen=True)
class Question:
    """Which network, and how far around each example: what all certifiers of a ladder are asked.

    model: in evaluation mode, on the device of the examples. eps: in the region's unit. seed: of attacks.
    """

    model: nn.Module
    eps: float
    region: Region = field(default_factory=Region)
    registry: Registry = field(default_factory=Registry.load)
    bounding: Bounding = field(default_factory=Bounding)
    seed: int = 0

    _traced: dict[str, Any] = field(default_factory=dict, repr=False, compare=False)

    def bounded(self, method: Method, shape: Sequence[int]) -> BoundedNetwork:
        """The network bounded with a method, traced once; shape: of one input."""
        if method.label not in self._traced:
            self._traced[method.label] = self.bounding.network(self.model, shape, method)
        network: BoundedNetwork = self._traced[method.label]
        return network

    def in_double(self, shape: Sequence[int]) -> Network:
        """The network's steps with its weights in float64, traced once; shape: of one input."""
        if "" not in self._traced:
            model = copy.deepcopy(self.model).double().eval()
            with torch.no_grad():
                self._traced[""] = Graph(model, shape, self.bounding.operators).network()
        network: Network = self._traced[""]
        return network

    def rigorous(self, method: Method, shape: Sequence[int]) -> RigorousNetwork:
        """The network as it runs, with a method's lines, traced once; shape: of one input."""
        key = f"rigorous {method.label}"
        if key not in self._traced:
            self._traced[key] = RigorousNetwork(self.model, shape, method, operators=self.bounding.operators)
        network: RigorousNetwork = self._traced[key]
        return network

    def box(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return self.region.box(x, self.eps)

    def margins(self, x: Tensor, y: Tensor) -> Tensor:
        """The network's own worst margins at points x, [batch], in its own precision."""
        with evaluating(self.model), torch.no_grad():
            return worst_margin(self.model(x), y)


@dataclass
class Example:
    """One input on its way up a ladder, and what is known of it so far.

    x: [1, *features], y: [1]. margins: the best lower bounds of z_y − z_j, j ≠ y ascending, [classes − 1], or None before any
    rung has bounded them. point: a counterexample that the network itself answers wrongly. rung: who decided it. seconds: what
    all rungs have cost it.
    """

    number: int
    x: Tensor
    y: Tensor
    verdict: Verdict = Verdict.UNDECIDED
    rung: str = ""
    margins: Tensor | None = None
    point: Tensor | None = None
    point_margin: float | None = None
    seconds: float = 0.0
    note: str = ""

    @property
    def open(self) -> bool:
        return self.verdict is Verdict.UNDECIDED

    def bound(self, margins: Tensor, rung: str) -> None:
        """Takes lower bounds of the margins into account."""
        self.margins = margins if self.margins is None else torch.maximum(self.margins, margins)
        if bool((self.margins > 0).all()):
            self.verdict, self.rung = Verdict.VERIFIED, rung

    def refute(self, question: Question, point: Tensor, rung: str) -> bool:
        """Tries a point [1, *features]: replays it through the network itself. Whether the network is wrong there."""
        lower, upper = question.box(self.x)
        point = torch.minimum(torch.maximum(point.to(self.x), lower), upper)
        with evaluating(question.model), torch.no_grad():
            logits = question.model(point)
        if int(predictions(logits)) == int(self.y):
            return False
        self.point, self.point_margin = point, float(worst_margin(logits, self.y))
        self.verdict, self.rung = Verdict.FALSIFIED, rung
        return True


class Certifier(Extension):
    """Decides examples; a subclass has a `name`, and a docstring whose first line lists show.

    batch: how many examples it takes at a time.
    """

    name: str
    batch: int = 1

    @property
    def label(self) -> str:
        """Its spelling, with the parameters: `attack:steps=40,restarts=3`."""
        return self.name

    def decide(self, question: Question, examples: Sequence[Example], deadline: float) -> None:
        """Decides those of the open examples that it can, by `Example.bound` and `Example.refute`.

        deadline: on `time.monotonic`'s clock; nothing that comes later is of use.
        """
        raise NotImplementedError

    def __call__(self, question: Question, examples: Sequence[Example], deadline: float) -> None:
        """`decide`, with its cost shared out among the examples."""
        started = time.monotonic()
        self.decide(question, examples, deadline)
        for example in examples:
            example.seconds += (time.monotonic() - started) / len(examples)
