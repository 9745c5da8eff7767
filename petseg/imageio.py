"""Encoded bytes in, upright 8-bit RGB pixels out, or an `ImageError` that names what is wrong.

There is one decoder, Pillow, on every machine: two decoders are two results.
"""

from __future__ import annotations

import io
import struct
import warnings
import zlib
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from petseg.errors import ImageError

Pixels = NDArray[np.uint8]

DECODER = "pillow"
DEFAULT_MAX_PIXELS = 250_000_000

# What counts as an image by its name.  Other files are looked at by their first bytes.
SUFFIXES = frozenset(
    {".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".apng", ".gif", ".webp", ".avif"}
    | {".tif", ".tiff", ".bmp", ".dib", ".ppm", ".pgm", ".pbm", ".pnm"}
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

# What Pillow's decoders have been seen to raise on damaged data.
_DECODER_ERRORS = (
    OSError,
    ValueError,
    SyntaxError,
    EOFError,
    LookupError,
    TypeError,
    AttributeError,
    ArithmeticError,
    NotImplementedError,
    struct.error,
    zlib.error,
)

# Pillow's own limit is global state and only warns; `decode` checks the header against its
# argument before a pixel is decoded.
Image.MAX_IMAGE_PIXELS = None


def looks_like_image(name: str, head: bytes) -> bool:
    """Whether a file claims to be an image, by its name or by its first 16 bytes."""
    return (
        Path(name).suffix.lower() in SUFFIXES
        or head.startswith(_MAGIC)
        or (head[:4] == b"RIFF" and head[8:12] == b"WEBP")
        or head[4:12] == b"ftypavif"
    )


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
    if not data:
        raise ImageError("the file is empty (0 bytes)")
    try:
        # Pillow warns about damaged metadata; the pixels decide whether an image can be used.
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Image.open(io.BytesIO(data), formats=_FORMATS) as image:
                width, height = image.size
                if width * height > max_pixels:
                    raise ImageError(
                        f"{width}x{height} is {width * height} pixels, over the limit of "
                        f"{max_pixels}; raise --max-pixels if the file can be trusted"
                    )
                image.load()
                rgb = _to_rgb(_upright(image))
                return np.array(rgb)
    except UnidentifiedImageError:
        raise ImageError("not an image in a format that can be read") from None
    except _DECODER_ERRORS as error:
        raise ImageError(f"damaged or truncated: {str(error) or type(error).__name__}") from error
    except MemoryError as error:
        raise ImageError("too large for the memory that is left; lower --max-pixels") from error


def _upright(image: Image.Image) -> Image.Image:
    """Turn by the EXIF orientation; damaged EXIF counts as none, as in image viewers."""
    try:
        return ImageOps.exif_transpose(image)
    except _DECODER_ERRORS:
        return image


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
