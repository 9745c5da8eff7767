"""petseg-batch killed, terminated and interrupted: nothing is lost, nothing is half-written."""

from __future__ import annotations

import csv
import dataclasses
import json
import os
import random
import shutil
import signal
import sys
import time
from pathlib import Path

import pytest
from batching import batch, mask_bytes, read_mask, save_photos, tally
from killing import PATIENCE_SECONDS, Gate, Scene, finished, temporary, wait_for, workers
from patience import with_patience
from stuck import dead_mount

pytestmark = pytest.mark.skipif(
    sys.platform != "linux", reason="processes are looked up in Linux's /proc"
)

COUNT = 33
FORMATS = ("color", "alpha", "overlay", "coco")


@pytest.fixture(scope="module")
def scene(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Scene:
    folder = tmp_path_factory.mktemp("scene")
    save_photos(folder / "images", COUNT, 300, 400)
    assert tally(batch(folder / "images", folder / "masks", tiny_model)) == (COUNT, 0, 0, 0, 0)
    masks = mask_bytes(folder / "masks")
    # Of the pixels: each file's record would differ by the photo's hash alone.
    assert len({read_mask(folder / "masks" / name).tobytes() for name in masks}) == COUNT
    assert set(read_mask(folder / "masks" / "000.png").ravel()) == {1, 2, 3}
    return Scene(folder / "images", tiny_model, masks)


def test_kill_9_at_ten_moments(scene: Scene, tmp_path: Path) -> None:
    masks = tmp_path / "masks"
    jitter = random.Random(1)
    left_behind = 0
    for moment in range(10):
        # At first while it starts, then each time some masks further, with more of them coming.
        goal = moment * 3
        coming = min(goal + 12, COUNT - 2) - finished(masks)
        process = scene.start(masks, before=Gate(tmp_path / "gate", coming).before)
        if moment == 0:
            # Before it holds a lock there, what it leaves is nobody's for a day.
            wait_for(lambda: any((masks / "petseg").glob("tmp-*/lock")), process)
        else:
            wait_for(lambda goal=goal: finished(masks) >= goal, process)
        time.sleep(jitter.uniform(0, 0.03))
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        assert process.returncode == -signal.SIGKILL
        left_behind += len(temporary(masks))
        found = mask_bytes(masks)
        assert goal <= len(found) < COUNT
        for name, data in found.items():
            assert data == scene.undisturbed[name], name
    assert left_behind > 0, "never killed while it worked"

    done = len(mask_bytes(masks))
    code, counts = scene.finish(masks)
    assert code == 0
    assert counts | {"files": COUNT, "done": COUNT - done, "skipped": done, "left": 0} == counts
    assert mask_bytes(masks) == scene.undisturbed
    assert temporary(masks) == []
    assert sorted(path.name for path in (masks / "petseg").iterdir()) == ["stats.json"]


def test_kill_9_costs_no_format_either(scene: Scene, tmp_path: Path) -> None:
    options = [word for name in FORMATS for word in ("--format", name)]
    assert scene.finish(tmp_path / "undisturbed", *options)[0] == 0
    masks = tmp_path / "masks"
    process = scene.start(masks, *options, before=Gate(tmp_path / "gate", 20).before)
    wait_for(lambda: finished(masks) >= 8, process)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    assert not (masks / "petseg" / "coco").exists()
    assert scene.finish(masks, *options)[0] == 0
    assert temporary(masks) == []
    for name in FORMATS:
        made = mask_bytes(masks / "petseg" / name)
        assert made == mask_bytes(tmp_path / "undisturbed" / "petseg" / name)
        assert len(made) == (1 if name == "coco" else COUNT)
    assert mask_bytes(masks) == scene.undisturbed


# Ends, with its whole process group, when a file is written and about to get its name.
KILLED = """
import os, pathlib, signal
def replace(part, target, real=pathlib.Path.replace):
    if str(target).endswith({name!r}):
        assert part.stat().st_size > 0
        os.killpg(os.getpid(), signal.SIGKILL)
    return real(part, target)
pathlib.Path.replace = replace
"""


def test_kill_9_between_writing_and_renaming(scene: Scene, tmp_path: Path) -> None:
    images, masks, elsewhere = tmp_path / "images", tmp_path / "masks", tmp_path / "elsewhere"
    save_photos(images, 2)
    elsewhere.mkdir()
    few = dataclasses.replace(scene, images=images)
    tables = ("--format", "coco", "--review-below", "1")

    def kill_at(name: str, *options: str) -> None:
        process = few.start(masks, *options, before=KILLED.format(name=name))
        _, errors = process.communicate(timeout=PATIENCE_SECONDS)
        assert process.returncode == -signal.SIGKILL, errors

    for name, options in (("coco.json", tables), ("report.html", (*tables, "--report"))):
        kill_at(name, *options)
        # Of one run alone: this one has swept what the last left.
        assert len([left for left in temporary(masks) if left.startswith("tmp-")]) == 1
    kill_at("run.json", "--stats", str(elsewhere / "run.json"))
    (left,) = elsewhere.iterdir()
    assert left.name.startswith(".partial-")
    # Another process may be about to lock what is newer.
    os.utime(left, (time.time() - 60,) * 2)

    code, counts = few.finish(masks, *tables, "--stats", str(elsewhere / "run.json"))
    assert (code, counts["skipped"]) == (0, 2)
    assert temporary(masks) == []
    assert [path.name for path in elsewhere.iterdir()] == ["run.json"]
    assert sorted(path.name for path in (masks / "petseg").rglob("*")) == [
        *("coco", "coco.json", "review.txt", "stats.json")
    ]
    assert json.loads((elsewhere / "run.json").read_text())["counts"] == counts


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_ends_the_run_well(
    number: signal.Signals, code: int, scene: Scene, tmp_path: Path
) -> None:
    took = (_end_by(number, code, scene, tmp_path / str(attempt)) for attempt in range(5))
    # Within two seconds; but not each time where another program has the machine for a while.
    assert any(seconds < 2 for seconds in took)


def _end_by(number: signal.Signals, code: int, scene: Scene, folder: Path) -> float:
    """A signal in the middle of a run, and what must become of it; returns how long it took."""
    folder.mkdir()
    masks, gate = folder / "masks", Gate(folder / "gate", 6)
    process = scene.start(masks, "--json", "--batch-size", "1", before=gate.before)
    wait_for(lambda: finished(masks) >= 3, process)
    sent = time.monotonic()
    os.killpg(process.pid, number)  # as a terminal and as service managers do
    gate.open()
    out, errors = process.communicate(timeout=PATIENCE_SECONDS)
    took = time.monotonic() - sent
    assert process.returncode == code, errors
    stats = json.loads(out)
    assert stats["stopped"] == number.name
    assert json.loads((masks / "petseg" / "stats.json").read_text())["counts"] == stats["counts"]
    counts = stats["counts"]
    assert counts["failed"] == 0
    assert counts["done"] == finished(masks) >= 3
    assert counts["left"] == COUNT - counts["done"] > 0
    assert f"{counts['left']} left" in errors
    assert "Traceback" not in errors
    assert temporary(masks) == []

    again, rest = scene.finish(masks)
    assert again == 0
    assert rest | {"done": counts["left"], "skipped": counts["done"]} == rest
    assert mask_bytes(masks) == scene.undisturbed
    return took


def test_a_signal_while_it_starts(scene: Scene, tmp_path: Path) -> None:
    gate = Gate(tmp_path / "gate", 0)
    process = scene.start(tmp_path / "masks", before=gate.before)
    assert process.stderr is not None
    assert process.stderr.readline().startswith("model: ")
    process.send_signal(signal.SIGTERM)
    gate.open()
    process.communicate(timeout=PATIENCE_SECONDS)
    assert process.returncode == 143
    assert scene.finish(tmp_path / "masks")[0] == 0
    assert mask_bytes(tmp_path / "masks") == scene.undisturbed


def test_ctrl_c_while_the_workers_load(scene: Scene, tmp_path: Path) -> None:
    """It reaches the server that loads what they need, too, which must not end of it."""
    gate = Gate(tmp_path / "gate", 0)
    process = scene.start(tmp_path / "masks", before=gate.before)
    assert process.stderr is not None
    assert any(line.startswith("provider: ") for line in process.stderr)
    time.sleep(0.1)
    os.killpg(process.pid, signal.SIGINT)
    gate.open()
    _, errors = process.communicate(timeout=PATIENCE_SECONDS)
    assert process.returncode == 130, errors
    assert "Traceback" not in errors
    assert "Aborted" not in errors


def test_a_second_signal_does_not_wait(scene: Scene, tmp_path: Path) -> None:
    def second_came_in_time(folder: Path) -> bool:
        folder.mkdir()
        masks, gate = folder / "masks", Gate(folder / "gate", 4)
        process = scene.start(masks, before=gate.before)
        wait_for(lambda: finished(masks) >= 2, process)
        for pid in workers(process.pid):
            os.kill(pid, signal.SIGSTOP)  # so that what is under way never ends
        gate.open()
        time.sleep(0.3)
        process.send_signal(signal.SIGTERM)
        time.sleep(0.3)
        waits = process.poll() is None
        process.send_signal(signal.SIGTERM)
        _, errors = process.communicate(timeout=PATIENCE_SECONDS)
        assert process.returncode == 143, errors
        assert temporary(masks) == []
        return waits and "terminated" in errors

    # After the first it ends by itself in a second; a busy machine may let that pass.
    assert any(second_came_in_time(tmp_path / str(attempt)) for attempt in range(5))


# After three batches the network is at one that takes hours, outside of Python, and says so.
STUCK = """
import pathlib
import onnx, onnxruntime
from onnx import TensorProto, helper
from petseg import steps

def value(name, kind, shape):
    return helper.make_tensor_value_info(name, kind, shape)

one, yes = TensorProto.INT64, TensorProto.BOOL
body = helper.make_graph(
    [
        helper.make_node("Constant", [], ["goes"], value=helper.make_tensor("", yes, [], [True])),
        helper.make_node("Add", ["n", "i"], ["m"]),
    ],
    "body",
    [value("i", one, []), value("go", yes, []), value("n", one, [])],
    [value("goes", yes, []), value("m", one, [])],
)
graph = helper.make_graph(
    [helper.make_node("Loop", ["times", "", "zero"], ["end"], body=body)],
    "stuck", [], [value("end", one, [])],
    [helper.make_tensor("times", one, [], [10**12]), helper.make_tensor("zero", one, [], [0])],
)
model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
session = onnxruntime.InferenceSession(
    model.SerializeToString(), providers=["CPUExecutionProvider"]
)
honest, batches = steps.infer, []

def infer(stream, images):
    batches.append(len(images))
    if len(batches) > 3:
        pathlib.Path(stuck).touch()
        session.run(None, {})
    return honest(stream, images)

steps.infer = infer
"""


@pytest.mark.parametrize(
    ("number", "code", "devices"),
    [(signal.SIGINT, 130, ()), (signal.SIGTERM, 143, ("--devices", "0,1"))],
    ids=["Ctrl-C", "SIGTERM, several devices"],
)
def test_a_second_signal_does_not_wait_for_a_batch(
    number: signal.Signals, code: int, devices: tuple[str, ...], scene: Scene, tmp_path: Path
) -> None:
    took = (
        _end_by_second(number, code, devices, scene, tmp_path / str(attempt))
        for attempt in range(5)
    )
    # As above.
    assert any(seconds < 2 for seconds in took)


def _end_by_second(
    number: signal.Signals, code: int, devices: tuple[str, ...], scene: Scene, folder: Path
) -> float:
    """Two signals at a run whose batch never ends; returns how long it took after the second."""
    folder.mkdir()
    masks, stuck = folder / "masks", folder / "stuck"
    process = scene.start(masks, *devices, before=f"stuck = {str(stuck)!r}\n{STUCK}")
    try:
        wait_for(lambda: stuck.exists() and finished(masks) >= 1, process)
        os.killpg(process.pid, number)
        time.sleep(0.5)
        assert process.poll() is None, "the first does not end the batch"
        sent = time.monotonic()
        os.killpg(process.pid, number)
        _, errors = process.communicate(timeout=10)
    finally:
        process.kill()
    took = time.monotonic() - sent
    assert process.returncode == code, errors
    assert "Traceback" not in errors
    found = mask_bytes(masks)
    assert 1 <= len(found) <= 6
    assert found.items() <= scene.undisturbed.items()
    assert temporary(masks) == []
    stats = json.loads((masks / "petseg" / "stats.json").read_text())
    assert (stats["stopped"], stats["exit_code"]) == (number.name, code)
    return took


def test_kill_9_of_one_worker_costs_one_image(scene: Scene, tmp_path: Path) -> None:
    masks = tmp_path / "masks"
    gate = Gate(tmp_path / "gate", 4)
    process = scene.start(masks, "--workers", "1", "--json", before=gate.before)
    wait_for(lambda: finished(masks) >= 2, process)
    (victim,) = workers(process.pid)
    os.kill(victim, signal.SIGSTOP)  # so that it is killed with its hands full
    gate.open()
    time.sleep(1)
    os.kill(victim, signal.SIGKILL)
    out, errors = process.communicate(timeout=120)
    assert process.returncode == 3, errors
    stats = json.loads(out)
    assert stats["worker_restarts"] == 1
    counts = stats["counts"]
    assert counts | {"done": COUNT - 1, "failed": 1, "left": 0} == counts
    with (masks / "petseg" / "failures.csv").open(newline="") as file:
        _, (name, reason) = csv.reader(file)
    assert "a worker process died (SIGKILL) while" in reason
    assert f"failed: {name}: a worker process died" in errors
    found = mask_bytes(masks)
    assert set(scene.undisturbed) - set(found) <= {name}
    assert found.items() <= scene.undisturbed.items()

    code, rest = scene.finish(masks)
    assert code == 0
    assert rest["failed"] == 0
    assert mask_bytes(masks) == scene.undisturbed
    assert not (masks / "petseg" / "failures.csv").exists()


def test_a_run_that_stood_still_did_not_hang(scene: Scene, tmp_path: Path) -> None:
    def attempt(limit: float) -> None:
        masks = tmp_path / f"masks-{limit}"
        process = scene.start(masks, "--json", "--read-timeout", str(limit))
        wait_for(lambda: finished(masks) >= 3, process)
        os.killpg(process.pid, signal.SIGSTOP)
        time.sleep(limit + 1)
        os.killpg(process.pid, signal.SIGCONT)
        out, errors = process.communicate(timeout=120)
        assert process.returncode == 0, errors
        assert json.loads(out)["worker_restarts"] == 0
        assert mask_bytes(masks) == scene.undisturbed

    with_patience(attempt)


def test_a_dead_mount_does_not_keep_the_command_from_ending(scene: Scene, tmp_path: Path) -> None:
    images = tmp_path / "images"
    shutil.copytree(scene.images, images)
    runs = dataclasses.replace(scene, images=images)

    def attempt(limit: float) -> None:
        masks = tmp_path / f"masks-{limit}"
        with dead_mount(images / "030.png", 1000):
            process = runs.start(masks, "--json", "--read-timeout", str(limit))
            assert process.wait(timeout=limit + PATIENCE_SECONDS) == 3
            # Who reads its output is not kept waiting either.
            assert process.stdout is not None
            stats = json.loads(process.stdout.read())
        process.communicate()
        assert stats["counts"] | {"done": COUNT - 1, "failed": 1, "left": 0} == stats["counts"]
        assert mask_bytes(masks).items() < scene.undisturbed.items()
        assert temporary(masks) == []

    with_patience(attempt)


# As a file system without locks does it (flock(2)).
NO_LOCKS = """
import errno, fcntl
def flock(*arguments): raise OSError(errno.ENOLCK, "No locks available")
fcntl.flock = flock
"""


@pytest.mark.parametrize("before", ["", NO_LOCKS], ids=["locks", "no locks"])
def test_several_runs_on_one_folder_of_masks(before: str, scene: Scene, tmp_path: Path) -> None:
    images, masks = tmp_path / "images", tmp_path / "masks"
    shutil.copytree(scene.images, images)
    (images / "broken.jpg").write_text("hello")
    masks.mkdir()
    (masks / "000.png").write_text("mine")
    runs = dataclasses.replace(scene, images=images)
    both = [runs.start(masks, "--json", before=before) for _ in range(2)]
    # A third one sweeps, when there is something to be swept.
    wait_for(lambda: finished(masks) >= 3, both[0])
    both.append(runs.start(masks, "--json", before=before))
    done = 0
    for process in both:
        out, errors = process.communicate(timeout=120)
        assert process.returncode == 3, errors
        assert "Traceback" not in errors
        counts = json.loads(out)["counts"]
        assert counts["done"] + counts["skipped"] == COUNT
        assert counts | {"files": COUNT + 1, "failed": 1, "kept": 1, "left": 0} == counts
        done += counts["done"]
    assert COUNT - 1 <= done <= 3 * (COUNT - 1)
    expected = scene.undisturbed | {"000.png": b"mine"}
    assert mask_bytes(masks) == expected
    reserved = sorted(path.name for path in (masks / "petseg").iterdir())
    assert reserved == ["failures.csv", "kept.csv", "stats.json"]
    for name, row in (("failures.csv", "broken.jpg"), ("kept.csv", "000.png")):
        with (masks / "petseg" / name).open(newline="") as file:
            assert [found[0] for found in csv.reader(file)][1:] == [row]
