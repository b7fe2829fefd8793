"""Files of tensors whose damage is noticed: torch by itself does not look at the checksums that it writes.

What `torch.save` wrote is an archive with a checksum of each of its members. Ours has one line more, with a mark and the
SHA-256 of all before it, so that not a single byte may change; torch's reader does not mind what follows.
"""

from __future__ import annotations

import hashlib
import io
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from plugin.process.files import write_atomically

MARK = b"\nnewrelax checkpoint 1 sha256 "
_TRAILER_LENGTH = len(MARK) + 2 * hashlib.sha256().digest_size + 1


class Unreadable(Exception):
    """A file that holds no tensors, or more than tensors, which could run code."""


class Damaged(Unreadable):
    """A file whose bytes are not those that were written."""


def trailer(body: bytes) -> bytes:
    """The line that follows `body` in a file of ours: the mark and the checksum."""
    return MARK + hashlib.sha256(body).hexdigest().encode() + b"\n"


def save_checked(path: Path, content: Mapping[str, Any]) -> None:
    """Writes tensors, numbers, texts and lists of them atomically, with a checksum of every byte.

    Raises:
        UserError: the device is full; the file before stays.
    """
    buffer = io.BytesIO()
    torch.save(content, buffer)
    body = buffer.getvalue()
    write_atomically(path, body + trailer(body))


def load_checked(path: Path, *, ours: bool = False) -> Any:
    """The content of a file of `torch.save` or `save_checked`, on the CPU. No code in it can run.

    Args:
        ours: only a file of `save_checked` will do.

    Raises:
        OSError: the file cannot be opened or read.
        Damaged: a checksum does not match, or there is none where ours is asked for.
        Unreadable: something else than tensors, numbers, texts and lists of them.
    """
    content = path.read_bytes()
    body = content[:-_TRAILER_LENGTH]
    if not content.endswith(trailer(body)):
        if ours or content[len(body) :].startswith(MARK):
            raise Damaged(f"{path}: its checksum does not match")
        body = content
        _check_members(body, path)
    try:
        return torch.load(io.BytesIO(body), map_location="cpu", weights_only=True)
    except Exception as problem:  # whatever the unpickler stumbles over, the file is to blame
        raise Unreadable(f"{path}: holds no tensors, or more than tensors") from problem


def _check_members(body: bytes, path: Path) -> None:
    """Raises Damaged for an archive with a changed member; what torch wrote before 1.6 is no archive and has no checksums."""
    file = io.BytesIO(body)
    try:
        if not zipfile.is_zipfile(file):
            return
        with zipfile.ZipFile(file) as archive:
            changed = archive.testzip()
    except Exception as problem:  # a damaged directory of members fails wherever its reader happens to be
        raise Damaged(f"{path}: no archive any more") from problem
    if changed is not None:
        raise Damaged(f"{path}: the checksum of {changed} does not match")


def weights_digest(model: nn.Module) -> str:
    """The SHA-256 of all weights and buffers with their names."""
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()
