"""The local engine: workers that die, signals to stop, and memory that is shared."""

from __future__ import annotations

import dataclasses
import multiprocessing
import os
import queue
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from multiprocessing import shared_memory
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from batching import command, expected_mask, make_job, picture, read_mask, save_photos
from numpy.typing import NDArray
from patience import with_patience
from soak.colours import ColourSession
from stuck import dead_mount, leased

from petseg.engines.bell import Bell
from petseg.engines.inference import Inference
from petseg.engines.local import LocalEngine
from petseg.engines.outcome import Batch, Outcome, Work
from petseg.engines.worker import Slots
from petseg.errors import PetsegError
from petseg.masks import records
from petseg.modelfile import signature
from petseg.runtime import NoSession
from petseg.runtime.onnx import OrtSession
from petseg.steps import Job
from petseg.system.sharedbuffer import SharedBuffer

COUNT = 12


class Poison(str):
    """A path that kills the worker it is handed to, as a bug in a native decoder would."""

    def __reduce__(self) -> tuple[Callable[[int], None], tuple[int]]:
        return _die, (0,)


def _die(_: int) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


@pytest.fixture
def session(tiny_model: Path) -> OrtSession:
    return OrtSession(tiny_model, signature.read(tiny_model), "cpu", "auto", 2)


@pytest.fixture
def job(tmp_path: Path) -> Job:
    return make_job(tmp_path / "masks", model_size=64)


@pytest.fixture
def todo(tmp_path: Path) -> list[Work]:
    names = save_photos(tmp_path / "images", COUNT)
    return [Work(str(tmp_path / "images" / name), name, name) for name in names]


def run(
    session: OrtSession,
    job: Job,
    todo: list[Work],
    workers: int = 1,
    read_timeout: float = 60.0,
    stopping: Callable[[], bool] = lambda: False,
    on_outcome: Callable[[Outcome], None] = lambda outcome: None,
) -> tuple[list[Outcome], list[Batch], LocalEngine]:
    outcomes: list[Outcome] = []
    batches: list[Batch] = []

    def keep(outcome: Outcome) -> None:
        outcomes.append(outcome)
        on_outcome(outcome)

    engine = LocalEngine(session, job, workers, read_timeout)
    try:
        engine.run(iter(todo), keep, batches.append, stopping)
    finally:
        engine.close()
    assert multiprocessing.active_children() == []
    return outcomes, batches, engine


def test_everything_is_done_once(
    session: OrtSession, job: Job, todo: list[Work], tiny_model: Path
) -> None:
    outcomes, batches, engine = run(session, job, todo, workers=2)
    assert sorted(outcome.work.name for outcome in outcomes) == [work.name for work in todo]
    assert {outcome.status for outcome in outcomes} == {"done"}
    assert all(outcome.pixels == 96 * 128 for outcome in outcomes)
    assert all(outcome.read_seconds > 0 < outcome.write_seconds for outcome in outcomes)
    assert sum(batch.images for batch in batches) == COUNT
    assert max(batch.images for batch in batches) <= 2
    assert engine.restarts == 0
    assert engine.peak_memory > 1_000_000
    for seed, work in enumerate(todo):
        np.testing.assert_array_equal(
            read_mask(job.masks / work.mask), expected_mask(tiny_model, picture(seed))
        )


@pytest.mark.skipif(sys.platform == "win32", reason="signals")
def test_images_that_kill_workers_cost_themselves_and_no_more(
    session: OrtSession, job: Job, todo: list[Work]
) -> None:
    # One after the other, so that a new worker meets the next at once.
    for place in (0, 4, 5, 6, 7, 8, 9, COUNT - 1):
        todo[place] = dataclasses.replace(todo[place], path=Poison(todo[place].path))
    outcomes, _, engine = run(session, job, todo)
    assert len(outcomes) == COUNT
    failed = {outcome.work.name: outcome.problem for outcome in outcomes if outcome.problem}
    assert set(failed) == {work.name for work in todo if isinstance(work.path, Poison)}
    assert set(failed.values()) == {"a worker process died (SIGKILL) while reading it"}
    assert engine.restarts == 8
    assert sum(outcome.status == "done" for outcome in outcomes) == COUNT - 8


@pytest.mark.skipif(sys.platform == "win32", reason="signals")
def test_a_mask_whose_writing_kills_the_worker(
    session: OrtSession, job: Job, todo: list[Work]
) -> None:
    todo[3] = dataclasses.replace(todo[3], mask=Poison(todo[3].mask))
    outcomes, _, _ = run(session, job, todo)
    (failed,) = [outcome for outcome in outcomes if outcome.status == "failed"]
    assert failed.work.name == todo[3].name
    assert failed.problem == "a worker process died (SIGKILL) while writing its mask"
    assert len(outcomes) == COUNT


@pytest.mark.parametrize("way", ["lease", "dead mount"])
def test_a_read_that_never_ends_costs_one_image(
    way: str, tiny_model: Path, tmp_path: Path, todo: list[Work]
) -> None:
    session = OrtSession(tiny_model, signature.read(tiny_model), "cpu", "auto", 8)
    stuck = Path(todo[2].path)

    def attempt(limit: float) -> None:
        job = make_job(tmp_path / f"masks-{limit}", model_size=64)
        with leased(stuck) if way == "lease" else dead_mount(stuck, stuck.stat().st_size):
            outcomes, batches, engine = run(session, job, todo, workers=2, read_timeout=limit)
        done = [outcome for outcome in outcomes if outcome.work != todo[2]]
        (failed,) = [outcome for outcome in outcomes if outcome.work == todo[2]]
        # Nobody waited for it but the image that its worker had in hand behind it.
        assert outcomes.index(failed) >= COUNT - 2
        assert failed.problem == (
            f"reading it took more than {limit} seconds: what it lies on does not answer, or it "
            "needs a larger --read-timeout"
        )
        assert {outcome.status for outcome in done} == {"done"}
        assert sum(batch.images for batch in batches) == len(done) == COUNT - 1
        assert engine.restarts == 1
        for seed, work in enumerate(todo):
            if work != todo[2]:
                found = read_mask(job.masks / work.mask)
                np.testing.assert_array_equal(found, expected_mask(tiny_model, picture(seed)))
        assert not (job.masks / todo[2].mask).exists()

    with_patience(attempt)


def test_formats_of_masks_that_are_there_need_no_session(
    session: OrtSession, job: Job, todo: list[Work]
) -> None:
    with_patience(lambda limit: _formats_without_a_session(session, job, todo, limit))


def _formats_without_a_session(
    session: OrtSession, job: Job, todo: list[Work], limit: float
) -> None:
    shutil.rmtree(job.masks, ignore_errors=True)
    run(session, job, todo)
    before = {path.name: path.read_bytes() for path in job.masks.glob("*.png")}
    assert len(before) == COUNT
    derived = [dataclasses.replace(work, derive=("overlay",)) for work in todo]
    derived[5] = dataclasses.replace(derived[5], path=Poison(derived[5].path))
    seen: list[Outcome] = []
    batches: list[Batch] = []
    # A photo that is never read to its end is never drawn on.
    with leased(Path(derived[2].path)):
        engine = LocalEngine(NoSession(session.signature), job, 1, limit, most_workers=2)
        try:
            engine.run(iter(derived), seen.append, batches.append, lambda: False)
            assert len(engine.pool.workers) == 2
        finally:
            engine.close()
    problems = {outcome.work.name: outcome.problem for outcome in seen}
    assert problems.pop(todo[2].name) == (
        f"making formats of its mask took more than {limit} seconds: what it lies on does not "
        "answer, or it needs a larger --read-timeout"
    )
    died = "a worker process died (SIGKILL) while making formats of its mask"
    assert problems.pop(todo[5].name) == died
    assert set(problems.values()) == {None}
    assert sum(outcome.status == "derived" for outcome in seen) == COUNT - 2 == len(problems)
    assert batches == []
    assert engine.restarts == 2
    assert {path.name: path.read_bytes() for path in job.masks.glob("*.png")} == before
    pictures = sorted(path.stem for path in (job.masks / "petseg" / "overlay").iterdir())
    assert pictures == sorted(Path(name).stem for name in problems)


def test_a_run_that_is_to_stop_does_not_wait_for_a_read(
    session: OrtSession, job: Job, todo: list[Work]
) -> None:
    seen: list[Outcome] = []
    started = time.monotonic()
    with leased(Path(todo[2].path)):
        outcomes, _, _ = run(
            session, job, todo, 2, stopping=lambda: len(seen) >= 1, on_outcome=seen.append
        )
    assert time.monotonic() - started < 30, "it took its 60 seconds"
    assert {outcome.status for outcome in outcomes} == {"done"}
    # It has not failed: the next run does it.
    assert todo[2] not in [outcome.work for outcome in outcomes]


class Unusable(Job):
    """A job that no worker survives receiving."""

    def __reduce__(self) -> tuple[Callable[[int], None], tuple[int]]:
        return _die, (0,)


@pytest.mark.skipif(sys.platform == "win32", reason="signals")
def test_workers_that_cannot_start_end_the_run(
    session: OrtSession, job: Job, todo: list[Work]
) -> None:
    unusable = Unusable(**vars(job))
    seen: list[Outcome] = []
    with pytest.raises(PetsegError, match=r"worker processes die before they are ready \(SIGKILL"):
        run(session, unusable, todo, on_outcome=seen.append)
    assert seen == [], "images were blamed that nobody had begun"


def test_stopping_ends_what_is_under_way_and_no_more(
    session: OrtSession, job: Job, tmp_path: Path
) -> None:
    names = save_photos(tmp_path / "many", 60, 30, 30)
    todo = [Work(str(tmp_path / "many" / name), name, name) for name in names]
    seen: list[Outcome] = []
    outcomes, _, engine = run(
        session, job, todo, stopping=lambda: len(seen) >= 3, on_outcome=seen.append
    )
    assert 3 <= len(outcomes) <= 3 + engine.slots.count
    assert {outcome.status for outcome in outcomes} == {"done"}
    assert sorted(path.name for path in job.masks.glob("*.png")) == sorted(
        outcome.work.mask for outcome in outcomes
    )


class Shaped(ColourSession):
    """A network whose results depend on the batch, whose first image is computed in another."""

    batch_size, batch_sizes = 2, (2,)

    def run(self, images: NDArray[np.uint8]) -> NDArray[np.uint8]:
        self.padded = [1, *[2] * (len(images) - 1)]
        return super().run(images)


def test_a_mask_knows_the_batch_that_its_photo_was_computed_in(job: Job, todo: list[Work]) -> None:
    _, batches, _ = run(Shaped(), job, todo)  # type: ignore[arg-type]
    found = [records.inspect(job.masks / work.mask)[1] for work in todo]
    shapes = [record.padded for record in found if record is not None]
    assert shapes.count(1) == len(batches)
    assert shapes.count(2) == COUNT - len(batches) > 0


class Slow(ColourSession):
    """A network that is at its second batch of two until something happens."""

    batch_size, batch_sizes = 2, (2,)

    def __init__(self, happens: threading.Event) -> None:
        super().__init__()
        self.happens = happens
        self.begun = 0

    def run(self, images: NDArray[np.uint8]) -> NDArray[np.uint8]:
        self.begun += 1
        if self.begun == 2:
            assert self.happens.wait(60)
        return super().run(images)


def test_stopping_waits_for_the_batch_that_is_begun_and_for_no_other(
    job: Job, todo: list[Work], monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[Outcome] = []
    queued: list[object] = []
    cancelled = threading.Event()
    real_put, real_cancel = Inference.put, Inference.cancel

    def put(self: Inference[Any], *arguments: Any) -> None:
        queued.append(arguments)
        real_put(self, *arguments)

    def cancel(self: Inference[Any]) -> list[Any]:
        unbegun = real_cancel(self)
        assert len(unbegun) == 1
        cancelled.set()
        return unbegun

    monkeypatch.setattr(Inference, "put", put)
    monkeypatch.setattr(Inference, "cancel", cancel)
    outcomes, batches, _ = run(
        Slow(cancelled),  # type: ignore[arg-type]
        job,
        todo,
        workers=2,
        # By then another batch is waiting behind the one that is begun.
        stopping=lambda: len(seen) >= 1 and len(queued) >= 3,
        on_outcome=seen.append,
    )
    assert len(batches) == 2
    assert {outcome.status for outcome in outcomes} == {"done"}
    assert len(outcomes) == sum(batch.images for batch in batches) <= 4
    assert sorted(path.name for path in job.masks.glob("*.png")) == sorted(
        outcome.work.mask for outcome in outcomes
    )


def test_somebodys_mask_is_kept(session: OrtSession, job: Job, todo: list[Work]) -> None:
    job.masks.mkdir()
    (job.masks / "005.png").write_text("mine")
    outcomes, _, _ = run(session, job, todo)
    assert {o.work.mask for o in outcomes if o.status == "kept"} == {"005.png"}
    assert (job.masks / "005.png").read_text() == "mine"
    assert len(outcomes) == COUNT


class Failing:
    """A session whose model cannot be computed."""

    provider, precision, batch_size = "cpu", "float32", 2
    batch_sizes, streams = (2,), 1

    def open_stream(self) -> Failing:
        return self

    def run(self, images: NDArray[np.uint8]) -> NDArray[np.uint8]:
        raise ZeroDivisionError("in the session")


def test_workers_are_added_where_the_session_waits_for_them(job: Job, todo: list[Work]) -> None:
    # This network takes no time: one worker cannot bring enough.
    session: Any = ColourSession()
    many = [dataclasses.replace(work, mask=f"{k}-{work.mask}") for k in range(5) for work in todo]
    engine = LocalEngine(session, job, workers=1, read_timeout=60, most_workers=3)
    try:
        engine.run(iter(many), lambda outcome: None, lambda batch: None, lambda: False)
        assert len(engine.pool.workers) == 3
    finally:
        engine.close()
    assert len(list(job.masks.iterdir())) == len(many)


def test_work_may_come_later(session: OrtSession, job: Job, todo: list[Work]) -> None:
    bell, there = Bell(), queue.SimpleQueue[Work]()

    def feed() -> Iterator[Work | None]:
        for _ in todo:
            while there.empty():
                yield None
            yield there.get()

    def bring() -> None:
        for work in todo:
            time.sleep(0.02)
            there.put(work)
            bell.ring()

    threading.Thread(target=bring).start()
    outcomes: list[Outcome] = []
    looked = [0]

    def stopping() -> bool:
        looked[0] += 1
        return False

    engine = LocalEngine(session, job, workers=1, read_timeout=60)
    try:
        engine.run(feed(), outcomes.append, lambda batch: None, stopping, bell)
    finally:
        engine.close()
        bell.close()
    assert [outcome.status for outcome in outcomes] == ["done"] * COUNT
    # It waited for the bell, and did not turn in circles.
    assert looked[0] < 40 * COUNT


def test_an_error_of_the_session_comes_through(job: Job, todo: list[Work]) -> None:
    with pytest.raises(ZeroDivisionError, match="in the session"):
        run(Failing(), job, todo)  # type: ignore[arg-type]
    assert not job.masks.exists()


def test_shared_memory_is_one_memory(job: Job) -> None:
    slots = Slots.allocate(3, 8, 2)
    images, probabilities = slots.arrays()
    assert images.shape == (3, 8, 8, 3)
    assert probabilities.shape == (3, 2, 8, 8)
    images[1], probabilities[2] = 7, 9
    again_images, again_probabilities = slots.arrays()
    assert (again_images[1] == 7).all()
    assert not again_images[[0, 2]].any()
    assert (again_probabilities[2] == 9).all()
    context = multiprocessing.get_context("spawn" if sys.platform == "win32" else "forkserver")
    process = context.Process(target=_fill, args=(slots,))
    process.start()
    process.join()
    assert process.exitcode == 0
    assert (images[0] == 5).all()
    del images, probabilities, again_images, again_probabilities
    slots.buffer.close()


def _fill(slots: Slots) -> None:
    slots.arrays()[0][0] = 5


# In a process of its own: nothing else opens or closes files there.
SHARED_MEMORY = """
import contextlib
import os
from petseg.system.sharedbuffer import SharedBuffer

def held():
    found = {}
    for fd in os.listdir("/proc/self/fd"):
        with contextlib.suppress(FileNotFoundError):  # the listing's own
            found[fd] = os.readlink(f"/proc/self/fd/{fd}")
    return found

before = held()
buffer = SharedBuffer(1000)
assert len(buffer.memory) == 1000
new = {fd: target for fd, target in held().items() if fd not in before}
# An anonymous file, the mapping's own hold on it included: there is no name to be removed.
assert {target.split()[0] for target in new.values()} == {"/memfd:petseg"}, new
buffer.close()
assert held() == before
"""


@pytest.mark.skipif(sys.platform != "linux", reason="anonymous files are Linux's")
def test_shared_memory_leaves_nothing_behind() -> None:
    done = subprocess.run(
        [sys.executable, "-c", SHARED_MEMORY], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def test_a_named_block_goes_while_somebody_looks_into_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """As after an error, whose traceback holds arrays.  Elsewhere than on Linux it has a name."""
    monkeypatch.setattr("petseg.system.sharedbuffer.sys", SimpleNamespace(platform="elsewhere"))
    buffer = SharedBuffer(1000)
    assert buffer._block is not None
    name = buffer._block.name
    array = np.frombuffer(buffer.memory, np.uint8)
    buffer.close()
    assert not array.any()
    with pytest.raises(FileNotFoundError):
        shared_memory.SharedMemory(name)
    del array
    buffer._block.close()


def test_where_workers_cannot_meet_it_says_so(tmp_path: Path, tiny_model: Path) -> None:
    """A socket's path has room for some hundred characters."""
    long = tmp_path / ("x" * 100)
    long.mkdir()
    save_photos(tmp_path / "images", 1)
    options = ("--model", tiny_model)
    found = command(
        tmp_path / "images", tmp_path / "masks", *options, env={**os.environ, "TMPDIR": str(long)}
    )
    assert found.code == 1
    assert found.err.splitlines()[-1].startswith("error: no worker process can be started: ")
    assert "set TMPDIR" in found.err
    assert "Traceback" not in found.err
