"""Back-substitution: how far below a reference pass the bounds of any linear function of a step can lie.

Take any forward pass z̄ through the network in which every affine step is exact and every nonlinear step gives a value v
between its two planes at z̄. With A the coefficients that arrive at such a step,

    C·f(x') ≥ C·z̄_out − Σ_steps (A⁺·(v − lower) + A⁻·(upper − v)) − |A_input|·radius,
    A ← A⁺·lower slope − A⁻·upper slope        (A = A⁺ − A⁻),

for every x' in the box with centre x̄. No bias is carried: all of them are in z̄. Two choices of v leave one product:
the upper plane (the sum is A⁺·(upper − lower)), and, for parallel planes, their middle (|A|·(upper − lower)/2), whose
coefficients give lower and upper bounds at once: the zonotope.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from newrelax.network.enclosures import Enclosure
from newrelax.network.network import Network
from newrelax.network.operators.base import Affine, Footprint
from newrelax.propagations.windows import Field, Windows

Visit = Callable[[int, Tensor], None]
"""Is shown a nonlinear step's index and the coefficients that arrive at its output, [batch or 1, rows, *shape]."""


class _Reach(torch.autograd.Function):
    """Σ|A|·radius of coefficients a [batch or 1, rows, *features] at a box, radius [batch, *features]; [batch, rows]."""

    @staticmethod
    def forward(ctx: Any, a: Tensor, radius: Tensor) -> Tensor:
        ctx.save_for_backward(a, radius)
        if a.shape[0] == 1:
            return radius.flatten(1) @ a[0].abs().flatten(1).t()
        return (a.abs() * radius.unsqueeze(1)).flatten(2).sum(2)

    @staticmethod
    def backward(ctx: Any, d_out: Tensor) -> tuple[Tensor, Tensor | None]:
        a, radius = ctx.saved_tensors
        d_a = a.sign()
        if a.shape[0] == 1:
            d_a.mul_((d_out.t() @ radius.flatten(1)).view_as(a))
        else:
            d_a.mul_(radius.unsqueeze(1)).mul_(d_out.view(*d_out.shape, *[1] * (a.ndim - 2)))
        d_radius = None
        if ctx.needs_input_grad[1]:
            d_radius = (d_out.unsqueeze(1) @ a.abs().flatten(2)).view_as(radius)
        return d_a, d_radius


def substitute(
    network: Network,
    start: int,
    coefficients: Tensor,
    enclosures: Mapping[int, Enclosure],
    radius: Tensor,
    *,
    count_gaps: bool = True,
    windows: Windows | None = None,
    extra: Mapping[int, Tensor] | None = None,
    visit: Visit | None = None,
) -> Tensor:
    """How far below C·z̄ the bounds of coefficients C at the output of step `start` lie; [batch, rows].

    coefficients: [batch or 1, rows, *shape of the step]. enclosures: of the nonlinear steps, cut where they are met in
    windows. radius: of the box at the network's origin, likewise. `count_gaps=False` leaves the steps' part out (hybrid
    propagation carries it forward). What does not depend on the example (up to the first nonlinear step) is computed once.
    windows: the coefficients are those of one position, [1, rows, channels, 1, 1], for every position; the result is
    [batch, positions·rows]. extra: coefficients of earlier steps' outputs that the function has besides, [batch, rows,
    *shape of the step], by the step's index. visit: sees the coefficients that arrive at each nonlinear step.
    """
    fields: Mapping[int, Field | None] = {} if windows is None else windows.fields
    positions = 1 if windows is None else _first(windows).positions
    pending = {start: coefficients} if extra is None else dict(extra)
    if extra is not None:
        pending[start] = coefficients + extra[start] if start in extra else coefficients
    spilled: set[int] = set()  # steps whose windows hold coefficients outside the image
    total: Tensor | float = 0.0

    def add(loss: Tensor | None, field: Field | None) -> None:
        nonlocal total
        if loss is not None:
            total = total + (loss if field is None else loss.view(len(loss) // positions, -1))

    for index in range(start, network.structure.origin, -1):
        a = pending.pop(index, None)
        if a is None:
            continue
        step, field = network.steps[index], fields.get(index)
        operator = step.operator
        if isinstance(operator, Affine):
            inputs = _through(operator, a, field, step.shape, spilled=index in spilled)
        else:
            if visit is not None:
                visit(index, a)
            enclosure = enclosures[index]
            inputs, loss = enclosure.back(_for_each(a, len(enclosure.gap)), count_gaps=count_gaps)
            add(loss, field)
        footprint = operator.footprint if field is not None else None  # type: ignore[attr-defined]
        for source, part in zip(step.inputs, inputs, strict=True):
            image = network.steps[source].shape if source >= 0 else network.input_shape
            part = _fitted(part, field, footprint, fields.get(source), image)
            if _moves(footprint) or (index in spilled and isinstance(operator, Affine)):
                spilled.add(source)
            if source in pending:
                known = pending[source]
                pending[source] = _for_each(known, len(part)) + _for_each(part, len(known))
            else:
                pending[source] = part
    a = pending.get(network.structure.origin)
    if a is None:
        return total if isinstance(total, Tensor) else radius.new_zeros(len(radius), coefficients.shape[1])
    add(_Reach.apply(_for_each(a, len(radius)), radius), fields.get(network.structure.origin))
    assert isinstance(total, Tensor)
    return total


def _first(windows: Windows) -> Field:
    field = windows.fields[windows.start]
    assert field is not None
    return field


def _through(operator: Affine, a: Tensor, field: Field | None, shape: tuple[int, ...], *, spilled: bool) -> tuple[Tensor, ...]:
    """Coefficients of each input of an affine step. spilled: some may lie outside the image; planes cut into windows leave none
    there."""
    if field is not None:
        footprint = operator.footprint
        if footprint is not None:
            if spilled and _moves(footprint) and field.reaches_over((shape[1], shape[2])):
                a = _for_each(a, field.positions) * _inside(field, a, shape)
            windowed = operator.windowed(field.before(footprint).size)
            operator = operator if windowed is None else windowed
        else:  # whole images from here on
            a = field.lay(a, (shape[1], shape[2]))
    parts = operator.transpose(a.flatten(0, 1))
    return tuple(part.unflatten(0, a.shape[:2]) for part in parts)


def _moves(footprint: Footprint | None) -> bool:
    return footprint is not None and any(k != 1 for k in (*footprint.kernel, *footprint.stride))


def _inside(field: Field, like: Tensor, shape: tuple[int, ...]) -> Tensor:
    """1 within the image and 0 outside, [k·positions, 1, 1, *size]."""
    image = like.new_ones(1, 1, *shape[1:])
    inside = field.cut(image).unsqueeze(1)
    return inside.repeat(max(1, len(like) // field.positions), 1, 1, 1, 1)


def _for_each(a: Tensor, count: int) -> Tensor:
    """Coefficients of positions repeated for every example, where others depend on the example; a: [1, k or count, …]."""
    return a if len(a) in (1, count) or count < len(a) else a.repeat(count // len(a), *[1] * (a.ndim - 1))


def _fitted(
    a: Tensor, field: Field | None, footprint: Footprint | None, wanted: Field | None, image: tuple[int, ...]
) -> Tensor:
    """An input's coefficients on the windows that are planned for it, or on the whole image."""
    if field is None or footprint is None:
        return a
    own = field.before(footprint)
    return own.lay(a, (image[1], image[2])) if wanted is None else wanted.widen(a, own)
