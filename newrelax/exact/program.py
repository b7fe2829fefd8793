"""The smallest value of a linear function of a network's outputs over a box, by a mixed-integer program.

Each crossing ReLU y = max(z, 0) with l ≤ z ≤ u is y ≥ z, y ≤ z − l(1 − d), y ≤ u·d, 0 ≤ y, with d in {0, 1} (Tjeng et al.,
"Evaluating Robustness of Neural Networks with Mixed Integer Programming", 2019); l and u are the tightest bounds known.
"""

from __future__ import annotations

import math

import numpy as np
import scipy.sparse as sparse
import torch
from scipy.optimize import Bounds, LinearConstraint, milp
from torch import Tensor

from newrelax.exact.encoding import Encoding
from newrelax.exact.minimum import Minimum
from newrelax.exact.quiet import quiet_output

CLEARANCE = 1e-4
"""How far above zero, in units of the function, a bound must lie to count: a hundred times the solver's own tolerances of
1e-6, which it is allowed to violate constraints by."""
TOLERANCE = 1e-6
"""What each scaled constraint may be violated by; where a function moves by more than a hundred, its bound is taken down."""
INFEASIBLE, LIMIT = 2, 1  # statuses of scipy.optimize.milp


def minimum(
    encoding: Encoding,
    functions: Tensor,
    offset: Tensor | None = None,
    *,
    seconds: float = math.inf,
    above: float = math.inf,
    signs: Tensor | None = None,
) -> Minimum:
    """The minimum over the box of the largest of functions·outputs + offset.

    functions: [outputs], or several, [rows, outputs]; offset: [rows], zero unless given. seconds: after which the solver ends
    with what it knows. above: values above it are of no interest, so that the bound may end just there; ask with
    `above=CLEARANCE` whether a margin can fall to zero. signs: 1 or −1 for each crossing ReLU that is to be active or inactive,
    0 for the others; the minimum is then over the inputs where they are.
    """
    rows = functions.view(-1, functions.shape[-1])
    constants = rows @ encoding.outputs.constant + (0.0 if offset is None else offset)
    program = _Program(encoding, torch.zeros(encoding.crossing) if signs is None else signs, above)
    largest, spread = program.largest(rows @ encoding.outputs.matrix.t(), constants)
    options = {"mip_rel_gap": 0.0} | ({} if seconds == math.inf else {"time_limit": max(seconds, 0.01)})
    with quiet_output():
        found = milp(
            program.objective,
            integrality=program.integrality,
            bounds=program.bounds,
            constraints=[*program.constraints(), largest],
            options=options,
        )
    lost = max(0.0, TOLERANCE * spread - CLEARANCE)
    if found.status == INFEASIBLE:
        return Minimum(above - lost, math.inf, None, True)
    bound = -math.inf if found.mip_dual_bound is None else float(found.mip_dual_bound)
    if found.status == 0 and not encoding.crossing:  # a linear program has no other bound than its value
        bound = float(found.fun)
    bound = min(bound, above) - lost
    if found.x is None:
        return Minimum(bound, math.inf, None, False)
    point = encoding.middle + encoding.half * torch.from_numpy(found.x[: encoding.features]).to(encoding.lower)
    point = torch.minimum(torch.maximum(point, encoding.lower), encoding.upper)
    return Minimum(bound, float(found.fun), point, found.status == 0)


class _Program:
    """The constraints of an encoding. Variables are the input's, the crossing ReLUs', their binaries, the largest function.

    All but the last are scaled to [−1, 1] or [0, 1], and rows to their largest pre-activation: the solver drops coefficients
    below 1e-9, and its tolerances are absolute.
    """

    def __init__(self, encoding: Encoding, signs: Tensor, above: float) -> None:
        self._encoding = encoding
        features, crossing = encoding.features, encoding.crossing
        self.size = features + 2 * crossing + 1
        self._scale = np.concatenate([_numpy(encoding.half), *(_numpy(units.upper) for units in encoding.units)])
        self._shift = np.concatenate([_numpy(encoding.middle), np.zeros(crossing)])
        self.bounds = Bounds(
            np.concatenate([-np.ones(features), np.zeros(crossing), _numpy(signs > 0), [-np.inf]]),
            np.concatenate([np.ones(features + crossing), _numpy(signs >= 0), [above]]),
        )
        self.integrality = np.concatenate([np.zeros(features + crossing), np.ones(crossing), [0]])
        self.objective = np.zeros(self.size)
        self.objective[-1] = 1.0

    def _scaled(self, rows: np.ndarray, constants: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Forms rows·variables + constants, [rows, variables before], in terms of the scaled variables."""
        before = rows.shape[1]
        return rows * self._scale[:before], constants + rows @ self._shift[:before]

    def largest(self, coefficients: Tensor, constants: Tensor) -> tuple[LinearConstraint, float]:
        """That the last variable is at least each function, and how far the scaled variables can move one of them.

        coefficients: of the encoding's variables, [rows, variables].
        """
        rows, offsets = self._scaled(_numpy(coefficients), _numpy(constants))
        padding = np.zeros((len(rows), self.size - rows.shape[1] - 1))
        matrix = sparse.csr_array(np.hstack([rows, padding, -np.ones((len(rows), 1))]))
        return LinearConstraint(matrix, -np.inf, -offsets), float(np.abs(rows).sum(1).max())

    def constraints(self) -> list[LinearConstraint]:
        found = []
        crossing = self._encoding.crossing
        for units in self._encoding.units:
            count, first = len(units), units.first
            low, high = _numpy(units.lower), _numpy(units.upper)
            size = np.maximum(-low, high)
            rows, constant = self._scaled(_numpy(units.pre.matrix).T, _numpy(units.pre.constant))
            rows, constant, low, high = rows / size[:, None], constant / size, low / size, high / size
            pre = sparse.csr_array(rows)
            pre = sparse.hstack([pre, sparse.csr_array((count, self.size - pre.shape[1]))], format="csr")
            own = self._selection(count, first) * high[:, None]
            binary = self._selection(count, first + crossing)
            found += [
                LinearConstraint(own - pre, constant, np.inf),
                LinearConstraint(own - pre - binary * low[:, None], -np.inf, constant - low),
                LinearConstraint(own - binary * high[:, None], -np.inf, 0),
            ]
        return found

    def _selection(self, count: int, first: int) -> sparse.csr_array:
        """The variables first, first + 1, …, one a row."""
        rows = np.arange(count)
        return sparse.csr_array((np.ones(count), (rows, first + rows)), shape=(count, self.size))


def _numpy(values: Tensor) -> np.ndarray:
    return values.detach().cpu().double().numpy()
