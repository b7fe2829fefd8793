"""Configs: defaults from recipes, one check at the edge, a round trip through JSON."""

import json
from pathlib import Path
from typing import Any

import pytest

from newrelax.errors import UserError
from plugin.settings.config import Config, PluginFile
from plugin.settings.options import markdown
from tests.conftest import REPOSITORY
from tests.support.tiny_runs import resolved


def config(**given: Any) -> Config:
    return resolved(given.pop("method", "IBP"), **{"device": "cpu", **given})


def test_defaults_come_from_the_recipe() -> None:
    made = config(method="CROWN-IBP", dataset="mnist", epochs=20)
    assert (made.model, made.eps, made.train_eps, made.batch_size, made.lr) == ("CONV", 0.3, 0.3, 100, 5e-4)
    assert (made.warmup, made.ramp, made.milestones) == (1.0, 5.0, (13.0, 19.0))
    assert (made.kappa, made.beta, made.l1) == ((1.0, 0.0), (1.0, 0.0), 5e-6)


def test_every_option_overrides() -> None:
    given: dict[str, Any] = {
        "epochs": 3,
        "lr": 0.01,
        "batch_size": 7,
        "warmup": 1.5,
        "ramp": 0.5,
        "kappa": (1, 0.25),
        "l1": 1e-3,
        "eps": 0.2,
        "train_eps": 0.25,
        "eps_start": 0.05,
        "optimizer": "sgd",
        "milestones": (1, 2),
        "lr_decay": 0.5,
        "clip_grad": 3,
        "accumulate": 2,
        "seed": 5,
        "halve_every": 1,
        "augment": True,
        "limit_train": 100,
        "momentum": 0.5,
        "checkpoint_every": "5steps",
        "loss": "fused",
    }
    made = config(method="CROWN-IBP-R", **given)
    assert {name: getattr(made, name) for name in given} == given


def test_capture_is_for_gpus() -> None:
    made = config(device="cuda:1", capture=True)
    assert made.capture
    assert Config.from_json(made.to_json()) == made


def test_wider_training_radius_follows_eps() -> None:
    made = config(dataset="svhn", eps=0.01)
    assert made.train_eps == pytest.approx(0.01 * 0.03451 / (8 / 255))


def test_scale_shortens_the_recipe() -> None:
    made = config(dataset="mnist", scale=0.05)
    assert (made.epochs, made.ramp, made.scale) == (10, 2.5, 0.05)


def test_json_round_trip(tmp_path: Path) -> None:
    plugin = tmp_path / "mine.py"
    plugin.write_text("x = 1\n")
    made = config(method="CROWN-IBP", plugins=(plugin,), clip_grad=1.0, kappa=(1, 0.1))
    assert made.plugins == (PluginFile.read(plugin),)
    assert Config.from_json(json.loads(json.dumps(made.to_json()))) == made


@pytest.mark.parametrize(
    ("given", "message"),
    [
        pytest.param({"eps": 0}, "eps: expected above 0, got 0", id="eps zero"),
        pytest.param({"eps": -0.1}, "eps: expected above 0, got -0.1", id="eps negative"),
        pytest.param({"eps": float("nan")}, "eps: expected above 0, got nan", id="eps nan"),
        pytest.param({"eps": "8/0"}, "eps: expected a number or a fraction such as 8/255, got '8/0'", id="eps fraction"),
        pytest.param({"epochs": 0}, "epochs: expected at least 1, got 0", id="epochs"),
        pytest.param({"batch_size": 0}, "batch-size: expected at least 1", id="batch size"),
        pytest.param({"lr": 0}, "lr: expected above 0", id="lr"),
        pytest.param({"lr": float("inf")}, "lr: expected above 0", id="lr infinite"),
        pytest.param({"milestones": (1, float("inf"))}, "milestones: expected", id="milestones"),
        pytest.param({"halve_every": float("inf")}, "halve-every: expected above 0", id="halve every"),
        pytest.param({"kappa": (1, 2)}, r"kappa: expected two numbers in \[0, 1\]", id="kappa"),
        pytest.param({"kappa": (1, 0.5, 0)}, "kappa: expected", id="kappa of three"),
        pytest.param({"warmup": -1}, "warmup: expected at least 0", id="warmup"),
        pytest.param({"optimizer": "adamw"}, "optimizer: expected one of adam, sgd", id="optimizer"),
        pytest.param({"dataset": "imagenet"}, "unknown data set 'imagenet'.*known: digits, mnist", id="dataset"),
        pytest.param({"learning_rate": 1}, "unknown setting 'learning_rate'.*known: .*lr_decay", id="unknown key"),
        pytest.param({"lr": "fast"}, "lr: expected a number, got 'fast'", id="type"),
        pytest.param({"seed": 1.5}, "seed: expected a whole number, got 1.5", id="whole number"),
        pytest.param({"seed": -1}, r"seed: expected in \[0, 2\^63\)", id="negative seed"),
        pytest.param({"clip_grad": 0}, "clip-grad: expected above 0", id="clip"),
        pytest.param(
            {"checkpoint_every": "often"}, "checkpoint-every: expected something like 2epochs", id="checkpoint interval"
        ),
        pytest.param({"beta": (1, 0)}, "IBP has no others to mix", id="beta of IBP"),
        *(
            pytest.param({"method": name, "loss_fusion": True}, f"{name} has no such row", id=f"loss fusion of {name}")
            for name in ("IBP", "CROWN", "hBox", "CROWN-IBP-RandomSlope")
        ),
        *(
            pytest.param({"method": name, "loss": "fused"}, f"needs bounds, and {name} gives none", id=f"fused {name}")
            for name in ("natural", "PGD")
        ),
        pytest.param(
            {"loss_fusion": "yes", "method": "CROWN-IBP"},
            "loss-fusion: expected true or false, got 'yes'",
            id="loss fusion type",
        ),
        pytest.param({"capture": True}, "--capture records CUDA graphs: expected --device cuda, got cpu", id="capture"),
        pytest.param({"method": "natural", "kappa": (1, 0.5)}, "natural training has none", id="kappa of natural"),
        pytest.param({"scale": 0.5, "epochs": 3}, "either --scale or --epochs", id="scale and epochs"),
        pytest.param({"scale": 2}, r"scale: expected in \(0, 1\]", id="scale"),
        pytest.param({"plugins": ("absent.py",)}, "--plugin absent.py: no such file", id="plugin"),
    ],
)
def test_bad_values(given: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        config(**given)


def test_stored_settings_are_checked() -> None:
    values = config().to_json()
    with pytest.raises(UserError, match="unknown setting 'colour'"):
        Config.from_json({**values, "colour": "red"})
    values.pop("lr")
    with pytest.raises(UserError, match="lr: expected a value, got none"):
        Config.from_json(values)


@pytest.mark.parametrize(
    ("text", "interval"),
    [("1epochs", (1, "epochs")), ("3", (3, "epochs")), ("1 epoch", (1, "epochs")), ("250steps", (250, "steps"))],
)
def test_checkpoint_interval(text: str, interval: tuple[int, str]) -> None:
    assert config(checkpoint_every=text).checkpoint_interval() == interval


def test_run_name_is_a_plain_file_name() -> None:
    name = config(method="CROWN-Soft:gamma=1", model="my.package:net").run_name
    assert name == "digits-my.package_net-CROWN-Soft_gamma=1-eps0.1-seed0"


def test_the_readmes_list_is_the_tables() -> None:
    """`plugin/settings/README.md` shows what `plugin.settings.options.markdown()` gives."""
    assert markdown() in (REPOSITORY / "plugin" / "settings" / "README.md").read_text()
