"""Command line: ``python -m plugin.train --method CROWN-IBP`` trains, evaluates and keeps a run."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import click

from newrelax.bounds import ENGINES
from newrelax.errors import UserError
from newrelax.registry import Registry
from plugin.cli import invoke
from plugin.data import builtin as data
from plugin.fitting.outcome import table
from plugin.fitting.run import load_registry, prepare, run, train_along
from plugin.process.distributed import connect
from plugin.process.interrupt import StopRequest
from plugin.process.world import World
from plugin.runs import checkpoint
from plugin.runs.folder import RunFolder, finished_result, holds_run, read_config, refuse_held
from plugin.settings.config import OPTIMIZERS, Config, PluginFile, default_device, resolve
from plugin.settings.options import FLOATS, PAIR, RADIUS

# What a resumed run may do differently: none of it changes what is computed.
_FREE_ON_RESUME = ("device", "data_dir", "checkpoint_every", "analyze", "analyze_every", "analyze_budget")


_Command = Callable[..., None]
_Decorator = Callable[[_Command], _Command]


def _option(name: str, kind: Any, help_text: str, **more: Any) -> _Decorator:
    return click.option(name, type=kind, default=None, help=help_text, **more)


_SETTINGS = (
    _option("--dataset", str, f"One of {', '.join(data.NAMES)}; default digits, which needs no download."),
    _option("--model", str, "FC, CONV, CONV+, CNN7 or package.module:factory; the default depends on the data set."),
    _option("--eps", RADIUS, "Radius of the L∞ ball in pixel units, in (0, 1]."),
    _option("--train-eps", RADIUS, "Radius trained at, where it differs from --eps."),
    _option("--eps-start", RADIUS, "ε where the ramp starts."),
    _option("--epochs", int, "Length of training; the recipe's schedule is scaled to it."),
    _option("--scale", float, "Shortens the recipe's length by this factor in (0, 1]."),
    _option("--batch-size", int, "Images a step."),
    _option("--accumulate", int, "Pieces that a batch goes through in, to save memory."),
    _option("--warmup", float, "Epochs of natural training at the start."),
    _option("--ramp", float, "Epochs in which ε, κ and β move from their start to their end."),
    _option("--kappa", PAIR, "Share of the natural loss: START,END of the ramp, or one number."),
    _option("--beta", PAIR, "Share of the method's logits, the rest being IBP's: START,END, or one number."),
    _option(
        "--loss-fusion/--no-loss-fusion", bool, "Bound CROWN-IBP's cross-entropy as one output: a cheaper step.", is_flag=True
    ),
    _option("--l1", float, "λ₁, the factor of the weights' L1 norm."),
    _option("--optimizer", click.Choice(OPTIMIZERS), "Default adam."),
    _option("--momentum", float, "Of sgd; default 0.9."),
    _option("--lr", float, "Learning rate."),
    _option("--milestones", FLOATS, "Epochs at which the learning rate is multiplied by --lr-decay: E1,E2,…"),
    _option("--lr-decay", float, "Default 0.1."),
    _option("--halve-every", float, "After the ramp, halve the learning rate every so many epochs."),
    _option("--clip-grad", float, "Largest L2 norm of the gradient."),
    _option("--pgd-steps", int, "Steps of the attack in adversarial training; default 10."),
    _option("--augment/--no-augment", bool, "Random crop and flip.", is_flag=True),
    _option("--seed", int, "Of weights, batches and random methods; default 0."),
    _option("--device", str, "cpu, cuda or cuda:N; default cuda where there is one."),
    _option("--capture/--no-capture", bool, "On a GPU: replay each step as one CUDA graph.", is_flag=True),
    _option("--data-dir", click.Path(path_type=Path), "Folder of the data sets; default data."),
    _option("--limit-train", int, "Train on a stratified part of this many images."),
    _option("--limit-test", int, "Evaluate on the first images of the test set only."),
    _option("--weights", click.Path(path_type=Path), "Start from these weights (a state dict)."),
    _option("--bound-memory", int, "Largest memory for bounds, in MiB."),
    _option("--engine", click.Choice(ENGINES), "Whose passes compute bounds: this project's (default), or auto_LiRPA's."),
    _option("--checkpoint-every", str, "Like 2epochs or 500steps; default 1epochs."),
    _option("--analyze/--no-analyze", bool, "Measure continuity, sensitivity and tightness along the way.", is_flag=True),
    _option("--analyze-every", int, "Epochs between measurements; default 1."),
    _option("--analyze-budget", float, "Largest share of the training time for them, in %; default 10."),
    click.option("--allow-unsound", is_flag=True, default=None, help="Train with a relaxation that bounds nothing."),
)


def _with_settings(function: _Command) -> _Command:
    for option in reversed(_SETTINGS):
        function = option(function)
    return function


@click.command(context_settings={"max_content_width": 120})
@click.option(
    "--method",
    "method_name",
    default=None,
    help='Like IBP or CROWN-Soft:gamma=1; "list" prints all. Default CROWN-IBP.',
)
@click.option(
    "--plugin",
    "plugin_paths",
    multiple=True,
    type=click.Path(path_type=Path),
    help="Python file with relaxations of your own.",
)
@_with_settings
@click.option(
    "--out",
    "--run-dir",
    "out",
    type=click.Path(path_type=Path),
    default=None,
    help="Run folder; default runs/DATASET-MODEL-METHOD-….",
)
@click.option("--resume", is_flag=True, help="Go on with the run in the folder; start it when there is none.")
@click.option("--debug", is_flag=True, help="Show tracebacks of user errors.")
def command(
    method_name: str | None,
    plugin_paths: tuple[Path, ...],
    out: Path | None,
    resume: bool,
    debug: bool,
    **settings: object,
) -> None:
    """Train a network with certified bounds, then measure its natural, PGD and certified accuracy.

    What is not given comes from the paper's recipe for the method and the network, scaled to
    --epochs. On resuming, the folder's own settings hold.
    """
    del debug  # read where errors become exit codes
    if method_name == "list":
        click.echo(list_methods(Registry.load(plugin_paths)))
        return
    given = {name: value for name, value in settings.items() if value is not None}
    with connect(os.environ, str(given.get("device", default_device()))) as world:
        if not world.is_writer:
            assist(world)
            return
        out, config, held = settle(out, resume, given, method_name, plugin_paths)
        result = finished_result(out) if held else None
        world.share(json.dumps({"out": str(out), "config": config.to_json(), "held": held, "done": result is not None}))
        if result is not None:
            click.echo(f"{out} is finished already", err=True)
        else:
            saved = held and (out / checkpoint.FILE_NAME).exists()
            prepared = prepare(config, load_registry(config), world, initial=not saved)
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


def settle(
    out: Path | None,
    resume: bool,
    given: Mapping[str, object],
    method_name: str | None,
    plugin_paths: Sequence[Path],
) -> tuple[Path, Config, bool]:
    """The run's folder, its config, and whether the folder holds the run already.

    Raises UserError when the options do not fit together or do not fit what the folder holds.
    """
    config = None
    if out is None or not (resume and holds_run(out)):
        config = new_config(given, method_name, plugin_paths)
        out = Path("runs") / config.run_name if out is None else out
    held = holds_run(out)
    if held and not resume:
        refuse_held(out)
    if held:
        config = resumed_config(read_config(out), given, method_name, plugin_paths)
    elif resume:
        click.echo(f"nothing to resume in {out}: starting a new run", err=True)
    assert config is not None
    return out, config, held


def new_config(given: Mapping[str, object], method_name: str | None, plugin_paths: Sequence[Path]) -> Config:
    """The config that options ask for; raises UserError when they do not fit."""
    plugins = tuple(PluginFile.read(path) for path in plugin_paths)
    method = Registry.load(plugin_paths).get_method(method_name or "CROWN-IBP")
    return resolve({**given, "method": method.label, "plugins": plugins}, method)


def resumed_config(
    stored: Config, given: Mapping[str, object], method_name: str | None, plugin_paths: Sequence[Path]
) -> Config:
    """The stored config; raises UserError when an option asks for another run than the stored one."""
    registry = load_registry(stored)
    label = registry.get_method(method_name).label if method_name else stored.method
    if label != stored.method:
        raise UserError(f"the folder holds a run of {stored.method}, not {label}: choose another folder with --out")
    for path in plugin_paths:
        if PluginFile.read(path) not in stored.plugins:
            raise UserError(f"the folder's run does not use the plugin {path}: choose another folder with --out")
    wanted = resolve({**given, "plugins": stored.plugins}, registry.get_method(label))
    for name in given:
        if name not in _FREE_ON_RESUME and getattr(wanted, name) != getattr(stored, name):
            raise UserError(
                f"--{name.replace('_', '-')} {getattr(wanted, name)} differs from the folder's run, which has "
                f"{getattr(stored, name)}: leave it out to resume, or choose another folder with --out"
            )
    return replace(stored, **{name: getattr(wanted, name) for name in _FREE_ON_RESUME if name in given})


def list_methods(registry: Registry) -> str:
    """The methods with their one-line summaries, and where those from outside come from."""
    width = max(len(method.label) for method in registry.values())
    lines = []
    for name, method in registry.items():
        origin = "" if registry.is_builtin(name) else f"  [{registry.source(name)}]"
        lines.append(f"{method.label:<{width}}  {method.summary}{origin}")
    return "\n".join(lines)


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command line and returns its exit code."""
    return invoke(command, argv, "python -m plugin.train")


if __name__ == "__main__":
    sys.exit(main())
