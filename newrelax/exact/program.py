"""The smallest value of a linear function of a network's outputs over a box, by a mixed-integer program.

Each crossing ReLU y = max(z, 0) with l ≤ z ≤ u is y ≥ z, y ≤ z − l(1 − d), y ≤ u·d, 0 ≤ y, with d in {0, 1} (Tjeng et al.,
"Evaluating Robustness of Neural Networks with Mixed Integer Programming", 2019); l and u are the tightest bounds known.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import scipy.sparse as sparse
import torch
from scipy.optimize import Bounds, LinearConstraint, milp
from torch import Tensor

from newrelax.exact.encoding import Encoding
from newrelax.exact.quiet import quiet_output

CLEARANCE = 1e-4
"""How far above zero, in units of the function, a bound must lie to count: a hundred times the solver's own tolerances of
1e-6, which it is allowed to violate constraints by."""
INFEASIBLE, LIMIT = 2, 1  # statuses of scipy.optimize.milp


@dataclass(frozen=True)
class Minimum:
    """What the solver knows when it ends. bound: a lower bound of the minimum, −inf without any; value: the least value that it
    found, inf without any, at `point`, a flat input. proven: the bound is the minimum, up to the solver's gap."""

    bound: float
    value: float
    point: Tensor | None
    proven: bool


def minimum(encoding: Encoding, function: Tensor, *, seconds: float = math.inf, above: float = math.inf) -> Minimum:
    """The minimum over the box of function·outputs; function: [outputs].

    seconds: after which the solver ends with what it knows. above: values above it are of no interest, so that the bound may
    end just there; ask with `above=CLEARANCE` whether a margin can fall to zero.
    """
    program = _Program(encoding)
    coefficients, constant = program.objective(encoding.outputs.matrix @ function, float(encoding.outputs.constant @ function))
    constraints = program.constraints()
    if above < math.inf:
        constraints = [*constraints, LinearConstraint(sparse.csr_array(coefficients[None]), -np.inf, above - constant)]
    options = {"mip_rel_gap": 0.0} | ({} if seconds == math.inf else {"time_limit": max(seconds, 0.01)})
    with quiet_output():
        found = milp(
            coefficients, integrality=program.integrality, bounds=program.bounds, constraints=constraints, options=options
        )
    if found.status == INFEASIBLE:
        return Minimum(above, math.inf, None, True)
    bound = -math.inf if found.mip_dual_bound is None else float(found.mip_dual_bound) + constant
    if found.x is None:
        return Minimum(min(bound, above), math.inf, None, False)
    point = torch.from_numpy(found.x[: encoding.features]).to(encoding.lower)
    point = torch.minimum(torch.maximum(point, encoding.lower), encoding.upper)
    return Minimum(bound, float(found.fun) + constant, point, found.status == 0)


class _Program:
    """The constraints of an encoding: variables are the input's, the crossing ReLUs', then their binaries."""

    def __init__(self, encoding: Encoding) -> None:
        self._encoding = encoding
        features, crossing = encoding.features, encoding.crossing
        upper = [_numpy(units.upper) for units in encoding.units]
        self.size = features + 2 * crossing
        self.bounds = Bounds(
            np.concatenate([_numpy(encoding.lower), np.zeros(2 * crossing)]),
            np.concatenate([_numpy(encoding.upper), *upper, np.ones(crossing)]),
        )
        self.integrality = np.concatenate([np.zeros(features + crossing), np.ones(crossing)])

    def objective(self, coefficients: Tensor, constant: float) -> tuple[np.ndarray, float]:
        """The function of all variables: binaries count nothing in it."""
        return np.concatenate([_numpy(coefficients), np.zeros(self._encoding.crossing)]), constant

    def constraints(self) -> list[LinearConstraint]:
        found = []
        crossing, features = self._encoding.crossing, self._encoding.features
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
        assert features + 2 * crossing == self.size
        return found

    def _selection(self, count: int, first: int) -> sparse.csr_array:
        """The variables first, first + 1, …, one a row."""
        rows = np.arange(count)
        return sparse.csr_array((np.ones(count), (rows, first + rows)), shape=(count, self.size))


def _numpy(values: Tensor) -> np.ndarray:
    return values.detach().cpu().double().numpy()
