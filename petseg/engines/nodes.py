"""What runs on the nodes of a cluster: the three steps, on the batches that Ray Data hands them.

A batch is a dict of arrays: "rows", see `rows.pack`, and what the network sees or says.
"""

from __future__ import annotations

import dataclasses
import hashlib
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from petseg import runtime, steps
from petseg.engines import carrying
from petseg.engines.attempt import Verdict, attempt
from petseg.engines.carrying import Carrier
from petseg.engines.outcome import Batch, Outcome
from petseg.engines.rows import Ran, Row, Rows, pack, unpack
from petseg.errors import PetsegError
from petseg.modelfile import signature
from petseg.steps import Job
from petseg.system import machine
from petseg.system.deadline import within

# Of a batch whose process ended; what ends it each time is one of its photos.
RETRIES = 2


class Ledger:
    """An actor that knows what the steps have begun, and so what they begin once more."""

    def __init__(self) -> None:
        self.begun: dict[bytes, int] = {}
        self.again = 0

    def begin(self, key: bytes, images: int) -> int:
        """These images enter a step; returns how often they had entered it before."""
        before = self.begun.get(key, 0)
        self.begun[key] = before + 1
        if before:
            self.again += images
        return before

    def forget(self, keys: set[bytes]) -> None:
        """What has left the last step; else this would grow with the run.

        Ray does it again where a node takes the word of it along.  That is not counted then.
        """
        for key in keys:
            self.begun.pop(key, None)

    def retries(self) -> int:
        """Images that entered a step once more, a step at a time."""
        return self.again


def read(
    batch: Rows, job: Job, timeout: float, ledger: Any, carrier: Carrier | None = None
) -> Rows:
    """Decode photos: a batch with "rows" to one with "pixels" uint8 (N, S, S, 3), too."""
    rows = unpack(batch["rows"])
    rows = _begin("read", rows, ledger)
    if carrier is not None and carrier.brings:
        rows = carrying.bring(rows, carrier, timeout)
    pixels = np.zeros((len(rows), job.model_size, job.model_size, 3), np.uint8)
    done = [_read(row, job, timeout, pixels[i]) for i, row in enumerate(rows)]
    if carrier is not None and carrier.brings:
        for row in done:
            if row.here:
                carrier.drop(row.here)
        done = carrying.told([row._replace(here="") for row in done], carrier)
    return {"rows": pack(done), "pixels": pixels}


def _read(row: Row, job: Job, timeout: float, pixels: NDArray[np.uint8]) -> Row:
    # Or its mask is there, or the photo did not come.
    if row.given_up or row.work.derive or row.verdict != Verdict():
        return row
    try:
        return within(timeout, lambda: _decode(row, job, pixels))
    except TimeoutError:
        return row._replace(verdict=Verdict(_late("reading it", timeout)))


def _decode(row: Row, job: Job, pixels: NDArray[np.uint8]) -> Row:
    started = time.thread_time()
    photo, verdict = attempt(
        lambda: steps.read(row.here or row.work.path, pixels, job.max_pixels), job.masks, None
    )
    return row._replace(photo=photo, verdict=verdict, read_seconds=time.thread_time() - started)


class Network:
    """An actor's session: a batch with "pixels" to one with "probabilities" uint8 (N, C, S, S)."""

    def __init__(
        self,
        model: Any,
        provider: str,
        precision: str,
        batch_size: int | None,
        cores: int,
        ledger: Any,
    ) -> None:
        """Load the model.

        Args:
            model: where Ray holds the bytes of the file.
            provider, precision, batch_size: as in `runtime.open_session`, but "auto" goes, too.
            cores: that it may use of the node's.
            ledger: the run's.

        Raises:
            PetsegError: the model cannot be run here.
        """
        import ray

        self.ledger = ledger
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "model.onnx"
            path.write_bytes(ray.get(model))
            found = signature.read(path)
            choice = runtime.choose(provider)
            self.session = runtime.open_session(
                path, found, choice.provider, precision, batch_size, cores=cores
            )
        self.device = machine.device_name(self.session.provider)
        self.reason = f"provider: {choice.provider} ({choice.reason})"
        self.streams = [self.session.open_stream() for _ in range(self.session.streams)]
        self.threads = ThreadPoolExecutor(len(self.streams))

    def __call__(self, batch: Rows) -> Rows:
        rows, pixels = _begin("infer", unpack(batch["rows"]), self.ledger), batch["pixels"]
        size = self.session.signature.size
        classes = len(self.session.signature.classes)
        probabilities = np.zeros((len(rows), classes, size, size), np.uint8)
        chosen = [i for i, row in enumerate(rows) if row.photo is not None and not row.given_up]
        padded: list[int | None] = []
        started, busy = time.perf_counter(), time.process_time()
        try:
            if chosen:
                probabilities[chosen], padded = self._infer(pixels[chosen])
        except PetsegError as error:
            # Another session would fail as well: the run ends with its message.
            rows = [row._replace(verdict=Verdict(stop=str(error))) for row in rows]
            return {"rows": pack(rows), "probabilities": probabilities}
        seconds, busy = time.perf_counter() - started, time.process_time() - busy
        ran = Ran(
            self.session.provider,
            self.session.precision,
            self.device,
            (self.reason, *self.session.notes),
        )
        for i, shape in zip(chosen, padded, strict=True):
            photo = rows[i].photo
            assert photo is not None
            photo = photo._replace(padded=shape)
            rows[i] = rows[i]._replace(photo=photo, ran=ran, infer_seconds=seconds / len(chosen))
        if chosen:
            # Each stream gets its share, and cuts what is more than the session takes.
            share = -(-len(chosen) // len(self.streams))
            rows[chosen[0]] = rows[chosen[0]]._replace(
                batch=Batch(len(chosen), seconds, 0),
                at_once=min(share, self.session.batch_size),
                busy_seconds=busy,
            )
        return {"rows": pack(rows), "probabilities": probabilities}

    def _infer(self, pixels: NDArray[np.uint8]) -> tuple[NDArray[np.uint8], list[int | None]]:
        parts = np.array_split(pixels, min(len(self.streams), len(pixels)))
        done = np.concatenate([*self.threads.map(steps.infer, self.streams, parts)])
        padded: list[int | None] = []
        for stream, part in zip(self.streams, parts, strict=False):
            padded += stream.padded or [None] * len(part)
        return done, padded


def write(
    batch: Rows, job: Job, timeout: float, ledger: Any, carrier: Carrier | None = None
) -> Rows:
    """Put masks in place: a batch with "rows" and "probabilities" to one with "rows" alone.

    Without probabilities where no row wants a mask, but formats of one that is there.
    """
    rows = _begin("write", unpack(batch["rows"]), ledger)
    scores = batch.get("probabilities", [None] * len(rows))
    if carrier is not None and carrier.takes:
        job = carrier.job(job)
        rows = carrying.bring_masks(rows, carrier, timeout)
    done = [_write(row, scores[i], job, timeout) for i, row in enumerate(rows)]
    if carrier is not None and carrier.takes:
        done = carrying.told(carrying.take(done, carrier, timeout), carrier)
    ledger.forget.remote({key for row in rows for key in row.begun})
    return {"rows": pack(done)}


def _write(row: Row, probabilities: NDArray[np.uint8] | None, job: Job, timeout: float) -> Row:
    if row.given_up:
        return row
    try:
        return within(timeout, lambda: _put(row, probabilities, job))
    except TimeoutError:
        problem = _late("writing its mask", timeout)
        return row._replace(outcome=Outcome(row.work, "failed", problem))


def _late(verb: str, seconds: float) -> str:
    return (
        f"{verb} took more than {seconds:g} seconds: what it lies on does not answer, or it needs "
        "a larger --read-timeout"
    )


def _put(row: Row, probabilities: NDArray[np.uint8] | None, job: Job) -> Row:
    work, started = row.work, time.thread_time()
    record, verdict = None, row.verdict
    if work.derive and verdict == Verdict():
        _, verdict = attempt(
            lambda: steps.derive(work.mask, work.path, work.derive, job), job.masks, work.mask
        )
    elif verdict == Verdict():
        photo, ran = row.photo, row.ran
        assert photo is not None
        assert ran is not None
        assert probabilities is not None
        here = dataclasses.replace(job, provider=ran.provider, precision=ran.precision)
        record, verdict = attempt(
            lambda: steps.write(work.mask, photo, probabilities, here), job.masks, work.mask
        )
    seconds = time.thread_time() - started
    if verdict.kept:
        outcome = Outcome(work, "kept")
    elif verdict.problem is not None:
        outcome = Outcome(work, "failed", verdict.problem)
    elif record is None:
        outcome = Outcome(work, "derived", write_seconds=seconds)
    else:
        pixels = record.height * record.width
        took = (row.read_seconds, seconds, row.infer_seconds)
        certainty = (record.confidence, record.uncertain)
        outcome = Outcome(work, "done", None, pixels, *took, *certainty)
    return row._replace(verdict=verdict, outcome=outcome)


def _begin(step: str, rows: list[Row], ledger: Any) -> list[Row]:
    """Tell that these images enter a step; those that were at it too often are given up.

    Ray does again, without end, what ended its process: a node that was lost, or a photo that
    crashes its decoder each time.
    """
    import ray

    if not rows:
        return rows
    names = "\0".join([step, *(row.work.mask for row in rows)])
    key = hashlib.sha256(names.encode(errors="surrogateescape")).digest()[:16]
    before = ray.get(ledger.begin.remote(key, len(rows)))
    given_up = before > RETRIES
    return [
        row._replace(given_up=row.given_up or given_up, begun=(*row.begun, key)) for row in rows
    ]
