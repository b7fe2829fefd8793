"""A reference pass through a network and back-substitution from any step of it: what CROWN, CROWN-IBP and hBox share."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from newrelax.network.enclosures import Enclosure, Planes, Sloped
from newrelax.network.interval import Interval
from newrelax.network.network import Step
from newrelax.network.operators.arithmetic import Concatenate, Sum
from newrelax.network.operators.base import Affine, Elementwise, Nonlinear
from newrelax.network.operators.elementwise import Bent, Relu
from newrelax.network.operators.linear import Linear
from newrelax.network.operators.pooling import MaxPool
from newrelax.propagations.base import Bounds, Ends, IntervalPass, Problem, matvec
from newrelax.propagations.substitution import Visit, substitute
from newrelax.propagations.windows import Windows


class Mode(NamedTuple):
    """How hidden layers are bounded: by `intervals` already found, or by back-substitution; `hybrid`: the input's noise
    symbols by back-substitution, all others forward as an interval. `known`: bounds of nonlinear steps' inputs from elsewhere,
    by the step's index, in place of either."""

    intervals: IntervalPass | None = None
    hybrid: bool = False
    known: Mapping[int, tuple[Ends, ...]] = {}


@dataclass(frozen=True)
class State:
    """What is known of a step after the pass has been there.

    reference: its value in the reference pass. enclosure: its planes there, for nonlinear steps. free: bounds that intervals
    give exactly, before the first nonlinear step and through at most one operator that mixes features (mixed). noise: the
    radius of what hybrid propagation carries forward.
    """

    reference: Tensor
    enclosure: Enclosure | None = None
    free: Ends | None = None
    mixed: bool = False
    noise: Tensor | None = None


class LinearPass:
    """One pass through a problem's network, and back-substitution from any step of it.

    slopes: lower slopes for crossing neurons in place of the relaxation's, by the step's index. before: bounds of each input of
    the nonlinear steps, by the step's index; entered: of the first ones.
    """

    def __init__(self, problem: Problem, mode: Mode, slopes: Mapping[int, Tensor] | None = None) -> None:
        self.problem, self._mode, self._slopes = problem, mode, slopes or {}
        self._network, self._parallel = problem.network, problem.relaxations.parallel
        self._steps = problem.network.steps
        radius = (problem.upper - problem.lower) / 2  # of the box at the network's origin
        for step in self._steps[: problem.network.structure.origin + 1]:
            assert isinstance(step.operator, Affine)
            radius = step.operator.magnitude(radius)
        self._radius = radius
        self._known: dict[int, Ends] = {-1: (problem.lower, problem.upper)}
        self.entered: dict[int, Ends] = {}
        self.before: dict[int, tuple[Ends, ...]] = {}
        self._states = {-1: State((problem.lower + problem.upper) / 2, free=(problem.lower, problem.upper))}
        centered = mode.intervals is not None and problem.relaxations.chord and _keeps_centers(problem)
        advance = self._centered if centered else self._advanced
        for index in range(self._network.last):
            self._states[index] = advance(index, self._steps[index])

    def _advanced(self, index: int, step: Step) -> State:
        """The state of a step from those of its inputs."""
        inputs = [self._states[i] for i in step.inputs]
        reference = tuple(state.reference for state in inputs)
        if isinstance(step.operator, Nonlinear):
            enclosure, value = self._enclosed(index, step, reference)
            return State(value, enclosure, mixed=True, noise=self._noise_after(enclosure, inputs))
        assert isinstance(step.operator, Affine)
        value, noise = step.operator.value(*reference), _noise(step.operator, inputs)
        free, mixed = self._free(step.operator, inputs)
        return State(value, free=free, mixed=mixed, noise=noise)

    def _centered(self, index: int, step: Step) -> State:
        """The same where the interval pass's centres are a reference pass: a chord gives half of u at the centre of [l, u]."""
        assert self._mode.intervals is not None
        center = self._mode.intervals.steps[index].center
        if not isinstance(step.operator, Nonlinear):
            return State(center)
        ends = self._mode.intervals.entered[index]
        self.entered[index] = ends
        before = self._mode.intervals.steps[step.inputs[0]].center
        return State(center, Sloped.below(self._lines_of(index, ends), (before,), center))

    def _enclosed(self, index: int, step: Step, reference: tuple[Tensor, ...]) -> tuple[Enclosure, Tensor]:
        operator = step.operator
        assert isinstance(operator, Nonlinear)
        bounds = self._mode.known.get(index)
        if bounds is None:
            bounds = tuple(self._ends_before(index, source, operator) for source in step.inputs)
        self.before[index], self.entered[index] = bounds, bounds[0]
        if isinstance(operator, Relu):
            return Sloped.around(self._lines_of(index, bounds[0]), reference, self._parallel)
        return operator.enclose(bounds, reference, self.problem.relaxations, self._parallel)

    def _lines_of(self, index: int, ends: Ends) -> Planes:
        """The lines of an elementwise step between those ends."""
        low, high = ends
        operator = self._steps[index].operator
        assert isinstance(operator, Elementwise)
        lines = operator.planes(low, high, self.problem.relaxations)
        if index in self._slopes:
            crossing = (low < 0) & (high > 0)
            lines = lines._replace(lower_slopes=(torch.where(crossing, self._slopes[index], lines.lower_slopes[0]),))
        return lines

    def _ends_before(self, index: int, source: int, operator: Nonlinear) -> Ends:
        """Bounds of a nonlinear step's input."""
        intervals = self._mode.intervals
        if intervals is not None:
            if index in intervals.entered:
                return intervals.entered[index]
            found = intervals.steps[source]
            return found.lower, found.upper
        ends = self.ends(source)
        if isinstance(operator, (Relu, Bent, MaxPool)):
            return ends
        # Planes of other functions say little over an interval that is too wide, or nothing beyond their domain.
        plain = self.problem.intervals.steps[source]
        low, high = torch.fmax(ends[0], plain.lower), torch.fmin(ends[1], plain.upper)
        return low, torch.maximum(low, high)

    def ends(self, index: int) -> Ends:
        """Bounds (lower, upper) of step `index`, each like its reference."""
        if index not in self._known:
            self._known[index] = self._found_ends(index)
        return self._known[index]

    def _found_ends(self, index: int) -> Ends:
        free = self._states[index].free
        if free is not None:
            return free
        step = self._steps[index]
        if isinstance(step.operator, Nonlinear):
            found = step.operator.interval(*(Interval.between(*self.ends(i)) for i in step.inputs))
            return found.lower, found.upper
        if self._follows_from_known(index):
            assert isinstance(step.operator, Affine)
            if step.operator.moves:
                lower, upper = zip(*(self.ends(i) for i in step.inputs), strict=True)
                return step.operator.value(*lower), step.operator.value(*upper)
            return step.operator.ends(*self.ends(step.inputs[0]))
        center = self._states[index].reference
        below = self._from_identity(index, 1).view_as(center)
        above = below if self._parallel else self._from_identity(index, -1).view_as(center)
        return _less(center, below), -_less(-center, above)

    def _follows_from_known(self, index: int) -> bool:
        """Whether intervals give a step's bounds exactly from bounds that are known, or that nonlinear steps give."""
        if index in self._known:
            return True
        step = self._steps[index]
        if isinstance(step.operator, Nonlinear):
            return True
        assert isinstance(step.operator, Affine)
        alone = step.operator.pointwise and (len(step.inputs) == 1 or step.operator.moves)
        return alone and all(self._follows_from_known(i) for i in step.inputs)

    def _free(self, operator: Affine, inputs: list[State]) -> tuple[Ends | None, bool]:
        """Exact bounds from interval steps, and whether features have been mixed on the way."""
        alone = operator.pointwise and operator.injective  # copies of a feature hang together, which intervals forget
        mixed = not alone or any(state.mixed for state in inputs)
        before = inputs[0].free
        if self._mode.intervals is not None or before is None or isinstance(operator, (Sum, Concatenate)):
            return None, mixed
        if len(inputs) > 1 or (not operator.pointwise and inputs[0].mixed):
            return None, mixed
        if not self._parallel:
            return operator.ends(*before), mixed
        low, high = before
        center, radius = operator.value((low + high) / 2), operator.magnitude((high - low) / 2)
        return (center - radius, center + radius), mixed

    def _noise_after(self, enclosure: Enclosure, inputs: list[State]) -> Tensor | None:
        if not self._mode.hybrid:
            return None
        noise = [state.noise for state in inputs]
        if all(part is None for part in noise):
            return enclosure.gap
        present = [torch.zeros_like(state.reference) if state.noise is None else state.noise for state in inputs]
        return enclosure.grown(*present)

    def _from_identity(self, index: int, sign: int) -> Tensor:
        """How far below sign·z̄ of step `index` the bounds lie, [batch, features]; in windows where that saves work."""
        shape, batch = self._steps[index].shape, len(self._radius)
        rows = range(shape[1]) if len(shape) == 3 else range(1)
        windows = self._windows(index, rows)
        if windows is None:
            count = torch.Size(shape).numel()
            return self._spread(index, self._identity(count, sign).view(1, count, *shape))
        needed = batch * windows.widest * shape[0] * self._radius.element_size()
        found = [self._in_windows(index, band, sign, batch, needed) for band in self._bands(index, windows.widest, batch)]
        below = torch.cat(found, 2).flatten(1)
        noise = self._states[index].noise
        return below if noise is None else below + noise.flatten(1)

    def _windows(self, index: int, rows: range) -> Windows | None:
        """The windows on the way back from some rows of an image step, planned once for a network."""
        plans, key = self._network.structure.plans, ("windows", index, rows)
        if key not in plans:
            plans[key] = Windows.of(self._network, index, rows)
        found: Windows | None = plans[key]
        return found

    def _identity(self, count: int, sign: int) -> Tensor:
        return torch.eye(count, dtype=self._radius.dtype, device=self._radius.device) * sign

    def _bands(self, index: int, widest: int, batch: int) -> list[range]:
        """The rows of an image step in bands whose coefficients, for one channel, make a piece."""
        rows = self._steps[index].shape[1]
        fitting = self.problem.memory.piece // max(1, batch * widest * self._radius.element_size() // rows)
        band = max(1, min(rows, fitting))
        return [range(at, min(rows, at + band)) for at in range(0, rows, band)]

    def _in_windows(self, index: int, rows: range, sign: int, batch: int, needed: int) -> Tensor:
        """`_from_identity` for some rows of an image step, [batch, channels, rows·columns]; needed: bytes of all its rows."""
        channels, _, columns = self._steps[index].shape
        windows = self._windows(index, rows)
        assert windows is not None
        cut: dict[int, Enclosure] = {}
        for at, field in windows.fields.items():
            enclosure = self._states[at].enclosure if at >= 0 else None
            if enclosure is not None:
                cut[at] = enclosure if field is None else enclosure.cut(field)
        origin = windows.fields.get(self._network.structure.origin)
        radius = self._radius if origin is None else origin.cut(self._radius)
        start = self._identity(channels, sign).view(1, channels, channels, 1, 1)
        found = self._in_pieces(index, start, cut, radius, windows, windows.widest, needed)
        return found.view(batch, len(rows) * columns, channels).transpose(1, 2)

    def _in_pieces(
        self,
        start: int,
        coefficients: Tensor,
        enclosures: Mapping[int, Enclosure],
        radius: Tensor,
        windows: Windows | None,
        widest: int,
        needed: int,
    ) -> Tensor:
        """`substitute`, a piece of the rows at a time; for the gradient once more each where more than the memory were kept.

        widest: the most coefficients that a row has on the way, for an example. needed: bytes of all that belongs together.
        """
        rows, batch = coefficients.shape[1], len(self.problem.lower)
        chunk = max(1, self.problem.memory.piece // max(1, batch * widest * coefficients.element_size()))

        def found(piece: Tensor) -> Tensor:
            below = substitute(
                self._network, start, piece, enclosures, radius, count_gaps=not self._mode.hybrid, windows=windows
            )
            return below.view(len(below), -1, piece.shape[1])

        again = partial(checkpoint, found, use_reentrant=False, preserve_rng_state=False)
        call = again if torch.is_grad_enabled() and needed > self.problem.memory.kept else found
        if chunk >= rows:
            return call(coefficients).flatten(1)
        return torch.cat([call(piece) for piece in coefficients.split(chunk, dim=1)], dim=2).flatten(1)

    def _spread(
        self, start: int, coefficients: Tensor, extra: Mapping[int, Tensor] | None = None, visit: Visit | None = None
    ) -> Tensor:
        """How far below C·z̄ the bounds of coefficients C lie, [batch, rows]."""
        enclosures = {i: state.enclosure for i, state in self._states.items() if state.enclosure is not None}
        if extra is not None or visit is not None:
            return substitute(self._network, start, coefficients, enclosures, self._radius, extra=extra, visit=visit)
        widest = self._network.structure.widest[start] if start >= 0 else 1
        needed = len(self.problem.lower) * widest * coefficients.shape[1] * coefficients.element_size()
        total = self._in_pieces(start, coefficients, enclosures, self._radius, None, widest, needed)
        noise = self._states[start].noise
        if noise is None:
            return total
        size = coefficients.flatten(2).abs()
        return total + (noise.flatten(1) @ size[0].t() if size.shape[0] == 1 else matvec(size, noise.flatten(1)))

    def lower_bounds(
        self, specification: Tensor, extra: Mapping[int, Tensor] | None = None, visit: Visit | None = None
    ) -> Tensor:
        """Lower bounds of specification @ outputs, [batch, rows]; merged into a last linear layer.

        specification: [batch, rows, outputs]. extra, visit: as in `substitute`; the bounds are then of the sum.
        """
        last, step = self._network.last, self._steps[self._network.last]
        if isinstance(step.operator, Linear):
            start = step.inputs[0]
            outputs, coefficients = step.operator.value(self._states[start].reference), specification @ step.operator.weight
            if start >= 0:
                coefficients = coefficients.unflatten(2, self._steps[start].shape)
        else:
            self._states[last] = self._advanced(last, step)
            outputs, start = self._states[last].reference, last
            coefficients = specification.unflatten(2, step.shape)
        reference = matvec(specification, outputs.flatten(1))
        for index, part in (extra or {}).items():
            reference = reference + matvec(part.flatten(2), self._states[index].reference.flatten(1))
        return _less(reference, self._spread(start, coefficients, extra, visit))

    def lower_bounds_at(self, index: int, coefficients: Tensor) -> Tensor:
        """Lower bounds of coefficients [batch, rows, *shape of the step] times the output of step `index`, [batch, rows]."""
        reference = matvec(coefficients.flatten(2), self._states[index].reference.flatten(1))
        return _less(reference, self._spread(index, coefficients))

    def bounds(self, specification: Tensor) -> Bounds:
        """As `Propagation.bounds`."""
        lower = self.lower_bounds(specification)
        return Bounds(lower, self.problem.layers(self.entered))


def _keeps_centers(problem: Problem) -> bool:
    """Whether the centres of intervals go through the network as a point would, but for the chords: an affine step whose
    interval is its own business (`LargerOfTwo`) has another centre."""
    operators = [step.operator for step in problem.network.steps]
    return all(
        type(operator).interval is Affine.interval
        if isinstance(operator, Affine)
        else isinstance(operator, Elementwise) and operator.keeps_chords
        for operator in operators
    )


def _noise(operator: Affine, inputs: list[State]) -> Tensor | None:
    if all(state.noise is None for state in inputs):
        return None
    return operator.magnitude(*(torch.zeros_like(s.reference) if s.noise is None else s.noise for s in inputs))


_ROUNDINGS = 16
_NOTICED = 1e-3


def _less(reference: Tensor, below: Tensor) -> Tensor:
    """reference − below, the lower bound; less what both have rounded by where they are so large that this shows.

    Planes over wide intervals (of an exponential, or a division by almost nothing) have values next to which the bound is
    small: what is left of their difference may then lie on the wrong side of the truth.
    """
    found = reference - below
    with torch.no_grad():
        rounded = _ROUNDINGS * torch.finfo(found.dtype).eps * (reference.abs() + below.abs())
        lost = torch.where(rounded > _NOTICED * (1 + found.abs()), rounded, 0.0)
    return found - lost
