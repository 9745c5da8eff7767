"""The end of a process one of whose threads is in a library's code; see test_kill, too."""

from __future__ import annotations

import subprocess
import sys
import time

import pytest

CODE = """
import atexit, sys, time
from petseg.system.threads import leave, native_thread

atexit.register(print, "ended well")
thread = native_thread(time.sleep, {seconds})
thread.start()
{before}
print("told")
leave(7)
"""


@pytest.mark.parametrize(
    ("seconds", "before", "told"),
    [(0, "thread.join()", "told\nended well\n"), (60, "", "told\n")],
    ids=["thread that has ended", "thread at work"],
)
def test_the_process_ends_with_its_exit_code(seconds: int, before: str, told: str) -> None:
    started = time.monotonic()
    code = CODE.format(seconds=seconds, before=before)
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=50, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (7, told, "")
    assert time.monotonic() - started < 30
