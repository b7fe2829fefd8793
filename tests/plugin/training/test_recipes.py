"""Recipes: the paper's tables row by row, CTBench's, one's own, and what comes before what."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from newrelax.errors import UserError
from newrelax.registry import Registry
from plugin.fitting.datasets import DataTraits
from plugin.fitting.resolve import resolve
from plugin.settings.config import Config
from plugin.training.recipes import read_recipe
from plugin.training.recipes.shelf import names

REGISTRY = Registry.load()


def recipe(dataset: str, model: str, method: str, **given: Any) -> Config:
    """The config of a run of which nothing else is given, at the recipe's own length."""
    named = {"dataset": dataset, "model": model, "device": "cpu", "eps": 8 / 255, **given}
    return resolve(named, REGISTRY.get_method(method), REGISTRY, DataTraits(dataset))


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
    assert (found.epochs, found.eps_start, found.train_eps, found.augment) == (200, 0, found.eps, False)
    assert (found.recipe, found.init, found.regularizer, found.average) == ("paradox", "torch", None, None)
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
    assert recipe("mnist", net, modified).model_copy(update={"method": family}) == recipe("mnist", net, family)


@pytest.mark.parametrize("method", ["IBP", "CROWN-IBP", "CROWN-IBP-R"])
def test_svhn_of_the_interval_families(method: str) -> None:
    found = recipe("svhn", "CONV", method)
    assert (found.epochs, found.ramp, found.batch_size, found.milestones) == (2200, 1100, 50, (1320, 1980))
    assert found.train_eps == pytest.approx(0.03451)


@pytest.mark.parametrize("method", ["DeepZ", "hBox", "CROWN"])
def test_svhn_of_the_others(method: str) -> None:
    found = recipe("svhn", "CONV", method)
    assert (found.epochs, found.ramp, found.batch_size, found.eps_start) == (100, 50, 20, 0.001)
    assert (found.lr, found.halve_every, found.milestones, found.train_eps) == (1e-3, 10, (), found.eps)


@pytest.mark.parametrize("method", ["IBP", "CROWN-IBP", "CROWN-IBP-R"])
def test_cifar10_of_the_interval_families(method: str) -> None:
    found = recipe("cifar10", "CONV+", method)
    assert (found.epochs, found.warmup, found.ramp, found.batch_size) == (3200, 320, 1600, 512)
    assert (found.milestones, found.augment) == ((2600, 3040), True)
    assert found.train_eps == pytest.approx(0.03451)


@pytest.mark.parametrize("method", ["DeepZ-Cauchy:k=50", "hBox-Cauchy:k=50"])
def test_cifar10_of_the_estimates(method: str) -> None:
    found = recipe("cifar10", "CONV+", method)
    assert (found.epochs, found.ramp, found.batch_size, found.train_eps) == (240, 80, 50, found.eps)


@pytest.mark.parametrize("name", ["paradox", "modern"])
def test_scaling_keeps_proportions(name: str) -> None:
    whole = recipe("cifar10", "CNN7", "IBP", recipe=name)
    half = recipe("cifar10", "CNN7", "IBP", recipe=name, scale=0.5)
    assert half.epochs * 2 == whole.epochs
    assert (half.warmup * 2, half.ramp * 2) == (whole.warmup, whole.ramp)
    assert [2 * each for each in half.milestones] == list(whole.milestones)
    assert (half.lr, half.kappa, half.l1) == (whole.lr, whole.kappa, whole.l1)


@pytest.mark.parametrize("name", ["paradox", "modern"])
@pytest.mark.parametrize(("method", "kappa"), [("natural", 1), ("PGD", 0)])
def test_methods_without_bounds(name: str, method: str, kappa: float) -> None:
    found = recipe("mnist", "CONV", method, recipe=name)
    assert found.kappa == (kappa, kappa)
    assert (found.init, found.regularizer, found.train_eps) == ("torch", None, found.eps)


@pytest.mark.parametrize("name", names())
@pytest.mark.parametrize("dataset", ["digits", "mnist", "fashion-mnist", "svhn", "cifar10", "mine.npz"])
def test_every_method_has_a_recipe_everywhere(name: str, dataset: str) -> None:
    for method in REGISTRY:
        for model in ("FC", "CONV", "CNN7", "package.module:factory"):
            found = recipe(dataset, model, method, recipe=name)
            assert 0 <= found.warmup + found.ramp <= found.epochs


# data set, ε, loss → epochs, batch, ε trained at / ε, κ, λ₁
MODERN_ROWS = [
    ("mnist", "0.3", "certified", 70, 256, 1, 0.3, 2e-6),
    ("mnist", "0.3", "SABR", 70, 256, 1, 0, 2e-6),
    ("mnist", "0.3", "MTL", 70, 256, 1, 0, 1e-6),
    ("mnist", "0.1", "certified", 70, 256, 2, 0.3, 2e-6),
    ("mnist", "0.1", "MTL", 70, 256, 2, 0.3, 1e-5),
    ("cifar10", "2/255", "certified", 160, 128, 1, 0.2, 1e-6),
    ("cifar10", "2/255", "SABR", 160, 128, 1.5, 0, 1e-6),
    ("cifar10", "2/255", "MTL", 160, 128, 1, 0.1, 3e-6),
    ("cifar10", "8/255", "certified", 240, 128, 1, 0, 0),
    ("tinyimagenet", "1/255", "MTL", 160, 128, 1, 0.3, 5e-5),
]


@pytest.mark.parametrize("row", MODERN_ROWS, ids=lambda row: "-".join(row[:3]).replace("/", "of"))
def test_modern(row: tuple[str, str, str, int, int, float, float, float]) -> None:
    dataset, eps, loss, epochs, batch, factor, kappa, l1 = row
    found = recipe(dataset, "CNN7", "IBP", eps=eps, loss=loss, recipe="modern")
    assert (found.epochs, found.batch_size, found.kappa, found.l1) == (epochs, batch, (kappa, kappa), l1)
    assert found.train_eps == pytest.approx(found.eps * factor)
    assert (found.lr, found.lr_decay, found.clip_grad, found.init) == (5e-4, 0.2, 10, "shi")
    assert found.regularizer == f"shi:weight={0.2 if dataset == 'tinyimagenet' else 0.5},tolerance=0.5"
    assert (found.average is None) == (loss != "MTL")


def test_moderns_short_form_of_mnist() -> None:
    short, long = (recipe("mnist", "CONV", "IBP", eps=0.3, recipe="modern", epochs=epochs) for epochs in (10, 40))
    assert (short.lr, short.batch_size, short.kappa, short.milestones, short.ramp) == (1e-3, 50, (0, 0), (8.5, 9.25, 9.75), 3)
    assert (long.lr, long.batch_size, long.kappa) == (5e-4, 256, (0.3, 0.3))
    assert recipe("mnist", "CONV", "IBP", eps=0.1, recipe="modern", epochs=10).lr == 5e-4


def test_a_loss_without_parameters_takes_the_recipes() -> None:
    assert recipe("mnist", "CNN7", "IBP", eps=0.3, loss="SABR", recipe="modern").loss.startswith("SABR:lambda=0.9,")
    assert recipe("mnist", "CNN7", "IBP", eps=0.3, loss="SABR:lambda=0.7", recipe="modern").loss.startswith("SABR:lambda=0.7,")
    assert recipe("mnist", "CNN7", "CROWN-IBP", eps=0.3, recipe="modern").loss == "fused"
    assert recipe("mnist", "CNN7", "CROWN-IBP", eps=0.3, recipe="modern", loss="certified").loss == "certified"


def test_what_is_given_comes_before_the_recipe() -> None:
    given = {"lr": 0.01, "init": "torch", "regularizer": "none", "average": "ema", "ramp": 3, "train_eps": 0.2, "kappa": 0.7}
    found = recipe("mnist", "CONV", "IBP", recipe="modern", epochs=7, **given)
    assert (found.lr, found.init, found.regularizer, found.ramp) == (0.01, "torch", None, 3)
    assert (found.average, found.train_eps, found.kappa) == ("ema:decay=0.999,from=0.8", 0.2, (0.7, 0.7))


def write(path: Path, text: str) -> str:
    path.write_text(text)
    return str(path)


def test_ones_own_is_a_file_that_builds_on_another(tmp_path: Path) -> None:
    mine = write(
        tmp_path / "mine.toml",
        'base = "modern"\n'
        "[settings]\nepochs = 40\nlr = 1e-3\nhalve-every = 5\n"
        '[[rule]]\nwhen = { model = "FC", epochs-below = 30 }\nset = { train-eps-factor = 1.1, init = "torch" }\n',
    )
    long, short = (recipe("cifar10", "FC", "IBP", recipe=mine, epochs=epochs) for epochs in (80, 20))
    assert (long.recipe, long.lr, long.lr_decay, long.init) == (mine, 1e-3, 0.2, "shi")
    assert (long.ramp, long.halve_every) == (40, 10)  # the base's 120 of 240, its own 5 of 40
    assert (short.ramp, short.halve_every, short.init) == (10, 2.5, "torch")
    assert short.train_eps == pytest.approx(1.1 * short.eps)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        pytest.param(
            "[settings]\nlearning-rate = 1", "unknown setting of recipe .* 'learning-rate'.*known: .*lr-decay", id="key"
        ),
        pytest.param("[settings]\ndataset = 'mnist'", "unknown setting of recipe .* 'dataset'", id="another experiment"),
        pytest.param("[settings]\nlr = -1", "recipe .*mine.toml: lr: expected above 0, got -1", id="value"),
        pytest.param("[settings]\nepochs = 0", "expected epochs above 0, got 0", id="epochs"),
        pytest.param("[[rule]]\nwhen = { data = 'mnist' }", "unknown condition of .* 'data'.*known: dataset", id="condition"),
        pytest.param("[[rule]]\nwhen = { eps-below = 'x' }", "expected eps-below as a number, got 'x'", id="number"),
        pytest.param("[[rule]]\nwhen = { model = 3 }", "expected model as a name or a list of names, got 3", id="name"),
        pytest.param("[rule]\nset = { lr = 1 }", r"expected rules as \[\[rule\]\]", id="one rule"),
        pytest.param("[[rule]]\nsets = { lr = 1 }", "unknown key of a rule of .* 'sets'; did you mean set", id="rule's key"),
        pytest.param("base = 'mine.toml'", "builds upon itself", id="circle"),
        pytest.param("lr: 1", "no TOML", id="no TOML"),
    ],
)
def test_what_a_file_cannot_say(tmp_path: Path, text: str, message: str) -> None:
    mine = write(tmp_path / "mine.toml", text)
    with pytest.raises(UserError, match=message):
        recipe("mnist", "CONV", "IBP", recipe=mine)


def test_unknown_names_list_the_known_ones() -> None:
    with pytest.raises(UserError, match=r"unknown recipe 'modem'; did you mean modern\? \(known: modern, paradox, FILE.toml\)"):
        read_recipe("modem")
    with pytest.raises(UserError, match="recipe absent.toml: cannot be read"):
        read_recipe("absent.toml")
