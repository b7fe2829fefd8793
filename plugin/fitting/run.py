"""One training run from its config to its result, in a folder."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from newrelax.bounds import BoundedNetwork
from newrelax.checks.soundness import find_counterexample
from newrelax.errors import UserError
from newrelax.methods.method import Method
from newrelax.registry import Registry
from plugin.callbacks.base import Callback
from plugin.callbacks.checkpoint import Checkpoints
from plugin.callbacks.metrics import Metrics
from plugin.callbacks.progress import Progress
from plugin.callbacks.tensorboard import TensorBoard
from plugin.certification.evaluation import certifying_method
from plugin.data.builtin import load
from plugin.fitting.outcome import conclude
from plugin.models.build import build, load_weights
from plugin.process.distributed import process_device
from plugin.process.interrupt import Interrupted, StopRequest
from plugin.process.world import World
from plugin.runs import checkpoint
from plugin.runs.folder import RunFolder
from plugin.settings.config import Config, PluginFile
from plugin.training.loop import TrainState, train


def load_registry(config: Config) -> Registry:
    """The registry that a run's config needs. Raises UserError when a plugin file has changed."""
    for plugin in config.plugins:
        if PluginFile.read(plugin.path) != plugin:
            raise UserError(f"plugin {plugin.path} changed since the run started: restore it, or start another run with --out")
    return Registry.load([plugin.path for plugin in config.plugins])


def check_device(name: str) -> torch.device:
    """The device of that name. Raises UserError when this machine or this program has none."""
    try:
        device = torch.device(name)
    except RuntimeError:
        raise UserError(f"unknown device {name!r}: expected cpu, cuda or cuda:N") from None
    if device.type not in ("cpu", "cuda"):
        raise UserError(f"device {name!r} is not supported: expected cpu, cuda or cuda:N")
    if device.type == "cuda":
        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if count == 0:
            raise UserError(f"--device {name}: this machine has no CUDA device; use --device cpu")
        if (device.index or 0) >= count:
            raise UserError(f"--device {name}: this machine's CUDA devices are cuda:0 to cuda:{count - 1}")
    return device


def check_soundness(method: Method, allow_unsound: bool) -> bool:
    """Whether the method's lines bound their activations; raises UserError when not and that is not allowed."""
    found = next((found for part in method.relaxations if (found := find_counterexample(part)) is not None), None)
    if found is None and all(part.sound for part in method.relaxations):
        return True
    if not allow_unsound:
        raise UserError(
            f"{method.label} is not sound: {found or 'it says so itself'}; "
            "--allow-unsound trains with it all the same, and certifies nothing"
        )
    return False


@dataclass(frozen=True)
class Prepared:
    """A run at its start, before anything is written. ``sound``: whether the method's lines bound ReLU."""

    state: TrainState
    registry: Registry
    sound: bool


def prepare(config: Config, registry: Registry, world: World | None = None, *, initial: bool = True) -> Prepared:
    """Data, network and optimiser of a run. Raises UserError for whatever does not exist or fit.

    ``initial`` false: a checkpoint will give the weights, ``config.weights`` need not be there any more.
    """
    world = World() if world is None else world
    if config.capture and world.size > 1:
        raise UserError("--capture: gradients that processes add up cannot be recorded; use it with a single process")
    device = process_device(os.environ, check_device(config.device).type) if world.size > 1 else check_device(config.device)
    method = registry.get_method(config.method)
    sound = check_soundness(method, config.allow_unsound)
    if not sound:
        method = replace(method, sound=False)
    certifier = certifying_method(method, registry)
    if not certifier.gives_bounds:
        raise UserError(f"{method.label}: expected a method that bounds, or certify_with naming one, got {certifier.label}")
    dataset = load(config.dataset, config.data_dir, device, limit_train=config.limit_train, seed=config.seed)
    model = build(config.model, dataset.input_shape, dataset.classes, dataset.mean, dataset.std, seed=config.seed)
    if config.weights is not None and initial:
        load_weights(model, config.weights)
    if not method.gives_bounds:  # others trace the model at their start; these only when they certify
        BoundedNetwork(model, dataset.input_shape, certifier, engine=config.engine, operators=registry.operators)
    return Prepared(TrainState.create(config, method, model.to(device), dataset, world, registry.operators), registry, sound)


def train_along(prepared: Prepared, out: Path, *, resume: bool, stop: StopRequest) -> None:
    """Trains as one of several processes that leaves files and evaluation to rank 0."""
    path = out / checkpoint.FILE_NAME
    if resume and path.exists():
        checkpoint.restore(path, prepared.state)
    train(prepared.state, stop=stop)


def run(
    prepared: Prepared,
    folder: RunFolder,
    *,
    resume: bool = False,
    stop: StopRequest | None = None,
) -> dict[str, object]:
    """Trains, evaluates on the whole test set and writes the result, which it returns.

    Goes on from the folder's checkpoint when ``resume`` is true and there is one.
    """
    state = prepared.state
    if resume and folder.checkpoint.exists():
        checkpoint.restore(folder.checkpoint, state)
    board = TensorBoard(folder.path)
    callbacks: list[Callback] = [Metrics(folder), board, Progress()]
    callbacks.append(Checkpoints(folder.checkpoint, state.config.checkpoint_interval()))
    if state.config.analyze:
        from plugin.callbacks.analysis import Analysis  # brings matplotlib, which other runs need not wait for

        callbacks.append(Analysis(board, folder.path, state.config.analyze_every, state.config.analyze_budget))
    try:
        train(state, callbacks, stop)
        if stop is not None:
            stop.strike_now()
        result = conclude(state, prepared.registry, prepared.sound)
        folder.write_model(state.model)
        for callback in callbacks:
            callback.on_end(state, result)
        folder.write_result(result)
    except Interrupted as stopped:
        raise Interrupted(stopped.signal, f"{stopped}; saved in {folder.path}, continue with --resume") from None
    finally:
        for callback in callbacks:
            callback.close()
    return result
