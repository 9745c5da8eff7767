"""petseg-batch killed at random moments: python -m soak.kills --count 200.

SIGKILL to the whole process group, so often, and to single workers, so often; SIGINT and SIGTERM
in between.  After each the same command goes on, and nothing may be lost, half-written, left over
or done twice.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import shutil
import signal
import subprocess
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import click
from batching import batch, mask_bytes, save_photos
from killing import Scene, finished, temporary, workers

from soak import colours

PICTURES = ("color",)
OPTIONS = ("--format", "color", "--format", "coco", "--json")
# What a signal may take: these seconds, and one batch, which takes this network no time.
GRACE_SECONDS = 2.0
# What Python says, with exit code 1, where SIGINT comes in the milliseconds between its own handler
# and the first line of a program.
UNBORN = (
    "Fatal Python error: init_sys_streams: can't initialize sys standard streams\n",
    "Fatal Python error: init_import_site: Failed to import the site module\n",
)


@dataclass
class Tally:
    """What happened.

    Attributes:
        kills: signals that found their process running, by what was sent to whom.
        runs: commands begun.
        folders: folders of masks that were filled, each compared byte for byte.
        doing: kills while photos were under way, and not before or behind that.
        failed: images that were in the hands of a worker that was killed.
        seconds: from a signal to the end of the command.
    """

    kills: dict[str, int] = field(default_factory=dict)
    runs: int = 0
    folders: int = 0
    doing: int = 0
    failed: int = 0
    seconds: list[float] = field(default_factory=list)

    def as_dict(self) -> dict[str, Any]:
        return {
            "kills": self.kills,
            "kills while photos were under way": self.doing,
            "commands begun": self.runs,
            "folders of masks filled and compared": self.folders,
            "images in a killed worker's hands, done by the next command": self.failed,
            "slowest end after SIGINT or SIGTERM, seconds": max(self.seconds, default=0.0),
        }


@click.command(context_settings={"show_default": True})
@click.option("--count", type=click.IntRange(1), default=200, help="Kills of each sort.")
@click.option("--photos", type=click.IntRange(10), default=400, help="So long is a run.")
@click.option("--seed", default=1)
@click.option("--json", "as_json", is_flag=True, help="JSON on stdout.")
def main(count: int, photos: int, seed: int, as_json: bool) -> None:
    """Kill, go on, and compare; ends with an AssertionError where a promise is broken."""
    with tempfile.TemporaryDirectory(prefix="petseg-kills-") as name:
        tally = run(Path(name), count, photos, seed)
    found = tally.as_dict()
    click.echo(json.dumps(found) if as_json else "\n".join(f"{k}: {v}" for k, v in found.items()))


def run(folder: Path, count: int, photos: int, seed: int, grace: float = GRACE_SECONDS) -> Tally:
    """`count` kills of each sort, on so many photos, in a folder of its own.

    SIGINT and SIGTERM end a command within `grace` seconds.
    """
    save_photos(folder / "images", photos, 240, 320)
    model = colours.write_model(folder / "colours.onnx")
    batch(folder / "images", folder / "undisturbed", model, formats=("color", "coco"))
    undisturbed = everything(folder / "undisturbed")
    assert len(set(undisturbed.values())) == 2 * photos + 1
    scene = Scene(folder / "images", model, undisturbed)
    started = time.monotonic()
    assert scene.finish(folder / "masks", *OPTIONS[:-1])[0] == 0
    seconds = time.monotonic() - started
    shutil.rmtree(folder / "masks")
    tally = Tally()
    disturbance = Disturbance(scene, folder / "masks", tally, random.Random(seed), photos, grace)
    for number in (signal.SIGKILL, signal.SIGINT, signal.SIGTERM):
        disturbance.groups(number, count, seconds)
    disturbance.single_workers(count, seconds)
    disturbance.finish()
    return tally


def everything(masks: Path, beside: tuple[str, ...] = (*PICTURES, "coco")) -> dict[str, bytes]:
    """Masks, and what lies in the folders beside them, by their path."""
    others = {
        f"petseg/{name}/{key}": data
        for name in beside
        for key, data in mask_bytes(masks / "petseg" / name).items()
    }
    return mask_bytes(masks) | others


def unborn(number: signal.Signals, code: int, errors: str) -> bool:
    """Whether SIGINT or SIGTERM ended Python before it came to the command, by its exit code.

    Python knew no signals yet, or SIGINT came while it began; it tells of that in `errors`.
    """
    if number == signal.SIGINT and code == 1:
        return errors.startswith(UNBORN)
    return code == -number


@dataclass
class Disturbance:
    """Kills in one folder of masks, which is emptied whenever it is full."""

    scene: Scene
    masks: Path
    tally: Tally
    chance: random.Random
    photos: int
    grace: float

    def groups(self, number: signal.Signals, count: int, seconds: float) -> None:
        """Send a signal to whole process groups at moments drawn from a run's length."""
        sent = 0
        while sent < count:
            done = self._stamps()
            # After SIGKILL, what a run that a signal stops before it sweeps finds and leaves.
            left = set(temporary(self.masks))
            process = self._start()
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(self.chance.uniform(0, seconds))
            doing = finished(self.masks) > len(done)
            before = time.monotonic()
            if process.poll() is None:
                os.killpg(process.pid, number)
            out, errors = process.communicate(timeout=60)
            if process.returncode == 0:  # it had ended by itself
                self._check_end(json.loads(out)["counts"], done)
                continue
            if number == signal.SIGKILL:
                assert process.returncode == -number, errors
            elif not unborn(number, process.returncode, errors):
                assert process.returncode == 128 + number, errors
                took = time.monotonic() - before
                assert took < self.grace, f"{took} s: {errors}"
                self.tally.seconds.append(took)
                more = set(temporary(self.masks)) - left
                assert not more, sorted(more)
            sent += 1
            self.tally.doing += doing
            self._count(f"{number.name} to the process group")
            self._check_masks(done)

    def single_workers(self, count: int, seconds: float) -> None:
        """Send SIGKILL to workers, some in each run."""
        sent = 0
        while sent < count:
            done = self._stamps()
            process = self._start()
            here = 0
            while process.poll() is None and sent < count:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(self.chance.uniform(0, seconds / 4))
                found = workers(process.pid)
                if found:
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(self.chance.choice(found), signal.SIGKILL)
                        here += 1
                        sent += 1
                        self._count("SIGKILL to one worker")
            out, errors = process.communicate(timeout=60)
            assert process.returncode in (0, 3), errors
            assert "Traceback" not in errors, errors
            stats = json.loads(out)
            counts = stats["counts"]
            assert stats["worker_restarts"] <= here
            assert counts["failed"] <= stats["worker_restarts"]
            assert counts["failed"] + counts["done"] + counts["skipped"] == self.photos
            self.tally.failed += counts["failed"]
            self._check_masks(done)
            if process.returncode == 0:
                self._check_end(counts, done)

    def _start(self) -> subprocess.Popen[str]:
        self.tally.runs += 1
        return self.scene.start(self.masks, *OPTIONS)

    def _count(self, sort: str) -> None:
        self.tally.kills[sort] = self.tally.kills.get(sort, 0) + 1

    def _stamps(self) -> dict[str, tuple[int, int]]:
        """When each mask was written, and which file it is."""
        found = {}
        for path in self.masks.glob("*.png"):
            status = path.stat()
            found[path.name] = (status.st_mtime_ns, status.st_ino)
        return found

    def _check_masks(self, done: dict[str, tuple[int, int]]) -> None:
        """All that lies there is whole and right, and what was done was not done again."""
        assert done.items() <= self._stamps().items(), "a mask was made twice"
        # A table tells of the masks that there are; only the last has all.
        wrong = everything(self.masks, PICTURES).items() - self.scene.undisturbed.items()
        assert not wrong, sorted(name for name, _ in wrong)

    def _check_end(self, counts: dict[str, int], done: dict[str, tuple[int, int]]) -> None:
        """A run that ended well did what was left, and nothing else lies there."""
        assert counts["done"] + counts["skipped"] == self.photos
        assert counts["skipped"] == len(done), "a mask that was there was made again"
        self._check_masks(done)
        assert everything(self.masks) == self.scene.undisturbed
        assert temporary(self.masks) == []
        reserved = {path.name for path in (self.masks / "petseg").iterdir()}
        assert reserved == {"stats.json", *PICTURES, "coco"}
        self.tally.folders += 1
        shutil.rmtree(self.masks)

    def finish(self) -> None:
        """What the last signal left is finished by the same command."""
        done = self._stamps()
        process = self._start()
        out, errors = process.communicate(timeout=120)
        assert process.returncode == 0, errors
        self._check_end(json.loads(out)["counts"], done)


if __name__ == "__main__":
    main()
