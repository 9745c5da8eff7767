"""Files are opened, and nothing else is, and nothing is waited for that may never come."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from petseg.system import files
from petseg.system.files import NotRegularError, open_regular


def test_a_file_and_a_link_to_one(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"bytes")
    (tmp_path / "link").symlink_to("file")
    for name in ("file", "link"):
        with open_regular(tmp_path / name) as file:
            assert file.read() == b"bytes"
    with pytest.raises(FileNotFoundError):
        open_regular(str(tmp_path / "gone"))


@pytest.mark.parametrize("make", [Path.mkdir, os.mkfifo, lambda path: path.symlink_to("/dev/zero")])
def test_what_is_no_file(make: object, tmp_path: Path) -> None:
    make(tmp_path / "x")  # type: ignore[operator]
    with pytest.raises(NotRegularError) as caught:
        open_regular(tmp_path / "x")
    assert caught.value.strerror == "not a regular file"
    assert caught.value.filename == str(tmp_path / "x")


def test_a_pipe_that_takes_a_files_place_is_not_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "x"
    path.touch()
    look = os.stat

    def look_and_replace(looked: str) -> os.stat_result:
        found = look(looked)
        path.unlink()
        os.mkfifo(path)
        return found

    before = len(os.listdir("/dev/fd"))  # noqa: PTH208 - without holding it open meanwhile
    monkeypatch.setattr(files.os, "stat", look_and_replace)
    with pytest.raises(NotRegularError):
        open_regular(path)
    monkeypatch.undo()
    assert len(os.listdir("/dev/fd")) == before, "it was left open"  # noqa: PTH208
