"""Files of tensors: every changed byte of ours is noticed, and what is no file of ours is read only if it is sound."""

from pathlib import Path

import pytest
import torch

from plugin.process.tensors import Damaged, Unreadable, load_checked, save_checked, trailer

CONTENT = {"weight": torch.arange(6.0).view(2, 3), "step": 7, "names": ["a", "b"]}


def same(content: dict[str, object]) -> bool:
    return torch.equal(content["weight"], CONTENT["weight"]) and (content["step"], content["names"]) == (7, ["a", "b"])


def test_ours_return(tmp_path: Path) -> None:
    save_checked(tmp_path / "c.pt", CONTENT)
    assert same(load_checked(tmp_path / "c.pt"))
    assert same(load_checked(tmp_path / "c.pt", ours=True))
    assert same(torch.load(tmp_path / "c.pt", weights_only=True)), "torch alone reads it, too"


def test_the_format_is_that_of_older_checkpoints(tmp_path: Path) -> None:
    torch.save(CONTENT, tmp_path / "c.pt")
    body = (tmp_path / "c.pt").read_bytes()
    assert trailer(b"") == b"\nnewrelax checkpoint 1 sha256 e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855\n"
    (tmp_path / "c.pt").write_bytes(body + trailer(body))
    assert same(load_checked(tmp_path / "c.pt", ours=True))


def test_every_changed_byte_of_ours_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "c.pt"
    save_checked(path, CONTENT)
    good = path.read_bytes()
    for place in range(len(good)):
        path.write_bytes(good[:place] + bytes([good[place] ^ 4]) + good[place + 1 :])
        with pytest.raises(Damaged):
            load_checked(path, ours=True)


def test_no_changed_byte_of_torchs_gives_other_tensors(tmp_path: Path) -> None:
    path = tmp_path / "c.pt"
    torch.save(CONTENT, path)
    good = path.read_bytes()
    noticed = 0
    for place in range(len(good)):
        path.write_bytes(good[:place] + bytes([good[place] ^ 4]) + good[place + 1 :])
        try:
            assert same(load_checked(path)), f"byte {place}"
        except Unreadable:
            noticed += 1
    assert noticed > len(CONTENT["weight"]) * 4 + 20, "what does no harm are an archive's padding and dates"


@pytest.mark.parametrize("ours", [True, False], ids=["ours", "any"])
def test_a_missing_file_is_an_os_error(ours: bool, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        load_checked(tmp_path / "absent.pt", ours=ours)


def test_only_ours_where_ours_is_asked_for(tmp_path: Path) -> None:
    torch.save(CONTENT, tmp_path / "c.pt")
    with pytest.raises(Damaged, match="its checksum does not match"):
        load_checked(tmp_path / "c.pt", ours=True)
