"""run_batch(...): find the work, hand it to an engine, count what becomes of it."""

from __future__ import annotations

import contextlib
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

from petseg import machine, runtime, sources, transforms
from petseg.batch_config import BatchConfig, check_folders, find_model, read_signature
from petseg.engines import pool
from petseg.engines.local import LocalEngine
from petseg.engines.outcome import Batch, Outcome
from petseg.errors import PetsegError
from petseg.plan import Plan, Rules, make_plan
from petseg.records import Maker
from petseg.report import Report, Rows
from petseg.runtime import Session
from petseg.steps import Job
from petseg.temporary import temporary_folder

Say = Callable[[str], None]
Progress = Callable[[int, Outcome | None], None]


def run_batch(config: BatchConfig, say: Say, progress: Progress) -> Report:
    """Turn photos into masks.

    Args:
        config: what to do.
        say: takes lines for people while the run goes on.
        progress: called with the number of images to do and each outcome (None at the start).

    Returns:
        The report, which has been written to `masks/petseg/stats.json`, too.

    Raises:
        PetsegError: nothing can be done, or the run cannot go on.
    """
    report = Report(options=config.to_json())
    check_folders(config)
    path, where = find_model(config.model)
    say(f"model: {path} ({where})")
    model = read_signature(path)
    maker = Maker(model.graph_hash, transforms.TRANSFORM, config.size, config.names)
    rules = Rules(
        folder=config.masks,
        maker=maker,
        formats=config.extras,
        redo=config.redo,
        overwrite=config.overwrite,
        verify=config.verify,
        max_pixels=config.max_pixels,
        pattern=config.images,
    )
    plan = make_plan(sources.find(config.images, config.list_file), rules)
    _count_plan(report, plan)
    say(
        f"{plan.files} files: {len(plan.todo)} to do, {plan.skipped} skipped, "
        f"{len(plan.failed)} unreadable, {plan.ignored} ignored"
    )
    for name, problem in plan.failed:
        say(f"failed: {name}: {problem}")
    if config.fail_fast and plan.failed:
        report.stopped = "--fail-fast"
    if config.dry_run:
        return report
    # Whatever can be refused is refused before anything is written.
    session = None
    if plan.todo and report.stopped is None:
        choice = runtime.choose(config.provider)
        say(f"provider: {choice.provider} ({choice.reason})")
        pool.warm_up()
        started = time.perf_counter()
        session = runtime.open_session(
            path, model, choice.provider, config.precision, config.batch_size
        )
        load_seconds = time.perf_counter() - started
        report.describe(session, path, machine.device_name(session.provider), load_seconds)
    streams = session.streams if session is not None else 1
    with (
        temporary_folder(config.reserved) as temporary,
        _books(config, report, temporary, streams) as books,
    ):
        books.take_over(plan)
        if session is not None:
            job = _job(config, session, maker, temporary)
            _work(config, plan, session, job, report, books, progress)
    for count, file in ((report.counts.failed, "failures.csv"), (report.counts.kept, "kept.csv")):
        if count:
            say(f"{count} {file.removesuffix('.csv')}: see {config.reserved / file}")
    return report


def _job(config: BatchConfig, session: Session, maker: Maker, temporary: Path) -> Job:
    return Job(
        masks=config.masks,
        temporary=temporary,
        model_size=session.signature.size,
        classes=session.signature.classes,
        maker=maker,
        provider=session.provider,
        precision=session.precision,
        formats=config.extras,
        max_pixels=config.max_pixels,
        replace_any=config.overwrite,
    )


def _work(
    config: BatchConfig,
    plan: Plan,
    session: Session,
    job: Job,
    report: Report,
    books: _Books,
    progress: Progress,
) -> None:
    """Hand the work to the engine and count what comes back."""
    todo = plan.todo if config.limit is None else plan.todo[: config.limit]
    progress(len(todo), None)

    def on_outcome(outcome: Outcome) -> None:
        books.count(outcome)
        progress(len(todo), outcome)

    # Two to begin with, and more where the session waits for them.
    most = min(config.workers or machine.usable_cores(), len(todo))
    with _signals(report):
        engine = LocalEngine(
            session, job, most if config.workers else min(2, most), config.read_timeout, most
        )
        try:
            engine.run(iter(todo), on_outcome, books.count_batch, lambda: books.stopping)
        finally:
            engine.close()
            report.worker_restarts = engine.restarts
            report.stages["infer"].busy_seconds = engine.cpu_seconds
            own = machine.peak_memory()
            report.peak_memory_bytes = None if own is None else own + engine.peak_memory
            report.workers, report.batch_size = len(engine.pool.workers), engine.tuner.size
            report.notes.extend(session.notes)


class _Books:
    """Counts outcomes as they come, and keeps the lists that go with them."""

    def __init__(self, config: BatchConfig, report: Report, temporary: Path, streams: int) -> None:
        self.config = config
        self.report = report
        self.streams = streams
        folder = config.reserved
        self.failures = Rows(folder / "failures.csv", temporary, ("file", "reason"))
        self.kept = Rows(folder / "kept.csv", temporary, ("mask",))
        self.stats = config.stats_file

    @property
    def stopping(self) -> bool:
        return self.report.stopped is not None

    def take_over(self, plan: Plan) -> None:
        """What was settled before the run goes into the lists, too."""
        for name, reason in plan.failed:
            self.failures.add(name, reason)
        for name in plan.kept:
            self.kept.add(name)

    def count(self, outcome: Outcome) -> None:
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
            if report.first_mask_seconds is None:
                report.first_mask_seconds = time.perf_counter() - report.started
        elif outcome.status == "kept":
            counts.skipped += 1
            counts.kept += 1
            self.kept.add(outcome.work.mask)
        else:
            counts.failed += 1
            self.failures.add(outcome.work.name, outcome.problem or "")
            if self.config.fail_fast and report.stopped is None:
                report.stopped = "--fail-fast"

    def count_batch(self, batch: Batch) -> None:
        report = self.report
        report.stages["infer"].add(batch.wall_seconds)
        report.infer_wall_seconds += batch.wall_seconds / self.streams
        report.ready_sum += batch.waiting
        report.batches += 1

    def close(self) -> None:
        """Put the lists and the stats in place."""
        self.report.wall_seconds = time.perf_counter() - self.report.started
        try:
            self.failures.close()
            self.kept.close()
            self.report.write_stats(self.stats)
        except OSError as error:
            raise PetsegError(
                f"cannot write {error.filename or self.stats}: {error.strerror}; "
                "the masks are in place"
            ) from error


@contextmanager
def _books(config: BatchConfig, report: Report, temporary: Path, streams: int) -> Iterator[_Books]:
    """Books that are closed however the run ends."""
    books = _Books(config, report, temporary, streams)
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


def _count_plan(report: Report, plan: Plan) -> None:
    counts = report.counts
    counts.files, counts.ignored, counts.skipped = plan.files, plan.ignored, plan.skipped
    counts.kept, counts.failed = len(plan.kept), len(plan.failed)


@contextmanager
def _signals(report: Report) -> Iterator[None]:
    """The first SIGINT or SIGTERM lets what is under way end well; a second one does not wait."""

    def stop(number: int, frame: FrameType | None) -> None:
        handler = before[signal.Signals(number)]
        if report.stopped in ("SIGINT", "SIGTERM") and callable(handler):
            handler(number, frame)
        report.stopped = signal.Signals(number).name

    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    for number in before:
        signal.signal(number, stop)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
