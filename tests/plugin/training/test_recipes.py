"""The recipes against the paper's tables, row by row."""

import pytest

from newrelax.registry import Registry
from plugin.training.recipes import Recipe, find_recipe

REGISTRY = Registry.load()


def recipe(dataset: str, model: str, method: str) -> Recipe:
    return find_recipe(dataset, model, REGISTRY.get_method(method))


# (net, method), warm-up, ramp, κ₂, λ₁, batch
MNIST_ROWS = [
    ("FC", "IBP", 10, 100, 0, 5e-6, 100),
    ("FC", "hBox", 0, 50, 0.5, 5e-5, 100),
    ("FC", "CROWN", 10, 100, 0, 0, 100),
    ("FC", "DeepZ", 0, 50, 0, 5e-6, 100),
    ("FC", "CROWN-IBP-R", 0, 50, 0.5, 5e-6, 100),
    ("FC", "CROWN-IBP", 10, 100, 0, 0, 100),
    ("CONV", "IBP", 0, 50, 0.5, 5e-6, 100),
    ("CONV", "hBox", 0, 50, 0.5, 5e-5, 100),
    ("CONV", "CROWN", 10, 100, 0, 0, 50),
    ("CONV", "DeepZ", 0, 50, 0, 5e-5, 50),
    ("CONV", "CROWN-IBP-R", 10, 50, 0.5, 5e-6, 100),
    ("CONV", "CROWN-IBP", 10, 50, 0, 5e-6, 100),
]


@pytest.mark.parametrize("dataset", ["mnist", "fashion-mnist"])
@pytest.mark.parametrize("row", MNIST_ROWS, ids=lambda row: f"{row[0]}-{row[1]}")
def test_mnist(row: tuple[str, str, int, int, float, float, int], dataset: str) -> None:
    net, method, warmup, ramp, kappa, l1, batch = row
    found = recipe(dataset, net, method)
    assert (found.warmup, found.ramp, found.kappa, found.l1, found.batch_size) == (warmup, ramp, (1, kappa), l1, batch)
    assert (found.epochs, found.eps_start, found.eps_factor, found.augment) == (200, 0, 1, False)
    if (net, method) == ("FC", "DeepZ"):
        assert (found.lr, found.milestones, found.halve_every) == (1e-3, (), 20)
    else:
        assert (found.lr, found.milestones, found.halve_every) == (5e-4, (130, 190), None)


@pytest.mark.parametrize("net", ["FC", "CONV"])
@pytest.mark.parametrize(
    ("modified", "family"),
    [
        ("hBox-Switch", "hBox"),
        ("hBox-DeepZ", "hBox"),
        ("DeepZ-Soft:gamma=1", "DeepZ"),
        ("DeepZ-Diag-C", "DeepZ"),
        ("CROWN-0-Tria-C", "CROWN"),
        ("CROWN-Soft:gamma=1", "CROWN"),
        ("CROWN-Soft-IBP-R:gamma=10", "CROWN-IBP-R"),
        ("IBP-Round:omega=0.5,F=10", "IBP"),
        ("IBP-Widen:omega=2", "IBP"),
    ],
)
def test_modified_relaxations_follow_their_family(net: str, modified: str, family: str) -> None:
    assert recipe("mnist", net, modified) == recipe("mnist", net, family)


def test_svhn() -> None:
    for method in ("IBP", "CROWN-IBP", "CROWN-IBP-R"):
        found = recipe("svhn", "CONV", method)
        assert (found.epochs, found.ramp, found.batch_size, found.milestones) == (2200, 1100, 50, (1320, 1980))
        assert found.eps_factor * 8 / 255 == pytest.approx(0.03451)
    for method in ("DeepZ", "hBox", "CROWN"):
        found = recipe("svhn", "CONV", method)
        assert (found.epochs, found.ramp, found.batch_size, found.eps_start) == (100, 50, 20, 0.001)
        assert (found.lr, found.halve_every, found.milestones, found.eps_factor) == (1e-3, 10, (), 1)


def test_cifar10() -> None:
    for method in ("IBP", "CROWN-IBP", "CROWN-IBP-R"):
        found = recipe("cifar10", "CONV+", method)
        assert (found.epochs, found.warmup, found.ramp, found.batch_size) == (3200, 320, 1600, 512)
        assert (found.milestones, found.augment) == ((2600, 3040), True)
        assert found.eps_factor * 8 / 255 == pytest.approx(0.03451)
    for method in ("DeepZ-Cauchy:k=50", "hBox-Cauchy:k=50"):
        found = recipe("cifar10", "CONV+", method)
        assert (found.epochs, found.ramp, found.batch_size, found.eps_factor) == (240, 80, 50, 1)


def test_scaling_keeps_proportions() -> None:
    short = recipe("mnist", "FC", "DeepZ").scaled(20)
    assert (short.epochs, short.warmup, short.ramp, short.halve_every) == (20, 0, 5, 2)
    assert (short.lr, short.kappa, short.l1) == (1e-3, (1, 0), 5e-6)


def test_methods_without_bounds() -> None:
    assert recipe("mnist", "CONV", "natural").kappa == (1, 1)
    assert recipe("mnist", "CONV", "PGD").kappa == (0, 0)


def test_every_method_has_a_recipe_everywhere() -> None:
    for method in REGISTRY.values():
        for dataset in ("digits", "mnist", "fashion-mnist", "svhn", "cifar10"):
            for model in ("FC", "CONV", "CNN7", "package.module:factory"):
                found = find_recipe(dataset, model, method)
                assert 0 <= found.warmup + found.ramp <= found.epochs
