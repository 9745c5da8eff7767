"""The folder for half-written files, and what killed runs left of theirs."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from petseg.errors import PetsegError
from petseg.temporary import _ABANDONED_SECONDS, _host, replacing, sweep, temporary_folder


def dead_process() -> int:
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


def leave(parent: Path, name: str, age: float = 0.0) -> Path:
    folder = parent / name
    folder.mkdir(parents=True)
    (folder / "1.part").write_text("half")
    stamp = folder.stat().st_mtime - age
    os.utime(folder, (stamp, stamp))
    return folder


def test_it_is_there_and_then_gone(tmp_path: Path) -> None:
    parent = tmp_path / "masks" / "petseg"
    with temporary_folder(parent) as folder:
        assert folder.parent == parent
        (folder / "x.part").write_text("half")
        with temporary_folder(parent) as other:
            assert other != folder
            assert folder.exists(), "the folder of a living process was swept"
    assert list(parent.iterdir()) == []


def test_it_is_gone_after_an_error(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), temporary_folder(tmp_path):
        raise ZeroDivisionError
    assert list(tmp_path.iterdir()) == []


def test_dead_processes_folders_are_swept(tmp_path: Path) -> None:
    dead = leave(tmp_path, f"tmp-{_host()}-{dead_process()}-abc")
    living = leave(tmp_path, f"tmp-{_host()}-{os.getpid()}-abc")
    elsewhere = leave(tmp_path, "tmp-other-host-1-abc")
    forgotten = leave(tmp_path, "tmp-other-host-2-abc", age=_ABANDONED_SECONDS + 60)
    odd = leave(tmp_path, "tmp-")
    mine = leave(tmp_path, "color")
    sweep(tmp_path)
    assert [folder.exists() for folder in (dead, living, elsewhere, forgotten, odd, mine)] == [
        False,
        True,
        True,
        False,
        True,
        True,
    ]


def test_where_nothing_can_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with (
        pytest.raises(PetsegError, match=r"cannot write to .*/file/petseg: Not a directory"),
        temporary_folder(tmp_path / "file" / "petseg"),
    ):
        pass


def test_a_file_is_replaced_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("before")

    def break_off() -> None:
        with replacing(path) as temporary:
            temporary.write_text("half")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        break_off()
    assert [item.name for item in tmp_path.iterdir()] == ["file"]
    assert path.read_text() == "before"
    with replacing(path) as temporary:
        temporary.write_text("after")
    assert path.read_text() == "after"
