"""The minimum of a small ReLU network over a box, by a linear program for every activation pattern: an oracle."""

from __future__ import annotations

import itertools
import math

import numpy as np
from scipy.optimize import linprog
from torch import nn


def minimum(model: nn.Sequential, lower: np.ndarray, upper: np.ndarray, function: np.ndarray) -> float:
    """Of function·outputs; model: linear layers and ReLUs in turn, lower and upper: [features]."""
    layers = [
        (layer.weight.detach().double().numpy(), layer.bias.detach().double().numpy())
        for layer in model
        if isinstance(layer, nn.Linear)
    ]
    sizes = [len(bias) for _, bias in layers[:-1]]
    best = math.inf
    for signs in itertools.product((0, 1), repeat=sum(sizes)):
        matrix, constant = np.eye(len(lower)), np.zeros(len(lower))
        rows, limits, at = [], [], 0
        for (weight, bias), size in zip(layers[:-1], sizes, strict=True):
            matrix, constant = weight @ matrix, weight @ constant + bias
            on = np.array(signs[at : at + size])
            at += size
            rows.append(np.where(on[:, None] == 1, -matrix, matrix))
            limits.append(np.where(on == 1, constant, -constant))
            matrix, constant = matrix * on[:, None], constant * on
        weight, bias = layers[-1]
        row, offset = function @ weight @ matrix, function @ (weight @ constant + bias)
        done = linprog(row, A_ub=np.concatenate(rows), b_ub=np.concatenate(limits), bounds=list(zip(lower, upper, strict=True)))
        if done.status == 0:
            best = min(best, done.fun + offset)
    return best
