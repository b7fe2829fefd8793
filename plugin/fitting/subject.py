"""What `evaluate` and `analyze` look at: a run's network, or a named one with weights, on a data set."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import click
from torch import nn

from newrelax.errors import UserError
from newrelax.registry import Registry
from plugin.certification.region import Region
from plugin.data import Dataset, load
from plugin.fitting.datasets import data_traits, named, read_range
from plugin.fitting.run import load_registry
from plugin.formats.onnx_reader import is_network_file
from plugin.models.architectures import ARCHITECTURES
from plugin.models.build import build
from plugin.models.weights import load_weights
from plugin.process.device import check_device, default_device
from plugin.runs import checkpoint
from plugin.runs.folder import CONFIG, MODEL, read_config
from plugin.settings.config import GIVEN, Config
from plugin.settings.table import Table
from plugin.settings.types import Range

FILE = click.Path(path_type=Path, dir_okay=False)
FOLDER = click.Path(path_type=Path, file_okay=False)


@dataclass(frozen=True)
class Asked:
    """The command line's words for a subject; None where nothing was said."""

    run: Path | None
    model: str | None
    weights: Path | None
    dataset: str | None
    data_dir: Path | None
    data_range: str | None
    eps_unit: str | None
    plugins: tuple[Path, ...]
    device: str | None


@dataclass(frozen=True)
class Subject:
    """A network with its weights in evaluation mode, on the device of its data set.

    config: of the run it comes from, if it comes from one. weights: the file, or None for an untrained network. eps: the radius
    that the run certified at, or the data set's own; None where neither has one. finished: false for a run's last checkpoint.
    plugins: files that the registry was loaded with.
    """

    name: str
    model: nn.Module
    weights: Path | None
    dataset: Dataset
    region: Region
    registry: Registry
    eps: float | None
    config: Config | None = None
    finished: bool = True
    plugins: tuple[str, ...] = ()


_OPTIONS = (
    click.option("--run", type=FOLDER, help="Run folder of plugin.train: its network, data set, eps and method."),
    click.option("--model", help=f"{', '.join(ARCHITECTURES)}, package.module:factory or NET.onnx."),
    click.option("--weights", type=click.Path(path_type=Path), help="Weights for --model: a state dict or safetensors."),
    click.option("--dataset", help="A name, package.module:factory, a folder or an .npz file; default digits."),
    click.option("--data-dir", type=FOLDER, help="Folder of the data sets; default data."),
    click.option(
        "--data-range", metavar="SMALLEST,LARGEST", help="Where inputs end: data, none, or two numbers; default data."
    ),
    click.option("--eps-unit", type=click.Choice(["input", "range"]), help="ε in input units, or as a multiple of each range."),
    click.option("--plugin", "plugins", multiple=True, type=FILE, help="Python file with nouns of your own."),
    click.option("--device", help="cpu, cuda or cuda:N; default cuda where there is one."),
)


def subject_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """A decorator with the options that name a subject; the command gets them as `asked`, an `Asked`."""

    def gathered(**given: Any) -> Any:
        names = Asked.__dataclass_fields__
        asked = Asked(**{name: given.pop(name) for name in names})
        return command(asked=asked, **given)

    gathered.__doc__ = command.__doc__
    gathered.__click_params__ = getattr(command, "__click_params__", [])  # type: ignore[attr-defined]
    decorated: Callable[..., Any] = gathered
    for option in reversed(_OPTIONS):
        decorated = option(decorated)
    return decorated


def find_subject(asked: Asked, *, seed: int = 0, untrained: bool = False) -> Subject:
    """The subject that was asked for. untrained: whether a network without weights will do, drawn from `seed`.

    Raises:
        UserError: options that do not go together, or whatever does not exist or fit.
    """
    if asked.run is not None:
        if any(value is not None for value in (asked.model, asked.weights, asked.dataset)):
            raise UserError("--run brings its own network, weights and data set: leave out --model, --weights and --dataset")
        return _of_run(asked.run, asked)
    if asked.model is None or (asked.weights is None and not untrained and not is_network_file(asked.model)):
        suffix = " (with --weights FILE unless untrained)" if untrained else " with --weights FILE, or --model NET.onnx"
        raise UserError(f"expected --run DIR, or --model NAME{suffix}")
    registry = Registry.load(asked.plugins)
    traits = data_traits(asked.dataset or "digits", registry)
    return _subject(asked, registry, asked.model, asked.weights, asked.dataset or "digits", "data", None, traits.eps, seed)


def _of_run(run: Path, asked: Asked) -> Subject:
    if not (run / CONFIG).is_file():
        raise UserError(f"{run} holds no run: expected a folder made by plugin.train, with {CONFIG}")
    config = read_config(run)
    for name in ("model", "dataset"):
        if getattr(config, name) == GIVEN:
            raise UserError(
                f"the run's {name} was given from Python: use plugin.evaluate(…) there, or name both here: "
                f"--model package.module:factory --weights {run / MODEL} --dataset … --eps …"
            )
    load_registry(config)  # refuses plugin files that changed since the run
    registry = Registry.load([*(plugin.path for plugin in config.plugins), *asked.plugins])
    files = [file for file in (run / MODEL, run / checkpoint.FILE_NAME) if file.exists()]
    if not files:
        raise UserError(f"{run} has neither {MODEL} nor {checkpoint.FILE_NAME}: the run has not saved anything yet")
    if files[0].name == checkpoint.FILE_NAME:
        checkpoint.read(files[0])  # verifies its checksum
    return _subject(asked, registry, config.model, files[0], config.dataset, config.data_dir, config, config.eps, config.seed)


def _subject(
    asked: Asked,
    registry: Registry,
    name: str,
    weights: Path | None,
    dataset_name: str,
    data_dir: str,
    config: Config | None,
    eps: float | None,
    seed: int,
) -> Subject:
    device = check_device(asked.device or default_device())
    measures = Measures.of(asked, config)
    folder = asked.data_dir or Path(data_dir)
    dataset = load(dataset_name, folder, device, data_range=read_range(measures.data_range), named=named(registry))
    region = Region.by(measures.eps_unit, dataset.data_range)
    model = build(name, dataset.input_shape, dataset.classes, dataset.mean, dataset.std, seed=seed)
    if weights is not None:
        load_weights(model, weights)
    elif is_network_file(name):
        weights = Path(name)  # it brings its own
    finished = weights is None or weights.name != checkpoint.FILE_NAME
    files = (*(() if config is None else (plugin.path for plugin in config.plugins)), *map(str, asked.plugins))
    return Subject(name, model.to(device).eval(), weights, dataset, region, registry, eps, config, finished, files)


class Measures(Table):
    """Where inputs end, and what ε is measured in."""

    data_range: Range = "data"
    eps_unit: Literal["input", "range"] = "input"

    @classmethod
    def of(cls, asked: Asked, config: Config | None) -> Measures:
        """The command line's word, else the run's, else the data's. Raises UserError for what is none."""
        words = {"data_range": asked.data_range, "eps_unit": asked.eps_unit}
        run = {} if config is None else {"data_range": config.data_range, "eps_unit": config.eps_unit}
        return cls.read(run | {name: word for name, word in words.items() if word is not None})
