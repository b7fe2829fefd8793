"""The bridge: importing auto_LiRPA changes nothing global, only its engine needs it, and its absence is one clear line."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import REPOSITORY


def python(code: str, *paths: Path) -> subprocess.CompletedProcess[str]:
    found = [str(path) for path in (*paths, REPOSITORY)] + os.environ.get("PYTHONPATH", "").split(os.pathsep)
    environment = dict(os.environ, PYTHONPATH=os.pathsep.join(found), OMP_NUM_THREADS="1")
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, cwd=REPOSITORY)


CERTIFY = """
import torch, newrelax
def certify(engine):
    model = torch.nn.Sequential(torch.nn.Linear(4, 6), torch.nn.ReLU(), torch.nn.Linear(6, 3))
    return newrelax.certify(model, torch.rand(2, 4), [0, 1], 0.1, "CROWN", engine=engine)
"""


def test_only_its_engine_imports_it_and_leaves_logging_warnings_and_recursion_alone() -> None:
    done = python(
        CERTIFY + "import logging, sys, warnings\n"
        "def settings():\n"
        "    root, filters = logging.getLogger(), list(warnings.filters)\n"
        "    return list(root.handlers), root.level, logging.root.manager.disable, sys.getrecursionlimit(), filters\n"
        "torch.export, certify('newrelax')\n"
        "assert 'auto_LiRPA' not in sys.modules, 'our own engine needs it'\n"
        "before = settings()\n"
        "from newrelax.lirpa import bridge\n"
        "assert before == settings(), (before, settings())\n"
        "certify('auto_LiRPA')\n"
        "assert before == settings(), (before, settings())\n"
        "print('import', bridge.VERSION)"
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("import ")
    assert len(done.stdout.splitlines()) == 1
    assert done.stderr == ""


@pytest.mark.parametrize(
    ("module", "expected"),
    [
        ("raise ImportError('No module named auto_LiRPA')", "auto_LiRPA cannot be imported"),
        ("__version__ = '0.1'", "auto_LiRPA 0.1 is not supported"),
    ],
    ids=["missing", "too old"],
)
def test_without_a_supported_auto_lirpa_only_its_engine_is_refused(tmp_path: Path, module: str, expected: str) -> None:
    (tmp_path / "auto_LiRPA.py").write_text(module)
    done = python(
        CERTIFY + "certify('newrelax')\ntry:\n    certify('auto_LiRPA')\nexcept newrelax.UserError as error:\n    print(error)",
        tmp_path,
    )
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.splitlines()) == 1
    assert expected in done.stdout
    assert "install auto_LiRPA 0.3" in done.stdout
