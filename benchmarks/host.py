"""What the processor has to do for one photo beside the network: python benchmarks/host.py.

Reading a photo and writing its mask, as petseg-batch's workers do, in one process and on one core;
core-milliseconds a photo, the least of several rounds; and how large a mask is.
"""

from __future__ import annotations

import io
import json
import tempfile
import time
import zlib
from collections.abc import Callable
from pathlib import Path

import click
import cv2
import inputs
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from petseg import steps
from petseg.classes import PET_CLASSES
from petseg.cli.common import OK, exits
from petseg.formats import index
from petseg.masks import png, records
from petseg.masks.record import Maker
from petseg.masks.segmented import Segmented
from petseg.photos import imageio, transforms
from petseg.steps import Job

SIDE = 224
LARGE = (3000, 4000)
ROUNDS = 7
# A round does so many photos, of 500x375 and of 12 megapixels.
SMALL_COUNT, LARGE_COUNT = 40, 3


@click.command()
@click.option("--json", "as_json", is_flag=True, help="JSON on stdout, the table on stderr.")
@exits
def main(as_json: bool) -> int:
    """Measure reading and writing, whole and in parts."""
    cv2.setNumThreads(1)
    with tempfile.TemporaryDirectory(prefix="petseg-host-") as name:
        folder = Path(name)
        small, large = folder / "small", folder / "large"
        for photos in (small, large, folder / "masks", folder / "temporary"):
            photos.mkdir()
        inputs.draw(small, SMALL_COUNT)
        for number in range(LARGE_COUNT):
            draw_large(large / f"{number:05}.jpg", number)
        job = make_job(folder / "masks", folder / "temporary")
        found = {
            "500x375": measure(sorted(small.iterdir()), job),
            "4000x3000": measure(sorted(large.iterdir()), job),
        }
    lines = ["| core-ms; bytes | 500x375 | 4000x3000 |", "|---|---|---|"]
    for part in found["500x375"]:
        lines.append(
            f"| {part} | " + " | ".join(f"{as_text(v[part])}" for v in found.values()) + " |"
        )
    click.echo("\n".join(lines), err=as_json)
    if as_json:
        click.echo(json.dumps(found))
    return OK


def measure(photos: list[Path], job: Job) -> dict[str, float]:
    """Core-milliseconds a photo: `read` and `write` as the workers call them, and their parts."""
    pixels = np.empty((SIDE, SIDE, 3), np.uint8)
    data = [photo.read_bytes() for photo in photos]
    images = [imageio.decode_reduced(one, SIDE)[0] for one in data]
    read = [steps.read(str(photo), pixels, job.max_pixels) for photo in photos]
    scores = draw_probabilities()
    height, width = read[0].height, read[0].width
    ids = transforms.to_source(scores, height, width)
    segmented = Segmented(ids, PET_CLASSES)
    values = index.to_values(ids, PET_CLASSES)
    names = iter(range(1_000_000))

    def write() -> None:
        for photo in read:
            steps.write(f"{next(names)}.png", photo, scores, job)

    work: dict[str, Callable[[], object]] = {
        "read a photo": lambda: [
            steps.read(str(photo), pixels, job.max_pixels) for photo in photos
        ],
        "- decode": lambda: [imageio.decode_reduced(one, SIDE) for one in data],
        "- decode at full scale": lambda: [imageio.decode(one) for one in data],
        "- decode at full scale, by Pillow": lambda: [pillow_pixels(one) for one in data],
        "- decode at full scale, by OpenCV": lambda: [opencv_pixels(one) for one in data],
        "- squash": lambda: [transforms.to_model(one, SIDE) for one in images],
        "- squash, by OpenCV": lambda: [
            cv2.resize(one, (SIDE, SIDE), interpolation=cv2.INTER_AREA) for one in images
        ],
        "write its mask": write,
        "- enlarge": lambda: [transforms.to_source(scores, height, width) for _ in photos],
        "- encode": lambda: [index.encode(segmented) for _ in photos],
        "- encode, by zlib's own search": lambda: [searched(values) for _ in photos],
        "- encode, by Pillow": lambda: [pillow_png(values) for _ in photos],
        "- hash": lambda: [records.hash_pixels(values) for _ in photos],
    }
    sizes = {
        "bytes of a mask": index.encode(segmented),
        "bytes, by zlib's own search": searched(values),
        "bytes, by Pillow": pillow_png(values),
    }
    return {part: core_milliseconds(do) / len(photos) for part, do in work.items()} | {
        part: len(packed) for part, packed in sizes.items()
    }


def as_text(found: float) -> str:
    """Milliseconds with two decimals, bytes with none."""
    return f"{found:,}" if isinstance(found, int) else f"{found:.2f}"


def core_milliseconds(work: Callable[[], object]) -> float:
    """Processor time of the quickest of several rounds."""
    seconds = []
    for _ in range(ROUNDS):
        started = time.process_time()
        work()
        seconds.append(time.process_time() - started)
    return 1e3 * min(seconds)


def make_job(folder: Path, temporary: Path, side: int = SIDE) -> Job:
    """A run of petseg-batch into `folder`, for the steps."""
    return Job(
        masks=folder,
        temporary=temporary,
        model_size=side,
        classes=PET_CLASSES,
        maker=Maker("0" * 64, transforms.TRANSFORM, "source", "stem"),
        provider="null",
        precision="float32",
        formats=(),
        max_pixels=imageio.DEFAULT_MAX_PIXELS,
        replace_any=False,
    )


def draw_probabilities(side: int = SIDE) -> NDArray[np.uint8]:
    """Class probabilities uint8 (3, S, S) of an animal-like shape with a border around it."""
    y, x = (np.mgrid[:side, :side] + 0.5) / side - 0.5
    wave = 0.03 * np.sin(9 * np.arctan2(y, x))
    distance = np.hypot(x / 0.34, y / 0.4) - 1 + wave
    logits = np.stack((-12 * distance, 12 * distance, 1.5 - 40 * np.abs(distance)))
    shares = np.exp(logits - logits.max(axis=0))
    found: NDArray[np.uint8] = np.rint(255 * shares / shares.sum(axis=0)).astype(np.uint8)
    return found


def draw_large(path: Path, seed: int) -> None:
    """A JPEG of 12 megapixels: colours that run into each other, and grain."""
    random = np.random.default_rng(seed)
    coarse = random.integers(0, 256, (300, 400, 3), dtype=np.uint8)
    smooth = cv2.resize(coarse, LARGE[::-1], interpolation=cv2.INTER_CUBIC).astype(np.int16)
    grain = random.integers(-6, 7, (*LARGE, 1), dtype=np.int16)
    Image.fromarray((smooth + grain).clip(0, 255).astype(np.uint8)).save(path, quality=88)


def searched(values: NDArray[np.uint8]) -> bytes:
    """The same rows by zlib's default strategy, which looks for what was there before."""
    return zlib.compress(png.filtered(values).data, 1)


def pillow_pixels(data: bytes) -> NDArray[np.uint8]:
    """A photo as Pillow decodes it: the same pixels."""
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))


def opencv_pixels(data: bytes) -> NDArray[np.uint8]:
    """A photo as OpenCV decodes it, which takes a truncated file for a whole one."""
    encoded = np.frombuffer(data, np.uint8)
    return np.asarray(cv2.imdecode(encoded, cv2.IMREAD_COLOR_RGB), np.uint8)


def pillow_png(values: NDArray[np.uint8]) -> bytes:
    """What petseg's own PNG writer is measured against."""
    buffer = io.BytesIO()
    Image.fromarray(values).save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()


if __name__ == "__main__":
    main()
