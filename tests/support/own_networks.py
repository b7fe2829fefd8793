"""Networks that a user brings, for digits: factories for `--model tests.support.own_networks:NAME`."""

from __future__ import annotations

from torch import nn


def _flat(*between: nn.Module) -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 20), *between, nn.Linear(20, 10))


def two_hidden() -> nn.Module:
    return _flat(nn.ReLU(), nn.Linear(20, 20), nn.ReLU())


def dropout() -> nn.Module:
    return _flat(nn.ReLU(), nn.Dropout(0.3))


def leaky_relu() -> nn.Module:
    return _flat(nn.LeakyReLU(0.1))


def max_pool() -> nn.Module:
    return nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.ReLU(), nn.MaxPool2d(3, 2, 1), nn.Flatten(), nn.Linear(64, 10))


def layer_norm() -> nn.Module:
    return _flat(nn.LayerNorm(20), nn.ReLU())


def tanh() -> nn.Module:
    """Without any ReLU."""
    return _flat(nn.Tanh())


def batch_norm() -> nn.Module:
    return _flat(nn.BatchNorm1d(20), nn.ReLU(), nn.Dropout(0.1))


def weight_norm() -> nn.Module:
    network = _flat(nn.ReLU())
    nn.utils.parametrizations.weight_norm(network[1])
    return network
