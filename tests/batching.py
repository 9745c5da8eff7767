"""What the tests of petseg-batch share: photos, the masks they must get, and ways to run it."""

from __future__ import annotations

import dataclasses
import functools
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import onnxruntime
from click.testing import CliRunner
from numpy.typing import NDArray
from PIL import Image

from petseg import steps
from petseg.batch.report import Report
from petseg.batch.run import run_batch
from petseg.classes import PET_CLASSES
from petseg.cli.batch import main
from petseg.masks.png import CHUNK_END, CHUNK_HEAD, HEADER_BYTES
from petseg.masks.record import Maker
from petseg.masks.records import MaskState, embed, inspect
from petseg.photos import transforms
from petseg.planning.config import BatchConfig
from petseg.steps import Job

Pixels = NDArray[np.uint8]

COMMAND = ("-c", "from petseg.cli.batch import main; main()")
# What the masks of the tests are compared with, and no page, which takes longer than they do;
# what is among the arguments comes later.
PROVIDER = ("--provider", "cpu", "--no-report")


def picture(seed: int, height: int = 96, width: int = 128) -> Pixels:
    """A seeded picture uint8 (H, W, 3): colours that run into each other, with edges in them."""
    random = np.random.default_rng(seed)
    small = Image.fromarray(random.integers(0, 256, (5, 5, 3), dtype=np.uint8))
    smooth = np.array(small.resize((width, height), Image.Resampling.BILINEAR))
    blocks = np.array(
        Image.fromarray(random.integers(0, 256, (6, 6, 3), dtype=np.uint8)).resize(
            (width, height), Image.Resampling.NEAREST
        )
    )
    chosen = np.array(
        Image.fromarray(random.integers(0, 2, (6, 6), dtype=np.uint8)).resize(
            (width, height), Image.Resampling.NEAREST
        )
    )
    return np.where(chosen[..., None] == 1, blocks, smooth)


def save_photos(folder: Path, count: int, height: int = 96, width: int = 128) -> list[str]:
    """`count` different pictures as PNG files; returns their names."""
    folder.mkdir(parents=True, exist_ok=True)
    names = [f"{number:03}.png" for number in range(count)]
    for number, name in enumerate(names):
        Image.fromarray(picture(number, height, width)).save(folder / name, compress_level=1)
    return names


@functools.cache
def _session(model: Path) -> onnxruntime.InferenceSession:
    return onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])


def expected_mask(model: Path, pixels: Pixels) -> Pixels:
    """The values a photo's mask must have, computed with nothing of petseg.

    Args:
        model: file with an input of 64 x 64.
        pixels: the photo as a person sees it, RGB uint8 (H, W, 3).
    """
    height, width = pixels.shape[:2]
    bilinear = Image.Resampling.BILINEAR
    squashed = np.array(Image.fromarray(pixels).resize((64, 64), bilinear))[None]
    (scores,) = _session(model).run(["probabilities"], {"images": squashed})
    if min(height, width) < 64:
        planes = [np.array(Image.fromarray(p).resize((width, height), bilinear)) for p in scores[0]]
    else:
        planes = [cv2.resize(plane, (width, height)) for plane in scores[0]]
    return np.argmax(planes, axis=0).astype(np.uint8) + np.uint8(1)


def read_mask(path: Path) -> Pixels:
    with Image.open(path) as mask:
        assert mask.mode == "L", path
        assert mask.format == "PNG", path
        return np.array(mask)


def assert_masks(model: Path, masks: Path, photos: dict[str, Pixels]) -> None:
    """The masks named are the right ones, hold all classes, and differ from one another."""
    found = {name: read_mask(masks / name) for name in photos}
    for name, pixels in photos.items():
        np.testing.assert_array_equal(found[name], expected_mask(model, pixels), err_msg=name)
        assert np.bincount(found[name].ravel(), minlength=4)[1:].min() > 0, name
    assert len({mask.tobytes() for mask in found.values()}) == len(photos)


def mask_bytes(masks: Path) -> dict[str, bytes]:
    """Every file below `masks/` but petseg's own folder."""
    return {
        path.relative_to(masks).as_posix(): path.read_bytes()
        for path in sorted(masks.rglob("*"))
        if path.is_file() and path.relative_to(masks).parts[0] != "petseg"
    }


def tree(folder: Path) -> dict[str, tuple[bytes, int]]:
    """Everything below a folder: content and modification time, to show that nothing was done."""
    return {
        str(path): (path.read_bytes() if path.is_file() else b"", path.lstat().st_mtime_ns)
        for path in sorted(folder.rglob("*"))
    }


@dataclass(frozen=True)
class Result:
    """How a command ended."""

    code: int
    out: str
    err: str

    @property
    def stats(self) -> dict[str, Any]:
        """What `--json` printed."""
        found: dict[str, Any] = json.loads(self.out)
        return found

    @property
    def counts(self) -> dict[str, int]:
        counts: dict[str, int] = self.stats["counts"]
        assert counts["files"] == sum(
            counts[name] for name in ("done", "skipped", "failed", "ignored", "left")
        )
        return counts


def invoke(*arguments: str | Path) -> Result:
    """petseg-batch in this process, which is quicker than a new one."""
    found = CliRunner().invoke(main, [*PROVIDER, *map(str, arguments)])
    if found.exception is not None and not isinstance(found.exception, SystemExit):
        raise found.exception
    return Result(found.exit_code, found.stdout, found.stderr)


def command(*arguments: str | Path, python: str = sys.executable, **options: Any) -> Result:
    """petseg-batch as a process of its own."""
    done = subprocess.run(
        [python, *COMMAND, *PROVIDER, *map(os.fspath, arguments)],
        capture_output=True,
        timeout=120,
        **options,
    )
    return Result(done.returncode, done.stdout.decode(), done.stderr.decode())


MAKER = Maker("ab" * 32, transforms.TRANSFORM, "source", "stem")


def make_job(masks: Path, **changes: Any) -> Job:
    """A job of a network of 16 x 16, with a temporary folder beside the masks."""
    temporary = masks.with_name(f"{masks.name}-temporary")
    temporary.mkdir(exist_ok=True)
    job = Job(
        masks=masks,
        temporary=temporary,
        model_size=16,
        classes=PET_CLASSES,
        maker=MAKER,
        provider="cpu",
        precision="float32",
        formats=(),
        max_pixels=1_000_000,
        replace_any=False,
    )
    return dataclasses.replace(job, **changes)


def write_mask(path: Path, name: str, job: Job, seed: int = 1) -> None:
    """Make the mask `name` of the photo at `path`, without a network."""
    photo = steps.read(str(path), np.empty((16, 16, 3), np.uint8), job.max_pixels)
    probabilities = np.random.default_rng(seed).integers(0, 256, (3, 16, 16), dtype=np.uint8)
    # A pixel without any is none that a network can have meant.
    steps.write(name, photo, np.maximum(probabilities, 1), job)


def change_record(path: Path, **changes: Any) -> None:
    """Change what stands in a mask's record, and nothing else."""
    data = path.read_bytes()
    state, record = inspect(path)
    assert state is MaskState.OURS
    assert record is not None
    length, _ = CHUNK_HEAD.unpack_from(data, HEADER_BYTES)
    behind = HEADER_BYTES + CHUNK_HEAD.size + length + CHUNK_END.size
    bare = data[:HEADER_BYTES] + data[behind:]
    path.write_bytes(embed(bare, dataclasses.replace(record, **changes)))


def batch(images: Path | str, masks: Path | str, model: Path, **options: Any) -> Report:
    """`run_batch`, without a word."""
    config = BatchConfig(
        images=str(images),
        masks=masks,
        model=model,
        **{"provider": "cpu", "workers": 1, "report": False} | options,
    )
    return run_batch(config, lambda line: None)


def tally(report: Report) -> Sequence[int]:
    """(done, skipped, failed, ignored, left), which add up to the files."""
    counts = report.counts
    found = (counts.done, counts.skipped, counts.failed, counts.ignored, counts.left)
    assert sum(found) == counts.files
    return found
