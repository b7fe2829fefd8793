"""From verdict folders and decided runs to networks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from experiments.deciding.network import merge, read_networks, written
from experiments.deciding.sources import read_folder, read_runs
from newrelax.errors import UserError
from tests.support.decided import OWN, RESULT, VERDICTS, decided, run, write


def test_a_folder_gives_counts_of_images(tmp_path: Path) -> None:
    network = read_folder(f"DeepZ={write(tmp_path, complete=VERDICTS, own=OWN)}", "from somewhere")
    counts = (network.images, network.natural, network.attacked, network.own, network.verified, network.falsified)
    assert counts == (360, 351, 330, 300, 320, 38)
    assert network.undecided == 2
    assert (network.method, network.seed, network.origin) == ("DeepZ", None, "from somewhere")
    assert network.rungs == {"attack": 38, "IBP": 320}


@pytest.mark.parametrize(
    ("spec", "files", "said"),
    [
        ("DeepZ={}", {"complete": VERDICTS}, "own.json"),
        ("DeepZ={}", {"own": OWN}, "complete.json"),
        ("{}", {"complete": VERDICTS, "own": OWN}, "METHOD=FOLDER"),
        ("DeepZ={}", {"complete": VERDICTS, "own": {**OWN, "images": 100}}, "other images"),
        ("DeepZ={}", {"complete": VERDICTS, "own": {**OWN, "weights": "other.pt"}}, "weights"),
        (
            "DeepZ={}",
            {"complete": VERDICTS, "own": {**OWN, "results": [{"eps": 0.1, "certified_accuracy": 350 / 360}]}},
            "no image is both certified and falsified",
        ),
    ],
    ids=["no own figure", "no verdicts", "no method", "other images", "other weights", "certified and falsified"],
)
def test_what_does_not_belong_together_is_refused(tmp_path: Path, spec: str, files: dict[str, Any], said: str) -> None:
    write(tmp_path, **files)
    with pytest.raises(UserError, match=said):
        read_folder(spec.format(tmp_path), "from somewhere")


def test_a_tables_decided_runs_are_found_and_the_others_left_out(tmp_path: Path) -> None:
    run(tmp_path / "decided")
    write(tmp_path / "not decided", result=RESULT)
    run(tmp_path / "an estimate", sound=False)
    run(tmp_path / "decided in part", {**VERDICTS, "count": 100})
    (network,) = read_runs(tmp_path)
    assert (network.method, network.seed, network.own, network.origin) == ("DeepZ", 2, 300, "trained here, 60 epochs")


def test_one_run_will_do_and_its_length_is_said(tmp_path: Path) -> None:
    (network,) = read_runs(run(tmp_path, limit_train=2000))
    assert network.origin == "trained here, 60 epochs of 2,000 images"


def test_a_folder_without_decided_runs_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="decided on all of their test images"):
        read_runs(tmp_path)


def test_networks_come_back_from_their_file_and_newer_ones_take_their_place(tmp_path: Path) -> None:
    old, other, new = decided("IBP", 880, 890), decided("IBP", 87, 88, images=100), decided("IBP", 881, 890)
    file = tmp_path / "networks.jsonl"
    file.write_text(written(merge([old, other], [new])))
    assert read_networks(file) == [other, new]
    assert read_networks(tmp_path / "missing.jsonl") == []


def test_a_line_that_is_no_network_is_named(tmp_path: Path) -> None:
    file = tmp_path / "networks.jsonl"
    file.write_text(written([decided("IBP", 880, 890)]) + '{"method": "IBP"}\n')
    with pytest.raises(UserError, match="line 2"):
        read_networks(file)
