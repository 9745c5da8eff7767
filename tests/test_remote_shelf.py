"""What a plan asks of masks in a store."""

from __future__ import annotations

import threading

import fsspec
from stores import watched

from petseg.masks.records import MaskState
from petseg.remote.shelf import StoreShelf
from petseg.remote.store import Store

COUNT = 24


def test_heads_are_read_many_at_once() -> None:
    """None of them is told before all are asked for: one by one, the first would wait in vain."""
    together = threading.Barrier(COUNT, timeout=20)
    names = [f"{number}.png" for number in range(COUNT)]
    with watched() as store:
        fs = fsspec.filesystem("memory")
        for name in names:
            fs.pipe_file(f"/bucket/masks/{name}", b"somebody's")
        shelf = StoreShelf(Store("memory://bucket/masks"), max_pixels=100)
        store.requests.clear()
        store.fault = lambda verb, path: together.wait() and None
        states = [look()[0] for look in shelf.look([*names, "none.png"])]
    assert states == [MaskState.FOREIGN] * COUNT + [MaskState.ABSENT]
    assert [verb for verb, path in store.requests] == ["read"] * COUNT
