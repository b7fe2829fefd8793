"""Training from Python: `plugin.fit(model, data, method="CROWN-IBP", eps=0.1)`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from newrelax.errors import UserError
from newrelax.methods.method import Method
from newrelax.precision import full_precision
from newrelax.registry import Registry
from plugin.certification.given import find_method
from plugin.data import Dataset
from plugin.fitting.datasets import DataTraits, data_traits, load_dataset, part_of
from plugin.fitting.given import check_callbacks, check_fits, check_network, check_settings, read_data
from plugin.fitting.outcome import table
from plugin.fitting.resolve import resolve
from plugin.fitting.run import Prepared, prepare, run
from plugin.models.weights import load_weights
from plugin.process.interrupt import StopRequest
from plugin.runs.folder import MODEL, RunFolder, finished_result, holds_run, read_config
from plugin.settings.config import GIVEN, RESUMABLE, Config
from plugin.training.callback import Callback, EpochInfo
from plugin.training.loop import TrainState

Data = str | Path | Dataset | Sequence[Tensor] | Mapping[str, Any]


@dataclass(frozen=True)
class Result:
    """What `fit` gives: the trained network, its accuracies (fractions), and how training went.

    values: all of result.json. history: a line for each epoch of this call, as in metrics.jsonl. folder: of the run, or None
    when nothing was kept.
    """

    model: nn.Module
    values: Mapping[str, Any]
    history: Sequence[Mapping[str, Any]] = ()
    folder: Path | None = None

    @property
    def natural_accuracy(self) -> float:
        return float(self.values["natural_accuracy"])

    @property
    def pgd_accuracy(self) -> float:
        return float(self.values["pgd_accuracy"])

    @property
    def certified_accuracy(self) -> float | None:
        """None for a method that only estimates."""
        value = self.values["certified_accuracy"]
        return None if value is None else float(value)

    def __str__(self) -> str:
        return table(self.values)


@dataclass
class History(Callback):
    """Keeps the epochs' lines."""

    lines: list[dict[str, object]] = field(default_factory=list)

    def on_epoch(self, state: TrainState, info: EpochInfo) -> None:
        self.lines.append(info.record())


def fit(
    model: nn.Module | str,
    data: Data,
    method: str | Method = "CROWN-IBP",
    eps: float | None = None,
    *,
    out: Path | str | None = None,
    resume: bool = False,
    callbacks: Sequence[Callback] = (),
    plugins: Sequence[Path | str] = (),
    progress: bool = True,
    **settings: Any,
) -> Result:
    """Train a network with certified bounds, then measure its natural, PGD and certified accuracy on the test set.

    Args:
        model: a network of your own, trained in place, or the name of one ("CONV", "package.module:factory").
        data: a `plugin.data.Dataset`, a name or path as for `--dataset`, or x_train, y_train, x_test, y_test as a sequence
            or by name.
        method: as for `--method`.
        eps: radius of the L∞ ball, in input units unless `eps_unit="range"`; the data set's own where it has one.
        out: a run folder to keep; by default nothing is written. resume: go on with the run in it.
        callbacks: hooks of the loop, `plugin.Callback`s. plugins: files with nouns of your own.
        progress: whether to show a bar (in a terminal or a notebook).
        settings: every option of `python -m plugin.train`, with _ for -: epochs, batch_size, kappa, loss, seed, ….

    Raises:
        UserError: in one line, for whatever does not exist or fit; also when the loss stops being finite.
        Interrupted: a signal asked to stop.
    """
    if resume and out is None:
        raise UserError("resume: expected the folder of the run to go on with, got none; give out=")
    check_network(model)
    check_callbacks(callbacks)
    check_settings(settings, plugins)
    chosen, registry = find_method(method, Registry.load(plugins))
    given: dict[str, Any] = {**settings, "plugins": tuple(plugins), "model": GIVEN if isinstance(model, nn.Module) else model}
    if eps is not None:
        given["eps"] = eps
    if isinstance(data, Path):
        data = str(data.expanduser().absolute())
    if isinstance(data, str):
        dataset, traits = None, data_traits(data, registry)
        given["dataset"] = data
    else:
        dataset, traits = read_data(data), DataTraits(GIVEN)
    config = resolve(given, chosen, registry, traits)
    dataset = load_dataset(config, registry, "cpu") if dataset is None else part_of(dataset, config)
    if isinstance(model, nn.Module):
        check_fits(model, dataset)
    folder = None if out is None else Path(out)
    if folder is None and config.analyze:
        raise UserError("analyze: expected a run folder to write into, got none; give out=")
    held = folder is not None and resume and holds_run(folder)
    if held and folder is not None:
        refuse_other(read_config(folder), config)
    with full_precision():
        prepared = prepare(
            config,
            registry,
            model=model if isinstance(model, nn.Module) else None,
            dataset=dataset,
        )
        history = History()
        if folder is None:
            values = run(prepared, None, callbacks=[history, *callbacks], progress=progress)
        else:
            with RunFolder.reopen(folder) if held else RunFolder.create(folder, config) as opened:
                values = _run_in(opened, prepared, held, [history, *callbacks], progress)
    return Result(prepared.state.model, values, tuple(history.lines), folder)


def _run_in(
    folder: RunFolder, prepared: Prepared, resume: bool, callbacks: Sequence[Callback], progress: bool
) -> dict[str, object]:
    """Trains in a folder, or goes on, or reads what is finished already."""
    done = finished_result(folder.path) if resume else None
    if done is not None:
        load_weights(prepared.state.model, folder.path / MODEL)
        return done
    with StopRequest() as stop:
        return run(prepared, folder, resume=resume, stop=stop, callbacks=callbacks, progress=progress)


def refuse_other(stored: Config, wanted: Config) -> None:
    """Raises UserError where a folder holds another run than the wanted one."""
    for name in Config.model_fields:
        if name not in RESUMABLE and getattr(stored, name) != getattr(wanted, name):
            raise UserError(
                f"{name} {getattr(wanted, name)!r} differs from the folder's run, which has {getattr(stored, name)!r}: "
                "give the same to resume, or choose another folder"
            )
