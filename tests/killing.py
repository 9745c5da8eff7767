"""petseg-batch as a process to be killed: started, watched, and its workers found."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from batching import COMMAND, PROVIDER

PATIENCE_SECONDS = 60


@dataclass(frozen=True)
class Scene:
    """Photos, and what an undisturbed run makes of them."""

    images: Path
    model: Path
    undisturbed: dict[str, bytes]

    def start(self, masks: Path, *options: str, before: str = "") -> subprocess.Popen[str]:
        """The command, as the leader of a process group of its own; `before` is run first."""
        arguments = [str(self.images), str(masks), "--model", str(self.model)]
        arguments += ["--workers", "2", "--batch-size", "2", *options]
        return subprocess.Popen(
            [sys.executable, "-c", before + COMMAND[1], *PROVIDER, *arguments],
            start_new_session=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def finish(self, masks: Path, *options: str) -> tuple[int, dict[str, int]]:
        """Run the command to its end; returns its exit code and counts."""
        out, _ = (process := self.start(masks, "--json", *options)).communicate(timeout=120)
        return process.returncode, json.loads(out)["counts"]


class Gate:
    """Lets the network of a run have so many photos and no more, until it is told otherwise.

    How far a run has come when something happens to it then does not depend on the machine's speed,
    nor on when this process comes to look.

    Attributes:
        before: for `Scene.start`.
    """

    def __init__(self, file: Path, photos: int) -> None:
        self._file = file
        self.before = _HELD.format(file=str(file))
        self.open(photos)

    def open(self, photos: int = 1 << 30) -> None:
        """Let it have so many in all."""
        new = self._file.with_name(f"{self._file.name}-new")
        new.write_text(str(photos))
        new.replace(self._file)


# The command's own session, which waits before it begins with a batch.
_HELD = """
import pathlib, time
from petseg.runtime import onnx
def held(stream, images, run=onnx.OrtStream.run, begun=[0]):
    begun[0] += len(images)
    while begun[0] > int(pathlib.Path({file!r}).read_text()):
        time.sleep(0.002)
    return run(stream, images)
onnx.OrtStream.run = held
"""


def wait_for(condition: Callable[[], bool], process: subprocess.Popen[str]) -> None:
    """Wait until a condition holds; the process must not end before."""
    patience = time.monotonic() + PATIENCE_SECONDS
    while not condition():
        if process.poll() is not None:
            assert condition(), process.communicate()
            return
        assert time.monotonic() < patience
        time.sleep(0.002)


def finished(masks: Path) -> int:
    return len(list(masks.glob("*.png")))


def temporary(masks: Path) -> list[str]:
    """What half-written files lie in, and those that lie elsewhere in `masks/`."""
    found = (path.name for path in masks.rglob("*"))
    return sorted(name for name in found if name.startswith(("tmp-", ".partial-")))


def workers(parent: int) -> list[int]:
    """The worker processes of a running command: children of the fork server, its child."""
    servers = [
        pid for pid, above, line in _processes() if above == parent and b"forkserver" in line
    ]
    return [pid for pid, above, _ in _processes() if above in servers]


def _processes() -> Iterator[tuple[int, int, bytes]]:
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            status = (folder / "stat").read_text()
            line = (folder / "cmdline").read_bytes()
        except OSError:
            continue
        yield int(folder.name), int(status.rpartition(")")[2].split()[1]), line
