"""Encoded bytes in, upright 8-bit RGB pixels out, or an `ImageError` that names what is wrong.

Pillow decides, on every machine, what can be read and what its pixels are.  A JPEG without a flaw
goes through simplejpeg, which is quicker: both are libjpeg-turbo, and give the same pixels.
"""

from __future__ import annotations

import contextlib
import functools
import io
import re
import struct
import warnings
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, UnidentifiedImageError

from petseg.errors import ImageError
from petseg.photos import jpeg

Pixels = NDArray[np.uint8]

DECODER = "pillow"
DEFAULT_MAX_PIXELS = 250_000_000

# The most that a pixel takes in a format read here, uncompressed RGBA of 16 bits; and room for
# metadata, thumbnails and more pages, which is large beside any that were meant well.
_BYTES_A_PIXEL = 8
_BYTES_BESIDE = 64 << 20

# What counts as an image by its name.  Other files are looked at by their first bytes.
SUFFIXES = frozenset(
    {".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".apng", ".gif", ".webp", ".avif"}
    | {".tif", ".tiff", ".bmp", ".dib", ".ppm", ".pgm", ".pbm", ".pnm"}
    | {".heic", ".heif", ".hif"}
)
# Pillow reads many more, some by starting other programs (Ghostscript for PostScript, say).
_FORMATS = ("JPEG", "PNG", "GIF", "WEBP", "AVIF", "TIFF", "BMP", "DIB", "PPM")
_MAGIC = (
    b"\xff\xd8\xff",  # JPEG
    b"\x89PNG\r\n\x1a\n",
    b"GIF87a",
    b"GIF89a",
    b"II*\x00",  # TIFF, both byte orders
    b"MM\x00*",
)
# What the first box of a file says that it is ("major brand": ISO/IEC 23008-12 for HEIF, the AV1
# Image File Format for AVIF).
_HEIF_BRANDS = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1")
_BRANDS = (b"avif", b"avis", *_HEIF_BRANDS)

# What Pillow's decoders have been seen to raise on damaged data.
_DECODER_ERRORS = (
    OSError,
    ValueError,
    SyntaxError,
    EOFError,
    LookupError,
    TypeError,
    AttributeError,
    AssertionError,
    ArithmeticError,
    RuntimeError,
    struct.error,
    zlib.error,
)

# How to turn pixels (H, W, 3) upright, by EXIF orientation (Exif 2.32, tag 0x0112).
_UPRIGHT: dict[int, Callable[[Pixels], Pixels]] = {
    1: lambda pixels: pixels,
    2: lambda pixels: pixels[:, ::-1],
    3: lambda pixels: pixels[::-1, ::-1],
    4: lambda pixels: pixels[::-1],
    5: lambda pixels: pixels.swapaxes(0, 1),
    6: lambda pixels: pixels[::-1].swapaxes(0, 1),
    7: lambda pixels: pixels[::-1, ::-1].swapaxes(0, 1),
    8: lambda pixels: pixels[:, ::-1].swapaxes(0, 1),
}
# From this orientation on, height and width change places.
_FIRST_LYING = 5

# Pillow's own limit is global state and only warns; `decode` checks the header against its
# argument before a pixel is decoded.
Image.MAX_IMAGE_PIXELS = None
# Pillow warns about damaged metadata; the pixels decide whether an image can be used.
_CHATTER = ("ignore", None, Warning, re.compile(r"PIL\."), 0)


def looks_like_image(name: str, head: bytes) -> bool:
    """Whether a file claims to be an image, by its name or by its first 16 bytes."""
    return (
        Path(name).suffix.lower() in SUFFIXES
        or head.startswith(_MAGIC)
        or (head[:4] == b"RIFF" and head[8:12] == b"WEBP")
        or _brand(head) in _BRANDS
    )


def max_bytes(max_pixels: int) -> int:
    """The size of a file, in bytes, above which it is not worth reading for so many pixels."""
    return _BYTES_A_PIXEL * max_pixels + _BYTES_BESIDE


def decode(data: bytes, max_pixels: int = DEFAULT_MAX_PIXELS) -> Pixels:
    """Decode an image file held in memory.

    The first frame of an animation or of several pages is taken; EXIF orientation is applied;
    transparency is laid over white; 16-bit grey is scaled to 8 bits; colour profiles are ignored.

    Args:
        data: the whole file.
        max_pixels: larger images are refused before they are decoded.

    Returns:
        RGB pixels, uint8 (H, W, 3), 0..255.

    Raises:
        ImageError: empty, no image, truncated, damaged, too large, or of an unknown pixel type.
    """
    return decode_reduced(data, None, max_pixels)[0]


def decode_reduced(
    data: bytes, side: int | None, max_pixels: int = DEFAULT_MAX_PIXELS
) -> tuple[Pixels, tuple[int, int]]:
    """`decode` for what will be squashed into a square: a large JPEG is decoded at a smaller scale.

    Which is much faster, and, as both sides keep at least twice the square's, makes little
    difference to what comes out (tests/test_imageio.py has the bound).

    Args:
        data: the whole file.
        side: of the square, pixels; None decodes at full scale.
        max_pixels: as for `decode`.

    Returns:
        The pixels, and the upright photo's own (H, W).

    Raises:
        ImageError: as for `decode`.
    """
    _hush_pillow()
    with _opened(data, max_pixels) as image:
        width, height = image.size
        # One with a flaw is left to Pillow, which takes what other viewers take (bytes too many
        # between two segments, say) and refuses what lacks pixels.
        plain = image.format == "JPEG" and image.mode in ("RGB", "L")
        pixels = jpeg.decode(data, image.size, side) if plain else None
        if pixels is None:
            image.load()
            pixels = np.array(_to_rgb(image))
            height, width = pixels.shape[:2]
        orientation = _orientation(image)
    upright = np.ascontiguousarray(_UPRIGHT[orientation](pixels))
    return upright, (height, width) if orientation < _FIRST_LYING else (width, height)


def from_pillow(image: Image.Image) -> Pixels:
    """What `decode` makes of an image that Pillow has opened already: RGB uint8 (H, W, 3), upright.

    Raises:
        ImageError: damaged, truncated, or of an unknown pixel type.
    """
    _hush_pillow()
    try:
        image.load()
        pixels = np.array(_to_rgb(image))
    except _DECODER_ERRORS as error:
        raise ImageError(f"damaged or truncated: {error}") from error
    return np.ascontiguousarray(_UPRIGHT[_orientation(image)](pixels))


def decode_grey(data: bytes, max_pixels: int = DEFAULT_MAX_PIXELS) -> Pixels:
    """The values of an 8-bit greyscale image as they are stored, uint8 (H, W): a mask's, say.

    Greyscale alone: the indices of a palette image are not what other readers see.

    Raises:
        ImageError: as for `decode`, and for pixels of any other type.
    """
    with _opened(data, max_pixels) as image:
        if image.mode != "L":
            raise ImageError(f"expected 8-bit greyscale, found mode {image.mode}")
        return np.array(image)


@contextlib.contextmanager
def _opened(data: bytes, max_pixels: int) -> Iterator[Image.Image]:
    """An image whose pixels can be asked for: all that goes wrong with it is an ImageError."""
    if not data:
        raise ImageError("the file is empty (0 bytes)")
    try:
        with Image.open(io.BytesIO(data), formats=_formats(data)) as image:
            width, height = image.size
            if width * height > max_pixels:
                raise ImageError(
                    f"{width}x{height} is {width * height} pixels, over the limit of "
                    f"{max_pixels}; raise --max-pixels if the file can be trusted"
                )
            yield image
    except UnidentifiedImageError:
        if _brand(data) in _HEIF_BRANDS and not _knows_heif():
            raise ImageError(
                "HEIF (HEIC) needs the package pillow-heif: pip install 'petseg[heif]'"
            ) from None
        raise ImageError("not an image in a format that can be read") from None
    except _DECODER_ERRORS as error:
        words = " ".join(str(error).split()) or type(error).__name__
        raise ImageError(f"damaged or truncated: {words}") from error
    except MemoryError as error:
        raise ImageError("too large for the memory that is left; lower --max-pixels") from error


def _hush_pillow() -> None:
    """Silence Pillow's warnings, and nobody else's, from now on.

    What `warnings.catch_warnings` puts back is the whole process's; other threads may be decoding.
    """
    if warnings.filters[:1] != [_CHATTER]:
        warnings.filterwarnings("ignore", module=_CHATTER[3].pattern)


def _brand(head: bytes) -> bytes:
    return head[8:12] if head[4:8] == b"ftyp" else b""


def _formats(data: bytes) -> tuple[str, ...]:
    """What Pillow may take the file for."""
    heif = _brand(data) in _HEIF_BRANDS and _knows_heif()
    return (*_FORMATS, "HEIF") if heif else _FORMATS


@functools.cache
def _knows_heif() -> bool:
    """Teach Pillow to read HEIF; False where the package that does is not installed."""
    try:
        import pillow_heif
    except ImportError:
        return False
    pillow_heif.register_heif_opener()
    return True


def _orientation(image: Image.Image) -> int:
    """EXIF orientation, 1..8; damaged EXIF counts as none, as in image viewers."""
    try:
        found = image.getexif().get(ExifTags.Base.Orientation, 1)
    except _DECODER_ERRORS:
        return 1
    return found if found in _UPRIGHT else 1


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I"):
        return _from_integers(image)
    if image.mode == "F":
        raise ImageError(
            "pixels are floating-point numbers, whose range is not defined; save it with 8 bits"
        )
    if image.has_transparency_data:
        rgba = image.convert("RGBA")
        white = Image.new("RGBA", rgba.size, "white")
        return Image.alpha_composite(white, rgba).convert("RGB")
    return image if image.mode == "RGB" else image.convert("RGB")


def _from_integers(image: Image.Image) -> Image.Image:
    """16-bit grey to 8 bits: v * 255 / 65535, rounded.  Wider values have no defined range."""
    values = np.asarray(image)
    if values.size and (values.min() < 0 or values.max() > 65535):
        raise ImageError("32-bit grey values beyond 0..65535; save it with 8 or 16 bits")
    grey = ((values.astype(np.uint32) * 255 + 32767) // 65535).astype(np.uint8)
    return Image.fromarray(grey).convert("RGB")
