"""A run at work: the model is loaded, the engine gets the images, signals end it well."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Protocol

from petseg import runtime
from petseg.batch import check
from petseg.batch.books import Books
from petseg.batch.report import Report
from petseg.engines import pool
from petseg.engines.engine import Engine, Usage
from petseg.engines.local import LocalEngine
from petseg.engines.outcome import Outcome, Work
from petseg.errors import GOES_ON, PetsegError
from petseg.modelfile.signature import Signature
from petseg.planning.config import BatchConfig, full_precision, read_signature
from petseg.remote.here import Site
from petseg.runtime import Session
from petseg.steps import Job
from petseg.system import machine

Say = Callable[[str], None]


class Progress(Protocol):
    """Shows how far a run is."""

    def begin(self, todo: int, provider: str, skipped: int, failed: int) -> None:
        """The work begins: so many images, on this provider ("" where none needs the network).

        So many others were skipped or failed when the work was planned.
        """

    def count(self, outcome: Outcome) -> None:
        """One more image is settled."""

    def tick(self) -> None:
        """Time has passed; called several times a second, whatever happens."""


def load(
    config: BatchConfig,
    path: Path,
    model: Signature,
    todo: list[Work],
    report: Report,
    say: Say,
) -> Session:
    """The model, ready to run on this machine.

    Raises:
        ModelError, ProviderError: as `runtime.open_session`.
    """
    choice = runtime.choose(config.provider)
    say(f"provider: {choice.provider} ({choice.reason})")
    # What cannot be compared is refused before anything is loaded.
    reference = full_precision(path, model) if config.check else None
    pool.warm_up()
    started = time.perf_counter()
    session = runtime.open_session(
        path, model, choice.provider, config.precision, config.batch_size, config.devices
    )
    report.model_load_seconds = time.perf_counter() - started
    if reference is not None:
        _check(config, session, reference, [work.path for work in todo], report, say)
    return session


def _check(
    config: BatchConfig,
    session: Session,
    full: Path,
    photos: list[str],
    report: Report,
    say: Say,
) -> None:
    """Say how many mask pixels are the same in float32, on some of the photos."""
    reference = runtime.open_session(full, read_signature(full), "cpu", "float32", batch_size=1)
    agreement = check.compare(session, reference, photos, config.max_pixels)
    if agreement is None:
        say("check: none of the photos looked at can be read")
        return
    report.equal_to_float32 = agreement.equal_pixels
    say(f"check: {session.precision} on {session.provider}: {agreement}")


def _engine(site: Site, images: int, session: Session, path: Path, job: Job, say: Say) -> Engine:
    config = site.config
    if config.engine == "ray":
        # Late: most machines have no Ray, and no use for it.
        from petseg.engines.ray import RayEngine

        asked = (config.provider, config.precision, config.batch_size)
        options = (config.read_timeout, site.carriage)
        cluster = RayEngine(path, job, config.cluster, *asked, *options)
        say(f"engine: ray ({cluster.room.where})")
        return cluster
    # Two to begin with, and more where the session waits for them.
    most = min(config.workers or machine.usable_cores(), images)
    first = most if config.workers else min(2, most)
    return LocalEngine(session, job, first, config.read_timeout, most)


def work(
    site: Site,
    todo: list[Work],
    session: Session,
    path: Path,
    job: Job,
    books: Books,
    say: Say,
    progress: Progress | None,
) -> None:
    """Hand the work to the engine and count what comes back.

    Args:
        site: where photos and masks are, and what the run is asked to do.
        todo: images to do.
        session: of this machine; a cluster makes its own of the model at `path`.
        path: the model's file.
        job: what is the same for every image.
        books: take what comes back.
        say: takes lines for people.
        progress: shows how far the run is.

    Raises:
        PetsegError: the run cannot go on; or it went to its end, and some image has no outcome.
    """
    config, report = site.config, books.report
    settled = 0

    def on_outcome(outcome: Outcome) -> None:
        nonlocal settled
        settled += 1
        books.count(outcome)
        if progress is not None:
            progress.count(outcome)

    def stopping() -> bool:
        if progress is not None:
            progress.tick()
        return books.stopping

    engine = _engine(site, len(todo), session, path, job, say)
    books.engine = engine
    if progress is not None:
        counts = report.counts
        provider = job.provider or config.engine
        progress.begin(len(todo), provider, counts.skipped, counts.failed)
    try:
        site.run(engine, iter(todo), on_outcome, books.count_batch, stopping)
    finally:
        engine.close()
        report.store_retries, report.store_wait_seconds = site.retries, site.waited
        _take_over(engine.used(), report)
    # As images that are left it would pass for a run that ended well.
    if settled != len(todo) and not books.stopping:
        raise PetsegError(
            f"expected an outcome for each of {len(todo)} images, found {settled}: a fault of "
            f"petseg's, which should be told of; {GOES_ON}"
        )


def _take_over(used: Usage, report: Report) -> None:
    report.worker_restarts, report.retries = used.restarts, used.retries
    report.stages["infer"].busy_seconds = used.infer_seconds
    report.store_retries += used.store_retries
    report.peak_memory_bytes = used.peak_memory
    report.workers, report.batch_size = used.workers, used.batch_size
    report.trying = used.trying
    report.notes.extend(used.notes)
    report.provider = used.provider or report.provider
    report.precision = used.precision or report.precision
    report.device = used.device or report.device


@contextmanager
def signals(report: Report) -> Iterator[None]:
    """The first SIGINT or SIGTERM lets what is under way end well; a second one does not wait.

    The first is told by `report.stopped` alone; the second does what it would have done before.
    One that is ignored, as shells have it for programs in the background, stays so.
    """

    def stop(number: int, frame: FrameType | None) -> None:
        handler = before[signal.Signals(number)]
        if report.stopped in ("SIGINT", "SIGTERM") and callable(handler):
            handler(number, frame)
        report.stopped = signal.Signals(number).name

    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    before = {number: found for number, found in handlers.items() if found is not signal.SIG_IGN}
    for number in before:
        signal.signal(number, stop)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
