"""The suite of `python -m experiments.bench`: its networks, steps timed in turn, and the table of ratios."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Annotated, Any

import torch
from pydantic import BeforeValidator
from torch.utils.flop_counter import FlopCounterMode

from experiments.benchmarks.step import Case, Shape, Step, make_step, timed
from newrelax.cpu.product import COUNTED
from newrelax.document import Grid
from newrelax.names import split_spellings
from plugin.process.allocator import keep_freed_memory
from plugin.settings.table import Table, setting
from plugin.settings.types import Radius

NATURAL = "natural"
PLAIN = " plain"
PRODUCT = "matrix product"
PRODUCT_SIZE = {"cpu": 1024, "cuda": 8192}  # of its square matrices: large enough for the device's full speed


def _names(value: Any) -> Any:
    return tuple(split_spellings(value)) if isinstance(value, str) else value


Names = Annotated[tuple[str, ...], BeforeValidator(_names)]


class Network(Table):
    """A network of the suite, with the methods whose steps are timed on it."""

    model: str = setting("FC, CONV, CONV+, CNN7 or package.module:factory.", said="the suite's, CONV and CNN7")
    shape: Shape = setting("Of the images.", said="the network's in the suite")
    batch_size: int = setting("Images a step.", ge=1, said="the network's in the suite")
    eps: Radius = setting("Radius of the ball.", gt=0, said="the network's in the suite")
    methods: Names = setting(
        "Names, comma-separated; NAME+fusion: --loss-fusion, NAME+only: without the natural loss, NAME+LOSS: with that loss.",
        said="the network's in the suite",
    )

    @property
    def label(self) -> str:
        return f"{self.model}, {self.shape} shape, batch {self.batch_size}, eps {self.eps:.4g}"

    def changed(self, given: Mapping[str, Any]) -> Network:
        """The same with these settings in place of its own. Raises UserError for a bad value."""
        return Network.read({**self.to_json(), **given})


_LAST_LAYER = ("IBP+only", "IBP", "CROWN-IBP", "CROWN-IBP+fusion", "CROWN-IBP-R")
SUITE = (
    Network(model="CONV", shape="mnist", batch_size=100, eps=0.3, methods=(*_LAST_LAYER, "hBox", "DeepZ", "CROWN")),
    Network(model="CNN7", shape="cifar10", batch_size=16, eps=8 / 255, methods=_LAST_LAYER),
)

Rounds = Mapping[str, Sequence[float]]  # seconds of a step in every round; "NAME plain" is auto_LiRPA's
Operations = Mapping[str, int]  # of a step's convolutions and matrix products, a multiplication and an addition being two


def time_in_turn(steps: Mapping[str, Step], repeat: int, device: torch.device) -> Rounds:
    """Seconds of each step in each round; a step before each that counts settles the allocator."""
    seconds: dict[str, list[float]] = {name: [] for name in steps}
    try:
        for _ in range(repeat):
            for name, step in steps.items():
                keep_freed_memory(not name.endswith(PLAIN))
                step()
                seconds[name].append(timed(step, 1, device))
    finally:
        keep_freed_memory(False)
    return seconds


def matrix_product(device: torch.device) -> Step:
    """The product of two square matrices, as a step."""
    size = PRODUCT_SIZE[device.type]
    left, right = torch.rand(2, size, size, device=device)

    def step() -> None:
        left @ right

    return step


def count_operations(step: Step) -> int | None:
    """The floating-point operations of one step's convolutions and matrix products; None for an attack's, whose gradients in
    the inputs torch's counter does not follow."""
    try:
        with FlopCounterMode(display=False, custom_mapping=COUNTED) as counter:
            step()
    except RuntimeError:
        return None
    return int(counter.get_total_flops())


def chosen(given: Mapping[str, Any]) -> list[Network]:
    """The suite's networks, or one of another model, with the settings that a user gave. Raises UserError for a bad value."""
    model = given.get("model")
    networks = [network for network in SUITE if model in (None, network.model)] or [SUITE[0]]
    return [network.changed(given) for network in networks]


def time_network(network: Network, repeat: int, device: torch.device, plain: bool) -> tuple[Rounds, Operations]:
    """Rounds of natural training, of each method, and of a matrix product, with auto_LiRPA's side if `plain`."""
    steps: dict[str, Step] = {PRODUCT: matrix_product(device)}
    for name in dict.fromkeys((NATURAL, *network.methods)):
        case = Case(name, network.model, network.shape, network.batch_size, network.eps)
        steps[name] = make_step(case, device)
        if plain and name != NATURAL:
            steps[name + PLAIN] = make_step(replace(case, plain=True), device)
    counted = {name: count_operations(step) for name, step in steps.items() if not name.endswith(PLAIN)}
    operations = {name: count for name, count in counted.items() if count is not None}
    return time_in_turn(steps, repeat, device), operations


def paired_ratio(rounds: Rounds, over: str, under: str) -> float | None:
    """The median over the rounds of one step's time over another's; None where one was not timed."""
    if over not in rounds or under not in rounds:
        return None
    return statistics.median(a / b for a, b in zip(rounds[over], rounds[under], strict=True))


def arithmetic(rounds: Rounds, operations: Operations, name: str) -> float | None:
    """Seconds of a step's convolutions and matrix products at the speed of the rounds' large product; None if unknown."""
    if PRODUCT not in rounds or name not in operations:
        return None
    return operations[name] / operations[PRODUCT] * statistics.median(rounds[PRODUCT])


def table(rounds: Rounds, operations: Operations, earlier: Rounds | None = None) -> Grid:
    """Milliseconds, the floor, natural and IBP steps, speed against auto_LiRPA alone, and an earlier run's."""
    head = ["step", "ms", "arithmetic alone, ms", "natural steps", "IBP steps", "auto_LiRPA alone, ms", "speed-up"]
    head += ["earlier, ms", "in natural steps"] if earlier is not None else []
    lines = []
    for name in rounds:
        if name.endswith(PLAIN) or name == PRODUCT:
            continue
        plain = name + PLAIN
        row = [name, _median(rounds, name), _milliseconds(arithmetic(rounds, operations, name))]
        row += [_ratio(rounds, name, NATURAL), _ratio(rounds, name, "IBP")]
        row += [_median(rounds, plain), _ratio(rounds, plain, name, "×")]
        if earlier is not None:
            row += [_median(earlier, name), _ratio(earlier, name, NATURAL)]
        lines.append(row)
    return Grid.of(head, lines)


def _milliseconds(seconds: float | None) -> str:
    return "" if seconds is None else f"{seconds * 1e3:.1f}"


def _median(rounds: Rounds, name: str) -> str:
    return _milliseconds(statistics.median(rounds[name]) if name in rounds else None)


def _ratio(rounds: Rounds, over: str, under: str, unit: str = "") -> str:
    value = paired_ratio(rounds, over, under)
    return "" if value is None else f"{value:.2f}{unit}"
