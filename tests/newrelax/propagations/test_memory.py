"""How much memory back-substitution takes: pieces, and what the gradient goes through again."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from newrelax.bounds import box
from newrelax.propagations import linear_pass
from newrelax.propagations.memory import Memory
from newrelax.registry import Registry
from tests.support.nets import batch, bounded

CPU = torch.device("cpu")


def test_a_limit_is_for_everything() -> None:
    assert Memory.of(1 << 20, CPU) == Memory(piece=1 << 20, kept=1 << 20)


def test_by_default_a_cpu_takes_small_pieces_and_keeps_many() -> None:
    memory = Memory.of(None, CPU)
    assert memory.piece * 16 == memory.kept == 1 << 28


@pytest.mark.parametrize(
    ("kept", "again"), [(1 << 28, 1), (1 << 12, 2)], ids=["fits: pieces are kept", "does not: each once more for the gradient"]
)
def test_what_the_gradient_goes_through_again(kept: int, again: int, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[int] = []
    substitute = linear_pass.substitute

    def counted(*given: object, **options: object) -> object:
        calls.append(1)
        return substitute(*given, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(linear_pass, "substitute", counted)
    method = Registry.load()["CROWN"]
    x, _ = batch()
    net = bounded("odd strides", method)
    problem = net.problem(*box(x, 0.05))
    outputs = torch.eye(net.outputs, dtype=x.dtype).expand(len(x), -1, -1)
    lower = method.propagation.bounds(replace(problem, memory=Memory(1 << 12, kept)), outputs).lower
    forward = len(calls)
    assert forward > 10
    lower.sum().backward()
    assert len(calls) == again * forward
