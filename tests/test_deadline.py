"""Waiting for what may never come."""

from __future__ import annotations

import threading
import time

import pytest

from petseg.system.deadline import within


def test_what_comes_is_given_back() -> None:
    assert within(10, lambda: 3) == 3
    assert within(10, lambda: None) is None


def test_what_goes_wrong_is_raised() -> None:
    with pytest.raises(KeyError, match="x"):
        within(10, lambda: {}["x"])


def test_what_does_not_come_is_not_waited_for() -> None:
    never = threading.Event()
    began = time.monotonic()
    with pytest.raises(TimeoutError, match=r"0\.05 seconds"):
        within(0.05, lambda: never.wait(30))
    assert time.monotonic() - began < 10
    never.set()
