"""The training loop: the only one, for every method and device."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor, nn

from newrelax.methods.method import Method
from newrelax.registry import Registry
from plugin.certification.bounding import TRAINING_MEMORY, Bounding
from plugin.certification.region import Region
from plugin.data import Dataset, batches
from plugin.process.interrupt import Interrupted, StopRequest
from plugin.process.world import World
from plugin.settings.config import Config
from plugin.training.averaging import Average, read_averaging
from plugin.training.callback import Callback, EpochInfo, StepInfo
from plugin.training.capture import CapturedSteps
from plugin.training.finite import FiniteGuard, NonFiniteLoss, Step, first_offender
from plugin.training.losses.base import Batch, Learner, Loss, Terms, l1_norm
from plugin.training.losses.catalogue import read_loss
from plugin.training.losses.given import take_terms
from plugin.training.meter import Meter, StepSums
from plugin.training.regularizers import Regularized, read_regularizer
from plugin.training.scalars import Scalar
from plugin.training.schedule import Schedule, Values
from plugin.training.smoothing.base import FIGURES, Smoothing
from plugin.training.smoothing.catalogue import read_smoothing
from plugin.training.smoothing.noise import stream
from plugin.training.smoothing.step import smoothed_step

# What the loss does not need (crossing neurons, natural accuracy when κ = 0) is measured every so
# many steps of an epoch, from its first on, which keeps its cost at a few percent.
OBSERVE_EVERY = 8


@dataclass
class TrainState:
    """A run in progress: what the loop changes and what callbacks may read.

    `step` and `epoch` count finished ones, `epoch_step` the finished steps of the present
    epoch; `seconds` is the training time so far. `order` draws the batches; `order_at_epoch`
    is its state when the epoch began, from which a resumed run repeats the epoch's order.
    `captured` replays steps as CUDA graphs; None takes each as it is. `average` gathers the weights that are kept.
    `smoothing` estimates a step's gradient from losses at noisy weights; None takes the gradient.
    """

    config: Config
    method: Method
    model: nn.Module
    learner: Learner
    loss: Loss
    bounding: Bounding
    optimizer: torch.optim.Optimizer
    schedule: Schedule
    dataset: Dataset
    device: torch.device
    meter: Meter
    guard: FiniteGuard
    order: torch.Generator
    order_at_epoch: Tensor
    average: Average | None = None
    captured: CapturedSteps[Taken] | None = None
    smoothing: Smoothing | None = None
    world: World = field(default_factory=World)
    scalars: tuple[Scalar, ...] = ()
    step: int = 0
    epoch: int = 0
    epoch_step: int = 0
    seconds: float = 0.0

    @classmethod
    def create(
        cls,
        config: Config,
        method: Method,
        model: nn.Module,
        dataset: Dataset,
        world: World | None = None,
        registry: Registry | None = None,
    ) -> TrainState:
        """A run at its start, on the device that `model` and `dataset` are on.

        Seeds torch's global streams, which random methods (attacks, random slopes) draw from.
        """
        registry = Registry.load() if registry is None else registry
        device = dataset.train_x.device
        torch.manual_seed(config.seed)
        order = torch.Generator(device).manual_seed(config.seed)
        memory = config.bound_memory or (TRAINING_MEMORY if device.type == "cpu" else None)
        bounding = Bounding(config.engine, memory, registry.operators)
        net = bounding.network(model, dataset.input_shape, method)
        optimizer = make_optimizer(config, model)
        loss = read_loss(config.loss, registry)
        loss.check(method)
        if config.regularizer is not None:
            regularizer = read_regularizer(config.regularizer, registry)
            loss = Regularized(loss=loss, regularizer=regularizer, target=config.train_eps)
        average = None
        if config.average is not None:
            averaging = read_averaging(config.average, registry)
            start = round(averaging.from_ * config.epochs * steps_per_epoch(config, dataset))
            average = Average(averaging, model, start)
        smoothing = None if config.smoothing is None else read_smoothing(config.smoothing, registry)
        return cls(
            config=config,
            method=method,
            model=model,
            learner=Learner(net, Region.by(config.eps_unit, dataset.data_range)),
            loss=loss,
            bounding=bounding,
            optimizer=optimizer,
            schedule=Schedule.from_config(config, steps_per_epoch(config, dataset)),
            dataset=dataset,
            device=device,
            meter=Meter(device, loss.terms(method), () if smoothing is None else FIGURES),
            guard=FiniteGuard(optimizer, device),
            order=order,
            order_at_epoch=order.get_state(),
            average=average,
            captured=CapturedSteps(config.batch_size, device) if config.capture else None,
            smoothing=smoothing,
            world=World() if world is None else world,
            scalars=tuple(value for _, value in registry.extensions if isinstance(value, Scalar)),
        )

    @property
    def steps_per_epoch(self) -> int:
        return steps_per_epoch(self.config, self.dataset)

    def evaluated(self) -> AbstractContextManager[None]:
        """Inside, the model is what would be evaluated now: with the average's weights where there is one."""
        return nullcontext() if self.average is None else self.average.installed(self.dataset.train_x)

    @property
    def total_steps(self) -> int:
        return self.config.epochs * self.steps_per_epoch

    def check_finite(self) -> None:
        """Raises `NonFiniteLoss` when a step so far was bad. Waits for the device."""
        bad = self.guard.bad_step()
        if bad is not None:
            raise NonFiniteLoss(
                f"step {bad.number} (epoch {bad.number // self.steps_per_epoch + 1}): the loss or its gradient is "
                f"not finite; first offending layer: {first_offender(self.learner, self.loss, bad)}; "
                "the last good checkpoint is kept; try a smaller --lr or --clip-grad 10"
            )

    def check_weights(self) -> None:
        """Raises `NonFiniteLoss` when the last update, of a finite loss, overflowed. Waits for the device."""
        for name, tensor in self.model.state_dict().items():
            if not torch.isfinite(tensor).all():
                raise NonFiniteLoss(
                    f"step {self.step - 1}: its update made the network not finite; first offending layer: {name}; "
                    "the last good checkpoint is kept; try a smaller --lr"
                )


def steps_per_epoch(config: Config, dataset: Dataset) -> int:
    """Optimiser steps an epoch; the last batch may be smaller."""
    return -(-len(dataset.train_y) // config.batch_size)


def make_optimizer(config: Config, model: nn.Module) -> torch.optim.Optimizer:
    """The fused optimisers: one kernel for all weights, and they heed `found_inf` on the device."""
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    if config.optimizer == "sgd":
        return torch.optim.SGD(parameters, lr=config.lr, momentum=config.momentum, fused=True)
    # capturable on every GPU, so that the update is the same with and without --capture
    capturable = any(parameter.is_cuda for parameter in parameters)
    return torch.optim.Adam(parameters, lr=config.lr, fused=True, capturable=capturable)


def train(state: TrainState, callbacks: Iterable[Callback] = (), stop: StopRequest | None = None) -> None:
    """Trains `state` to its last epoch, from wherever it is, and leaves the model with the average where there is one.

    Raises `NonFiniteLoss` when the loss stops being finite, and `Interrupted` (after
    the callbacks had their chance to save) when `stop` was asked for.
    """
    callbacks = list(callbacks)
    for callback in callbacks:
        callback.on_start(state)
    while state.epoch < state.config.epochs:
        _train_epoch(state, callbacks, stop)
    for callback in callbacks:
        callback.on_trained(state)
    if state.average is not None:
        state.average.install(state.dataset.train_x)


def _train_epoch(state: TrainState, callbacks: list[Callback], stop: StopRequest | None) -> None:
    state.model.train()
    state.order.set_state(state.order_at_epoch)
    stream = batches(state.dataset, state.config.batch_size, state.order, state.config.augment)
    started, seconds_before, first = time.perf_counter(), state.seconds, state.epoch_step
    images = 0
    for x, y in itertools.islice(stream, first, None):
        values = state.schedule.values(state.step)
        info = train_step(state, x, y, values)
        images += len(x)
        state.step += 1
        state.epoch_step += 1
        if state.average is not None:
            state.average.update(state.step)
        if state.guard.is_due(info.step):
            state.check_finite()
        state.seconds = seconds_before + time.perf_counter() - started
        for callback in callbacks:
            callback.on_step(state, info)
        signal = state.world.agreed_stop(None if stop is None else stop.signal)
        if signal is not None:
            for callback in callbacks:
                callback.on_interrupt(state)
            raise Interrupted(signal, f"stopped after step {state.step} of {state.total_steps}")
    means = state.meter.means()
    state.check_finite()
    elapsed = time.perf_counter() - started
    state.seconds = seconds_before + elapsed
    state.epoch += 1
    state.epoch_step = 0
    state.order_at_epoch = state.order.get_state()
    state.meter = state.meter.fresh()
    epoch_info = EpochInfo(
        epoch=state.epoch,
        step=state.step,
        values=state.schedule.values(state.step - 1),
        means=means,
        seconds=state.seconds,
        images_per_second=images / elapsed,
        scalars={each.name: each(state) for each in state.scalars},
    )
    for callback in callbacks:
        callback.on_epoch(state, epoch_info)


def train_step(state: TrainState, x: Tensor, y: Tensor, values: Values) -> StepInfo:
    """One optimiser step on the batch `x`, `y` (of all processes together)."""
    step = state.step
    observe = state.epoch_step % OBSERVE_EVERY == 0
    state.world.seed_streams(state.config.seed, step)
    state.guard.remember(Step(step, x, y, values))
    if state.captured is None:
        taken = take_step(state, x, y, values, step, observe)
    else:
        taken = state.captured(partial(take_step, state), x, y, values, step, observe)
    state.meter.add(taken.total, taken.norm, taken.figures)
    return StepInfo(step, values, x, y, taken.terms, taken.total[0], taken.norm)


class Taken(NamedTuple):
    """What a step leaves on the device: its last piece's terms, its sums (StepSums.vector), its gradient's norm.

    figures: smoothing's (`Estimate.figures`), where there is any.
    """

    terms: Terms
    total: Tensor
    norm: Tensor
    figures: Tensor | None = None


def take_step(state: TrainState, x: Tensor, y: Tensor, values: Values, number: int | Tensor, observe: bool) -> Taken:
    """The device's part of step `number`: the same work for all steps of a kind (capture.py), no host in between.

    The batch goes through in `config.accumulate` pieces whose gradients add up to the whole
    batch's; only batch norm sees the pieces.
    """
    config, world = state.config, state.world
    for group in state.optimizer.param_groups:
        group["lr"] = values.lr
    # A captured step finds its gradients where they were.
    state.optimizer.zero_grad(set_to_none=state.captured is None)
    sums = StepSums(state.device, state.meter.names)
    part = world.part(len(x))
    # A process without a part goes through the same motions with an input that counts nothing.
    part, weight = (part, 1.0) if part.start < part.stop else (slice(0, 1), 0.0)
    figures = None
    if state.smoothing is not None:
        terms, figures = smoothed_step(
            state.smoothing,
            state.model,
            lambda piece: take_terms(state.loss, state.learner, piece, values),
            Batch(x[part], y[part], len(x), observe),
            weight,
            config.accumulate,
            sums,
            world,
            stream(config.seed, int(number), state.device),
            float(values.lr) / config.lr,
        )
    else:
        for piece_x, piece_y in zip(x[part].chunk(config.accumulate), y[part].chunk(config.accumulate), strict=True):
            terms = take_terms(state.loss, state.learner, Batch(piece_x, piece_y, len(x), observe), values)
            terms = replace(terms, loss=weight * terms.loss)
            terms.loss.backward()
            sums.add(terms, round(weight * len(piece_x)))
    penalty = l1_penalty(state)
    if penalty is not None and world.is_writer:
        penalty.backward()
        sums.add_loss(penalty)
    world.sum_gradients(state.model)
    total = sums.vector()
    world.sum_([total])
    norm = _gradient_norm(state.model, config.clip_grad)
    state.guard.watch(number, total[0], norm)
    state.optimizer.step()
    return Taken(terms.detached(), total, norm, figures)


def l1_penalty(state: TrainState) -> Tensor | None:
    """λ₁·Σ|weights|, or None when λ₁ is 0 or there are no weights."""
    norm = l1_norm(state.model) if state.config.l1 > 0 else None
    return None if norm is None else state.config.l1 * norm


def _gradient_norm(model: nn.Module, limit: float | None) -> Tensor:
    """The gradient's L2 norm over all weights, a scalar; clips the gradient to `limit`."""
    gradients = [p.grad for p in model.parameters() if p.grad is not None]
    norm = torch.nn.utils.get_total_norm(gradients)
    if limit is not None:
        torch._foreach_mul_(gradients, torch.clamp(limit / (norm + 1e-6), max=1.0))
    return norm
