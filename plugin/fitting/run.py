"""One training run from its config to its result, with a folder or without one."""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from torch import Tensor, nn

from newrelax.bounds import BoundedNetwork
from newrelax.checks.soundness import find_counterexample
from newrelax.errors import UserError
from newrelax.methods.method import Method
from newrelax.registry import Registry
from plugin.callbacks.checkpoint import Checkpoints
from plugin.callbacks.metrics import Metrics
from plugin.callbacks.progress import Progress
from plugin.callbacks.tensorboard import TensorBoard
from plugin.callbacks.validation import Validation
from plugin.certification.evaluation import certifying_method
from plugin.certification.region import Region
from plugin.data import Dataset
from plugin.fitting.datasets import load_dataset
from plugin.fitting.outcome import conclude
from plugin.models.build import build
from plugin.models.weights import load_weights
from plugin.process.device import check_device
from plugin.process.distributed import process_device
from plugin.process.interrupt import Interrupted, StopRequest
from plugin.process.world import World
from plugin.runs import checkpoint
from plugin.runs.folder import RunFolder
from plugin.settings.config import GIVEN, Config, PluginFile
from plugin.training.callback import Callback
from plugin.training.loop import TrainState, train
from plugin.training.starts import draw, read_start

_log = logging.getLogger(__name__)


def load_registry(config: Config) -> Registry:
    """The registry that a run's config needs. Raises UserError when a plugin file has changed."""
    for plugin in config.plugins:
        if PluginFile.read(plugin.path) != plugin:
            raise UserError(f"plugin {plugin.path} changed since the run started: restore it, or start another run with --out")
    return Registry.load([plugin.path for plugin in config.plugins])


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
    """A run at its start, before anything is written. sound: whether the method's lines bound their activations."""

    state: TrainState
    registry: Registry
    sound: bool

    @property
    def certifier(self) -> Method:
        """The method that certifies what the run trains; an estimate where a relaxation does not bound."""
        return certifying_method(self.state.method, self.registry)


def prepare(
    config: Config,
    registry: Registry,
    world: World | None = None,
    *,
    initial: bool = True,
    model: nn.Module | None = None,
    dataset: Dataset | None = None,
) -> Prepared:
    """Data, network and optimiser of a run. Raises UserError for whatever does not exist or fit.

    initial: false when a checkpoint will give the weights, and `config.weights` need not be there any more. model, dataset:
    in place of what the config names.
    """
    world = World() if world is None else world
    if config.capture and world.size > 1:
        raise UserError("--capture: gradients that processes add up cannot be recorded; use it with a single process")
    device = check_device(config.device)
    if world.size > 1:
        device = process_device(os.environ, device.type)
    method = registry.get_method(config.method)
    sound = check_soundness(method, config.allow_unsound)
    if not sound:
        method = replace(method, sound=False)
    certifier = certifying_method(method, registry)
    if not certifier.gives_bounds:
        raise UserError(f"{method.label}: expected a method that bounds, or certify_with naming one, got {certifier.label}")
    _refuse_absent(config, model, dataset)
    dataset = load_dataset(config, registry, device) if dataset is None else dataset.to(device)
    check_data(config, dataset)
    if model is None:
        model = build(config.model, dataset.input_shape, dataset.classes, dataset.mean, dataset.std, seed=config.seed)
    draw(read_start(config.init, registry), model, config.seed)
    if config.weights is not None and initial:
        load_weights(model, config.weights)
    if not method.gives_bounds:  # others trace the model at their start; these only when they certify
        BoundedNetwork(model, dataset.input_shape, certifier, engine=config.engine, operators=registry.operators)
    return Prepared(TrainState.create(config, method, model.to(device), dataset, world, registry), registry, sound)


def check_data(config: Config, dataset: Dataset) -> None:
    """Raises UserError for a radius that the data has no room for, and for augmentation of what are no images."""
    if config.augment and len(dataset.input_shape) != 3:
        raise UserError(f"--augment crops images: expected inputs [channels, height, width], got {dataset.input_shape}")
    region = Region.by(config.eps_unit, dataset.data_range)
    region.check(config.eps)
    region.check(config.train_eps, "train-eps")
    if config.eps_unit == "input" and dataset.data_range is not None and isinstance(dataset.widths, Tensor):
        covered = int((dataset.widths < config.eps).sum())
        if covered:
            _log.warning(
                "eps %g is wider than the whole range of %d of %d features: --eps-unit range makes it a share of each range",
                config.eps,
                covered,
                dataset.widths.numel(),
            )


def _refuse_absent(config: Config, model: nn.Module | None, dataset: Dataset | None) -> None:
    for name, given in (("model", model), ("dataset", dataset)):
        if getattr(config, name) == GIVEN and given is None:
            raise UserError(f"the run's {name} was given from Python: go on from there with plugin.fit(…, out=…, resume=True)")


def train_along(prepared: Prepared, out: Path, *, resume: bool, stop: StopRequest) -> None:
    """Trains as one of several processes that leaves files and evaluation to rank 0."""
    path = out / checkpoint.FILE_NAME
    if resume and path.exists():
        checkpoint.restore(path, prepared.state)
    train(prepared.state, stop=stop)


def run(
    prepared: Prepared,
    folder: RunFolder | None,
    *,
    resume: bool = False,
    stop: StopRequest | None = None,
    callbacks: Sequence[Callback] = (),
    progress: bool = True,
) -> dict[str, object]:
    """Trains, evaluates on the whole test set and writes the result, which it returns.

    Goes on from the folder's checkpoint when `resume` is true and there is one. Without a folder nothing is written.
    callbacks: beside the run's own and those that plugins bring.
    """
    state = prepared.state
    if resume and folder is not None and folder.checkpoint.exists():
        checkpoint.restore(folder.checkpoint, state)
    hooks = [*_own_callbacks(prepared, folder, progress), *_from_plugins(prepared.registry), *callbacks]
    if folder is not None:
        # Last, so that other files are never behind the checkpoint; the analysis after it, since it may take long.
        hooks.append(Checkpoints(folder.checkpoint, state.config.checkpoint_interval()))
        hooks += _analysis(state, folder, hooks)
    try:
        train(state, hooks, stop)
        if stop is not None:
            stop.strike_now()
        result = conclude(prepared, hooks, progress=progress)
        if folder is not None:
            folder.write_model(state.model)
        for callback in hooks:
            callback.on_end(state, result)
        if folder is not None:
            folder.write_result(result)
    except Interrupted as stopped:
        if folder is None:
            raise
        raise Interrupted(stopped.signal, f"{stopped}; saved in {folder.path}, continue with --resume") from None
    finally:
        for callback in hooks:
            callback.close()
    return result


def _own_callbacks(prepared: Prepared, folder: RunFolder | None, progress: bool) -> list[Callback]:
    board = None if folder is None else TensorBoard(folder.path)
    hooks: list[Callback] = []
    if folder is not None and board is not None:
        hooks += [Metrics(folder), board]
    validation = None
    if prepared.state.dataset.validation_y is not None:
        validation = Validation(prepared.certifier, board, None if folder is None else folder.path)
        hooks.append(validation)
    return [*hooks, Progress(validation=validation)] if progress else hooks


def _analysis(state: TrainState, folder: RunFolder, hooks: Sequence[Callback]) -> list[Callback]:
    if not state.config.analyze:
        return []
    from plugin.callbacks.analysis import Analysis  # brings matplotlib, which other runs need not wait for

    board = next(hook for hook in hooks if isinstance(hook, TensorBoard))
    return [Analysis(board, folder.path, state.config.analyze_every, state.config.analyze_budget)]


def _from_plugins(registry: Registry) -> list[Callback]:
    """A fresh one of each callback class that a plugin brings."""
    kinds = [value for _, value in registry.extensions if isinstance(value, type) and issubclass(value, Callback)]
    return [kind() for kind in kinds]
