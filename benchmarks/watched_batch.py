"""petseg-batch with a log of its memory, for memory.py: IMAGES MASKS LOG [--real]."""

from __future__ import annotations

import csv
import os
import sys
import threading
import time
from pathlib import Path
from typing import Any

import processes
from null_session import NullSession

from petseg import runtime
from petseg.batch import run_batch
from petseg.batch_config import BatchConfig
from petseg.engines.outcome import Outcome


def main() -> None:
    images, masks, log = sys.argv[1:4]
    if "--real" not in sys.argv:
        runtime.open_session = null_session  # type: ignore[assignment]
    started = time.perf_counter()
    done = 0
    planned = 0.0
    over = threading.Event()

    def progress(total: int, outcome: Outcome | None) -> None:
        nonlocal done
        del total
        done += outcome is not None and outcome.status == "done"

    def say(line: str) -> None:
        nonlocal planned
        if " to do, " in line:
            planned = time.perf_counter() - started

    with Path(log).open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(("seconds", "done", "memory", "plan"))

        def note() -> None:
            seconds = time.perf_counter() - started
            rows.writerow((seconds, done, processes.memory(os.getpid()), planned))

        def watch() -> None:
            while not over.wait(1):
                note()

        thread = threading.Thread(target=watch)
        thread.start()
        try:
            config = BatchConfig(images=images, masks=Path(masks), provider="cpu")
            run_batch(config, say, progress)
        finally:
            over.set()
            thread.join()
            note()


def null_session(path: Path, signature: Any, *options: Any) -> NullSession:
    """In the place of `petseg.runtime.open_session`."""
    del path, options
    return NullSession(signature)


if __name__ == "__main__":
    main()
