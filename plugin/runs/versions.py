"""What decided figures: versions of the packages, and the commit of this one."""

from __future__ import annotations

import platform
import subprocess
from functools import cache
from importlib import metadata
from pathlib import Path

import torch

ROOT = Path(__file__).resolve().parents[2]


def versions() -> dict[str, str]:
    """Of Python, torch, auto_LiRPA and this project; with its commit where it runs from a checkout."""
    known = {"python": platform.python_version(), "torch": torch.__version__}
    for package in ("auto_LiRPA", "newrelax"):
        try:
            known[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            known[package] = "not installed as a package"
    revision = commit()
    return known if revision is None else {**known, "commit": revision}


@cache
def commit() -> str | None:
    """The commit of the checkout that this package runs from, with a + where files were changed; None without a checkout."""
    if not (ROOT / ".git").exists():
        return None

    def git(*arguments: str) -> str:
        call = ["git", "-C", str(ROOT), *arguments]
        return subprocess.run(call, capture_output=True, text=True, timeout=10, check=True).stdout.strip()

    try:
        revision = git("rev-parse", "HEAD")
        return revision + ("+" if git("status", "--porcelain", "--untracked-files=no") else "")
    except (OSError, subprocess.SubprocessError):
        return None
