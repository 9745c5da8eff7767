"""Mutated images of all formats through real workers: python -m soak.mutants --count 100000.

The network takes no time, every fourth image is a good one, and nothing is kept on the disk.  Each
image has one outcome; the good ones' masks are right; memory does not grow; a worker that dies or
hangs costs the image that it was at, which is kept with --keep.
"""

from __future__ import annotations

import json
import random
import struct
import tempfile
import time
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import click
import numpy as np
from batching import Pixels, make_job, picture, read_mask
from faults import SUFFIXES, blob, encode
from PIL import Image

from petseg import png, transforms
from petseg.classes import PET_CLASSES, ids_to_values
from petseg.engines.local import LocalEngine
from petseg.engines.outcome import Outcome, Work
from soak.colours import SIDE, ColourSession

WORKERS, GOOD_EVERY = 2, 4
# Far above what any of these takes: a mutant that takes so long hangs.
READ_TIMEOUT = 20.0
MAX_PIXELS = 1_000_000
# Between two looks at the workers' memory, images.
LOOK_EVERY = 100
# A worker's memory may be so much larger in the last third of a run than in the first: what one
# photo of MAX_PIXELS takes in the widest of types, and what the allocator keeps.
GROWTH_BYTES = 32_000_000
INTERESTING = (0, 1, 0x7F, 0x80, 0xFF, 0x7FFF, 0x8000, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF)


def seeds() -> dict[str, list[bytes]]:
    """By suffix: files of every format, plain and packed in other ways."""
    photo = Image.fromarray(picture(201, 48, 64))
    others = [Image.fromarray(picture(seed, 48, 64)) for seed in (203, 204)]
    indexed, grey = photo.quantize(32), photo.convert("L")
    sixteen = Image.fromarray(np.array(grey).astype(np.uint16) * 257)
    exif = Image.Exif()
    exif[0x0112], exif[0x010F] = 6, "a camera"
    frames = {"save_all": True, "append_images": others, "duration": 90}
    found = {suffix: [blob(kind)] for kind, suffix in SUFFIXES.items()}
    ways: list[tuple[str, Image.Image, dict[str, Any]]] = [
        ("JPEG", photo, {"progressive": True, "exif": exif.tobytes()}),
        ("JPEG", photo.convert("CMYK"), {}),
        ("JPEG", grey, {"restart_marker_rows": 1}),
        ("PNG", indexed, {"exif": exif.tobytes(), "icc_profile": b"profile" * 20}),
        ("PNG", sixteen, {}),
        ("PNG", photo, frames),
        ("GIF", indexed, frames),
        ("WEBP", photo, {"lossless": True, "exif": exif.tobytes()}),
        ("WEBP", photo, frames),
        ("AVIF", photo, frames),
        *(
            ("TIFF", photo, {"compression": packing})
            for packing in ("tiff_lzw", "tiff_adobe_deflate", "packbits", "jpeg")
        ),
        ("TIFF", sixteen, {}),
        ("TIFF", photo, {"save_all": True, "append_images": others}),
        ("BMP", indexed, {}),
        ("PPM", grey, {}),
    ]
    for kind, image, options in ways:
        found[SUFFIXES[kind]].append(encode(image, kind, **options))
    return found


def mutate(data: bytes, other: bytes, chance: random.Random) -> bytes:
    """`data` with one to eight changes, of the sorts that fuzzers make; `other` to cut from."""
    bent = bytearray(data)
    for _ in range(chance.choice((1, 1, 2, 3, 5, 8))):
        if not bent:
            break
        # Headers decide what is done with the rest: half of the changes are made in them.
        place = chance.randrange(min(len(bent), chance.choice((64, len(bent)))))
        length = chance.randint(1, chance.choice((4, 64, 1024)))
        chance.choice(CHANGES)(bent, place, length, other, chance)
    if bent[:8] == png.SIGNATURE and chance.random() < 0.7:
        return repaired(bytes(bent))
    return bytes(bent)


def _flip(bent: bytearray, place: int, length: int, other: bytes, chance: random.Random) -> None:
    bent[place] ^= 1 << chance.randrange(8)


def _scramble(bent: bytearray, place: int, length: int, *rest: Any) -> None:
    bent[place : place + length] = rest[-1].randbytes(len(bent[place : place + length]))


def _number(bent: bytearray, place: int, length: int, other: bytes, chance: random.Random) -> None:
    code = chance.choice(("B", "<H", ">H", "<I", ">I"))
    value = chance.choice(INTERESTING) & ((1 << (8 * struct.calcsize(code))) - 1)
    part = struct.pack(code, value)
    bent[place : place + len(part)] = part


def _cut(bent: bytearray, place: int, length: int, *rest: Any) -> None:
    del bent[place : place + length]


def _double(bent: bytearray, place: int, length: int, *rest: Any) -> None:
    bent[place:place] = bent[place : place + length]


def _splice(bent: bytearray, place: int, length: int, other: bytes, chance: random.Random) -> None:
    start = chance.randrange(len(other))
    bent[place : place + length] = other[start : start + length]


def _end(bent: bytearray, place: int, *rest: Any) -> None:
    del bent[place:]


CHANGES: tuple[Callable[..., None], ...] = (
    *(_flip, _flip, _number, _number, _scramble),
    *(_cut, _double, _splice, _end),
)


def repaired(data: bytes) -> bytes:
    """A PNG whose checksums fit its chunks: without that, no decoder would look into them."""
    found, position = [png.SIGNATURE], len(png.SIGNATURE)
    while position + png.CHUNK_HEAD.size <= len(data):
        length, kind = png.CHUNK_HEAD.unpack_from(data, position)
        start = position + png.CHUNK_HEAD.size
        content = data[start : start + length]
        crc = zlib.crc32(kind + content)
        found.append(png.CHUNK_HEAD.pack(length, kind) + content + png.CHUNK_END.pack(crc))
        position = start + length + png.CHUNK_END.size
    return b"".join(found)


@dataclass
class Run:
    """A stream of images on its way through an engine.

    Attributes:
        folder: where the images lie that are under way.
        count: how many there are to be.
        seed: of the mutations.
        keep: where images go that a worker died or hung of.
        outcomes: of mutants, by format and status.
        problems: what mutants failed of: the first words.
        deaths: mutants that cost a worker, and what was said of them.
        memory: largest and summed resident bytes of the workers, over the run.
    """

    folder: Path
    count: int
    seed: int
    keep: Path | None = None
    outcomes: Counter[tuple[str, str]] = field(default_factory=Counter)
    problems: Counter[str] = field(default_factory=Counter)
    deaths: dict[str, str] = field(default_factory=dict)
    memory: list[int] = field(default_factory=list)
    settled: int = 0
    good: int = 0

    def __post_init__(self) -> None:
        self.under_way: set[str] = set()
        self.photos = [picture(seed, 30, 40) for seed in range(8)]
        self.masks = [expected(pixels) for pixels in self.photos]
        self.job = make_job(
            self.folder / "masks", model_size=SIDE, max_pixels=MAX_PIXELS, replace_any=True
        )

    def run(self) -> LocalEngine:
        """All of it; raises AssertionError where an image is lost or a good one's mask is wrong."""
        engine = LocalEngine(ColourSession(), self.job, WORKERS, READ_TIMEOUT)  # type: ignore[arg-type]

        def settle(outcome: Outcome) -> None:
            self.settle(outcome)
            if self.settled % LOOK_EVERY == 0:
                pids = [worker.process.pid for worker in engine.pool.workers.values()]
                self.memory.append(max(resident(pid) for pid in pids if pid is not None))

        try:
            engine.run(self.works(), settle, lambda batch: None, lambda: False)
        finally:
            engine.close()
        assert self.settled == self.count
        assert not self.under_way
        assert engine.restarts == len(self.deaths)
        left = sorted(path.name for path in self.job.temporary.iterdir())
        assert len(left) <= engine.restarts, left
        return engine

    def works(self) -> Iterator[Work]:
        chance, files = random.Random(self.seed), seeds()
        suffixes = sorted(files)
        whole = [data for suffix in suffixes for data in files[suffix]]
        images = self.folder / "images"
        images.mkdir()
        for number in range(self.count):
            suffix = "bmp"
            if number % GOOD_EVERY == 0:
                pixels = self.photos[number // GOOD_EVERY % len(self.photos)]
                data = encode(Image.fromarray(pixels), "BMP")
            else:
                suffix = suffixes[number % len(suffixes)]
                data = mutate(chance.choice(files[suffix]), chance.choice(whole), chance)
            name = f"{number:07}.{suffix}"
            (images / name).write_bytes(data)
            self.under_way.add(name)
            yield Work(str(images / name), name, f"{number:07}.png")

    def settle(self, outcome: Outcome) -> None:
        """Count an image and remove it."""
        work = outcome.work
        self.under_way.remove(work.name)  # KeyError: it had an outcome before
        number, mask = int(work.name[:7]), self.job.masks / work.mask
        if number % GOOD_EVERY == 0:
            assert outcome.status == "done", outcome
            found = read_mask(mask)
            right = self.masks[number // GOOD_EVERY % len(self.masks)]
            np.testing.assert_array_equal(found, right, err_msg=work.name)
            self.good += 1
        else:
            self.outcomes[Path(work.name).suffix, outcome.status] += 1
            if outcome.status == "done":
                assert read_mask(mask).size <= MAX_PIXELS
            else:
                assert outcome.status == "failed", outcome
                assert outcome.problem
                self.problems[outcome.problem[:40]] += 1
                if "a worker process died" in outcome.problem or " took more" in outcome.problem:
                    self.deaths[work.name] = outcome.problem
                    if self.keep is not None:
                        self.keep.mkdir(parents=True, exist_ok=True)
                        (self.keep / work.name).write_bytes(Path(work.path).read_bytes())
        self.settled += 1
        mask.unlink(missing_ok=True)
        Path(work.path).unlink()

    def growth(self) -> int:
        """Bytes that the largest worker grew by from the first third of the run to the last."""
        third = max(1, len(self.memory) // 3)
        return max(self.memory[-third:]) - max(self.memory[:third])


def expected(pixels: Pixels) -> Pixels:
    """The mask of a small photo, by the colours of it."""
    scores = transforms.to_model(pixels, SIDE).transpose(2, 0, 1)
    ids = transforms.to_source(np.ascontiguousarray(scores), *pixels.shape[:2])
    mask: Pixels = ids_to_values(PET_CLASSES)[ids]
    return mask


def resident(pid: int) -> int:
    """Resident bytes of a process (proc_pid_status(5)); 0 where it is gone."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return 0
    return sum(1024 * int(line.split()[1]) for line in lines if line.startswith("VmRSS"))


@click.command(context_settings={"show_default": True})
@click.option("--count", type=click.IntRange(4), default=100_000, help="Images, good ones too.")
@click.option("--seed", default=1)
@click.option("--keep", type=click.Path(path_type=Path), help="Where killers of workers go.")
@click.option("--json", "as_json", is_flag=True, help="JSON on stdout.")
def main(count: int, seed: int, keep: Path | None, as_json: bool) -> None:
    """Send mutants through the workers; ends with an AssertionError where a promise is broken."""
    started = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="petseg-mutants-") as name:
        run = Run(Path(name), count, seed, keep)
        engine = run.run()
    assert run.growth() < GROWTH_BYTES, run.memory
    found = {
        "images": run.settled,
        "good ones, every mask right": run.good,
        "mutants": {
            f"{suffix} {status}": n for (suffix, status), n in sorted(run.outcomes.items())
        },
        "workers that died or hung": engine.restarts,
        "of": run.deaths,
        "a worker's memory at most, MB": round(max(run.memory, default=0) / 1e6, 1),
        "its growth from the first to the last third, MB": round(run.growth() / 1e6, 1),
        "seconds": round(time.monotonic() - started, 1),
    }
    click.echo(json.dumps(found) if as_json else "\n".join(f"{k}: {v}" for k, v in found.items()))


if __name__ == "__main__":
    main()
