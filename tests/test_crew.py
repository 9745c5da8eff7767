"""Threads that wait for a store: results in any order, errors, and those that hang."""

from __future__ import annotations

import threading
import time

import pytest

from petseg.errors import PetsegError
from petseg.remote import crew
from petseg.remote.crew import Crew, Task


def collect(found: Crew[str, int], count: int) -> dict[str, Task[str, int]]:
    tasks: dict[str, Task[str, int]] = {}
    patience = time.monotonic() + 20
    while len(tasks) < count:
        tasks |= {task.key: task for task in found.take()}
        assert time.monotonic() < patience
        time.sleep(0.005)
    return tasks


def test_results_and_errors_come_back_with_what_they_are_about() -> None:
    rung = threading.Semaphore(0)
    found: Crew[str, int] = Crew(4, 60, rung.release)
    both = threading.Barrier(2, timeout=20)
    # Two that wait for each other: they run at once.
    found.do("a", both.wait)
    found.do("b", both.wait)
    found.do("c", lambda: 1 // 0)
    tasks = collect(found, 3)
    assert sorted([tasks["a"].result, tasks["b"].result]) == [0, 1]  # type: ignore[type-var]
    assert isinstance(tasks["c"].error, ZeroDivisionError)
    assert len(found) == 0
    assert all(rung.acquire(timeout=20) for _ in range(3))
    found.close()


def test_what_hangs_is_left_behind_and_the_others_go_on() -> None:
    found: Crew[str, int] = Crew(1, 0.2, lambda: None)
    never = threading.Event()
    found.do("hangs", lambda: int(never.wait(30)))
    found.do("next", lambda: 7)
    tasks = collect(found, 2)
    assert isinstance(tasks["hangs"].error, TimeoutError)
    assert "--read-timeout" in str(tasks["hangs"].error)
    assert tasks["next"].result == 7
    # What comes in the end is nobody's.
    never.set()
    time.sleep(0.05)
    assert list(found.take()) == []
    found.close()


def test_what_was_slow_and_came_does_not_hang(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(crew, "_MOST_LOST", 1)
    found: Crew[str, int] = Crew(2, 0.05, lambda: None)
    for _ in range(3):
        gate = threading.Event()
        found.do("slow", lambda gate=gate: int(gate.wait(30)))  # type: ignore[misc]
        assert isinstance(collect(found, 1)["slow"].error, TimeoutError)
        gate.set()
        patience = time.monotonic() + 20
        while found._lost:
            assert time.monotonic() < patience
            time.sleep(0.005)
    found.close()


def test_too_many_that_hang_end_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(crew, "_MOST_LOST", 2)
    found: Crew[str, int] = Crew(3, 0.1, lambda: None)
    never = threading.Event()
    for key in ("a", "b", "c"):
        found.do(key, lambda: int(never.wait(30)))
    with pytest.raises(PetsegError, match="3 requests to a store hang"):
        collect(found, 3)
    never.set()
    found.close()
