"""Command line: `python -m plugin.train --method CROWN-IBP` trains, evaluates and keeps a run."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import click

from newrelax.cli import debug_option
from newrelax.errors import UserError
from newrelax.registry import BUILTIN_SOURCE, Registry
from plugin.cli import invoke
from plugin.data import list_datasets, load
from plugin.fitting.datasets import data_traits, named
from plugin.fitting.outcome import table
from plugin.fitting.resolve import SHORTHANDS, resolve
from plugin.fitting.run import load_registry, prepare, run, train_along
from plugin.process.device import default_device
from plugin.process.distributed import connect
from plugin.process.interrupt import StopRequest
from plugin.process.world import World
from plugin.runs import checkpoint
from plugin.runs.folder import RunFolder, finished_result, holds_run, read_config, refuse_held
from plugin.settings.config import RESUMABLE, Config, PluginFile
from plugin.settings.nouns import Named, listing
from plugin.settings.options import options_of, spelt
from plugin.training.averaging import list_averages
from plugin.training.losses import list_losses
from plugin.training.recipes import list_recipes
from plugin.training.regularizers import list_regularizers
from plugin.training.smoothing import list_smoothings
from plugin.training.starts import list_starts


@click.command(context_settings={"max_content_width": 120})
@options_of(Config, besides=("plugins", "allow_unsound"))
@click.option("--loss-fusion/--no-loss-fusion", default=None, help=f"{SHORTHANDS['loss_fusion'].capitalize()}.")
@click.option("--pgd-steps", metavar="INTEGER", help=f"{SHORTHANDS['pgd_steps']}.")
@click.option("--allow-unsound", is_flag=True, default=None, help="Train with a relaxation that bounds nothing.")
@click.option("--plugin", "plugins", multiple=True, type=click.Path(path_type=Path), help="Python file with nouns of your own.")
@click.option(
    "--out", "--run-dir", "out", type=click.Path(path_type=Path), help="Run folder; default runs/DATASET-MODEL-METHOD-…."
)
@click.option("--resume", is_flag=True, help="Go on with the run in the folder; start it when there is none.")
@debug_option
def command(out: Path | None, resume: bool, plugins: tuple[Path, ...], **settings: Any) -> None:
    """Train a network with certified bounds, then measure its natural, PGD and certified accuracy.

    What is not given comes from the paper's recipe for the method and the network, scaled to
    --epochs. On resuming, the folder's own settings hold.
    """
    given = {name: value for name, value in settings.items() if value is not None}
    for name, listed in LISTS.items():
        if given.get(name) == "list":
            click.echo(listed(Registry.load(plugins)))
            return
    with connect(os.environ, str(given.get("device", default_device()))) as world:
        if not world.is_writer:
            assist(world)
            return
        out, config, held = settle(out, resume, given, plugins)
        result = finished_result(out) if held else None
        world.share(json.dumps({"out": str(out), "config": config.to_json(), "held": held, "done": result is not None}))
        if result is not None:
            click.echo(f"{out} is finished already", err=True)
        else:
            saved = held and (out / checkpoint.FILE_NAME).exists()
            prepared = prepare(config, load_registry(config), world, initial=not saved)
            if "/" in config.dataset or ":" in config.dataset:
                click.echo(prepared.state.dataset.describe(), err=True)
            with RunFolder.reopen(out) if held else RunFolder.create(out, config) as folder, StopRequest() as stop:
                result = run(prepared, folder, resume=held, stop=stop)
    click.echo(table(result))
    click.echo(f"run folder: {out}")


def assist(world: World) -> None:
    """The part of a process that is not the writer: trains along, and leaves evaluation and files to rank 0."""
    plan = json.loads(world.share(None))
    if plan["done"]:
        return
    config = Config.from_json(plan["config"])
    prepared = prepare(config, load_registry(config), world)
    with StopRequest() as stop:
        train_along(prepared, Path(plan["out"]), resume=plan["held"], stop=stop)


def settle(out: Path | None, resume: bool, given: Mapping[str, Any], plugins: Sequence[Path]) -> tuple[Path, Config, bool]:
    """The run's folder, its config, and whether the folder holds the run already.

    Raises UserError when the options do not fit together or do not fit what the folder holds.
    """
    config = None
    if out is None or not (resume and holds_run(out)):
        config = new_config(given, plugins)
        out = Path("runs") / config.run_name if out is None else out
    held = holds_run(out)
    if held and not resume:
        refuse_held(out)
    if held:
        config = resumed_config(read_config(out), given, plugins)
    elif resume:
        click.echo(f"nothing to resume in {out}: starting a new run", err=True)
    assert config is not None
    return out, config, held


def new_config(given: Mapping[str, Any], plugins: Sequence[Path]) -> Config:
    """The config that options ask for; raises UserError when they do not fit."""
    files = tuple(PluginFile.read(path) for path in plugins)
    registry = Registry.load(plugins)
    method = registry.get_method(str(given.get("method", "CROWN-IBP")))
    spec = str(given.get("dataset", "digits"))
    decided = data_traits(spec, registry)
    if decided.model is None and "model" not in given:  # the network that fits depends on the shape of the inputs
        dataset = load(spec, given.get("data_dir", "data"), named=named(registry))
        decided = data_traits(spec, registry, dataset.input_shape)
    return resolve({**given, "plugins": files}, method, registry, decided)


def resumed_config(stored: Config, given: Mapping[str, Any], plugins: Sequence[Path]) -> Config:
    """The stored config; raises UserError when an option asks for another run than the stored one."""
    registry = load_registry(stored)
    label = registry.get_method(str(given["method"])).label if "method" in given else stored.method
    if label != stored.method:
        raise UserError(f"the folder holds a run of {stored.method}, not {label}: choose another folder with --out")
    for path in plugins:
        if PluginFile.read(path) not in stored.plugins:
            raise UserError(f"the folder's run does not use the plugin {path}: choose another folder with --out")
    wanted = resolve(
        {"dataset": stored.dataset, "model": stored.model, "eps": stored.eps, **given, "plugins": stored.plugins},
        registry.get_method(label),
        registry,
        data_traits(str(given.get("dataset", stored.dataset)), registry),
    )
    asked = {"loss" if name in SHORTHANDS else name for name in given}
    for name in asked - set(RESUMABLE):
        if getattr(wanted, name) != getattr(stored, name):
            raise UserError(
                f"--{spelt(name)} {getattr(wanted, name)} differs from the folder's run, which has "
                f"{getattr(stored, name)}: leave it out to resume, or choose another folder with --out"
            )
    return stored.model_copy(update={name: getattr(wanted, name) for name in RESUMABLE if name in given})


def list_methods(registry: Registry) -> str:
    """The methods with their one-line summaries, and where those from outside come from."""
    return listing(
        {
            method.label: Named(BUILTIN_SOURCE if registry.is_builtin(name) else registry.source(name), method.summary)
            for name, method in registry.items()
        }
    )


LISTS: Mapping[str, Callable[[Registry], str]] = {
    "method": list_methods,
    "loss": list_losses,
    "smoothing": list_smoothings,
    "dataset": lambda registry: list_datasets(named(registry)),
    "recipe": lambda registry: list_recipes(),
    "init": list_starts,
    "regularizer": list_regularizers,
    "average": list_averages,
}
"""What `--NAME list` prints."""


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command line and returns its exit code."""
    return invoke(command, argv, "python -m plugin.train")


if __name__ == "__main__":
    sys.exit(main())
