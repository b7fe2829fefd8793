"""Files that are there whole or not at all, also where there is no space, and what is no file left as it is."""

import errno
import json
import os
import threading
from pathlib import Path

import pytest

from newrelax.errors import UserError
from plugin.process import files
from plugin.process.files import write_atomically, write_json, write_output


@pytest.mark.parametrize(
    ("number", "error", "words"),
    [(errno.ENOSPC, UserError, "no space left on the device while writing"), (errno.EIO, OSError, "Input/output error")],
    ids=["full", "broken"],
)
def test_what_cannot_be_written_leaves_the_old_file(
    number: int, error: type[Exception], words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_atomically(tmp_path / "f", b"old")

    def fail(_: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(files.os, "fsync", fail)
    with pytest.raises(error, match=words):
        write_atomically(tmp_path / "f", b"new")
    assert [(path.name, path.read_bytes()) for path in tmp_path.iterdir()] == [("f", b"old")]


def test_json_ends_with_a_line_break(tmp_path: Path) -> None:
    write_json(tmp_path / "f.json", {"eps": 0.1})
    assert (tmp_path / "f.json").read_text().endswith("}\n")
    assert json.loads((tmp_path / "f.json").read_text()) == {"eps": 0.1}


def test_output_goes_through_links_and_pipes_without_replacing_them(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "file")
    for text in ("first", "second"):
        write_output(tmp_path / "link", text)
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "file").read_text() == "second"
    os.mkfifo(tmp_path / "pipe")
    received: list[str] = []
    reader = threading.Thread(target=lambda: received.append((tmp_path / "pipe").read_text()))
    reader.start()
    write_output(tmp_path / "pipe", "through")
    reader.join(timeout=10)
    assert received == ["through"]
    assert (tmp_path / "pipe").is_fifo()


def test_output_nowhere_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="cannot write .*No such file or directory"):
        write_output(tmp_path / "nowhere" / "o.json", "")
