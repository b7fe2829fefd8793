"""One training step to be measured: the loop's own, on random images, with what it takes in time and memory."""

from __future__ import annotations

import gc
import statistics
import time
import weakref
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from newrelax.errors import UserError
from newrelax.names import read_spelling
from newrelax.registry import Registry
from plugin.certification.bounding import Bounding
from plugin.data import Dataset
from plugin.fitting.datasets import DataTraits
from plugin.fitting.resolve import resolve
from plugin.models.build import build
from plugin.training.capture import EAGER_STEPS
from plugin.training.loop import OBSERVE_EVERY, TrainState, train_step
from plugin.training.losses import losses as known_losses
from plugin.training.schedule import Values

Shape = Literal["mnist", "cifar10", "digits"]
SHAPES: Mapping[str, tuple[int, int, int]] = {"mnist": (1, 28, 28), "cifar10": (3, 32, 32), "digits": (1, 8, 8)}
VARIANTS = ("fusion", "only")
BLOCKS = 3  # a step's time is the median of so many blocks of steps

Step = Callable[[], None]


@dataclass(frozen=True)
class Case:
    """A training step.

    method: a method's name, or one with variants: NAME+fusion bounds the loss as one output, NAME+only leaves the
    natural loss out (κ = 0 instead of 1/2), NAME+LOSS:key=value trains with that loss. CROWN-IBP mixes half and half.
    shape: key of SHAPES. plain: with auto_LiRPA's `compute_bounds` instead of this project's passes. capture: replayed as a
    CUDA graph.
    """

    method: str
    model: str
    shape: str
    batch_size: int
    eps: float
    plain: bool = False
    capture: bool = False


def random_images(shape: str, count: int, device: torch.device) -> Dataset:
    """A data set of `count` random images with random classes, the same in every call."""
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(count, *SHAPES[shape], generator=generator).to(device)
    y = torch.randint(0, 10, (count,), generator=generator).to(device)
    middle = (0.5,) * SHAPES[shape][0]
    return Dataset(shape, x, y, x, y, classes=10, mean=middle, std=middle)


def training_state(case: Case, device: torch.device, model: nn.Module | None = None) -> tuple[TrainState, Values]:
    """A run of the case at its start, and what each step trains with. `model`: in place of the one that the case names."""
    name, *variants = case.method.split("+")
    registry = Registry.load()
    losses = [variant for variant in variants if variant not in VARIANTS]
    if len(losses) > 1 or any(read_spelling(loss).name not in known_losses(registry) for loss in losses):
        known = ", NAME+".join((*VARIANTS, *known_losses(registry)))
        raise UserError(f"{case.method}: unknown variant {losses[-1]!r}; known: NAME+{known}")
    method = registry.get_method(name)
    kappa = 1.0 if method.propagation.name == "none" else 0.0 if "only" in variants else 0.5
    given: dict[str, Any] = dict(
        method=method.label,
        dataset=case.shape,
        model=case.model,
        batch_size=case.batch_size,
        eps=case.eps,
        device=str(device),
        capture=case.capture,
        loss_fusion="fusion" in variants,
        kappa=(kappa, kappa),
        l1=0.0,
        **({"loss": losses[0]} if losses else {}),
    )
    config = resolve(given, method, registry, DataTraits(case.shape))
    dataset = random_images(case.shape, case.batch_size, device)
    if model is None:
        model = build(case.model, dataset.input_shape, 10, dataset.mean, dataset.std, seed=0)
    state = TrainState.create(config, method, model.to(device).train(), dataset)
    if case.plain:
        state.learner = replace(state.learner, net=Bounding("auto_LiRPA").network(model, dataset.input_shape, method))
    return state, Values(case.eps, kappa, 0.5 if method.beta is not None else 1.0, config.lr)


def make_step(case: Case, device: torch.device, model: nn.Module | None = None) -> Step:
    """The case's training step, to be called again and again."""
    state, values = training_state(case, device, model)

    def step() -> None:
        info = train_step(state, state.dataset.train_x, state.dataset.train_y, values)
        state.step += 1
        state.epoch_step += 1
        if state.guard.is_due(info.step):
            state.check_finite()

    return step


@dataclass(frozen=True)
class Cost:
    """What a step takes: seconds, and the largest memory in bytes. `note` says why there is none."""

    seconds: float | None = None
    memory: int | None = None
    note: str = ""


def cost(
    case: Case,
    device: torch.device,
    *,
    budget: float = 1.0,
    limit: float = 60.0,
    model: Callable[[], nn.Module] | None = None,
) -> Cost:
    """Measures a case. Not enough memory, or a step that would take longer than `limit` seconds, is a note.

    Blocks of steps are timed until about `budget` seconds are spent; before, steps with fewer images tell what to expect.
    memory: on a GPU all that is allocated; on a CPU the tensors that a step makes.
    """
    network = (lambda: None) if model is None else model
    _free(device)  # the case before: its step was still alive when it ended
    try:
        images = 2
        while images < case.batch_size:
            probe = make_step(replace(case, batch_size=images, capture=False), device, network())
            probe()
            seconds, growth = timed(probe, 1, device), min(8.0, case.batch_size / images)
            if growth * seconds > limit:
                return Cost(note=f"over {limit:g} s, not run")
            del probe
            images *= 8
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)
        step = make_step(case, device, network())
        for _ in range(OBSERVE_EVERY * (EAGER_STEPS + 1) if case.capture else 1):
            step()
        memory = torch.cuda.max_memory_allocated(device) if device.type == "cuda" else _live_tensors(step)
        count = max(1, int(budget / BLOCKS / max(timed(step, 1, device), 1e-9)))
        return Cost(statistics.median(timed(step, count, device) for _ in range(BLOCKS)) / count, memory)
    except UserError as error:
        if not case.capture:
            raise
        return Cost(note=str(error))
    except (torch.OutOfMemoryError, MemoryError):
        return Cost(note="out of memory")
    except RuntimeError as error:
        if "not enough memory" not in str(error) and "can't allocate memory" not in str(error):
            raise
        return Cost(note="out of memory")


def _free(device: torch.device) -> None:
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()


def timed(step: Step, count: int, device: torch.device) -> float:
    """Seconds of so many steps, the device's work included; of one CPU thread its own, whoever else is at work."""
    alone = device.type == "cpu" and torch.get_num_threads() == 1
    clock = time.process_time if alone else time.perf_counter
    start = _settled(clock, device)
    for _ in range(count):
        step()
    return _settled(clock, device) - start


def _settled(clock: Callable[[], float], device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return clock()


class LiveTensors(TorchDispatchMode):
    """Counts the bytes of tensors that are made inside and still alive; `peak` is the most there were at once."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.live: int = 0
        self.peak: int = 0
        self._known: set[int] = set()

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        outputs = function(*args, **(kwargs or {}))
        for tensor in tree_leaves(outputs):
            if isinstance(tensor, Tensor):
                storage = tensor.untyped_storage()
                if storage._cdata not in self._known:
                    self._known.add(storage._cdata)
                    self.live += storage.nbytes()
                    weakref.finalize(storage, self._gone, storage._cdata, storage.nbytes())
        self.peak = max(self.peak, self.live)
        return outputs

    def _gone(self, key: int, size: int) -> None:
        self._known.discard(key)
        self.live -= size


def _live_tensors(step: Step) -> int:
    with LiveTensors() as tensors:
        step()
    peak: int = tensors.peak
    return peak
