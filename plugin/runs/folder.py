"""The run folder: config.json, metrics.jsonl, result.json, checkpoint, final weights and event files."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

import torch

from newrelax.errors import UserError
from plugin.process.files import TEMPORARY_SUFFIX, no_space_is_user_error, write_atomically, write_json
from plugin.process.lock import Held, locked
from plugin.process.tensors import save_checked
from plugin.runs import checkpoint
from plugin.runs.versions import versions
from plugin.settings.config import Config

CONFIG, METRICS, RESULT, MODEL = "config.json", "metrics.jsonl", "result.json", "model.pt"


def finished_in(folder: Path) -> list[Path]:
    """The finished runs in a folder of runs, or the one that it is."""
    return [folder] if (folder / RESULT).is_file() else sorted(path.parent for path in folder.glob(f"*/{RESULT}"))


def verdicts_folder(run: Path, eps: float) -> Path:
    """Where a run keeps what `plugin.evaluate --complete` decided of it at eps."""
    return run / f"complete-eps{eps:g}"


@dataclass
class RunFolder:
    """A folder that holds one run, and that no other process trains in. Open it with `create` or `reopen`."""

    path: Path
    _held: ExitStack = field(default_factory=ExitStack, repr=False)

    @classmethod
    def create(cls, path: Path, config: Config) -> RunFolder:
        """A folder for a new run. Raises UserError when it holds a run already."""
        folder = cls.reopen(path)
        try:
            refuse_held(path)
        except UserError:
            folder.close()
            raise
        write_json(path / CONFIG, {**config.to_json(), "versions": versions()})
        return folder

    @classmethod
    def reopen(cls, path: Path) -> RunFolder:
        """The folder of a run that is to go on. Raises UserError when another process is at it."""
        held = ExitStack()
        try:
            with no_space_is_user_error(path):
                path.mkdir(parents=True, exist_ok=True)
                held.enter_context(locked(path / ".lock"))
        except Held as problem:
            raise UserError(
                f"another process is training in {path} ({problem.holder}): wait for it, or choose another folder with --out"
            ) from None
        except OSError as problem:
            raise UserError(f"cannot make the run folder {path}: {problem.strerror}") from problem
        for partial in path.glob("*" + TEMPORARY_SUFFIX):
            partial.unlink()
        return cls(path, held)

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
        """The final weights, as a plain state dict that `torch.load` reads."""
        save_checked(self.path / MODEL, {name: tensor.cpu() for name, tensor in model.state_dict().items()})

    def write_result(self, result: Mapping[str, object]) -> None:
        """Writes result.json; its presence means that the run is finished."""
        write_json(self.path / RESULT, result)

    def __enter__(self) -> RunFolder:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Lets other processes have the folder."""
        self._held.close()


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
    """The config of the run in the folder `path`. Raises UserError when there is none that fits."""
    values = read_json(path / CONFIG)
    made_by = values.pop("versions", None)
    try:
        return Config.from_json(values)
    except UserError as problem:
        version = made_by.get("newrelax", "unknown") if isinstance(made_by, dict) else "unknown"
        raise UserError(f"{path / CONFIG} was made by version {version} and does not fit this one: {problem}") from problem


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
