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
    constraints = [*program.constraints(), *program.largest(rows @ encoding.outputs.matrix.t(), constants)]
    options = {"mip_rel_gap": 0.0} | ({} if seconds == math.inf else {"time_limit": max(seconds, 0.01)})
    with quiet_output():
        found = milp(
            program.objective, integrality=program.integrality, bounds=program.bounds, constraints=constraints, options=options
        )
    if found.status == INFEASIBLE:
        return Minimum(above, math.inf, None, True)
    bound = -math.inf if found.mip_dual_bound is None else float(found.mip_dual_bound)
    if found.x is None:
        return Minimum(min(bound, above), math.inf, None, False)
    point = torch.from_numpy(found.x[: encoding.features]).to(encoding.lower)
    point = torch.minimum(torch.maximum(point, encoding.lower), encoding.upper)
    return Minimum(bound, float(found.fun), point, found.status == 0)


class _Program:
    """The constraints of an encoding: variables are the input's, the crossing ReLUs', their binaries, the largest function."""

    def __init__(self, encoding: Encoding, signs: Tensor, above: float) -> None:
        self._encoding = encoding
        features, crossing = encoding.features, encoding.crossing
        upper = [_numpy(units.upper) for units in encoding.units]
        self.size = features + 2 * crossing + 1
        self.bounds = Bounds(
            np.concatenate([_numpy(encoding.lower), np.zeros(crossing), _numpy(signs > 0), [-np.inf]]),
            np.concatenate([_numpy(encoding.upper), *upper, _numpy(signs >= 0), [above]]),
        )
        self.integrality = np.concatenate([np.zeros(features + crossing), np.ones(crossing), [0]])
        self.objective = np.zeros(self.size)
        self.objective[-1] = 1.0

    def largest(self, coefficients: Tensor, constants: Tensor) -> list[LinearConstraint]:
        """That the last variable is at least each function; coefficients: of the encoding's variables, [rows, variables]."""
        rows = _numpy(coefficients)
        padding = np.zeros((len(rows), self.size - rows.shape[1] - 1))
        matrix = sparse.csr_array(np.hstack([rows, padding, -np.ones((len(rows), 1))]))
        return [LinearConstraint(matrix, -np.inf, -_numpy(constants))]

    def constraints(self) -> list[LinearConstraint]:
        found = []
        crossing = self._encoding.crossing
        for units in self._encoding.units:
            count, first = len(units), units.first
            pre = sparse.csr_array(_numpy(units.pre.matrix).T)
            pre = sparse.hstack([pre, sparse.csr_array((count, self.size - pre.shape[1]))], format="csr")
            own = self._selection(count, first)
            binary = self._selection(count, first + crossing)
            low, high, constant = _numpy(units.lower), _numpy(units.upper), _numpy(units.pre.constant)
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
