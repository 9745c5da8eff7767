"""run_batch(...): find the work, hand it to an engine, count what becomes of it."""

from __future__ import annotations

import dataclasses
import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from types import FrameType
from typing import Any, Literal

from petseg import hardware, imageio, runtime, signature, sources, transforms
from petseg.engines.local import LocalEngine
from petseg.engines.outcome import Batch, Outcome
from petseg.errors import PetsegError
from petseg.masks import EXTRA, INDEX
from petseg.plan import Plan, Rules, make_plan
from petseg.records import Maker
from petseg.report import Report, Rows, timed
from petseg.steps import Job
from petseg.temporary import temporary_folder

# Everything in `masks/` that is no mask lies below this name.
RESERVED = "petseg"


@dataclass(frozen=True)
class BatchConfig:
    """A run of petseg-batch; see its --help for what the options mean.

    Attributes:
        images: a folder, a file, or a glob pattern.
        masks: the folder of masks.
        model: None takes `./model.onnx` if there is one, else the model in the package.
        provider: "auto", "cuda" or "cpu".
        batch_size: images at once; None for the provider's default.
        workers: processes that read and write; None for the provider's default.
        formats: of `masks.NAMES`; "index" is always written.
        size: "source" for masks of the photo's size, "model" for the network's.
        names: "stem" for `x.png`, "full" for `x.jpg.png`.
        list_file: paths below `images`, or one of Oxford's lists.
        limit: at most so many images.
        max_pixels: larger images are refused.
        redo: make petseg's own masks again.
        overwrite: make everybody's masks again.
        fail_fast: stop at the first image that fails.
        verify: compare photos by content.
        dry_run: look, count, and do nothing.
        stats: where the stats go; None for `masks/petseg/stats.json`.
    """

    images: str
    masks: Path
    model: Path | None = None
    provider: str = "auto"
    batch_size: int | None = None
    workers: int | None = None
    formats: tuple[str, ...] = (INDEX.name,)
    size: Literal["source", "model"] = "source"
    names: Literal["stem", "full"] = "stem"
    list_file: Path | None = None
    limit: int | None = None
    max_pixels: int = imageio.DEFAULT_MAX_PIXELS
    redo: bool = False
    overwrite: bool = False
    fail_fast: bool = False
    verify: bool = False
    dry_run: bool = False
    stats: Path | None = None

    def __post_init__(self) -> None:
        for name in ("batch_size", "workers", "limit", "max_pixels"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"{name} must be at least 1, not {value}")

    @property
    def extras(self) -> tuple[str, ...]:
        """The formats beside the mask itself."""
        return tuple(name for name in self.formats if name in EXTRA)


def run_batch(
    config: BatchConfig,
    say: Callable[[str], None],
    progress: Callable[[int, Outcome | None], None],
) -> Report:
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
    report = Report(options=_options(config))
    _check_folders(config)
    path, why = find_model(config.model)
    say(f"model: {path} ({why})")
    model = signature.read(path)
    maker = Maker(model.graph_hash, transforms.TRANSFORM, config.size, config.names)
    rules = Rules(config.masks, maker, config.extras, config.redo, config.overwrite, config.verify)
    plan = make_plan(sources.find(config.images, config.list_file), rules)
    _count_plan(report, plan)
    say(
        f"{plan.files} files: {len(plan.todo)} to do, {plan.skipped} skipped "
        f"({len(plan.kept)} of them kept for somebody), {len(plan.failed)} unreadable, "
        f"{plan.ignored} ignored"
    )
    if config.dry_run:
        return report
    with timed(report), temporary_folder(config.masks / RESERVED) as temporary:
        books = _Books(config, report, temporary)
        for name, reason in plan.failed:
            books.failures.add(name, reason)
        for name in plan.kept:
            books.kept.add(name)
        if config.fail_fast and plan.failed:
            report.stopped = "--fail-fast"
        elif plan.todo:
            _work(config, plan, model, path, maker, report, books, say, progress, temporary)
        report.wall_seconds = time.perf_counter() - report.started
        books.close()
    return report


def _work(
    config: BatchConfig,
    plan: Plan,
    model: signature.Signature,
    path: Path,
    maker: Maker,
    report: Report,
    books: _Books,
    say: Callable[[str], None],
    progress: Callable[[int, Outcome | None], None],
    temporary: Path,
) -> None:
    choice = runtime.choose(config.provider)
    say(f"provider: {choice.provider} ({choice.reason})")
    session = runtime.OrtSession(path, model, choice.provider, config.batch_size)
    report.model_load_seconds = time.perf_counter() - report.started
    report.model = {"path": str(path), "hash": model.graph_hash, "stored": model.precision}
    report.provider, report.precision = session.provider, session.precision
    report.device = hardware.device_name(session.provider)
    job = Job(
        masks=config.masks,
        temporary=temporary,
        model_size=model.size,
        classes=model.classes,
        maker=maker,
        provider=session.provider,
        precision=session.precision,
        formats=config.extras,
        max_pixels=config.max_pixels,
        replace_any=config.overwrite,
    )
    todo = plan.todo if config.limit is None else plan.todo[: config.limit]
    workers = config.workers or default_workers(session.provider)
    progress(len(todo), None)

    def on_outcome(outcome: Outcome) -> None:
        books.count(outcome)
        progress(len(todo), outcome)

    with _signals(report):
        engine = LocalEngine(session, job, min(workers, len(todo)))
        try:
            engine.run(iter(todo), on_outcome, books.count_batch, lambda: books.stopping)
        finally:
            engine.close()
            report.worker_restarts = engine.restarts
            own = hardware.peak_memory()
            report.peak_memory_bytes = None if own is None else own + engine.peak_memory
            report.notes.extend(session.notes)


class _Books:
    """Counts outcomes as they come, and keeps the lists that go with them."""

    def __init__(self, config: BatchConfig, report: Report, temporary: Path) -> None:
        folder = config.masks / RESERVED
        self.config = config
        self.report = report
        self.failures = Rows(folder / "failures.csv", temporary, ("file", "reason"))
        self.kept = Rows(folder / "kept.csv", temporary, ("mask",))
        self.stats = config.stats or folder / "stats.json"

    @property
    def stopping(self) -> bool:
        return self.report.stopped is not None

    def count(self, outcome: Outcome) -> None:
        report, counts = self.report, self.report.counts
        if outcome.status == "done":
            counts.done += 1
            report.pixels += outcome.pixels
            report.stages["read"].add(outcome.read_seconds, outcome.read_seconds)
            report.stages["write"].add(outcome.write_seconds, outcome.write_seconds)
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
        report.stages["infer"].add(batch.cpu_seconds, batch.wall_seconds)
        report.infer_wall_seconds += batch.wall_seconds
        report.ready_sum += batch.waiting
        report.batches += 1

    def close(self) -> None:
        """Put the lists and the stats in place."""
        try:
            self.failures.close()
            self.kept.close()
            self.report.write_stats(self.stats)
        except OSError as error:
            raise PetsegError(
                f"cannot write {error.filename}: {error.strerror}; the masks are in place"
            ) from error


def _count_plan(report: Report, plan: Plan) -> None:
    counts = report.counts
    counts.files, counts.ignored, counts.skipped = plan.files, plan.ignored, plan.skipped
    counts.kept, counts.failed = len(plan.kept), len(plan.failed)


def find_model(model: Path | None) -> tuple[Path, str]:
    """The model to use, and why it.

    Raises:
        PetsegError: none was named and the package has none.
    """
    if model is not None:
        return model, "--model"
    here = Path("model.onnx")
    if here.exists():
        return here, "in this folder"
    packaged = Path(str(files("petseg") / "assets" / "petseg.onnx"))
    if packaged.exists():
        return packaged, "from the package"
    raise PetsegError(
        "no model: name one with --model, or make ./model.onnx with petseg-export model.onnx"
    )


def default_workers(provider: str) -> int:
    """On a GPU every core decodes and encodes; on the CPU the network needs them more."""
    cores = runtime.usable_cores()
    return cores if provider == "cuda" else max(1, min(4, cores // 2))


def _check_folders(config: BatchConfig) -> None:
    """Refuse what would mix photos and masks, before anything is written."""
    base = sources.root(config.images).resolve()
    target = config.masks.resolve()
    if Path(config.images).is_dir() and (target == base or base in target.parents):
        raise PetsegError(
            f"{config.masks} lies inside {config.images}: masks would be taken for photos the "
            "next time; choose a folder outside"
        )
    if (base / RESERVED).is_dir() and Path(config.images).is_dir():
        raise PetsegError(
            f"{base / RESERVED}: a folder of that name at the top of the input would meet "
            f"{config.masks / RESERVED}, where stats and other formats go; rename it"
        )
    try:
        (config.masks if not config.dry_run else target.parent).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise PetsegError(f"cannot make {config.masks}: {error.strerror}") from error
    if not config.dry_run and not os.access(config.masks, os.W_OK | os.X_OK):
        raise PetsegError(f"{config.masks} is not writable")


def _options(config: BatchConfig) -> dict[str, Any]:
    return {
        name: str(value) if isinstance(value, Path) else value
        for name, value in dataclasses.asdict(config).items()
    }


@contextmanager
def _signals(report: Report) -> Iterator[None]:
    """The first SIGINT or SIGTERM lets what is under way end well; a second one does not wait."""

    def stop(number: int, frame: FrameType | None) -> None:
        if report.stopped in ("SIGINT", "SIGTERM"):
            raise KeyboardInterrupt
        report.stopped = signal.Signals(number).name

    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    for number in before:
        signal.signal(number, stop)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
