"""petseg-batch with a log of what it holds, for memory.py: IMAGES MASKS LOG [--real] [--dry-run].

Its counts go to stdout as JSON.
"""

from __future__ import annotations

import csv
import json
import os
import sys
import threading
import time
from pathlib import Path
from typing import Any

import processes
from null_session import NullSession

from petseg import runtime
from petseg.batch.run import run_batch
from petseg.engines.outcome import Outcome
from petseg.planning.config import BatchConfig


class Done:
    """Counts masks; see `petseg.batch.run.Progress`."""

    masks = 0

    def begin(self, todo: int, provider: str, skipped: int, failed: int) -> None:
        del todo, provider, skipped, failed

    def count(self, outcome: Outcome) -> None:
        self.masks += outcome.status == "done"

    def tick(self) -> None:
        """It has a clock of its own."""


def main() -> None:
    images, masks, log = sys.argv[1:4]
    if "--real" not in sys.argv:
        runtime.open_session = null_session  # type: ignore[assignment]
    started = time.perf_counter()
    done = Done()
    planned = 0.0
    over = threading.Event()

    def say(line: str) -> None:
        nonlocal planned
        if " to do, " in line:
            planned = time.perf_counter() - started

    with Path(log).open("w", newline="") as file:
        rows = csv.writer(file)
        things = processes.open_things(os.getpid())
        rows.writerow(("seconds", "done", "memory", "plan", *things))

        def note() -> None:
            seconds = time.perf_counter() - started
            memory = processes.memory(os.getpid())
            things = processes.open_things(os.getpid()).values()
            rows.writerow((seconds, done.masks, memory, planned, *things))

        def watch() -> None:
            while not over.wait(1):
                note()

        thread = threading.Thread(target=watch)
        thread.start()
        try:
            dry = "--dry-run" in sys.argv
            config = BatchConfig(images=images, masks=Path(masks), provider="cpu", dry_run=dry)
            report = run_batch(config, say, done)
        finally:
            over.set()
            thread.join()
            note()
    print(json.dumps(report.as_dict()["counts"]))


def null_session(path: Path, signature: Any, *options: Any) -> NullSession:
    """In the place of `petseg.runtime.open_session`."""
    del path, options
    return NullSession(signature)


if __name__ == "__main__":
    main()
