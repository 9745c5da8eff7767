"""The batch size is found by trying, and a larger one has to be worth it."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from petseg.engines.tuning import BatchTuner


def tune(sizes: tuple[int, ...], seconds: Callable[[int], float]) -> tuple[BatchTuner, list[int]]:
    """Feed a tuner full batches that take `seconds(size)`; returns it, and what it asked for."""
    tuner = BatchTuner(sizes)
    asked: list[int] = []
    while tuner.found is None and len(asked) < 100:
        asked.append(tuner.size)
        tuner.add(tuner.size, seconds(tuner.size))
    return tuner, asked


@pytest.mark.parametrize(
    ("seconds", "best"),
    [
        (lambda size: 1.0, 8),  # the size costs nothing
        (lambda size: float(size), 1),  # nothing is gained
        (lambda size: size / 1.02 if size == 8 else float(size), 1),  # too little is gained
        (lambda size: size + abs(size - 4), 4),
    ],
)
def test_the_best_size_is_found(seconds: Callable[[int], float], best: int) -> None:
    tuner, asked = tune((1, 2, 4, 8), seconds)
    assert (tuner.found, tuner.size, tuner.trying) == (best, best, False)
    assert asked == [size for size in (1, 2, 4, 8) for _ in range(4)]


def test_the_first_batch_of_a_size_does_not_count() -> None:
    tuner = BatchTuner((1, 4))
    for seconds in (1, 1, 1, 1, 100, 2, 2, 2):
        tuner.add(tuner.size, seconds)
    assert tuner.found == 4


def test_batches_of_other_sizes_are_not_taken_for_trials() -> None:
    tuner = BatchTuner((2, 4))
    for _ in range(20):
        tuner.add(1, 0.001)
    assert (tuner.size, tuner.found, tuner.trying) == (2, None, True)


def test_a_single_size_is_no_choice() -> None:
    tuner = BatchTuner((3,))
    for _ in range(10):
        tuner.add(3, 1.0)
    assert (tuner.size, tuner.found, tuner.trying) == (3, None, False)


def test_a_limit_ends_the_search_below_it() -> None:
    tuner = BatchTuner((8, 16, 32, 64))
    while tuner.size < 32:
        tuner.add(tuner.size, 1.0)
    tuner.limit(16)
    assert (tuner.size, tuner.found) == (16, 16)
    tuner.limit(4)
    assert (tuner.size, tuner.found) == (4, 4)
    tuner.limit(64)
    assert tuner.size == 4
