"""The folder for half-written files, and what killed runs left of theirs."""

from __future__ import annotations

import contextlib
import errno
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from petseg.errors import PetsegError
from petseg.system.temporary import (
    _ABANDONED_SECONDS,
    _UNLOCKED_SECONDS,
    host,
    replacing,
    sweep,
    temporary_folder,
    write_whole,
)

needs_locks = pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such locks")

RUN = "import sys, pathlib, time; from petseg.system.temporary import temporary_folder\n"
WORK = f"""{RUN}
with temporary_folder(pathlib.Path(sys.argv[1])) as folder:
    (folder / "1.part").write_text("half")
    print(folder, flush=True)
    time.sleep(60)
"""
NO_LOCKS = """
import errno, fcntl
def flock(*arguments): raise OSError(errno.ENOLCK, "No locks available")
fcntl.flock = flock
"""


@contextlib.contextmanager
def at_work(parent: Path, before: str = "") -> Iterator[tuple[Path, subprocess.Popen[str]]]:
    """Another process that has a temporary folder in `parent`, and that folder."""
    process = subprocess.Popen(
        [sys.executable, "-c", before + WORK, str(parent)], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    yield Path(process.stdout.readline().strip()), process
    process.kill()
    process.communicate()


def leave(parent: Path, name: str, age: float = 0.0, lock: bool = True) -> Path:
    folder = parent / name
    folder.mkdir(parents=True)
    if lock:
        (folder / "lock").touch()
    (folder / "1.part").write_text("half")
    make_old(folder, age)
    return folder


def make_old(path: Path, age: float = _ABANDONED_SECONDS + 60) -> None:
    stamp = path.stat().st_mtime - age
    os.utime(path, (stamp, stamp))


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


@needs_locks
def test_a_living_process_keeps_its_folder_and_a_dead_one_does_not(tmp_path: Path) -> None:
    with at_work(tmp_path) as (folder, process):
        make_old(folder)
        sweep(tmp_path)
        assert (folder / "1.part").exists()
        process.kill()
        process.wait()
        assert folder.exists()
        sweep(tmp_path)
        assert not folder.exists()


@needs_locks
@pytest.mark.parametrize("here", [True, False])
def test_without_locks_only_what_is_old_is_swept(
    here: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whether the file system has locks here, where the sweep is, or not."""
    import fcntl

    def flock(*arguments: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    with at_work(tmp_path, NO_LOCKS) as (folder, _):
        assert not (folder / "lock").exists()
        if not here:
            monkeypatch.setattr(fcntl, "flock", flock)
        sweep(tmp_path)
        assert (folder / "1.part").exists()
        make_old(folder)
        sweep(tmp_path)
        assert not folder.exists()


@needs_locks
def test_what_is_swept(tmp_path: Path) -> None:
    old = _ABANDONED_SECONDS + 60
    swept = [
        leave(tmp_path, f"tmp-{host()}-abc"),
        leave(tmp_path, "tmp-other-host-def", age=old),
        leave(tmp_path, f"tmp-{host()}-ghi", age=old, lock=False),
    ]
    kept = [
        leave(tmp_path, "tmp-other-host-jkl"),
        leave(tmp_path, f"tmp-{host()}-mno", lock=False),
        leave(tmp_path, f"tmp-{host()}-longer-pqr"),
        leave(tmp_path, "tmp-"),
        leave(tmp_path, "color", age=old),
    ]
    for name in (".partial-1-stats.json", ".partial-2-stats.json"):
        (tmp_path / name).touch()
    make_old(tmp_path / ".partial-1-stats.json")
    sweep(tmp_path)
    assert [folder.exists() for folder in swept] == [False] * 3
    assert [folder.exists() for folder in kept] == [True] * 5
    assert [path.name for path in tmp_path.glob(".partial-*")] == [".partial-2-stats.json"]


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


# Stands still in the middle of its work.
HALF = """
import pathlib, sys, time
from petseg.system import temporary
def stand_still(file, lock=temporary.lock):
    assert lock(file)
    print(file.name, flush=True)
    time.sleep(600)
temporary.lock = stand_still
temporary.write_whole(pathlib.Path(sys.argv[1]), b"half")
"""


@needs_locks
def test_what_a_killed_process_left_of_a_file_is_removed_and_nobody_elses(tmp_path: Path) -> None:
    path = tmp_path / "model[1].onnx"
    (tmp_path / ".partial-0123abcd-other.onnx").touch()
    (tmp_path / ".partial-mine-model[1].onnx").touch()
    theirs = {file.name for file in tmp_path.iterdir()}
    for file in tmp_path.iterdir():
        make_old(file)
    with subprocess.Popen(
        [sys.executable, "-c", HALF, str(path)], stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        left = Path(process.stdout.readline().strip())
        assert left.parent == tmp_path
        assert left.name.startswith(".partial-")
        # However long it takes.
        make_old(left)
        write_whole(path, b"one")
        assert left.exists()
        process.kill()
    # Who has just made such a file may not have its lock yet.
    os.utime(left)
    write_whole(path, b"two")
    assert left.exists()
    make_old(left, _UNLOCKED_SECONDS + 1)
    write_whole(path, b"three")
    assert {file.name for file in tmp_path.iterdir()} == {*theirs, path.name}
    assert path.read_bytes() == b"three"
