"""Threads in the code of a library, where nobody can end them, and what they mean for the process.

When Python ends it unwinds every thread that comes back from a library (up to 3.13, see
https://docs.python.org/3/c-api/threads.html#cautions-regarding-runtime-finalization).  Through C++
that is no way, and the process aborts: it must not come so far.
"""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable
from typing import NoReturn

_NAME = "petseg-in-a-library"


def native_thread(target: Callable[..., None], *arguments: object) -> threading.Thread:
    """A thread for a library's code, not started; the process does not wait for it."""
    return threading.Thread(target=target, args=arguments, name=_NAME, daemon=True)


def leave(code: int) -> NoReturn:
    """`sys.exit`, or, where such a thread is still at work, an end that no thread lives to see."""
    if any(thread.name == _NAME for thread in threading.enumerate()):
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    sys.exit(code)
