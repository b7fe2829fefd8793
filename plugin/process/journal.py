"""Answers to one question as they come: a line each in a file that survives `kill -9`."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from newrelax.errors import UserError
from plugin.process.files import no_space_is_user_error, write_atomically, write_json

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

QUESTION = "question.json"
Entry = TypeVar("Entry", bound="DataclassInstance")


class Journal(Generic[Entry]):
    """A folder with the answers to one question: `question.json` says which, the file `name` has a line for each entry.

    entries: by their keys, in the order in which they came.
    """

    def __init__(
        self,
        folder: Path,
        question: Mapping[str, Any],
        name: str,
        *,
        read: Callable[[Mapping[str, Any]], Entry],
        key: Callable[[Entry], Hashable],
    ) -> None:
        """Opens or makes the folder. Raises UserError when it holds answers to another question."""
        folder.mkdir(parents=True, exist_ok=True)
        self._path, self._key = folder / name, key
        self._check_same(folder / QUESTION, question)
        self.entries = {key(entry): entry for entry in self._read(read)}
        self._mend()

    def add(self, entries: Sequence[Entry]) -> None:
        """Keeps entries, on the disk before it returns."""
        with no_space_is_user_error(self._path), open(self._path, "a", encoding="utf-8") as file:
            file.write("".join(map(_line, entries)))
            file.flush()
            os.fsync(file.fileno())
        self.entries.update({self._key(entry): entry for entry in entries})

    def _check_same(self, path: Path, question: Mapping[str, Any]) -> None:
        if not path.exists():
            write_json(path, question)
            return
        stored, wanted = json.loads(path.read_text(encoding="utf-8")), json.loads(json.dumps(question))
        for name in wanted:
            if stored.get(name) != wanted[name]:
                raise UserError(
                    f"{path.parent} holds {self._path.stem} with {name} {stored.get(name)!r}, not {wanted[name]!r}: "
                    "choose another folder with --out"
                )

    def _read(self, read: Callable[[Mapping[str, Any]], Entry]) -> list[Entry]:
        """The whole lines; one that a kill cut short is left out."""
        found = []
        for text in self._path.read_text(encoding="utf-8").splitlines() if self._path.exists() else []:
            try:
                found.append(read(json.loads(text)))
            except (ValueError, TypeError, KeyError):
                continue
        return found

    def _mend(self) -> None:
        """Takes a line that was cut short out of the file, so that the next one does not grow on it."""
        whole = "".join(map(_line, self.entries.values())).encode()
        if self._path.exists() and self._path.read_bytes() != whole:
            write_atomically(self._path, whole)


def _line(entry: DataclassInstance) -> str:
    return json.dumps(asdict(entry)) + "\n"
