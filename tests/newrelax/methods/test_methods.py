"""Every method trains from the command line, certifies, and its run can be evaluated again."""

from __future__ import annotations

import json

import pytest

from newrelax.registry import Registry
from plugin import train
from plugin.evaluate import main as evaluate

REGISTRY = Registry.load()
# Two hidden layers: the fewest for which a method's bounds of one enter those of the next. Tracing them is most of the work.
TINY = (
    "--model tests.support.own_networks:two_hidden --epochs 2 --ramp 1 --warmup 0 --limit-train 60 --limit-test 10 "
    "--batch-size 30 --eps 0.02 --device cpu"
)


@pytest.mark.parametrize("name", REGISTRY)
def test_trains_and_certifies(name, tmp_path, capsys):
    run = tmp_path / "run"
    assert train.main(["--method", name, "--out", str(run), *TINY.split()]) == 0
    result = json.loads((run / "result.json").read_text())
    sound = REGISTRY[name].sound
    assert result["method"].split(":")[0] == name
    assert result["sound"] is sound
    assert (result["certified_accuracy"] is None) is not sound
    assert evaluate(["--run", str(run), "--json", str(tmp_path / "again.json")]) == 0
    again = json.loads((tmp_path / "again.json").read_text())
    row = again["results"][0]
    if sound:
        assert row["certified_accuracy"] == result["certified_accuracy"]
    assert row["natural_accuracy"] == result["natural_accuracy"]
    assert ("not sound" in capsys.readouterr().out) is not sound
