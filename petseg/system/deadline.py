"""Waiting for what may never come: a store or a disk that does not answer."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


def within(seconds: float, call: Callable[[], T]) -> T:
    """What `call` returns, made in a thread of its own.

    A thread that hangs cannot be ended; it is left behind, and keeps no command from ending.

    Raises:
        TimeoutError: it has not come after so many seconds.
        BaseException: what `call` raises.
    """
    found: list[T] = []
    wrong: list[BaseException] = []

    def work() -> None:
        try:
            found.append(call())
        except BaseException as error:  # raised again below
            wrong.append(error)

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    thread.join(seconds)
    if wrong:
        raise wrong[0]
    if not found:
        raise TimeoutError(f"nothing has come for {seconds:g} seconds")
    return found[0]
