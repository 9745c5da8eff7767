"""Tests that wait for a time limit, on a machine that may have other things to do."""

from __future__ import annotations

from collections.abc import Callable, Sequence


def with_patience(attempt: Callable[[float], None], limits: Sequence[float] = (2, 8, 30)) -> None:
    """Try with one time limit after the other, in seconds, until one attempt passes.

    Where only one thing is to run into the limit, a busy machine may let others run into it, too.
    What is wrong fails with any limit.

    Args:
        attempt: the test; what it leaves must not be in the way of the next.
        limits: the last one's failure is the test's.
    """
    *first, last = limits
    for limit in first:
        try:
            return attempt(limit)
        except AssertionError:
            continue
    return attempt(last)
