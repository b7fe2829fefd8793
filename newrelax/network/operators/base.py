"""What every operator of a network can do for bounds: one step, its tensors [n, *features].

An operator is made anew for each call of bounds, with the weights of that moment in it; so gradients come from autograd,
and no operator knows where its weights come from.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any

from torch import Tensor

from newrelax.network.enclosures import Enclosure, Planes, Sloped
from newrelax.network.interval import Interval

Shape = tuple[int, ...]

LinesOf = Callable[[Any, Tensor, Tensor], Planes]
"""An elementwise operator's planes from (operator's activation, lower, upper): what a set of relaxations gives."""


class Operator(ABC):
    """One step of a network, as bounds see it."""

    @abstractmethod
    def value(self, *x: Tensor) -> Tensor:
        """What the network computes here."""

    @abstractmethod
    def interval(self, *x: Interval) -> Interval:
        """The interval that holds the step's values when its inputs are anywhere in theirs."""


class Affine(Operator):
    """y = Σ Wᵢxᵢ + b.

    pointwise: every output depends on one input feature at most, so that intervals pass exactly. injective: no input
    feature reaches two outputs; with pointwise, a box stays a box. moves: every output is an input feature or a constant, so
    that the values of lower and upper ends are the ends themselves.
    """

    pointwise: bool = False
    injective: bool = False
    moves: bool = False

    @abstractmethod
    def linear(self, *x: Tensor) -> Tensor:
        """Σ Wᵢxᵢ."""

    @abstractmethod
    def magnitude(self, *radius: Tensor) -> Tensor:
        """Σ |Wᵢ|·radiusᵢ."""

    @abstractmethod
    def transpose(self, a: Tensor) -> tuple[Tensor, ...]:
        """Wᵢᵀa for each input; a: [n, *output features]."""

    def interval(self, *x: Interval) -> Interval:
        return Interval(self.value(*(part.center for part in x)), self.magnitude(*(part.radius for part in x)))

    def ends(self, lower: Tensor, upper: Tensor) -> tuple[Tensor, Tensor]:
        """Bounds of Wx + b over lower ≤ x ≤ upper, for one input.

        Centre ∓ radius, unless a class can split W by signs, as DeepPoly does: equal but for rounding, which decides
        on which side of a jump (u = 0, say) a neuron of a sparse network lies.
        """
        found = self.interval(Interval.between(lower, upper))
        return found.lower, found.upper

    def windowed(self, size: Shape) -> Affine | None:
        """The same operator between windows, its input's of rows × columns `size`, without padding or cropping; None where
        it depends on the place in the image."""
        return None

    @property
    def footprint(self) -> Footprint | None:
        """Which places of its input image an output place sees; None where that is no window."""
        return None


class Footprint:
    """A window of the input image for each place of the output's: kernel, stride, padding and dilation, rows and columns.

    pads: whether places outside the image count as zeros, so that what arrives there has to be taken out.
    """

    def __init__(self, kernel: Shape, stride: Shape, padding: Shape, dilation: Shape) -> None:
        self.kernel, self.stride, self.padding, self.dilation = kernel, stride, padding, dilation


POINT = Footprint((1, 1), (1, 1), (0, 0), (1, 1))
"""Of an operator that stays in its place."""


class Nonlinear(Operator):
    """A step that is bounded by planes in its inputs."""

    @abstractmethod
    def enclose(
        self, bounds: tuple[tuple[Tensor, Tensor], ...], reference: tuple[Tensor, ...], lines_of: LinesOf, parallel: bool
    ) -> tuple[Enclosure, Tensor]:
        """The planes around the inputs' reference values, and the step's own reference value.

        bounds: (lower, upper) of every input. parallel: both planes need the same slopes.
        """

    @property
    def footprint(self) -> Footprint | None:
        """As `Affine.footprint`."""
        return None


class Elementwise(Nonlinear):
    """A nonlinear function of each feature alone: whatever lines its activation's relaxation gives."""

    activation: Any

    @property
    def keeps_chords(self) -> bool:
        """Whether the upper line is the function's chord where ReLU's is: at the centre of [l, u] it is half of its image."""
        return False

    @abstractmethod
    def image(self, lower: Tensor, upper: Tensor) -> tuple[Tensor, Tensor]:
        """The smallest and the largest value over [lower, upper]."""

    def interval(self, *x: Interval) -> Interval:
        return Interval.between(*self.image(x[0].lower, x[0].upper))

    @property
    def footprint(self) -> Footprint | None:
        return POINT

    def enclose(
        self, bounds: tuple[tuple[Tensor, Tensor], ...], reference: tuple[Tensor, ...], lines_of: LinesOf, parallel: bool
    ) -> tuple[Enclosure, Tensor]:
        return Sloped.around(self.planes(*bounds[0], lines_of), reference, parallel)

    def planes(self, lower: Tensor, upper: Tensor, lines_of: LinesOf) -> Planes:
        """The two lines over [lower, upper]."""
        return lines_of(self.activation, lower, upper)
