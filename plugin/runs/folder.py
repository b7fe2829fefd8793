"""The run folder: config.json, metrics.jsonl, result.json, checkpoint, final weights and event files."""

from __future__ import annotations

import fcntl
import io
import json
import os
import platform
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path

import torch

from newrelax.errors import UserError
from plugin.process.files import TEMPORARY_SUFFIX, no_space_is_user_error, write_atomically, write_json
from plugin.runs import checkpoint
from plugin.settings.config import Config

CONFIG, METRICS, RESULT, MODEL = "config.json", "metrics.jsonl", "result.json", "model.pt"


@dataclass
class RunFolder:
    """A folder that holds one run. Open it with :meth:`create` or :meth:`reopen`."""

    path: Path
    _lock: io.IOBase | None = field(default=None, repr=False)

    @classmethod
    def create(cls, path: Path, config: Config) -> RunFolder:
        """A folder for a new run. Raises UserError when it holds a run already."""
        folder = cls._open(path)
        try:
            refuse_held(path)
        except UserError:
            folder.close()
            raise
        write_json(path / CONFIG, {**config.to_json(), "versions": versions()})
        return folder

    @classmethod
    def reopen(cls, path: Path) -> RunFolder:
        """The folder of a run that is to go on."""
        return cls._open(path)

    @classmethod
    def _open(cls, path: Path) -> RunFolder:
        try:
            with no_space_is_user_error(path):
                path.mkdir(parents=True, exist_ok=True)
                lock = open(path / ".lock", "w")
        except OSError as problem:
            raise UserError(f"cannot make the run folder {path}: {problem.strerror}") from problem
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.close()
            raise UserError(
                f"another process is training in {path}: wait for it, or choose another folder with --out"
            ) from None
        except OSError:
            pass  # a file system without locks: nothing to hold
        for partial in path.glob("*" + TEMPORARY_SUFFIX):
            partial.unlink()
        return cls(path, lock)

    @property
    def checkpoint(self) -> Path:
        return self.path / checkpoint.FILE_NAME

    def append_metrics(self, line: Mapping[str, object]) -> None:
        """Adds a line to metrics.jsonl and waits until it is on the disk."""
        path = self.path / METRICS
        with no_space_is_user_error(path), open(path, "a") as file:
            file.write(json.dumps(line) + "\n")
            file.flush()
            os.fsync(file.fileno())

    def keep_metrics(self, epochs: int) -> None:
        """Drops the lines after the given number of epochs: the resumed run writes them again."""
        path = self.path / METRICS
        lines = path.read_bytes().splitlines(keepends=True) if path.is_file() else []
        if len(lines) < epochs:
            raise UserError(f"{path} has {len(lines)} lines, the checkpoint is {epochs} epochs on: the folder was changed")
        write_atomically(path, b"".join(lines[:epochs]))

    def write_model(self, model: torch.nn.Module) -> None:
        """The final weights, as a plain state dict."""
        buffer = io.BytesIO()
        torch.save({name: tensor.cpu() for name, tensor in model.state_dict().items()}, buffer)
        write_atomically(self.path / MODEL, buffer.getvalue())

    def write_result(self, result: Mapping[str, object]) -> None:
        """Writes result.json; its presence means that the run is finished."""
        write_json(self.path / RESULT, result)

    def __enter__(self) -> RunFolder:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Lets other processes have the folder."""
        if self._lock is not None:
            self._lock.close()
            self._lock = None


def holds_run(path: Path) -> bool:
    """Whether a run was started in the folder."""
    return any((path / name).exists() for name in (CONFIG, METRICS, RESULT, checkpoint.FILE_NAME))


def refuse_held(path: Path) -> None:
    """Raises UserError when the folder holds a run."""
    if holds_run(path):
        raise UserError(f"{path} already holds a run: continue it with --resume, or choose another folder with --out")


def finished_result(path: Path) -> dict[str, object] | None:
    """result.json of the folder, or None while the run is not finished."""
    return read_json(path / RESULT) if (path / RESULT).is_file() else None


def read_config(path: Path) -> Config:
    """The config of the run in the folder ``path``. Raises UserError when there is none that fits."""
    values = read_json(path / CONFIG)
    values.pop("versions", None)
    return Config.from_json(values)


def read_json(path: Path) -> dict[str, object]:
    """Raises UserError when the file is absent, is damaged, or does not hold an object."""
    try:
        values = json.loads(path.read_text())
    except OSError as problem:
        raise UserError(f"cannot read {path}: {problem.strerror}") from problem
    except ValueError as problem:
        raise UserError(f"{path} is damaged: {problem}") from problem
    if not isinstance(values, dict):
        raise UserError(f"{path}: expected a JSON object, got {type(values).__name__}")
    return values


def versions() -> dict[str, str]:
    """Of what decides figures: Python, torch, auto_LiRPA and this project."""
    found = {"python": platform.python_version(), "torch": torch.__version__}
    for package in ("auto_LiRPA", "newrelax"):
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            found[package] = "not installed as a package"
    return found


def device_name(device: torch.device) -> str:
    """The device as a reader of a result wants it named."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    threads = torch.get_num_threads()
    return f"{platform.machine()} CPU, {threads} thread{'s' * (threads > 1)}"
