"""Where something stands in the user's own code: what a refusal has to say."""

from __future__ import annotations

import linecache
import os
import sysconfig
import traceback

import torch
from torch import fx


def place_of(node: fx.Node) -> str:
    """Where a node stands in the user's code: the last line of its own, or the layer."""
    if found := _last_users(node.meta.get("stack_trace") or ""):
        return found
    modules = list((node.meta.get("nn_module_stack") or {}).values())
    if modules:
        path, kind = modules[-1]
        return f"layer {path.removeprefix('L__self__').lstrip('.') or 'itself'}, {str(kind).rsplit('.', 1)[-1]}"
    return "no line of its own"


def line_of(error: BaseException) -> str:
    """The last line of the traceback that is neither torch's nor this project's."""
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if is_users(frame.filename)]
    if not frames:
        return _last_users(str(error)) or "no line of its own"
    return line_text(frames[-1].filename, frames[-1].lineno or 0, frames[-1].line)


def _last_users(stack: str) -> str | None:
    """The last line of the user's in a stack as torch writes it."""
    lines = stack.splitlines()
    for i in reversed(range(len(lines))):
        text = lines[i].strip()
        if text.startswith('File "') and is_users(text.split('"')[1]):
            number = int(text.split(", line ")[1].split(",")[0])
            return line_text(text.split('"')[1], number, lines[i + 1].strip() if i + 1 < len(lines) else None)
    return None


def line_text(filename: str, number: int, text: str | None) -> str:
    """A line of code as refusals quote it."""
    short = filename.replace("\\", "/").rsplit("/", 1)[-1]
    return f"line {number} of {short}: {' '.join((text or linecache.getline(filename, number)).split())[:120]}"


_FOREIGN = tuple(
    os.path.join(os.path.realpath(folder), "")
    for folder in (os.path.dirname(torch.__file__), os.path.dirname(os.path.dirname(__file__)), sysconfig.get_path("stdlib"))
)


_PACKAGES = tuple(os.path.join(os.path.realpath(sysconfig.get_path(name)), "") for name in ("purelib", "platlib"))


def is_users(filename: str) -> bool:
    """Whether a file is neither torch's nor Python's nor this project's; other installed packages count as the user's."""
    path = os.path.realpath(filename)
    if filename.startswith(("<frozen", "<string")):
        return False
    if path.startswith(_FOREIGN[:2]):
        return False
    return path.startswith(_PACKAGES) or not path.startswith(_FOREIGN[2])
