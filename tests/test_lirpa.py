"""The bridge: importing auto_LiRPA changes nothing global, and its absence is one clear line."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


def python(code: str, *paths: Path) -> subprocess.CompletedProcess[str]:
    environment = dict(os.environ, PYTHONPATH=os.pathsep.join(map(str, (*paths, ROOT))), OMP_NUM_THREADS="1")
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, cwd=ROOT)


def test_import_leaves_logging_warnings_and_recursion_alone():
    done = python(
        "import logging, sys, torch\n"
        "before = list(logging.getLogger().handlers), logging.getLogger().level, sys.getrecursionlimit()\n"
        "from newrelax import lirpa\n"
        "after = list(logging.getLogger().handlers), logging.getLogger().level, sys.getrecursionlimit()\n"
        "assert before == after, (before, after)\n"
        "print('import', lirpa.VERSION)"
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("import ")
    assert done.stderr == ""


@pytest.mark.parametrize(
    "module, expected",
    [
        ("raise ImportError('No module named auto_LiRPA')", "auto_LiRPA cannot be imported"),
        ("__version__ = '0.1'", "auto_LiRPA 0.1 is not supported"),
    ],
    ids=["missing", "too old"],
)
def test_without_a_supported_auto_lirpa_commands_say_what_to_install(tmp_path, module, expected):
    (tmp_path / "auto_LiRPA.py").write_text(module)
    done = python(
        "import sys; from plugin.train import main; sys.exit(main(['--method', 'IBP', '--epochs', '1', "
        f"'--limit-train', '20', '--out', {str(tmp_path / 'run')!r}]))",
        tmp_path,
    )
    assert done.returncode == 2
    assert len(done.stderr.strip().splitlines()) == 1
    assert expected in done.stderr and "install auto_LiRPA 0.3" in done.stderr
