"""Counts, stage times and exit code of a run, and the files that tell of them."""

from __future__ import annotations

import csv
import json
import platform
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from petseg.classes import PET_CLASSES, SegmentClass
from petseg.system import machine
from petseg.system.distributions import OverTime, Shares, Stage
from petseg.system.machine import ONNXRUNTIME_PACKAGES
from petseg.system.temporary import write_whole
from petseg.system.text import cell

if TYPE_CHECKING:
    from petseg.runtime import Session

# Packages whose versions stand in the stats, beside onnxruntime's.
_TOLD = ("petseg", "numpy", "pillow", "openvino")


@dataclass
class Counts:
    """What became of every file that was found.

    `files = done + skipped + failed + ignored + left`, always.

    Attributes:
        files: found.
        done: masks written.
        skipped: masks that were there already.
        kept: of these, those that petseg did not make or somebody changed.
        derived: of those skipped, the ones a format was made of, without the network.
        failed: images that cannot be read.
        ignored: files that are no images.
        left: not reached.
    """

    files: int = 0
    done: int = 0
    skipped: int = 0
    kept: int = 0
    failed: int = 0
    ignored: int = 0
    derived: int = 0

    @property
    def left(self) -> int:
        return self.files - self.done - self.skipped - self.failed - self.ignored


@dataclass
class Report:
    """Everything `stats.json` says.

    Attributes:
        counts: what became of the files.
        options: of the run, for people.
        classes: what the masks' values mean.
        model, provider, precision, device: what really ran.
        stages: "read", "infer" (a batch is one item) and "write".
        infer_wall_seconds: how long the session ran, as if with all its streams at once.
        pixels: of all photos done.
        confidence, uncertain: of all masks done (see `measures.certainty`).
        masks_over_time: when they were done, seconds since the run began.
        started: `time.perf_counter()` when the run began.
        model_load_seconds: how long making the session took.
        ready_seconds, first_mask_seconds: since the run began.
        wall_seconds: of the whole run.
        ready_sum, batches: images that waited for the session beyond each batch, and batches.
        peak_memory_bytes: the sum over this process and its workers of each one's largest; None
            where it cannot be known.
        equal_to_float32: share of mask pixels, 0..1, where it was looked at (--check).
        workers, batch_size: at the end of the run; found on the way where they were not given.
        trying: whether the run ended while batch sizes were still being tried.
        worker_restarts: worker processes that died and were replaced.
        gone: masks whose photo is not in the input any more; None where the run did not look,
            because it was stopped or not asked to do all of a folder.
        store_retries: requests to stores that were made again.
        store_wait_seconds: in which this machine could have gone on, had a store been quicker.
        retries: steps of images that were begun once more, because a node of a cluster was lost.
        stopped: None, or why the run ended early: "SIGINT", "SIGTERM", "--fail-fast" or "error".
        notes: what happened that the user should know.
    """

    options: dict[str, Any]
    counts: Counts = field(default_factory=Counts)
    classes: tuple[SegmentClass, ...] = PET_CLASSES
    model: dict[str, Any] = field(default_factory=dict)
    provider: str = ""
    precision: str = ""
    device: str = ""
    stages: dict[str, Stage] = field(
        default_factory=lambda: {name: Stage() for name in ("read", "infer", "write")}
    )
    infer_wall_seconds: float = 0.0
    pixels: int = 0
    confidence: Shares = field(default_factory=Shares)
    uncertain: Shares = field(default_factory=Shares)
    masks_over_time: OverTime = field(default_factory=lambda: OverTime(1.0))
    started: float = field(default_factory=time.perf_counter)
    model_load_seconds: float | None = None
    ready_seconds: float = 0.0
    first_mask_seconds: float | None = None
    wall_seconds: float = 0.0
    ready_sum: int = 0
    batches: int = 0
    peak_memory_bytes: int | None = None
    equal_to_float32: float | None = None
    workers: int = 0
    batch_size: int = 0
    trying: bool = False
    worker_restarts: int = 0
    gone: int | None = None
    store_retries: int = 0
    store_wait_seconds: float = 0.0
    retries: int = 0
    stopped: str | None = None
    notes: list[str] = field(default_factory=list)

    def describe(self, session: Session, model: str, device: str) -> None:
        """Note what runs, once it is loaded."""
        self.ready_seconds = time.perf_counter() - self.started
        signature = session.signature
        self.model = {
            "path": model,
            "hash": signature.graph_hash,
            "stored": signature.precision,
        }
        self.provider, self.precision, self.device = session.provider, session.precision, device

    @property
    def exit_code(self) -> int:
        """0 all done; 1 stopped early; 3 some images failed; 130 and 143 after a signal."""
        by_reason = {"SIGINT": 130, "SIGTERM": 143, "--fail-fast": 1, "error": 1}
        if self.stopped is not None:
            return by_reason[self.stopped]
        return 3 if self.counts.failed else 0

    @property
    def images_per_second(self) -> float:
        """Masks written, by the time between the loaded model and the end."""
        seconds = self.wall_seconds - self.ready_seconds
        return self.counts.done / seconds if seconds > 0 else 0.0

    @property
    def bottleneck(self) -> str | None:
        """The stage that held the run back.

        The session, where it ran most of the time; else "store", where all else waited for it half
        of the time or more; else the one whose processor time was largest.
        """
        if not self.counts.done:
            return None
        seconds = self.wall_seconds - self.ready_seconds
        if self.infer_wall_seconds >= 0.8 * seconds:
            return "infer"
        if self.store_wait_seconds > 0 and self.store_wait_seconds >= 0.5 * seconds:
            return "store"
        return max(self.stages, key=lambda name: self.stages[name].busy_seconds)

    def as_dict(self) -> dict[str, Any]:
        """The content of `stats.json`; times in seconds, memory in bytes."""
        counts = self.counts
        return {
            "counts": {
                "files": counts.files,
                "done": counts.done,
                "skipped": counts.skipped,
                "kept": counts.kept,
                "derived": counts.derived,
                "failed": counts.failed,
                "ignored": counts.ignored,
                "left": counts.left,
            },
            "gone": self.gone,
            "exit_code": self.exit_code,
            "stopped": self.stopped,
            "images_per_second": self.images_per_second,
            "megapixels_per_second": self.images_per_second * self.pixels / 1e6 / counts.done
            if counts.done
            else 0.0,
            "wall_seconds": self.wall_seconds,
            "model_load_seconds": self.model_load_seconds,
            "ready_seconds": self.ready_seconds,
            "first_mask_seconds": self.first_mask_seconds,
            "stages": {name: stage.as_dict() for name, stage in self.stages.items()},
            "infer_wall_seconds": self.infer_wall_seconds,
            "mean_images_waiting_for_session": self.ready_sum / self.batches
            if self.batches
            else None,
            "bottleneck": self.bottleneck,
            "confidence": self.confidence.as_dict(),
            "uncertain": self.uncertain.as_dict(),
            "masks_over_time": self.masks_over_time.as_dict(),
            "peak_memory_bytes": self.peak_memory_bytes,
            "provider": self.provider,
            "precision": self.precision,
            "device": self.device,
            "versions": {
                "python": platform.python_version(),
                **machine.package_versions(
                    "petseg", "numpy", "pillow", *ONNXRUNTIME_PACKAGES, "openvino"
                ),
            },
            "classes": [asdict(item) for item in self.classes],
            "model": self.model,
            "equal_to_float32": self.equal_to_float32,
            "workers": self.workers,
            "batch_size": self.batch_size,
            "batch_size_found": not self.trying,
            "worker_restarts": self.worker_restarts,
            "store_retries": self.store_retries,
            "store_wait_seconds": self.store_wait_seconds,
            "retries": self.retries,
            "notes": self.notes,
            "options": self.options,
        }

    def summary(self) -> str:
        """A few lines for people."""
        counts = self.counts
        lines = [
            f"{counts.files} files: {counts.done} done, {counts.skipped} skipped, "
            f"{counts.failed} failed, {counts.ignored} ignored, {counts.left} left"
        ]
        if counts.kept:
            lines.append(f"{counts.kept} masks kept that petseg did not make or somebody changed")
        if self.gone:
            lines.append(f"{self.gone} masks whose photo is gone; none of them was deleted")
        if counts.derived:
            lines.append(f"formats made of {counts.derived} masks that were there already")
        if counts.done:
            lines.append(
                f"{self.images_per_second:.1f} images/s on {self.provider} ({self.precision}), "
                f"{self.wall_seconds:.1f} s in all; held back by: {self.bottleneck} "
                f"(batches of {self.batch_size}, {self.workers} workers"
                f"{'; still trying batch sizes' if self.trying else ''})"
            )
        if self.worker_restarts:
            lines.append(f"{self.worker_restarts} workers died or hung and were replaced")
        return "\n".join(lines + self.notes)

    def write_stats(self, path: Path, temporary: Path | None = None) -> None:
        """Write `stats.json`, whole or not at all; see `temporary.write_whole`."""
        path.parent.mkdir(parents=True, exist_ok=True)
        text = json.dumps(self.as_dict(), indent=1) + "\n"
        write_whole(path, text.encode(), temporary)


class Rows:
    """A CSV file that grows with the run and takes its name at the end; absent without rows."""

    def __init__(self, path: Path, temporary: Path, header: tuple[str, ...]) -> None:
        self.path = path
        self.header = header
        self._part = temporary / f"{path.name}.part"
        self._file: IO[str] | None = None

    def add(self, name: str, *cells: str) -> None:
        """A file's name, and what is to be said of it."""
        if self._file is None:
            # Names need not be valid Unicode; they are written back as the bytes they were.
            self._file = self._part.open(
                "w", newline="", encoding="utf-8", errors="surrogateescape"
            )
            csv.writer(self._file).writerow(self.header)
        csv.writer(self._file).writerow((cell(name), *cells))

    def close(self) -> None:
        """Put the file in place, or remove an earlier run's where there is nothing to tell."""
        if self._file is None:
            self.path.unlink(missing_ok=True)
            return
        self._file.close()
        self._part.replace(self.path)
