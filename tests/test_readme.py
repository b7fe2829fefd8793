"""The README is what a newcomer does: its programs run, its links lead somewhere, it is short."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from newrelax.check import main as check
from plugin.train import main as train
from tests.conftest import REPOSITORY
from tests.support.tiny_runs import TINY

README = (REPOSITORY / "README.md").read_text()
DOCUMENTS = sorted(
    path for path in REPOSITORY.rglob("*.md") if not any(part.startswith(".") for part in path.relative_to(REPOSITORY).parts)
)


def block_with(text: str, document: str = README) -> str:
    """The Python block of the README, or of another document, that holds the text."""
    (found,) = [block for block in re.findall(r"```python\n(.*?)```", document, re.DOTALL) if text in block]
    return found


def test_it_is_short() -> None:
    assert len(README.splitlines()) < 150


@pytest.mark.parametrize("document", DOCUMENTS, ids=[str(path.relative_to(REPOSITORY)) for path in DOCUMENTS])
def test_links_lead_somewhere(document: Path) -> None:
    links = re.findall(r"\]\(([^)#]+)\)", document.read_text())
    files = [link for link in links if not link.startswith("http")]
    assert [link for link in files if not (document.parent / link).exists()] == []


def test_its_relaxation_is_sound_and_trains(tmp_path: Path) -> None:
    (tmp_path / "clamp.py").write_text(block_with("@relaxation"))
    plugin = ("--plugin", str(tmp_path / "clamp.py"))
    assert check(["Clamp", *plugin]) == 0
    assert train([*TINY, "--method", "Clamp:steep=4", *plugin, "--out", str(tmp_path / "run")]) == 0


def test_the_losses_readme_has_one_that_trains_and_is_shown_by_its_terms(tmp_path: Path) -> None:
    losses = (REPOSITORY / "plugin" / "training" / "losses" / "README.md").read_text()
    (tmp_path / "hinge.py").write_text(block_with("class Hinge", losses))
    options = ("--loss", "hinge:width=0.5", "--plugin", str(tmp_path / "hinge.py"), "--out", str(tmp_path / "run"))
    assert train([*TINY, "--method", "IBP", *options]) == 0
    last = json.loads((tmp_path / "run" / "metrics.jsonl").read_text().splitlines()[-1])
    assert last["certified_loss"] >= 0
    assert "natural_loss" not in last
    assert 0 <= last["certified_accuracy"] <= 1


def test_its_python_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    program = block_with("plugin.fit(").replace("epochs=20", "epochs=1, batch_size=20")
    start = (
        "import torch\n"
        "model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(784, 4), torch.nn.ReLU(), torch.nn.Linear(4, 3))\n"
        "x_train, y_train = torch.rand(40, 1, 28, 28), torch.arange(40) % 3\n"
        "x_test, y_test = x, y = torch.rand(6, 1, 28, 28), torch.arange(6) % 3\n"
    )
    names: dict[str, object] = {}
    exec(start + program + "terms.loss.backward()\n", names)
    assert names["terms"].parts.keys() == {"natural", "certified"}  # type: ignore[attr-defined]
    assert not list(tmp_path.iterdir())
