"""What a training step does, counted: passes over the network, rows of back-substitution, traces. Times are no tests."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from torch import nn

from newrelax.network import export
from newrelax.propagations import base, linear_pass
from plugin.training.loop import OBSERVE_EVERY, TrainState, train, train_step
from plugin.training.schedule import Values
from tests.support.tiny_runs import tiny_state

NEURONS = (256, 100)  # of CONV's ReLU layers on digits
MARGINS = 9
MIXED = Values(eps=0.05, kappa=0.5, beta=0.5, lr=1e-3)


@contextmanager
def counted(patch: pytest.MonkeyPatch, model: nn.Module | None = None) -> Iterator[Counter[str]]:
    """Counts clean forward passes, interval passes, reference passes, rows of back-substitution, and traces."""
    work: Counter[str] = Counter()

    def count(name: str, original: Callable[..., Any], amount: Callable[..., int] = lambda *_, **__: 1) -> Callable[..., Any]:
        def call(*given: Any, **named: Any) -> Any:
            work[name] += amount(*given, **named)
            return original(*given, **named)

        return call

    with patch.context() as inside:
        inside.setattr(base, "interval_pass", count("intervals", base.interval_pass))
        inside.setattr(linear_pass.LinearPass, "__init__", count("references", linear_pass.LinearPass.__init__))
        inside.setattr(
            linear_pass, "substitute", count("rows", linear_pass.substitute, lambda network, start, a, *_, **__: a.shape[1])
        )
        inside.setattr(export, "export", count("traces", export.export))
        if model is not None:
            inside.setattr(model, "forward", count("clean", model.forward))
        yield work


def work_of_a_step(patch: pytest.MonkeyPatch, state: TrainState, values: Values, observe: bool = False) -> dict[str, int]:
    state.epoch_step = 0 if observe else OBSERVE_EVERY + 1
    with counted(patch, state.model) as work:
        train_step(state, state.dataset.train_x[:20], state.dataset.train_y[:20], values)
    return dict(work)


@pytest.mark.parametrize(
    ("method", "values", "expected"),
    [
        ("natural", MIXED._replace(kappa=1.0), {"clean": 1}),
        ("IBP", MIXED._replace(kappa=1.0), {"clean": 1}),
        ("IBP", MIXED, {"clean": 1, "intervals": 1}),
        ("IBP", MIXED._replace(kappa=0.0), {"intervals": 1}),
        ("CROWN-IBP", MIXED, {"clean": 1, "intervals": 1, "references": 1, "rows": MARGINS}),
        ("CROWN-IBP", MIXED._replace(beta=1.0), {"clean": 1, "intervals": 1, "references": 1, "rows": MARGINS}),
        ("CROWN-IBP", MIXED._replace(kappa=0.0, beta=0.0), {"intervals": 1}),
        ("CROWN-IBP-R", MIXED._replace(beta=1.0), {"clean": 1, "intervals": 1, "references": 1, "rows": MARGINS}),
        # lower and upper bounds of the second layer; the first one's come from intervals
        ("CROWN", MIXED._replace(beta=1.0), {"clean": 1, "references": 1, "rows": 2 * NEURONS[1] + MARGINS}),
        # parallel lines: one row gives both
        ("DeepZ", MIXED._replace(beta=1.0), {"clean": 1, "references": 1, "rows": NEURONS[1] + MARGINS}),
        ("hBox", MIXED._replace(beta=1.0), {"clean": 1, "references": 1, "rows": NEURONS[1] + MARGINS}),
    ],
)
def test_passes_of_a_step(method: str, values: Values, expected: dict[str, int], monkeypatch: pytest.MonkeyPatch) -> None:
    assert work_of_a_step(monkeypatch, tiny_state(method), values) == expected


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (MIXED, {"clean": 1, "intervals": 1, "references": 1, "rows": 1}),
        (MIXED._replace(kappa=0.0, beta=1.0), {"intervals": 1, "references": 1, "rows": 1}),
        (MIXED._replace(kappa=0.0, beta=0.0), {"intervals": 1}),
    ],
)
def test_passes_of_a_fused_step(values: Values, expected: dict[str, int], monkeypatch: pytest.MonkeyPatch) -> None:
    assert work_of_a_step(monkeypatch, tiny_state("CROWN-IBP", loss_fusion=True), values) == expected


def test_observing_costs_a_clean_pass_at_most(monkeypatch: pytest.MonkeyPatch) -> None:
    values = MIXED._replace(kappa=0.0)
    for observe in (False, True):
        work = work_of_a_step(monkeypatch, tiny_state("IBP"), values, observe)
        assert work == ({"clean": 1, "intervals": 1} if observe else {"intervals": 1})


@pytest.mark.parametrize("method", ["natural", "IBP", "CROWN-IBP", "CROWN"])
def test_a_run_traces_its_network_once(method: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with counted(monkeypatch) as work:
        train(tiny_state(method))
    assert work["traces"] == (0 if method == "natural" else 1)
