"""What a run shows while it trains: plain lines in a file, a bar on a terminal."""

import io
import sys
import types

import pytest

from plugin.callbacks.progress import Progress
from plugin.training.loop import train
from tests.support.tiny_runs import tiny_state


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_progress_in_plain_lines() -> None:
    stream = io.StringIO()
    train(tiny_state("IBP"), [Progress(stream)])
    lines = stream.getvalue().splitlines()
    assert len(lines) == 4
    assert lines[3].startswith("epoch 4/4  loss ")
    assert lines[3].endswith("0:00 left")
    assert "certified loss" in lines[3]
    assert "certified loss" not in lines[0]


def test_few_plain_lines_for_long_runs() -> None:
    stream = io.StringIO()
    train(tiny_state("natural", epochs=60, limit_train=10), [Progress(stream)])
    assert 20 <= len(stream.getvalue().splitlines()) <= 22


def test_progress_bar_on_a_terminal() -> None:
    stream = Terminal()
    train(tiny_state("IBP", epochs=2, warmup=0, ramp=0), [Progress(stream)])
    shown = stream.getvalue()
    assert "epoch 2/2" in shown
    assert "6/6" in shown
    assert "certified loss" in shown
    assert "certified " in shown


def test_a_notebook_gets_a_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    """A kernel's stream is no terminal, and redraws all the same."""

    class ZMQInteractiveShell:
        """What IPython calls its shell in a notebook."""

    monkeypatch.setitem(sys.modules, "IPython", types.SimpleNamespace(get_ipython=ZMQInteractiveShell))
    stream = io.StringIO()
    progress = Progress(stream)
    progress.on_start(tiny_state())
    progress.close()
    assert "epoch 1/4" in stream.getvalue()
