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
from killing import PATIENCE_SECONDS, Scene, finished, temporary, wait_for, workers
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
    assert len(set(masks.values())) == COUNT
    assert set(read_mask(folder / "masks" / "000.png").ravel()) == {1, 2, 3}
    return Scene(folder / "images", tiny_model, masks)


def test_kill_9_at_ten_moments(scene: Scene, tmp_path: Path) -> None:
    masks = tmp_path / "masks"
    jitter = random.Random(1)
    left_behind = 0
    for moment in range(10):
        process = scene.start(masks)
        # At first while it starts, then each time some masks further.
        goal = moment * 3
        if moment == 0:
            wait_for(lambda: (masks / "petseg").exists(), process)
        else:
            wait_for(lambda goal=goal: finished(masks) >= goal, process)
        time.sleep(jitter.uniform(0, 0.03))
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        assert process.returncode == -signal.SIGKILL
        left_behind += len(temporary(masks))
        found = mask_bytes(masks)
        assert goal <= len(found) < COUNT, "killed too late to show anything"
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
    process = scene.start(masks, *options)
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


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_ends_the_run_well(
    number: signal.Signals, code: int, scene: Scene, tmp_path: Path
) -> None:
    masks = tmp_path / "masks"
    process = scene.start(masks, "--json", "--batch-size", "1")
    wait_for(lambda: finished(masks) >= 3, process)
    sent = time.monotonic()
    os.killpg(process.pid, number)  # as a terminal and as service managers do
    out, errors = process.communicate(timeout=PATIENCE_SECONDS)
    took = time.monotonic() - sent
    assert process.returncode == code, errors
    stats = json.loads(out)
    assert took < 2 + stats["stages"]["infer"]["p99_seconds"]
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


def test_a_signal_while_it_starts(scene: Scene, tmp_path: Path) -> None:
    process = scene.start(tmp_path / "masks")
    assert process.stderr is not None
    assert process.stderr.readline().startswith("model: ")
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=PATIENCE_SECONDS)
    assert process.returncode == 143
    assert scene.finish(tmp_path / "masks")[0] == 0
    assert mask_bytes(tmp_path / "masks") == scene.undisturbed


def test_ctrl_c_while_the_workers_load(scene: Scene, tmp_path: Path) -> None:
    """It reaches the server that loads what they need, too, which must not end of it."""
    process = scene.start(tmp_path / "masks")
    assert process.stderr is not None
    assert any(line.startswith("provider: ") for line in process.stderr)
    time.sleep(0.1)
    os.killpg(process.pid, signal.SIGINT)
    _, errors = process.communicate(timeout=PATIENCE_SECONDS)
    assert process.returncode == 130, errors
    assert "Traceback" not in errors
    assert "Aborted" not in errors


def test_a_second_signal_does_not_wait(scene: Scene, tmp_path: Path) -> None:
    masks = tmp_path / "masks"
    process = scene.start(masks)
    wait_for(lambda: finished(masks) >= 2, process)
    for pid in workers(process.pid):
        os.kill(pid, signal.SIGSTOP)  # so that what is under way never ends
    time.sleep(0.3)
    process.send_signal(signal.SIGTERM)
    time.sleep(0.3)
    assert process.poll() is None
    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate(timeout=PATIENCE_SECONDS)
    assert process.returncode == 143, errors
    assert "terminated" in errors
    assert temporary(masks) == []


def test_kill_9_of_one_worker_costs_one_image(scene: Scene, tmp_path: Path) -> None:
    masks = tmp_path / "masks"
    process = scene.start(masks, "--workers", "1", "--json")
    wait_for(lambda: finished(masks) >= 2, process)
    (victim,) = workers(process.pid)
    os.kill(victim, signal.SIGSTOP)  # so that it is killed with its hands full
    time.sleep(0.5)
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
    masks = tmp_path / "masks"
    process = scene.start(masks, "--json", "--read-timeout", "2")
    wait_for(lambda: finished(masks) >= 3, process)
    os.killpg(process.pid, signal.SIGSTOP)
    time.sleep(3)
    os.killpg(process.pid, signal.SIGCONT)
    out, errors = process.communicate(timeout=120)
    assert process.returncode == 0, errors
    assert json.loads(out)["worker_restarts"] == 0
    assert mask_bytes(masks) == scene.undisturbed


def test_a_dead_mount_does_not_keep_the_command_from_ending(scene: Scene, tmp_path: Path) -> None:
    images, masks = tmp_path / "images", tmp_path / "masks"
    shutil.copytree(scene.images, images)
    with dead_mount(images / "030.png", 1000):
        process = dataclasses.replace(scene, images=images).start(
            masks, "--json", "--read-timeout", "2"
        )
        assert process.wait(timeout=PATIENCE_SECONDS) == 3
        # Who reads its output is not kept waiting either.
        assert process.stdout is not None
        stats = json.loads(process.stdout.read())
    process.communicate()
    assert stats["counts"] | {"done": COUNT - 1, "failed": 1, "left": 0} == stats["counts"]
    assert mask_bytes(masks).items() < scene.undisturbed.items()
    assert temporary(masks) == []


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
