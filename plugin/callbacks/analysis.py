"""Continuity, sensitivity and tightness of the certified loss, measured while it is trained."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from newrelax.errors import UserError
from plugin.analysis import figures
from plugin.analysis.allowance import Allowance
from plugin.analysis.measure import Protocol, evaluations, measure
from plugin.analysis.probe import Analysed
from plugin.analysis.sensitivity import weight_slopes
from plugin.callbacks.tensorboard import TensorBoard
from plugin.process.files import no_space_is_user_error, write_atomically
from plugin.training.callback import Callback, EpochInfo, StepInfo
from plugin.training.loop import TrainState
from plugin.training.schedule import Values

RECORDS = "analysis.jsonl"
ORDER = ("tightness", "sensitivity", "continuity")
"""Cheapest first; after that, whatever was measured longest ago."""
TRIAL_STEPS = 20
"""Timing the first evaluation of the probe, tracing included, is taken to cost as much as this many training steps."""

_SCALARS = {
    "continuity": ("continuous", "largest_jump", "jumps_per_unit", "narrowest_change", "unexplored"),
    "sensitivity": ("insensitive", "curved_share", "order", "relative_slope", "unpredicted"),
    "tightness": ("gap",),
}
"""Figures of the records of plugin.analysis that become scalars "MEASUREMENT/FIGURE"; verdicts are 1 (✓) or 0 (✗)."""

_log = logging.getLogger(__name__)


class Analysis(Callback):
    """Measures the loss that is being trained: the method's certified loss at the present ε and β.

    The probe is fixed: images of the training set, unaugmented. Nothing is measured while there is no certified loss
    in training (κ = 1, or ε = 0). Each of the three measurements is due `every` epochs; together they may take
    `percent` of the training time so far. What does not fit waits until it does, longest unmeasured first, and
    "analysis/postponed" is 1 for that epoch. Everything runs on copies of the network and leaves random streams as
    they were. Goes after the checkpoints, so that a kill during a measurement costs no training.
    """

    def __init__(
        self,
        board: TensorBoard,
        folder: Path,
        every: int,
        percent: float,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self._board, self._path, self._every = board, folder / RECORDS, every
        self._allowance = Allowance(percent, clock=clock)
        self._lines: list[dict[str, Any]] = []
        self._measured: dict[str, int] = {}
        self._costs: dict[str, float] = {}
        self._evaluation: float | None = None
        self._before: list[Tensor] | None = None

    def on_start(self, state: TrainState) -> None:
        text = self._path.read_text() if self._path.exists() else ""
        lines = [json.loads(line) for line in text.splitlines()]
        self._lines = [line for line in lines if line["epoch"] <= state.epoch]
        for line in self._lines:
            self._measured[line["measurement"]] = line["epoch"]
            self._costs[line["measurement"]] = line["seconds"]
            self._allowance.spent = line["seconds_so_far"]

    def on_step(self, state: TrainState, info: StepInfo) -> None:
        if state.epoch_step == state.steps_per_epoch - 1:
            self._before = [p.detach().clone() for p in state.model.parameters() if p.requires_grad]

    def on_epoch(self, state: TrainState, info: EpochInfo) -> None:
        if info.values.kappa == 1 or info.values.eps <= 0:
            return
        postponed = False
        for name in sorted(ORDER, key=lambda n: self._measured.get(n, 0)):
            if state.epoch - self._measured.get(name, -self._every) < self._every:
                continue
            if not self._affordable(name, state, info.values):
                postponed = True
                break
            self._measure(name, state, info.values)
        share = 100 * self._allowance.spent / max(state.seconds, 1e-9)
        self._board.write({"analysis/postponed": float(postponed), "analysis/percent_of_training": share}, state.epoch)

    def on_trained(self, state: TrainState) -> None:
        missing = [name for name in ORDER if name not in self._measured]
        if missing:
            _log.warning(
                "--analyze: no time for %s within %g %% of the training time; raise --analyze-budget",
                ", ".join(missing),
                self._allowance.percent,
            )

    def _protocol(self, state: TrainState, values: Values) -> Protocol:
        """Small, so that it is repeated often; plugin.analyze takes more of everything."""
        return Protocol(
            eps=float(values.eps),
            probe=2,
            budget=300,
            single_weights=2,
            random_lines=1,
            weight_lines=False,
            images=20,
            step=min(0.01, state.config.eps / 10),
            learning_rate=float(values.lr),
            seed=state.config.seed,
        )

    def _analysed(self, state: TrainState, values: Values) -> Analysed:
        """The loss that is being trained."""
        return Analysed(state.method, state.loss, state.learner.region, state.bounding, float(values.beta))

    def _probe(self, state: TrainState, images: int) -> tuple[Tensor, Tensor]:
        """Evenly spaced images of the training set (parts of it are sorted by class), and their classes."""
        size = len(state.dataset.train_y)
        chosen = torch.arange(min(images, size), device=state.device) * size // min(images, size)
        return state.dataset.train_x[chosen], state.dataset.train_y[chosen]

    def _affordable(self, name: str, state: TrainState, values: Values) -> bool:
        cost = self._costs.get(name)
        if cost is None:
            if self._evaluation is None:
                if not self._allowance.covers(TRIAL_STEPS * state.seconds / state.step, state.seconds):
                    return False
                self._evaluation = self._timed_evaluation(state, values)
            parameters = sum(1 for p in state.model.parameters() if p.requires_grad)
            cost = self._evaluation * evaluations(name, self._protocol(state, values), parameters)
        return self._allowance.covers(cost, state.seconds)

    @contextmanager
    def _measuring(self, state: TrainState) -> Iterator[None]:
        """Time inside counts against the allowance; random streams come out as they went in."""
        devices = [state.device] if state.device.type == "cuda" else []
        with self._allowance.spending(), torch.random.fork_rng(devices):
            yield

    def _timed_evaluation(self, state: TrainState, values: Values) -> float:
        """Seconds of one evaluation of the probe's certified loss, the second one: the first warms up."""
        protocol = self._protocol(state, values)
        with self._measuring(state):
            probe = protocol.make_probe(state.model, self._analysed(state, values), *self._probe(state, protocol.images))
            weight_slopes(probe.loss, probe.parameters)
        with self._measuring(state), torch.no_grad():
            float(probe.loss())
        return self._allowance.last

    def _measure(self, name: str, state: TrainState, values: Values) -> None:
        protocol = self._protocol(state, values)
        x, y = self._probe(state, protocol.images)
        record: dict[str, Any] = {}
        with self._measuring(state):
            try:
                analysed = self._analysed(state, values)
                record = measure(name, state.model, analysed, x, y, protocol, step=self._last_step(state))
                self._show(name, record, state, protocol, analysed)
            except (UserError, ValueError) as problem:  # a loss that is infinite somewhere is no reason to stop
                _log.warning("epoch %d, %s was not measured: %s", state.epoch, name, problem)
        self._measured[name], self._costs[name] = state.epoch, self._allowance.last
        kept = {key: value for key, value in record.items() if not isinstance(value, list)}
        self._lines.append(
            {
                "epoch": state.epoch,
                "step": state.step,
                "measurement": name,
                "eps": values.eps,
                "beta": values.beta,
                **kept,
                "seconds": self._allowance.last,
                "seconds_so_far": self._allowance.spent,
            }
        )
        write_atomically(self._path, "".join(json.dumps(line) + "\n" for line in self._lines).encode())

    def _last_step(self, state: TrainState) -> list[Tensor] | None:
        """What the optimiser's last step added to each trained parameter; None where its start was not seen."""
        if self._before is None:
            return None
        now = [p.detach() for p in state.model.parameters() if p.requires_grad]
        return [after - before for after, before in zip(now, self._before, strict=True)]

    def _show(self, name: str, record: Mapping[str, Any], state: TrainState, protocol: Protocol, analysed: Analysed) -> None:
        scalars = {f"{name}/{key}": record[key] for key in _SCALARS[name]}
        if name == "tightness":
            # What does not bound is an estimate by name, too.
            scalars[f"tightness/{state.meter.names[-1]}_radius"] = record["radius"]
        self._board.write({tag: float(value) for tag, value in scalars.items() if value is not None}, state.epoch)
        with no_space_is_user_error(self._path.parent):
            if name == "continuity":
                picture = figures.lines({state.method.label: {"continuity": record}})
                self._board.writer.add_figure("continuity/loss_along_a_line", picture, state.epoch, close=False)
            elif name == "sensitivity":
                probe = protocol.make_probe(state.model, analysed, *self._probe(state, protocol.images))
                for parameter, slopes in zip(probe.names, weight_slopes(probe.loss, probe.parameters), strict=True):
                    self._board.writer.add_histogram(f"slopes/{parameter}", slopes, state.epoch)
