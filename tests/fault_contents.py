"""Faults and oddities that one format or another can have inside."""

from __future__ import annotations

import re
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from batching import Pixels, picture
from faults import (
    DAMAGED,
    OVER,
    PIXELS,
    SUFFIXES,
    UNKNOWN,
    Fault,
    blob,
    done,
    encode,
    failed,
    flipped,
    seen,
)
from PIL import Image

from petseg.masks import png

DATA = Path(__file__).parent / "data"
HEIGHT, WIDTH = PIXELS.shape[:2]
GREY = PIXELS[..., 1]
THREE_GREYS = np.stack([GREY] * 3, axis=-1)
PHOTO = Image.fromarray(PIXELS)
LOSSLESS = {"WEBP": {"lossless": True, "exact": True}}


def metadata() -> Iterator[Fault]:
    """EXIF, colour profiles and text."""
    turned = {
        1: PIXELS,
        2: PIXELS[:, ::-1],
        3: PIXELS[::-1, ::-1],
        4: PIXELS[::-1],
        5: PIXELS.swapaxes(0, 1),
        6: np.rot90(PIXELS, -1),
        7: PIXELS[::-1, ::-1].swapaxes(0, 1),
        8: np.rot90(PIXELS),
    }
    for kind in _there("JPEG", "PNG", "WEBP", "TIFF", "AVIF", "HEIF"):
        name, options = f"x.{SUFFIXES[kind]}", LOSSLESS.get(kind, {})
        for orientation, upright in turned.items():
            exif = Image.Exif()
            exif[0x0112] = orientation
            data = encode(PHOTO, kind, exif=exif.tobytes(), **options)
            # Of what these make of it: the camera's pixels, turned.
            lossy = kind in ("JPEG", "AVIF", "HEIF")
            if kind == "HEIF":  # which turns by properties of its own, where others have EXIF's
                turns = b"irot" in data, b"imir" in data
                assert turns == (orientation in (3, 5, 6, 7, 8), orientation in (2, 4, 5, 7))
            pixels = _turned(seen(blob(kind)), orientation) if lossy else upright
            yield done(f"EXIF orientation {orientation}", name, data, np.ascontiguousarray(pixels))
        exif = Image.Exif()
        exif[0x010F], exif[0x0112] = "a camera", 9
        plain = seen(encode(PHOTO, kind, **options))
        data = encode(PHOTO, kind, exif=exif.tobytes(), **options)
        yield done("EXIF orientation that there is not", name, data, plain)
        if kind != "TIFF":  # whose EXIF is the file's own directory
            head = b"MM\x00*\x00\x00\x00\x08"
            assert head in data
            damaged = data.replace(head, b"MM\x00*\xff\xff\xff\xff")
            if kind == "PNG":  # where a checksum would tell
                damaged = with_chunk(b"eXIf", b"MM\x00*\xff\xff\xff\xff")
            yield done("damaged EXIF", name, damaged, plain)
        profile = encode(PHOTO, kind, icc_profile=b"no colour profile" * 9, **options)
        yield done("damaged colour profile", name, profile, plain)
    bomb = zlib.compress(bytes(50_000_000), 9)
    for keyword, words in ((b"zTXt", "too large"), (b"iCCP", "too large")):
        data = with_chunk(keyword, b"x\x00\x00" + bomb)
        yield failed(f"{keyword.decode()} chunk that unpacks to 50 MB", "x.png", data, words)


def _there(*kinds: str) -> list[str]:
    """Those of these formats that Pillow can write here."""
    return [kind for kind in kinds if kind in SUFFIXES]


def _turned(pixels: Pixels, orientation: int) -> Pixels:
    with Image.fromarray(pixels) as image:
        return np.array(image.transpose(_TURNS[orientation]) if orientation > 1 else image)


# As ImageOps.exif_transpose does it.
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def with_chunk(kind: bytes, data: bytes) -> bytes:
    whole = blob("PNG")
    return whole[: png.HEADER_BYTES] + png.chunk(kind, data) + whole[png.HEADER_BYTES :]


def without_chunk(data: bytes, kind: bytes) -> bytes:
    start = data.index(kind) - 4
    (length,) = struct.unpack_from(">I", data, start)
    return data[:start] + data[start + length + 12 :]


def png_header(width: int, height: int) -> bytes:
    data = blob("PNG")
    header = struct.pack(">II", width, height) + data[24:29]
    return png.SIGNATURE + png.chunk(b"IHDR", header) + data[png.HEADER_BYTES :]


def sizes() -> Iterator[Fault]:
    """Sizes that are not true, too large, or nothing."""
    jpeg, gif, webp, avif, bmp = (blob(kind) for kind in ("JPEG", "GIF", "WEBP", "AVIF", "BMP"))
    frame = jpeg.index(b"\xff\xc0") + 5
    ispe = avif.index(b"ispe") + 8
    tiff = bytearray(blob("TIFF"))
    for tag in (256, 257):
        place = tiff.index(struct.pack("<HHI", tag, 4, 1)) + 8
        tiff[place : place + 4] = struct.pack("<I", 100_000)
    huge = "huge size, tiny body"
    large = struct.pack(">HH", 65500, 65500)
    yield failed(huge, "x.jpg", jpeg[:frame] + large + jpeg[frame + 4 :], OVER)
    yield failed(huge, "x.png", png_header(2**31 - 1, 2**31 - 1), OVER)
    yield failed(huge, "x.gif", gif[:6] + b"\xff\xff\xff\xff" + gif[10:], OVER)
    yield failed(huge, "x.webp", webp[:26] + struct.pack("<HH", 16383, 16383) + webp[30:], OVER)
    yield failed(huge, "x.tif", bytes(tiff), OVER)
    yield failed(huge, "x.bmp", bmp[:18] + struct.pack("<ii", 60000, 60000) + bmp[26:], OVER)
    yield failed(huge, "x.ppm", b"P6\n99999 99999\n255\nxxx", OVER)
    wide = struct.pack(">II", 9000, 9000)
    yield failed(huge, "x.avif", avif[:ispe] + wide + avif[ispe + 8 :], OVER)
    if "HEIF" in SUFFIXES:
        heif = blob("HEIF")
        ispe = heif.index(b"ispe") + 8
        # What is shown of it is another property's: its size is only found out when it is decoded.
        yield failed(huge, "x.heic", heif[:ispe] + wide + heif[ispe + 8 :], DAMAGED)
        beyond = heif[:ispe] + b"\x7f\xff\xff\xff" * 2 + heif[ispe + 8 :]
        yield failed("size beyond any limit", "x.heic", beyond, "Security limit exceeded")
    bomb = Image.new("L", (1200, 1200))
    for kind in _there("PNG", "GIF", "WEBP", "TIFF", "AVIF", "JPEG", "HEIF"):
        options = {"compression": "tiff_deflate"} if kind == "TIFF" else {}
        data = encode(bomb, kind, **options)
        yield failed("decompression bomb", f"x.{SUFFIXES[kind]}", data, OVER)
    yield failed("no width", "x.png", png_header(0, HEIGHT), UNKNOWN)
    yield failed("no width", "x.jpg", jpeg[:frame] + bytes(4) + jpeg[frame + 4 :], UNKNOWN)
    # Its frame has one.
    yield done("no width", "x.gif", gif[:6] + bytes(4) + gif[10:])
    yield failed("no width", "x.bmp", bmp[:18] + bytes(8) + bmp[26:], UNKNOWN)
    yield failed("no width", "x.ppm", b"P6\n0 0\n255\n", UNKNOWN)
    dot, line = np.array([[[200, 30, 90]]], np.uint8), picture(202, 10, 20000)
    for kind, suffix in (("PNG", "png"), ("BMP", "bmp"), ("TIFF", "tif"), ("PPM", "ppm")):
        for fault, pixels in (("one pixel", dot), ("20000 x 10 pixels", line)):
            yield done(fault, f"x.{suffix}", encode(Image.fromarray(pixels), kind), pixels)
    yield done("a smaller size", "x.ppm", b"P6\n64 20\n255\n" + PIXELS.tobytes(), PIXELS[:20])


def kinds_of_pixels() -> Iterator[Fault]:
    """Modes other than 8-bit RGB."""
    sixteen = Image.fromarray(GREY.astype(np.uint16) * 257)
    white = np.uint8(255)
    bits = np.stack([np.where(GREY > 127, white, np.uint8(0))] * 3, axis=-1)
    black_and_white = Image.fromarray(GREY > 127)
    grey = Image.fromarray(GREY)
    for kind, suffix in (("PNG", "png"), ("TIFF", "tif"), ("BMP", "bmp"), ("PPM", "pgm")):
        yield done("grey", f"x.{suffix}", encode(grey, kind), THREE_GREYS)
        yield done("1 bit", f"x.{suffix}", encode(black_and_white, kind), bits)
    for kind, suffix in (("PNG", "png"), ("TIFF", "tif"), ("PPM", "pgm")):
        yield done("16-bit grey", f"x.{suffix}", encode(sixteen, kind), THREE_GREYS)
    yield done("grey", "x.jpg", encode(grey, "JPEG"))
    indexed = PHOTO.quantize(32)
    for kind in ("PNG", "GIF", "TIFF", "BMP"):
        pixels = np.array(indexed.convert("RGB"))
        yield done("palette", f"x.{SUFFIXES[kind]}", encode(indexed, kind), pixels)
    opaque = np.zeros((HEIGHT, WIDTH), np.uint8)
    opaque[10:40, 20:] = 255
    see_through = Image.fromarray(np.dstack([PIXELS, opaque]))
    over_white = np.where(opaque[..., None] == 255, PIXELS, white)
    for kind in ("PNG", "TIFF", "WEBP"):
        data = encode(see_through, kind, **LOSSLESS.get(kind, {}))
        yield done("transparency", f"x.{SUFFIXES[kind]}", data, over_white)
    cmyk = PHOTO.convert("CMYK")
    inverted = encode(cmyk, "JPEG", quality=95)
    yield done("CMYK as Adobe writes it, inverted", "x.jpg", inverted)
    # Nobody says then whether it is inverted; Pillow and browsers take it for Adobe's.
    plain = re.sub(rb"\xff\xee\x00\x0eAdobe.{7}", b"", inverted, flags=re.DOTALL)
    assert len(plain) == len(inverted) - 16
    yield done("CMYK without Adobe's mark", "x.jpg", plain, seen(inverted))
    yield done("CMYK", "x.tif", encode(cmyk, "TIFF"), np.array(cmyk.convert("RGB")))
    yield done("YCbCr", "x.tif", encode(PHOTO.convert("YCbCr"), "TIFF"))
    floats = Image.fromarray(GREY.astype(np.float32))
    yield failed("floating-point numbers", "x.tif", encode(floats, "TIFF"), "floating-point")
    wide = Image.fromarray(GREY.astype(np.int32) * 100_000)
    yield failed("32-bit grey", "x.tif", encode(wide, "TIFF"), "32-bit grey values beyond")


def ways_of_packing() -> Iterator[Fault]:
    yield done("progressive", "x.jpg", encode(PHOTO, "JPEG", progressive=True))
    yield done("restart markers", "x.jpg", encode(PHOTO, "JPEG", restart_marker_rows=1))
    # The same coefficients twice: jpegtran -arithmetic -outfile arithmetic.jpg huffman.jpg
    huffman = seen((DATA / "huffman.jpg").read_bytes())
    yield done("arithmetic coding", "x.jpg", (DATA / "arithmetic.jpg").read_bytes(), huffman)
    for packing in ("tiff_lzw", "tiff_adobe_deflate", "lzma", "packbits", "zstd"):
        data, fault = encode(PHOTO, "TIFF", compression=packing), f"packed by {packing}"
        yield done(fault, "x.tif", data, PIXELS)
        bent = flipped(data, len(data) // 3, 8)
        if packing in ("packbits", "zstd"):  # nothing in them could tell
            yield done(f"{fault}, flipped bytes", "x.tif", bent)
        else:
            yield failed(f"{fault}, flipped bytes", "x.tif", bent, DAMAGED)
    yield done("packed by JPEG", "x.tif", encode(PHOTO, "TIFF", compression="jpeg"))
    yield done("BigTIFF", "x.tif", encode(PHOTO, "TIFF", big_tiff=True), PIXELS)
    lossless = encode(PHOTO, "WEBP", **LOSSLESS["WEBP"])
    yield done("lossless", "x.webp", lossless, PIXELS)
    bent = flipped(lossless, len(lossless) // 2, 8)
    yield failed("lossless, flipped bytes", "x.webp", bent, DAMAGED)
    upside_down = bytearray(blob("BMP"))
    upside_down[22:26] = struct.pack("<i", -HEIGHT)
    yield done("rows from the top", "x.bmp", bytes(upside_down), PIXELS[::-1].copy())
    yield done("interlaced", "x.png", interlaced(), PIXELS)
    others = [Image.fromarray(picture(seed, HEIGHT, WIDTH)) for seed in (203, 204)]
    for kind, options in (("GIF", {}), ("PNG", {}), ("WEBP", LOSSLESS["WEBP"]), ("AVIF", {})):
        data = encode(PHOTO, kind, save_all=True, append_images=others, duration=90, **options)
        yield done("animation", f"x.{SUFFIXES[kind]}", data)
        words = UNKNOWN if kind == "AVIF" else DAMAGED
        yield failed("animation cut off", f"x.{SUFFIXES[kind]}", data[: len(data) // 4], words)
    pages = encode(PHOTO, "TIFF", save_all=True, append_images=others)
    yield done("several pages", "x.tif", pages, PIXELS)


def interlaced() -> bytes:
    """A PNG of seven passes, which Pillow cannot write (the PNG specification, section 8.2)."""
    passes = ((0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2))
    rows = [
        b"\x00" + PIXELS[row, x::dx].tobytes()
        for y, x, dy, dx in (*passes, (1, 0, 2, 1))
        for row in range(y, HEIGHT, dy)
    ]
    header = struct.pack(">IIBBBBB", WIDTH, HEIGHT, 8, 2, 0, 0, 1)
    chunks = (b"IHDR", header), (b"IDAT", zlib.compress(b"".join(rows))), (b"IEND", b"")
    return png.SIGNATURE + b"".join(png.chunk(*item) for item in chunks)


def structure() -> Iterator[Fault]:
    """Files whose parts are missing, doubled or wrong."""
    jpeg, whole, gif, tiff = (blob(kind) for kind in ("JPEG", "PNG", "GIF", "TIFF"))
    yield done("no end", "x.png", without_chunk(whole, b"IEND"), PIXELS)
    yield failed("no pixels", "x.png", without_chunk(whole, b"IDAT"), DAMAGED)
    indexed = encode(PHOTO.quantize(32), "PNG")
    yield failed("no palette", "x.png", without_chunk(indexed, b"PLTE"), DAMAGED)
    yield failed("wrong checksum", "x.png", whole[:-20] + b"\x00\x00" + whole[-18:], DAMAGED)
    yield done("chunk nobody knows", "x.png", with_chunk(b"quIz", b"?" * 99), PIXELS)
    yield done("chunk nobody knows but must", "x.png", with_chunk(b"QUIz", b"?" * 99), PIXELS)
    yield failed("no pixels", "x.jpg", jpeg[: jpeg.index(b"\xff\xda")] + b"\xff\xd9", DAMAGED)
    # A frame of a film, whose tables are the usual ones.
    yield done("no tables", "x.jpg", _without_segments(jpeg, 0xC4), seen(jpeg))
    yield failed("no quantisation", "x.jpg", _without_segments(jpeg, 0xDB), DAMAGED)
    yield failed("two images run together", "x.jpg", jpeg[: len(jpeg) * 2 // 3] + jpeg, DAMAGED)
    yield done("one image behind another", "x.jpg", jpeg + jpeg)
    yield failed("no frame", "x.gif", gif[:13] + gif[13 : 13 + 3 * 256] + b";", UNKNOWN)
    directory = struct.unpack_from("<I", tiff, 4)[0]
    circle = tiff[:4] + struct.pack("<I", 4) + tiff[8:]
    yield failed("directory that is none", "x.tif", circle, UNKNOWN)
    beyond = tiff[:4] + struct.pack("<I", 1 << 30) + tiff[8:]
    yield failed("directory beyond the end", "x.tif", beyond, UNKNOWN)
    assert directory == 8
    strips = tiff.index(struct.pack("<H", 273)) + 8
    lost = tiff[:strips] + struct.pack("<I", 1 << 29) + tiff[strips + 4 :]
    yield failed("pixels beyond the end", "x.tif", lost, DAMAGED)
    yield failed("letters for numbers", "x.ppm", b"P6\nten ten\n255\n" + bytes(300), DAMAGED)


def _without_segments(jpeg: bytes, marker: int) -> bytes:
    found, place = jpeg[:2], 2
    while jpeg[place + 1] != 0xDA:
        (length,) = struct.unpack_from(">H", jpeg, place + 2)
        if jpeg[place + 1] != marker:
            found += jpeg[place : place + 2 + length]
        place += 2 + length
    return found + jpeg[place:]


def contents() -> Iterator[Fault]:
    yield from metadata()
    yield from sizes()
    yield from kinds_of_pixels()
    yield from ways_of_packing()
    yield from structure()
