import errno
import json

import pytest

from limbeck import storage
from limbeck.errors import StorageError


class Killed(BaseException):
    pass


def test_a_file_is_the_old_one_or_the_new_one_never_a_part(tmp_path):
    path = tmp_path / "folder" / "file.txt"
    storage.write_text(path, "old")

    def write_half():
        with storage.atomic_file(path) as handle:
            handle.write(b"half of the n")
            raise Killed

    with pytest.raises(Killed):
        write_half()
    assert path.read_text() == "old"
    assert [p.name for p in path.parent.iterdir()] == ["file.txt"]
    storage.write_text(path, "new")
    assert path.read_text() == "new"


@pytest.mark.parametrize(
    ("code", "message"),
    [
        (errno.ENOSPC, "the disk is full"),
        (errno.EROFS, "read-only"),
        (errno.EACCES, "permission is denied"),
    ],
)
def test_what_the_system_refuses_is_told_in_one_sentence(tmp_path, monkeypatch, code, message):
    def refuse(*_):
        raise OSError(code, "no")

    monkeypatch.setattr(storage.os, "replace", refuse)
    with pytest.raises(StorageError, match=message) as caught:
        storage.write_text(tmp_path / "file", "x")
    assert caught.value.exit_code == 2
    assert not list(tmp_path.iterdir())


def test_other_errors_are_not_renamed(tmp_path):
    with pytest.raises(IsADirectoryError):
        storage.write_text(tmp_path, "a folder is in the way")


def test_a_torn_last_line_does_not_spoil_the_next(tmp_path):
    path = tmp_path / "log"
    storage.append_line(path, "one")
    with path.open("a") as log:
        log.write('{"torn')
    storage.append_line(path, "two")
    assert path.read_text().splitlines() == ["one", '{"torn', "two"]


@pytest.mark.parametrize("links", [True, False])
def test_of_several_who_write_a_file_first_one_wins(tmp_path, monkeypatch, links):
    def no_links(*_):
        raise OSError(errno.EPERM, "no links here")

    if not links:
        monkeypatch.setattr(storage.os, "link", no_links)
    path = tmp_path / "folder" / "name"
    storage.write_first(path, "one")
    storage.write_first(path, "two")
    assert path.read_text() == "one"
    assert [p.name for p in path.parent.iterdir()] == ["name"]


def test_json_has_no_nan(tmp_path):
    with pytest.raises(ValueError, match="JSON"):
        storage.write_json(tmp_path / "a.json", {"x": float("nan")})
    storage.write_json(tmp_path / "a.json", {"x": "é"})
    assert json.loads((tmp_path / "a.json").read_text()) == {"x": "é"}
