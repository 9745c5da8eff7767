"""run_batch(...): find the work, hand it to an engine, count what becomes of it."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Protocol

from petseg import check, machine, runtime, sources, tables, transforms
from petseg.batch_config import (
    BatchConfig,
    check_folders,
    find_model,
    full_precision,
    read_signature,
)
from petseg.books import Books, open_books
from petseg.engines import pool
from petseg.engines.local import LocalEngine
from petseg.engines.outcome import Outcome, Work
from petseg.errors import PetsegError
from petseg.formats import catalog
from petseg.pages.survey import Survey
from petseg.plan import Plan, Rules, make_plan
from petseg.record import Maker
from petseg.report import Report
from petseg.runtime import NoSession, Session
from petseg.steps import Job
from petseg.temporary import temporary_folder

Say = Callable[[str], None]


class Progress(Protocol):
    """Shows how far a run is."""

    def begin(self, total: int, provider: str) -> None:
        """The work begins: so many images, on this provider ("" where none needs the network)."""

    def count(self, outcome: Outcome) -> None:
        """One more image is settled."""

    def tick(self) -> None:
        """Time has passed; called several times a second, whatever happens."""


def run_batch(config: BatchConfig, say: Say, progress: Progress | None = None) -> Report:
    """Turn photos into masks.

    Args:
        config: what to do.
        say: takes lines for people while the run goes on.
        progress: shows how far it is.

    Returns:
        The report, which has been written to `masks/petseg/stats.json`, too.

    Raises:
        PetsegError: nothing can be done, or the run cannot go on.
    """
    report = Report(options=config.to_json())
    check_folders(config)
    catalog.check_packages(config.formats)
    path, where = find_model(config.model, config.precision)
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
    session: Session = NoSession(model)
    todo = plan.todo if config.limit is None else plan.todo[: config.limit]
    if report.stopped is None and not all(work.derive for work in todo):
        choice = runtime.choose(config.provider)
        say(f"provider: {choice.provider} ({choice.reason})")
        pool.warm_up()
        started = time.perf_counter()
        session = runtime.open_session(
            path, model, choice.provider, config.precision, config.batch_size
        )
        load_seconds = time.perf_counter() - started
        if session.precision == "int8" and model.accuracy_cost is not None:
            report.notes.append(f"int8: {model.accuracy_cost}")
        if config.check:
            _check(config, session, path, [work.path for work in todo], report, say)
        report.describe(session, path, machine.device_name(session.provider), load_seconds)
    survey = Survey(model.classes) if config.report else None
    with (
        temporary_folder(config.reserved) as temporary,
        open_books(config, report, temporary, session.streams) as books,
    ):
        books.take_over(plan)
        if todo and report.stopped is None:
            job = _job(config, session, maker, temporary)
            _work(config, todo, session, job, report, books, progress)
        if report.stopped is None:
            report.notes += tables.rebuild(
                config.masks,
                temporary,
                model.classes,
                config.tables,
                config.review_below,
                survey,
                plan.photos,
                books.seconds,
                config.max_pixels,
            )
        elif config.tables or config.review_below is not None:
            report.notes.append("tables and lists of all masks are made when a run ends well")
    if survey is not None and report.stopped is None:
        _write_page(config, survey, report, say)
    for count, file in ((report.counts.failed, "failures.csv"), (report.counts.kept, "kept.csv")):
        if count:
            say(f"{count} {file.removesuffix('.csv')}: see {config.reserved / file}")
    return report


def _write_page(config: BatchConfig, survey: Survey, report: Report, say: Say) -> None:
    # Late: it brings matplotlib, which the run itself has no use for.
    from petseg.pages import masks as page
    from petseg.pages.run import understand

    path = config.reserved / page.NAME
    run = understand(report.as_dict())
    try:
        page.write(path, survey, config.masks, sources.root(config.images), run)
    except OSError as error:
        raise PetsegError(
            f"cannot write {error.filename or path}: {error.strerror}; the masks are in place"
        ) from error
    say(f"report: {path}")


def _check(
    config: BatchConfig,
    session: Session,
    path: Path,
    photos: list[str],
    report: Report,
    say: Say,
) -> None:
    """Say how many mask pixels are the same in float32, on some of the photos."""
    reference_path = full_precision(path, session.signature.precision)
    reference = runtime.open_session(
        reference_path, read_signature(reference_path), "cpu", "float32", batch_size=1
    )
    agreement = check.compare(session, reference, photos, config.max_pixels)
    if agreement is None:
        say("check: none of the photos looked at can be read")
        return
    report.equal_to_float32 = agreement.equal_pixels
    say(f"check: {session.precision} on {session.provider}: {agreement}")


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
    todo: list[Work],
    session: Session,
    job: Job,
    report: Report,
    books: Books,
    progress: Progress | None,
) -> None:
    """Hand the work to the engine and count what comes back."""
    if progress is not None:
        progress.begin(len(todo), job.provider)

    def on_outcome(outcome: Outcome) -> None:
        books.count(outcome)
        if progress is not None:
            progress.count(outcome)

    def stopping() -> bool:
        if progress is not None:
            progress.tick()
        return books.stopping

    # Two to begin with, and more where the session waits for them.
    most = min(config.workers or machine.usable_cores(), len(todo))
    with _signals(report):
        engine = LocalEngine(
            session, job, most if config.workers else min(2, most), config.read_timeout, most
        )
        try:
            engine.run(iter(todo), on_outcome, books.count_batch, stopping)
        finally:
            engine.close()
            report.worker_restarts = engine.restarts
            report.stages["infer"].busy_seconds = engine.cpu_seconds
            own = machine.peak_memory()
            report.peak_memory_bytes = None if own is None else own + engine.peak_memory
            report.workers, report.batch_size = len(engine.pool.workers), engine.tuner.size
            report.notes.extend(session.notes)


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
