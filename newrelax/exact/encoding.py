"""A network over a box as variables: its input, and one for each ReLU whose sign the bounds leave open.

Every step is an affine form of the variables before it. A stable ReLU is the identity or zero; a crossing one becomes a new
variable, tied to its pre-activation, which is a form itself. So all that is left to decide is the crossing ReLUs' signs.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from newrelax.errors import UserError
from newrelax.network.network import Network, Step
from newrelax.network.operators.base import Affine
from newrelax.network.operators.elementwise import Bent, Relu
from newrelax.propagations.base import Ends


@dataclass(frozen=True)
class Form:
    """matrixᵀ·variables + constant: matrix [variables, *shape], constant [*shape]."""

    matrix: Tensor
    constant: Tensor

    def over(self, variables: int) -> Form:
        """The same with later variables, on which it does not depend."""
        missing = variables - len(self.matrix)
        if not missing:
            return self
        return Form(torch.cat([self.matrix, self.matrix.new_zeros(missing, *self.constant.shape)]), self.constant)


@dataclass(frozen=True)
class Units:
    """Crossing ReLUs of one step: their variables' numbers are first, first + 1, …; pre: their pre-activations, forms of the
    variables before them, [variables before, units]; lower, upper: bounds of these, [units]; step: its index."""

    step: int
    first: int
    pre: Form
    lower: Tensor
    upper: Tensor

    def __len__(self) -> int:
        return len(self.lower)


@dataclass(frozen=True)
class Encoding:
    """A network over one box. lower, upper: of the input, flat [features]; units: in the network's order; outputs: the form of
    the flat outputs."""

    lower: Tensor
    upper: Tensor
    units: tuple[Units, ...]
    outputs: Form

    @property
    def features(self) -> int:
        return len(self.lower)

    @property
    def middle(self) -> Tensor:
        """The box's centre, [features]."""
        return (self.lower + self.upper) / 2

    @property
    def half(self) -> Tensor:
        """Half of its width, [features]."""
        return (self.upper - self.lower) / 2

    @property
    def crossing(self) -> int:
        """How many ReLUs are left to decide."""
        return sum(map(len, self.units))


def encode(network: Network, lower: Tensor, upper: Tensor, before: Mapping[int, tuple[Ends, ...]]) -> Encoding:
    """The encoding of a network over the box [lower, upper], each [1, *input_shape].

    before: bounds of each nonlinear step's inputs over the box, [1, *shape], by the step's index.

    Raises:
        UserError: a step that is neither affine nor made of ReLUs.
    """
    features = lower[0].numel()
    eye = torch.eye(features, dtype=lower.dtype, device=lower.device)
    forms = {-1: Form(eye.view(features, *network.input_shape), torch.zeros_like(lower[0]))}
    units: list[Units] = []
    variables = features
    for index, step in enumerate(network.steps):
        inputs = [forms[i].over(variables) for i in step.inputs]
        if isinstance(step.operator, Affine):
            forms[index] = _through(step.operator, inputs)
        elif not isinstance(step.operator, (Relu, Bent)):
            what = step.source or type(step.operator).__name__
            raise UserError(f"{step.place}: {what} is not made of ReLUs, so that no exact answer is to be had")
        else:
            (ends,) = before[index]
            forms[index], made = _bent(index, step, inputs[0], (ends[0][0], ends[1][0]), variables)
            units += made
            variables += sum(map(len, made))
    outputs = forms[network.last].over(variables)
    flat = Form(outputs.matrix.flatten(1), outputs.constant.flatten())
    return Encoding(lower.flatten(), upper.flatten(), tuple(units), flat)


def _through(operator: Affine, inputs: list[Form]) -> Form:
    """An affine step of forms: its linear part of every variable's coefficients, its value of the constants."""
    constant = operator.value(*(form.constant.unsqueeze(0) for form in inputs))[0]
    return Form(operator.linear(*(form.matrix for form in inputs)), constant)


def _bent(index: int, step: Step, form: Form, ends: Ends, variables: int) -> tuple[Form, list[Units]]:
    """A piecewise linear function of a form, and the crossing ReLUs that it is made of."""
    operator, low, high = step.operator, *ends
    if isinstance(operator, Relu):
        slope, offset, bends = torch.zeros_like(low), torch.zeros_like(low), [(torch.ones_like(low), torch.zeros_like(low))]
    else:
        assert isinstance(operator, Bent)
        slope, offset = _like(operator.slope, low), _like(operator.offset, low)
        bends = [(_like(bend.weight, low), _like(bend.at, low)) for bend in operator.bends]
    total = Form(form.matrix * slope, form.constant * slope + offset)
    made: list[Units] = []
    for weight, at in bends:
        l, u = low - at, high - at
        active, crossing = l >= 0, (l < 0) & (u > 0)
        kept = weight * active
        total = Form(total.matrix + form.over(len(total.matrix)).matrix * kept, total.constant + (form.constant - at) * kept)
        if not crossing.any():
            continue
        pre = Form(form.matrix[:, crossing], (form.constant - at)[crossing])
        made.append(Units(index, variables, pre, l[crossing], u[crossing]))
        fresh = int(crossing.sum())
        rows = form.matrix.new_zeros(fresh, low.numel())
        rows[torch.arange(fresh), crossing.flatten().nonzero().flatten()] = weight[crossing]
        total = Form(torch.cat([total.over(variables).matrix, rows.view(fresh, *low.shape)]), total.constant)
        variables += fresh
    return total, made


def _like(number: Tensor | float, like: Tensor) -> Tensor:
    """A number, or a tensor that broadcasts against [1, *shape], as [*shape]."""
    if isinstance(number, Tensor):
        return number.to(like).expand(1, *like.shape)[0]
    return torch.full_like(like, number)
