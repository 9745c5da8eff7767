"""What became of each image of a run: counted, and listed in the files that tell of it."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from petseg.batch.report import Report, Rows
from petseg.engines.engine import Engine
from petseg.engines.outcome import Batch, Outcome
from petseg.errors import GOES_ON, PetsegError
from petseg.formats.parquet import Seconds
from petseg.planning.config import BatchConfig
from petseg.planning.plan import Plan


class Books:
    """Counts outcomes as they come, and keeps the lists that go with them.

    Attributes:
        engine: that the outcomes come from, once there is one.
        seconds: what this run's masks took, where a table is to tell it.
    """

    def __init__(self, config: BatchConfig, report: Report, temporary: Path) -> None:
        """Nothing is written before the first line of a list.

        Args:
            config: the run.
            report: takes the counts.
            temporary: a folder on the masks' file system.
        """
        self.config = config
        self.report = report
        self.engine: Engine | None = None
        self.failures = Rows(config.beside("failures.csv"), temporary, ("file", "reason"))
        self.kept = Rows(config.beside("kept.csv"), temporary, ("mask",))
        self.gone = Rows(config.beside("gone.csv"), temporary, ("mask",))
        self.seconds = Seconds()
        self.stats = config.stats_file
        # Stats that somebody wants elsewhere may lie on another file system.
        self._temporary = temporary if config.stats is None else None

    @property
    def stopping(self) -> bool:
        """Whether nothing more is to be begun."""
        return self.report.stopped is not None

    def take_over(self, plan: Plan) -> None:
        """What was settled before the run goes into the lists, too."""
        for name, reason in plan.failed:
            self._add(self.failures, name, reason)
        for name in plan.kept:
            self._add(self.kept, name)

    def list_gone(self, masks: Iterable[str]) -> None:
        """Masks whose photo is not there any more; they are not counted where a signal came."""
        count = 0
        for name in masks:
            count += 1
            self._add(self.gone, name)
        self.report.gone = None if self.stopping else count

    def count(self, outcome: Outcome) -> None:
        """What became of one image."""
        report, counts = self.report, self.report.counts
        if outcome.status == "done":
            counts.done += 1
            report.pixels += outcome.pixels
            for stage, seconds in (
                (report.stages["read"], outcome.read_seconds),
                (report.stages["write"], outcome.write_seconds),
            ):
                stage.add(seconds)
                stage.busy_seconds += seconds
            report.confidence.add(outcome.confidence)
            report.uncertain.add(outcome.uncertain)
            if "parquet" in self.config.tables:
                took = outcome.read_seconds + outcome.infer_seconds + outcome.write_seconds
                self.seconds.add(outcome.work.mask, took)
            now = time.perf_counter() - report.started
            report.masks_over_time.add(now)
            if report.first_mask_seconds is None:
                report.first_mask_seconds = now
        elif outcome.status in ("derived", "kept"):
            counts.skipped += 1
            if outcome.status == "derived":
                counts.derived += 1
            if outcome.status == "kept" or outcome.work.by_person:
                counts.kept += 1
                self._add(self.kept, outcome.work.mask)
        else:
            counts.failed += 1
            self._add(self.failures, outcome.work.name, outcome.problem or "")
            if self.config.fail_fast and report.stopped is None:
                report.stopped = "--fail-fast"

    def count_batch(self, batch: Batch) -> None:
        """One run of the session."""
        assert self.engine is not None
        report = self.report
        report.stages["infer"].add(batch.wall_seconds)
        report.infer_wall_seconds += batch.wall_seconds / self.engine.streams
        report.ready_sum += batch.waiting
        report.batches += 1

    def _add(self, rows: Rows, name: str, *cells: str) -> None:
        try:
            rows.add(name, *cells)
        except OSError as error:
            raise PetsegError(f"cannot write {rows.path}: {error.strerror}; {GOES_ON}") from error

    def close(self) -> None:
        """Put the lists and the stats in place.

        Raises:
            PetsegError: they cannot be written.
        """
        self.report.wall_seconds = time.perf_counter() - self.report.started
        try:
            # From the last to the first, each of them whatever becomes of the others.
            with contextlib.ExitStack() as stack:
                stack.callback(self.report.write_stats, self.stats, self._temporary)
                stack.callback(self.gone.close)
                stack.callback(self.kept.close)
                stack.callback(self.failures.close)
        except OSError as error:
            raise PetsegError(
                f"cannot write {error.filename or self.stats}: {error.strerror}; "
                "the masks are in place"
            ) from error


@contextmanager
def open_books(config: BatchConfig, report: Report, temporary: Path) -> Iterator[Books]:
    """Books that are closed however the run ends."""
    books = Books(config, report, temporary)
    try:
        yield books
    except BaseException as error:
        report.stopped = report.stopped or "error"
        report.notes.append(str(error) or type(error).__name__)
        # What stopped the run, a full disk say, may stop the books as well; it comes first.
        with contextlib.suppress(PetsegError):
            books.close()
        raise
    books.close()
