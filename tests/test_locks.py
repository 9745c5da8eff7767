"""A lock keeps other processes out until its own is gone, or says that there is none."""

from __future__ import annotations

import errno
import subprocess
import sys
from pathlib import Path

import pytest

from petseg.system.locks import lock

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such locks")

HOLD = """
import sys, time
from petseg.system.locks import lock
file = open(sys.argv[1], "ab")
print(lock(file), flush=True)
time.sleep(60)
"""


def test_it_ends_with_its_process(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, str(path)], stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "True\n"
        with path.open("ab") as file, pytest.raises(BlockingIOError):
            lock(file)
        process.kill()
    with path.open("ab") as file:
        assert lock(file)


def test_where_there_are_no_locks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import fcntl

    def flock(*arguments: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", flock)
    with (tmp_path / "lock").open("ab") as one, (tmp_path / "lock").open("ab") as other:
        assert not lock(one)
        assert not lock(other)
