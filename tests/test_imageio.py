"""Every kind of image becomes upright 8-bit RGB, or an error that says why not."""

from __future__ import annotations

import io
import struct
import warnings
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import simplejpeg
from batching import Pixels, picture
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps

from petseg import runtime
from petseg.errors import ImageError
from petseg.modelfile import signature
from petseg.photos import imageio, jpeg, transforms

PIXELS = picture(1, 30, 50)


def encode(image: Image.Image | Pixels, kind: str = "PNG", **options: Any) -> bytes:
    if isinstance(image, np.ndarray):
        image = Image.fromarray(image)
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def opened(data: bytes) -> Pixels:
    with Image.open(io.BytesIO(data)) as image:
        return np.array(image.convert("RGB"))


@pytest.mark.parametrize("kind", ["PNG", "BMP", "TIFF", "PPM", "DIB"])
def test_lossless_formats_are_read_exactly(kind: str) -> None:
    found = imageio.decode(encode(PIXELS, kind))
    np.testing.assert_array_equal(found, PIXELS)
    assert found.dtype == np.uint8
    assert found.flags.writeable


@pytest.mark.parametrize("kind", ["JPEG", "WEBP", "AVIF"])
def test_lossy_formats_are_read_as_pillow_reads_them(kind: str) -> None:
    data = encode(PIXELS, kind, quality=90)
    np.testing.assert_array_equal(imageio.decode(data), opened(data))


@settings(max_examples=150)
@given(
    st.integers(1, 70),
    st.integers(1, 70),
    st.sampled_from(["RGB", "L"]),
    st.sampled_from(["4:4:4", "4:2:2", "4:2:0"]),
    st.booleans(),
    st.integers(1, 100),
)
def test_every_jpeg_has_the_pixels_that_pillow_sees(
    height: int, width: int, mode: str, subsampling: str, progressive: bool, quality: int
) -> None:
    image = Image.fromarray(picture(7, height, width)).convert(mode)
    options = {"subsampling": subsampling} if mode == "RGB" else {}
    data = encode(image, "JPEG", quality=quality, progressive=progressive, **options)
    np.testing.assert_array_equal(imageio.decode(data), opened(data))


def test_a_flaw_that_pillow_overlooks_is_overlooked() -> None:
    data = encode(PIXELS, "JPEG")
    # Between the first segment (JFIF, 20 bytes from the start) and the next.
    flawed = data[:20] + b"\x00\x11\x22" + data[20:]
    with pytest.raises(ValueError, match="extraneous bytes"):
        simplejpeg.decode_jpeg(flawed)
    np.testing.assert_array_equal(imageio.decode(flawed), opened(data))


@pytest.mark.parametrize(
    ("height", "width", "scale"),
    [(127, 300, 1), (128, 128, 2), (300, 260, 4), (508, 600, 4), (512, 2000, 8), (5000, 600, 8)],
)
def test_a_large_jpeg_is_decoded_at_a_smaller_scale(height: int, width: int, scale: int) -> None:
    data = encode(picture(8, height, width), "JPEG")
    found, size = imageio.decode_reduced(data, 32)
    assert size == (height, width)
    # Both sides keep at least twice the square's, where they had them.
    assert found.shape == (-(-height // scale), -(-width // scale), 3)


@pytest.mark.parametrize(
    ("seed", "height", "width", "scale", "most"),
    [
        *((seed, 1500, 2000, 2, 6) for seed in range(8)),
        (8, 1800, 2400, 4, 8),
        (9, 3600, 3600, 8, 8),
    ],
)
def test_the_smaller_scale_makes_little_difference(
    seed: int, height: int, width: int, scale: int, most: int
) -> None:
    data = encode(picture(seed, height, width), "JPEG", quality=90)
    reduced, _ = imageio.decode_reduced(data, 224)
    assert reduced.shape == (height // scale, width // scale, 3)
    expected = transforms.to_model(imageio.decode(data), 224).astype(int)
    difference = np.abs(transforms.to_model(reduced, 224) - expected)
    assert difference.mean() < 0.5
    assert difference.max() <= most


@pytest.mark.parametrize(
    ("height", "width", "scale"),
    [(1501, 2001, 1), (3001, 2243, 2), (3593, 3601, 2), (1799, 4478, 1), (4479, 5998, 8)],
)
def test_a_side_that_is_no_multiple_of_the_scale_is_squashed_a_little_more(
    height: int, width: int, scale: int
) -> None:
    """The last pixel at the smaller scale reaches beyond the photo by up to `scale` - 1 pixels.

    So a scale is not taken that would move anything by over a tenth of a pixel of the network.
    """
    data = encode(picture(10, height, width), "JPEG", quality=90)
    reduced, _ = imageio.decode_reduced(data, 224)
    rows, columns = reduced.shape[:2]
    assert (rows, columns) == (-(-height // scale), -(-width // scale))
    for length, count in ((height, rows), (width, columns)):
        assert 0 <= 224 * (1 - length / scale / count) <= 0.1
    expected = transforms.to_model(imageio.decode(data), 224).astype(int)
    difference = np.abs(transforms.to_model(reduced, 224) - expected)
    assert difference.mean() < 0.6
    # Above what the scale itself may cost, a tenth of the highest step between two pixels.
    assert difference.max() <= 8 + 25


@pytest.mark.parametrize("scale", [2, 4, 8])
def test_the_smaller_scale_makes_little_difference_to_masks(scale: int, tiny_model: Path) -> None:
    """The small network's class scores are nearly equal in many places: it is the worst case."""
    stream = runtime.open_session(tiny_model, signature.read(tiny_model), "cpu").open_stream()
    height, width = 70 * 2 * scale, 90 * 2 * scale
    images = []
    for seed in range(6):
        data = encode(picture(seed, height, width), "JPEG", quality=90)
        reduced, _ = imageio.decode_reduced(data, 64)
        assert reduced.shape == (140, 180, 3)
        images += [transforms.to_model(found, 64) for found in (reduced, imageio.decode(data))]
    masks = stream.run(np.stack(images)).argmax(axis=1)
    assert len(np.unique(masks)) == 3
    assert (masks[::2] == masks[1::2]).mean() > 0.99


@pytest.mark.parametrize("share", [0.1, 0.5, 0.99])
def test_a_large_jpeg_that_lacks_pixels_is_refused_at_a_smaller_scale(share: float) -> None:
    data = encode(picture(3, 1500, 2000), "JPEG", quality=90)
    assert imageio.decode_reduced(data, 224)[0].shape == (750, 1000, 3)
    with pytest.raises(ImageError, match="damaged or truncated"):
        imageio.decode_reduced(data[: int(share * len(data))], 224)


def test_other_formats_are_decoded_at_full_scale() -> None:
    pixels = picture(8, 300, 400)
    found, size = imageio.decode_reduced(encode(pixels), 32)
    np.testing.assert_array_equal(found, pixels)
    assert size == (300, 400)


def test_greyscale_and_black_and_white() -> None:
    grey = PIXELS[..., 0]
    np.testing.assert_array_equal(imageio.decode(encode(grey)), np.stack([grey] * 3, -1))
    bits = Image.fromarray(np.where(grey > 127, 255, 0).astype(np.uint8)).convert("1")
    assert set(imageio.decode(encode(bits)).ravel()) == {0, 255}


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "PPM"])
def test_16_bit_grey_is_scaled(kind: str) -> None:
    wide = np.linspace(0, 65535, 40 * 50).round().astype(np.uint16).reshape(40, 50)
    found = imageio.decode(encode(Image.fromarray(wide), kind))
    expected = np.floor(wide / 257 + 0.5).astype(np.uint8)
    assert (found.min(), found.max()) == (0, 255)
    for channel in range(3):
        np.testing.assert_array_equal(found[..., channel], expected)


def chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def sixteen_bit_png(color_type: int, samples: np.ndarray) -> bytes:
    """A PNG of 16 bits a sample, which Pillow does not write; samples uint16 (H, W, channels)."""
    height, width = samples.shape[:2]
    header = struct.pack(">IIBBBBB", width, height, 16, color_type, 0, 0, 0)
    rows = b"".join(b"\x00" + row.astype(">u2").tobytes() for row in samples)
    data = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + data


def test_16_bit_color_is_scaled() -> None:
    found = imageio.decode(sixteen_bit_png(2, PIXELS.astype(np.uint16) * 257))
    np.testing.assert_array_equal(found, PIXELS)


def test_16_bit_transparency_lies_over_white() -> None:
    opaque = np.zeros((*PIXELS.shape[:2], 1), np.uint16)
    opaque[5:20] = 65535
    for color_type, color in ((6, PIXELS), (4, PIXELS[..., :1])):
        found = imageio.decode(
            sixteen_bit_png(color_type, np.dstack([color.astype(np.uint16) * 257, opaque]))
        )
        expected = np.where(opaque == 65535, color, 255)
        np.testing.assert_array_equal(found, np.broadcast_to(expected, PIXELS.shape))


def test_values_without_a_range_are_refused() -> None:
    wide = Image.fromarray(np.full((4, 4), 70_000, np.int32))
    with pytest.raises(ImageError, match=r"beyond 0..65535; save it with 8 or 16 bits"):
        imageio.decode(encode(wide, "TIFF"))
    real = Image.fromarray(np.full((4, 4), 0.5, np.float32))
    with pytest.raises(ImageError, match=r"floating-point numbers.*save it with 8 bits"):
        imageio.decode(encode(real, "TIFF"))


@pytest.mark.parametrize("kind", ["JPEG", "TIFF"])
def test_cmyk(kind: str) -> None:
    data = encode(Image.fromarray(PIXELS).convert("CMYK"), kind)
    found = imageio.decode(data)
    np.testing.assert_array_equal(found, opened(data))
    assert np.abs(found.astype(int) - PIXELS).mean() < (12 if kind == "JPEG" else 2)


def test_palette() -> None:
    image = Image.fromarray(PIXELS).quantize(16)
    np.testing.assert_array_equal(imageio.decode(encode(image)), np.array(image.convert("RGB")))


def test_palette_with_one_transparent_color() -> None:
    image = Image.fromarray(np.array([[0, 1], [2, 1]], np.uint8))
    image.putpalette([10, 20, 30, 40, 50, 60, 70, 80, 90])
    for kind in ("PNG", "GIF"):
        found = imageio.decode(encode(image, kind, transparency=1))
        assert found.tolist() == [[[10, 20, 30], [255] * 3], [[70, 80, 90], [255] * 3]]


def test_palette_with_degrees_of_transparency() -> None:
    image = Image.fromarray(np.array([[0, 1, 2]], np.uint8))
    image.putpalette([10, 20, 30, 0, 0, 0, 70, 80, 90])
    found = imageio.decode(encode(image, transparency=bytes([255, 128, 0])))
    assert found.tolist() == [[[10, 20, 30], [127, 127, 127], [255, 255, 255]]]


def test_grey_with_alpha() -> None:
    grey = np.array([[0, 100, 200]], np.uint8)
    alpha = np.array([[255, 0, 51]], np.uint8)
    found = imageio.decode(encode(Image.fromarray(np.dstack([grey, alpha]))))
    assert found[0, :, 0].tolist() == [0, 255, 244]
    assert (found == found[..., :1]).all()


@given(st.integers(0, 255), st.integers(0, 255))
def test_alpha_lies_over_white(color: int, alpha: int) -> None:
    (found,) = imageio.decode(encode(np.array([[[color, 0, 255, alpha]]], np.uint8)))[0]
    wanted = [(channel * alpha + 255 * (255 - alpha)) / 255 for channel in (color, 0, 255)]
    assert np.abs(found - np.array(wanted)).max() <= 1


def test_one_color_transparent() -> None:
    data = encode(np.array([[[1, 2, 3], [4, 5, 6]]], np.uint8), transparency=(1, 2, 3))
    assert imageio.decode(data).tolist() == [[[255, 255, 255], [4, 5, 6]]]


# What to do with the stored pixels to see them upright, by EXIF orientation.
@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["PNG", "JPEG", "TIFF", "WEBP"])
def test_exif_orientation(orientation: int, kind: str) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encode(PIXELS, kind, exif=exif)
    with Image.open(io.BytesIO(data)) as image:
        expected = np.array(ImageOps.exif_transpose(image).convert("RGB"))
    np.testing.assert_array_equal(imageio.decode(data), expected)
    assert imageio.decode_reduced(data, 4)[1] == expected.shape[:2]


def test_orientation_of_what_is_no_rgb() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    image = Image.fromarray(np.array([[0, 1, 2]], np.uint8))
    image.putpalette([10, 20, 30, 0, 0, 0, 70, 80, 90])
    found = imageio.decode(encode(image, transparency=1, exif=exif))
    assert found.tolist() == [[[10, 20, 30]], [[255, 255, 255]], [[70, 80, 90]]]
    wide = Image.fromarray(np.array([[0, 65535]], np.uint16))
    assert imageio.decode(encode(wide, exif=exif))[:, 0, 0].tolist() == [0, 255]


@pytest.mark.parametrize("exif", [b"Exif\x00\x00garbage", b"Exif\x00\x00II*\x00\xff\xff\xff\xff"])
def test_damaged_exif_counts_as_none(exif: bytes) -> None:
    data = encode(PIXELS, "JPEG", exif=exif)
    np.testing.assert_array_equal(imageio.decode(data), opened(encode(PIXELS, "JPEG")))
    nonsense = Image.Exif()
    nonsense[0x0112] = 77
    np.testing.assert_array_equal(imageio.decode(encode(PIXELS, exif=nonsense)), PIXELS)


@pytest.mark.parametrize("kind", ["GIF", "PNG", "WEBP", "TIFF"])
def test_the_first_frame_of_several(kind: str) -> None:
    frames = [Image.fromarray(picture(seed, 20, 20)).quantize(32) for seed in (1, 2, 3)]
    if kind == "WEBP":
        frames = [frame.convert("RGB") for frame in frames]
    options = {"lossless": True} if kind == "WEBP" else {}
    data = encode(frames[0], kind, save_all=True, append_images=frames[1:], **options)
    with Image.open(io.BytesIO(data)) as image:
        assert image.n_frames == 3
    np.testing.assert_array_equal(imageio.decode(data), np.array(frames[0].convert("RGB")))


def test_too_many_pixels_are_refused_before_they_are_decoded() -> None:
    # A header that promises 40000 million pixels, and not a single one behind it.
    header = struct.pack(">IIBBBBB", 200_000, 200_000, 8, 2, 0, 0, 0)
    data = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b""))
    with pytest.raises(ImageError, match="200000x200000 is 40000000000 pixels, over the limit"):
        imageio.decode(data + chunk(b"IEND", b""))


def test_the_limit_is_exact() -> None:
    data = encode(PIXELS)
    assert imageio.decode(data, max_pixels=1500).shape == PIXELS.shape
    with pytest.raises(ImageError, match="over the limit of 1499; raise --max-pixels"):
        imageio.decode(data, max_pixels=1499)


def test_postscript_is_no_image() -> None:
    # Pillow would start Ghostscript.
    data = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\nshowpage\n"
    with Image.open(io.BytesIO(data)) as image:
        assert image.format == "EPS"
    with pytest.raises(ImageError, match="not an image in a format that can be read"):
        imageio.decode(data)


@pytest.mark.parametrize("data", [b"", b"x", b"hello there, no image", b"\x89PNG\r\n\x1a\n"])
def test_no_image(data: bytes) -> None:
    with pytest.raises(ImageError, match="empty" if not data else "not an image"):
        imageio.decode(data)


DAMAGED = [
    encode(PIXELS, "PNG"),
    encode(PIXELS, "JPEG"),
    encode(PIXELS, "GIF"),
    encode(PIXELS, "TIFF", compression="tiff_lzw"),
    encode(PIXELS, "WEBP"),
    encode(PIXELS, "BMP"),
]


@settings(max_examples=400)
@given(
    st.sampled_from(DAMAGED),
    st.integers(0, 10_000),
    st.lists(st.tuples(st.integers(0, 10_000), st.integers(0, 255)), max_size=6),
)
def test_damaged_files_are_read_or_refused(
    data: bytes, cut: int, changes: list[tuple[int, int]]
) -> None:
    damaged = bytearray(data[: cut % (len(data) + 1)] if cut % 3 else data)
    for place, value in changes:
        if damaged:
            damaged[place % len(damaged)] = value
    try:
        found = imageio.decode(bytes(damaged), max_pixels=1_000_000)
    except ImageError as error:
        assert str(error)  # noqa: PT017 - most are refused, some are not
    else:
        assert found.ndim == 3
        assert found.shape[2] == 3
        assert found.dtype == np.uint8


@given(st.sampled_from(DAMAGED[:2]), st.integers(0, 10_000))
def test_a_file_that_lacks_pixels_is_refused(data: bytes, cut: int) -> None:
    length = cut % (len(data) - 30)
    with pytest.raises(ImageError):
        imageio.decode(data[:length])


@pytest.mark.parametrize(
    ("name", "head", "claims"),
    [
        ("x.jpg", b"", True),
        ("x.JPEG", b"text", True),
        ("a/b.c/x.Png", b"", True),
        ("x.txt", b"", False),
        (".DS_Store", b"\x00\x00\x00\x01Bud1", False),
        ("jpg", b"", False),
        ("no-suffix", encode(PIXELS, "JPEG")[:16], True),
        ("no-suffix", encode(PIXELS, "PNG")[:16], True),
        ("no-suffix", encode(PIXELS, "GIF")[:16], True),
        ("no-suffix", encode(PIXELS, "TIFF")[:16], True),
        ("no-suffix", encode(PIXELS, "WEBP")[:16], True),
        ("no-suffix", encode(PIXELS, "AVIF")[:16], True),
        ("no-suffix", b"\x00\x00\x00\x1cftypheic\x00\x00\x00\x00", True),
        ("x.HEIC", b"", True),
        ("music.wav", b"RIFF\x24\x00\x00\x00WAVEfmt ", False),
        ("film.mp4", b"\x00\x00\x00\x20ftypisom\x00\x00\x02\x00", False),
    ],
)
def test_what_claims_to_be_an_image(name: str, head: bytes, claims: bool) -> None:
    assert imageio.looks_like_image(name, head) is claims


def test_every_suffix_that_claims_can_be_read() -> None:
    known = Image.registered_extensions()
    formats = {known[suffix] for suffix in imageio.SUFFIXES if suffix in known}
    assert formats <= {*imageio._FORMATS, "HEIF"}


def test_heif_without_its_package_names_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(imageio, "_knows_heif", lambda: False)
    with pytest.raises(ImageError, match=r"needs the package pillow-heif: pip install .*heif"):
        imageio.decode(b"\x00\x00\x00\x1cftypheic\x00\x00\x00\x00mif1heic" + bytes(100))


def test_what_pillow_holds_is_read_as_its_file_is() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    grey16 = Image.fromarray(np.arange(0, 60_000, 40, dtype=np.uint16).reshape(30, 50))
    clear = Image.fromarray(np.dstack((PIXELS, PIXELS[..., :1])))
    for data in (
        encode(PIXELS, exif=exif),
        encode(PIXELS, "JPEG"),
        encode(PIXELS, "TIFF"),
        encode(grey16),
        encode(clear),
        encode(Image.fromarray(PIXELS).quantize(16), "GIF"),
    ):
        with Image.open(io.BytesIO(data)) as image:
            np.testing.assert_array_equal(imageio.from_pillow(image), imageio.decode(data))
    cut = io.BytesIO(encode(PIXELS)[:-500])
    with Image.open(cut) as image, pytest.raises(ImageError, match="damaged or truncated: "):
        imageio.from_pillow(image)
    with pytest.raises(ImageError, match="floating-point"):
        imageio.from_pillow(Image.new("F", (4, 4)))


def test_pillows_warnings_are_silenced_and_nobody_elses(monkeypatch: pytest.MonkeyPatch) -> None:
    """Other threads go on while an image is decoded, and warn."""
    decode = jpeg.decode

    def elsewhere(data: bytes, size: tuple[int, int], side: int | None) -> Pixels | None:
        warnings.warn_explicit("Pillow's", UserWarning, "Image.py", 1, module="PIL.Image")
        warnings.warn("somebody else's", stacklevel=1)
        return decode(data, size, side)

    monkeypatch.setattr(jpeg, "decode", elsewhere)
    with pytest.warns(UserWarning, match="somebody") as told:
        imageio.decode(encode(PIXELS, "JPEG"))
    assert [str(warning.message) for warning in told] == ["somebody else's"]
