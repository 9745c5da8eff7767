"""What can be wrong with the content of an image, or odd, and what must become of it."""

from __future__ import annotations

import functools
import importlib.util
import io
import warnings
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from batching import Pixels, picture
from PIL import Image

SUFFIXES = {"JPEG": "jpg", "PNG": "png", "GIF": "gif", "WEBP": "webp", "AVIF": "avif"} | {
    "TIFF": "tif",
    "BMP": "bmp",
    "PPM": "ppm",
}
if importlib.util.find_spec("pillow_heif"):
    import pillow_heif

    pillow_heif.register_heif_opener()
    SUFFIXES["HEIF"] = "heic"

# Where a file of such formats can be told by its first bytes alone.
WITH_MAGIC = {"JPEG", "PNG", "GIF", "WEBP", "AVIF", "TIFF", "HEIF"}
UNKNOWN = "not an image in a format that can be read"
DAMAGED = "damaged or truncated: "
OVER = "over the limit of 1000000; raise --max-pixels"
MAX_PIXELS = 1_000_000
TOO_LARGE = "the file is 1099511627776 bytes, over the limit of 75108864 for images of 1000000"


# "nothing": it is not even a file.
Outcome = Literal["done", "failed", "ignored", "kept", "nothing"]


@dataclass(frozen=True)
class Fault:
    """One kind of fault, or of oddity, in one format.

    Attributes:
        kind: what it is.
        name: of the file.
        put: puts it in its place.
        outcome: what must become of it.
        words: in the reason, where it fails.
        pixels: what a person sees of it, RGB uint8 (H, W, 3), where a mask comes of it.
        then: what happens to it between listing and reading.
        mask: puts something where its mask goes, before the run.
        comes: puts something where its mask goes, between listing and reading.
    """

    kind: str
    name: str
    put: Callable[[Path], object]
    outcome: Outcome
    words: str = ""
    pixels: Pixels | None = None
    then: Callable[[Path], object] | None = None
    mask: Callable[[Path], object] | None = None
    comes: Callable[[Path], object] | None = None

    def __str__(self) -> str:
        return f"{self.kind} {ascii(self.name)[1:-1][:40]}"


def done(kind: str, name: str, data: bytes, pixels: Pixels | None = None) -> Fault:
    """A mask comes of it; the person sees what Pillow sees, unless told."""
    if pixels is None:
        pixels = seen(data)
    return Fault(kind, name, lambda path: path.write_bytes(data), "done", pixels=pixels)


def failed(kind: str, name: str, data: bytes, words: str) -> Fault:
    return Fault(kind, name, lambda path: path.write_bytes(data), "failed", words)


def ignored(kind: str, name: str, data: bytes) -> Fault:
    return Fault(kind, name, lambda path: path.write_bytes(data), "ignored")


PIXELS = picture(201, 48, 64)


@functools.cache
def blob(kind: str) -> bytes:
    return encode(Image.fromarray(PIXELS), kind)


def encode(image: Image.Image, kind: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    fast = {"AVIF": {"speed": 10}}
    image.save(buffer, kind, **fast.get(kind, {}), **options)
    return buffer.getvalue()


def seen(data: bytes) -> Pixels:
    # Pillow warns about damaged metadata.
    with warnings.catch_warnings(action="ignore"), Image.open(io.BytesIO(data)) as image:
        return np.array(image.convert("RGB"))


def flipped(data: bytes, place: int, count: int = 4) -> bytes:
    return bytes(
        byte ^ 0xFF if place <= number < place + count else byte for number, byte in enumerate(data)
    )


def every_format() -> Iterator[Fault]:
    """What may happen to a file of any format."""
    # By format: what a cut in the middle, a cut of the last byte and a flip in the middle do.
    # None: it is read as everything else reads it.
    damage: dict[str, tuple[str, str | None, str | None]] = {
        "JPEG": (DAMAGED, DAMAGED, None),
        "PNG": (DAMAGED, None, DAMAGED),
        "GIF": (DAMAGED, None, DAMAGED),
        "WEBP": (DAMAGED, DAMAGED, None),
        "AVIF": (UNKNOWN, DAMAGED, None),
        "TIFF": (DAMAGED, DAMAGED, None),
        "BMP": (DAMAGED, DAMAGED, None),
        "PPM": (DAMAGED, DAMAGED, None),
        "HEIF": (DAMAGED, DAMAGED, None),
    }
    header = dict.fromkeys(SUFFIXES, UNKNOWN)
    header |= dict.fromkeys(("PNG", "WEBP", "BMP", "PPM"), DAMAGED)
    for number, (kind, suffix) in enumerate(SUFFIXES.items()):
        data, name = blob(kind), f"x.{suffix}"
        middle, last, flip = damage[kind]
        yield failed("empty", name, b"", "the file is empty (0 bytes)")
        yield failed("one byte", name, data[:1], UNKNOWN)
        yield failed("cut in the middle", name, data[: len(data) // 2], middle)
        yield failed("cut in the header", name, data[:20], header[kind])
        cut, bent = data[:-1], flipped(data, len(data) * 7 // 10)
        for fault, damaged, words in (
            ("cut by a byte", cut, last),
            ("flipped bytes in the body", bent, flip),
        ):
            yield failed(fault, name, damaged, words) if words else done(fault, name, damaged)
        place = 4 if kind in ("AVIF", "HEIF") else 0
        yield failed("flipped bytes in the header", name, flipped(data, place), UNKNOWN)
        yield failed("nothing but zeros", name, bytes(len(data)), UNKNOWN)
        others = [*SUFFIXES.values()]
        yield done("another format's ending", f"x.{others[number - 1]}", data)
        yield done("ending in capitals", f"X.{suffix.upper()}", data)
        yield done("bytes behind the end", name, data + b"and more" * 9)
        yield (done if kind in WITH_MAGIC else ignored)("no ending", f"x {suffix}", data)
        yield Fault("a file too large to be read", name, _huge, "failed", TOO_LARGE)


def _huge(path: Path) -> None:
    with path.open("wb") as file:
        file.truncate(1 << 40)  # a hole: it takes no room


def no_images() -> Iterator[Fault]:
    """Files of another kind, some of which claim to be images."""
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr("x.jpg", blob("JPEG"))
    page = b"<!DOCTYPE html><html><title>404 Not Found</title></html>"
    drawing = b'<svg xmlns="http://www.w3.org/2000/svg"><rect width="9" height="9"/></svg>'
    script = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\nshowpage\n"
    for fault, data in (
        ("an error page", page),
        ("a drawing in SVG", drawing),
        ("a PostScript file", script),
        ("a ZIP archive", archive.getvalue()),
        ("a PDF", b"%PDF-1.7\n1 0 obj <<>> endobj\n%%EOF"),
        ("what macOS keeps beside a file", b"\x00\x05\x16\x07\x00\x02\x00\x00Mac OS X"),
        ("random bytes", np.random.default_rng(5).bytes(5000)),
    ):
        for suffix in ("jpg", "png"):
            yield failed(f"{fault} under an image's name", f"x.{suffix}", data, UNKNOWN)
    yield ignored("notes", "notes.txt", b"hello")
    yield ignored("an empty file without an ending", "x", b"")
    yield ignored("what macOS keeps of a folder", ".DS_Store", b"\0\0\0\1Bud1")
    yield ignored("a thumbnail database", "Thumbs.db", b"\xd0\xcf\x11\xe0" + bytes(600))
    yield ignored("a film", "x.mp4", b"\x00\x00\x00\x20ftypisom" + bytes(600))
    yield ignored("an archive", "x.zip", archive.getvalue())
