"""The photos that all contestants get: drawn ones, or a folder of one's own."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from petseg.errors import ImageError
from petseg.photos import imageio, sources

# The commonest size of Oxford-IIIT Pet's photos, (width, height) in pixels.
DRAWN_SIZE = (500, 375)
_EXIF_ORIENTATION = 0x0112


def draw(folder: Path, count: int, seed: int = 0) -> None:
    """Fill a folder with seeded JPEGs of 500x375: a blurred ground, an animal-like shape, grain.

    Neither noise nor flat areas would do: what they weigh as JPEG, and with it the time to decode
    them, is far from a photo's.  These weigh about as much as Oxford-IIIT Pet's.
    """
    for number in range(count):
        picture = _draw(np.random.default_rng((seed, number)))
        picture.save(folder / f"{number:05}.jpg", quality=95)


def draw_some(folder: Path, count: int, drawn: int) -> None:
    """`count` drawn photos, of which `drawn` are different: all others are links to these."""
    draw(folder, min(count, drawn))
    first = sorted(folder.iterdir())
    for number in range(len(first), count):
        photo = first[number % len(first)]
        (folder / f"{number:05}.jpg").symlink_to(photo.name)


def link(folder: Path, images: Path, count: int | None, say: Callable[[str], None]) -> None:
    """Fill a folder with links to photos below `images`, the first `count` by name.

    Only photos that every contestant reads alike are taken: JPEG or PNG, RGB or grey, upright,
    opaque and whole.  What is left out is said.

    Raises:
        PetsegError: there is no folder `images`.
    """
    taken = 0
    left_out = []
    for path in _images(images):
        if taken == count:
            break
        try:
            suffix = _suffix(path)
        except ImageError as error:
            left_out.append(f"{path} ({error})")
            continue
        (folder / f"{taken:05}{suffix}").symlink_to(path.resolve())
        taken += 1
    if left_out:
        more = f" and {len(left_out) - 5} more" if len(left_out) > 5 else ""
        say(f"left out: {', '.join(left_out[:5])}{more}")
    if count is not None and taken < count:
        say(f"{images} has {taken} photos that can be used, fewer than {count}")


def _images(images: Path) -> Iterator[Path]:
    return (Path(source.path) for source in sources.find(str(images)) if source.is_image)


def _suffix(path: Path) -> str:
    """What a photo's link is to end in; ImageError says why it cannot be used."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ImageError(f"cannot be read: {error.strerror}") from error
    imageio.decode(data)
    with Image.open(path) as image:
        if image.format not in ("JPEG", "PNG"):
            raise ImageError(f"{image.format}, not JPEG or PNG")
        if image.mode not in ("RGB", "L") or image.has_transparency_data:
            raise ImageError(f"mode {image.mode}, not opaque RGB or grey")
        if image.getexif().get(_EXIF_ORIENTATION, 1) != 1:
            raise ImageError("not upright, by its EXIF data")
        return ".jpg" if image.format == "JPEG" else ".png"


def _draw(random: np.random.Generator) -> Image.Image:
    picture = _texture(random, coarse=(4, 3))
    coat = _texture(random, coarse=(10, 8))
    shape = Image.new("L", DRAWN_SIZE)
    pen = ImageDraw.Draw(shape)
    width, height = DRAWN_SIZE
    x, y = random.uniform(0.35, 0.65) * width, random.uniform(0.45, 0.6) * height
    body, head = random.uniform(0.18, 0.28) * height, random.uniform(0.1, 0.16) * height
    side = random.choice((-1, 1))
    pen.ellipse((x - 1.6 * body, y - body, x + 1.6 * body, y + body), fill=255)
    x, y = x + side * 1.4 * body, y - 0.8 * body
    pen.ellipse((x - head, y - head, x + head, y + head), fill=255)
    for ear in (-0.7, 0.7):
        pen.regular_polygon((x + ear * head, y - head, head / 2), n_sides=3, fill=255)
    picture.paste(coat, mask=shape)
    grain = random.normal(0, 5, (height, width, 1))
    return Image.fromarray((np.asarray(picture) + grain).clip(0, 255).astype(np.uint8))


def _texture(random: np.random.Generator, coarse: tuple[int, int]) -> Image.Image:
    """Patches of colour at four scales, each finer one fainter, as in a photo's spectrum."""
    width, height = DRAWN_SIZE
    total = np.full((height, width, 3), random.uniform(60, 190, 3))
    for octave in range(4):
        size = (coarse[0] * 3**octave, coarse[1] * 3**octave)
        patches: NDArray[np.uint8] = random.integers(0, 256, (*size[::-1], 3), dtype=np.uint8)
        smooth = Image.fromarray(patches).resize(DRAWN_SIZE, Image.Resampling.BICUBIC)
        total += (np.asarray(smooth) - 127.5) * 0.6 / 2**octave
    return Image.fromarray(total.clip(0, 255).astype(np.uint8))
