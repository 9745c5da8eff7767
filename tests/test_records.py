"""The record inside each mask, and what is told from it."""

from __future__ import annotations

import dataclasses
import json
import struct
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest
from batching import picture
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, PngImagePlugin

from petseg.classes import PET_CLASSES, ids_to_values
from petseg.formats import index
from petseg.masks import records
from petseg.masks.png import HEADER_BYTES, SIGNATURE, chunk, chunks
from petseg.masks.record import RECORD_VERSION, Box, ImageIdentity, Maker, Record
from petseg.masks.records import MaskState
from petseg.masks.segmented import Segmented

IDS = (picture(1, 40, 60)[..., 0] % 3).astype(np.uint8)

text = st.text(max_size=40)
whole = st.integers(0, 2**63 - 1)
# As Python has the names of files: bytes that are no UTF-8 are surrogates.
names = st.binary(min_size=1, max_size=40).map(
    lambda data: data.translate(None, b"/\0").decode("utf-8", "surrogateescape") or "x"
)
side = st.integers(1, 2**31 - 1)
record_strategy = st.builds(
    Record,
    image=st.builds(
        ImageIdentity,
        name=names,
        size=whole,
        mtime_ns=st.integers(-(2**63), 2**63),
        sha256=text,
    ),
    maker=st.builds(Maker, model=text, transform=text, size=text, names=text),
    height=side,
    width=side,
    provider=text,
    precision=text,
    class_pixels=st.lists(whole, min_size=1, max_size=8).filter(any).map(tuple),
    box=st.none() | st.builds(Box, side, side, side, side),
    confidence=st.floats(0, 1),
    uncertain=st.floats(0, 1),
    pixels_sha256=text,
    data_crc32=st.integers(0, 2**32 - 1),
)


def make(ids: np.ndarray = IDS) -> tuple[bytes, Record]:
    """A mask as petseg writes it."""
    png = index.encode(Segmented(ids, PET_CLASSES))
    record = Record(
        image=ImageIdentity("x.jpg", 1234, 1_700_000_000_123_456_789, "ab" * 32),
        maker=Maker("cd" * 32, "some-transform/1", "source", "stem"),
        height=ids.shape[0],
        width=ids.shape[1],
        provider="cpu",
        precision="float32",
        class_pixels=tuple(np.bincount(ids.ravel(), minlength=3).tolist()),
        box=Box(0, 0, ids.shape[1], ids.shape[0]),
        confidence=0.75,
        uncertain=0.25,
        pixels_sha256=records.hash_pixels(ids_to_values(PET_CLASSES)[ids]),
        data_crc32=records.data_crc32(png),
    )
    return records.embed(png, record), record


@given(record_strategy)
def test_a_record_survives_the_round_trip(record: Record) -> None:
    assert Record.from_json(record.to_json()) == record


@given(record_strategy)
def test_a_record_survives_in_a_png_that_stays_a_png(record: Record) -> None:
    png = index.encode(Segmented(IDS, PET_CLASSES))
    found = records._walk(records.embed(png, record))
    assert found.seal is not None
    assert found.seal.record == record
    assert found.whole
    assert found.data_crc32 == records.data_crc32(png)


@given(
    st.one_of(
        st.text(),
        st.recursive(
            st.none() | st.integers() | st.text(),
            lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
        ).map(json.dumps),
    )
)
def test_what_is_no_record_is_a_value_error(text: str) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - the text is for nobody
        Record.from_json(text)


# Version 1 had no name and size of the photo, no box and no share of uncertain pixels.
_SINCE_2 = {"height", "width", "box", "uncertain"}


def of_version(version: int) -> bytes:
    """A mask as another version of petseg writes it."""
    data, record = make()
    values = {**json.loads(record.to_json()), "version": version}
    if version == 1:
        values = {key: value for key, value in values.items() if key not in _SINCE_2}
        values["image"].pop("name")
    with pytest.raises(ValueError, match="another version"):
        Record.from_json(json.dumps(values))
    png = index.encode(Segmented(IDS, PET_CLASSES))
    assert data.startswith(png[:HEADER_BYTES])
    text = b"petseg\0" + json.dumps(values).encode()
    return png[:HEADER_BYTES] + chunk(b"tEXt", text) + png[HEADER_BYTES:]


@pytest.mark.parametrize("version", [1, RECORD_VERSION + 1])
def test_a_mask_of_another_version_is_told_apart(version: int, tmp_path: Path) -> None:
    data, path = of_version(version), tmp_path / "x.png"
    path.write_bytes(data)
    assert records.inspect(path) == (MaskState.OTHER, None)
    path.write_bytes(data[:-30])
    assert records.inspect(path) == (MaskState.CUT, None)
    # Corrected by a person, it is theirs, as one of this version.
    path.write_bytes(data)
    info = PngImagePlugin.PngInfo()
    with Image.open(path) as image:
        info.add_text("petseg", image.text["petseg"])
    corrected(path).save(path, pnginfo=info)
    assert records.inspect(path) == (MaskState.FOREIGN, None)


def test_other_programs_read_the_mask_and_its_text(tmp_path: Path) -> None:
    data, record = make()
    (tmp_path / "x.png").write_bytes(data)
    with Image.open(tmp_path / "x.png") as image:
        np.testing.assert_array_equal(np.array(image), IDS + 1)
        assert Record.from_json(image.text["petseg"]) == record


def test_the_state_of_a_place(tmp_path: Path) -> None:
    data, record = make()
    path = tmp_path / "x.png"
    assert records.inspect(path) == (MaskState.ABSENT, None)
    assert records.inspect(tmp_path / "no" / "x.png") == (MaskState.ABSENT, None)
    path.write_bytes(data)
    assert records.inspect(path) == (MaskState.OURS, record)
    assert records.inspect(path / "y.png") == (MaskState.ABSENT, None)
    (tmp_path / "folder.png").mkdir()
    assert records.inspect(tmp_path / "folder.png") == (MaskState.FOREIGN, None)
    (tmp_path / "link.png").symlink_to("gone.png")
    assert records.inspect(tmp_path / "link.png") == (MaskState.FOREIGN, None)


def test_a_mask_cut_off_anywhere_is_nobodys_work(tmp_path: Path) -> None:
    data, record = make()
    path = tmp_path / "x.png"
    for length in range(len(data)):
        path.write_bytes(data[:length])
        state, found = records.inspect(path)
        assert state is MaskState.CUT, length
        assert found in (None, record)
    path.write_bytes(data + b"something appended")
    assert records.inspect(path)[0] is MaskState.OURS


def test_a_photos_name_does_not_pass_for_the_end_of_a_mask() -> None:
    data, record = make()
    image = dataclasses.replace(record.image, name="FRIEND-\u00aeB`\u0082-IEND.jpg")
    data = records.embed(
        index.encode(Segmented(IDS, PET_CLASSES)), dataclasses.replace(record, image=image)
    )
    assert data.count(b"IEND") == 3
    for length in range(len(data)):
        assert records.judge(data[:length])[0] is MaskState.CUT, length


def test_a_file_of_zeros_is_nobodys_work() -> None:
    """A file system may know a file's length and not its content when the power is lost."""
    data, record = make()
    for length in (1, 36, 37, 5000):
        assert records.judge(bytes(length)) == (MaskState.CUT, None)
        assert records.judge(bytes(length) + b"x") == (MaskState.FOREIGN, None)
    # Or a part of the content.
    for length in range(len(data)):
        found = None if length < parts(data)["tEXt crc"][1] else record
        assert records.judge(data[:length] + bytes(len(data) - length)) == (MaskState.CUT, found)


def test_what_others_cut_off_is_theirs(tmp_path: Path) -> None:
    path = tmp_path / "x.png"
    png = index.encode(Segmented(IDS, PET_CLASSES))
    for length in range(48, len(png)):
        path.write_bytes(png[:length])
        assert records.inspect(path) == (MaskState.FOREIGN, None), length
    for data in (b"hello", b"\x00" * 100 + b"\x01", b"\x89PNX", b"GIF89a"):
        path.write_bytes(data)
        assert records.inspect(path) == (MaskState.FOREIGN, None), data


@given(st.binary(max_size=200))
def test_any_bytes_have_a_state(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    path = tmp_path_factory.getbasetemp() / "any.png"
    for content in (data, make()[0][:60] + data, make()[0][:8] + data):
        path.write_bytes(content)
        assert records.inspect(path)[0] in (MaskState.FOREIGN, MaskState.CUT)


@given(st.integers(0, 10_000), st.integers(1, 255))
def test_a_damaged_byte_never_passes_for_ours(
    tmp_path_factory: pytest.TempPathFactory, place: int, change: int
) -> None:
    data = bytearray(make()[0])
    data[place % len(data)] ^= change
    path = tmp_path_factory.getbasetemp() / "damaged.png"
    path.write_bytes(data)
    assert records.inspect(path)[0] is not MaskState.OURS


def parts(data: bytes) -> dict[str, tuple[int, int]]:
    """Where the chunks of a whole PNG lie, each of its four fields: first byte and the one behind.

    Of several of a kind the last counts.
    """
    found, position = {"signature": (0, len(SIGNATURE))}, len(SIGNATURE)
    for item in chunks(data):
        assert item.sound
        name = item.kind.decode()
        for field, size in (("length", 4), ("kind", 4), ("data", len(item.data)), ("crc", 4)):
            found[f"{name} {field}"] = (position, position + size)
            position += size
    assert position == len(data)
    return found


# What one damaged byte leaves of a mask of petseg's, by where it lies.  Where the record and the
# place of the pixel data are known, their checksums tell whose they were; else it is kept.
DAMAGED = {
    "signature": MaskState.FOREIGN,
    "IHDR length": MaskState.FOREIGN,
    **dict.fromkeys(("IHDR kind", "IHDR data", "IHDR crc"), MaskState.CUT),
    **dict.fromkeys((f"tEXt {field}" for field in ("length", "kind")), MaskState.FOREIGN),
    **dict.fromkeys((f"tEXt {field}" for field in ("data", "crc")), MaskState.FOREIGN),
    **dict.fromkeys(("IDAT length", "IDAT kind"), MaskState.FOREIGN),
    **dict.fromkeys(("IDAT data", "IDAT crc"), MaskState.CUT),
    **dict.fromkeys((f"IEND {field}" for field in ("length", "kind", "crc")), MaskState.CUT),
}


@pytest.mark.parametrize("change", [0x01, 0x20, 0x80, 0xFF])
def test_every_byte_damaged(change: int, tmp_path: Path) -> None:
    """One of petseg's may be made again; one that a person corrected is theirs, damaged or not."""
    data, record = make()
    path = tmp_path / "x.png"
    path.write_bytes(data)
    info = PngImagePlugin.PngInfo()
    info.add_text("petseg", record.to_json())
    corrected(path).save(path, pnginfo=info)
    theirs = path.read_bytes()
    places = parts(data)
    assert set(places) - {"IEND data"} == set(DAMAGED)
    seen = 0
    for name, (start, end) in places.items():
        for place in range(start, end):
            damaged = bytearray(data)
            damaged[place] ^= change
            assert records.judge(bytes(damaged))[0] is DAMAGED[name], (name, place)
            seen += 1
    assert seen == len(data)
    for place in range(len(theirs)):
        damaged = bytearray(theirs)
        damaged[place] ^= change
        assert records.judge(bytes(damaged))[0] is MaskState.FOREIGN, place


def test_a_record_that_is_damaged_and_packed_again_is_no_record() -> None:
    data, record = make()
    start, end = parts(data)["tEXt data"]
    for text in (
        data[start:end].replace(b'"version":2', b'"version":}'),
        data[start : end - 1],
        data[start:end].replace(b"petseg", b"Petseg"),
        data[start:end].replace(b"\x00", b""),
        data[start:end].replace(b'"height":40', b'"height":-1'),
        b"petseg\x00",
    ):
        assert text != data[start:end]
        again = data[:HEADER_BYTES] + chunk(b"tEXt", text) + data[end + 4 :]
        assert records.judge(again) == (MaskState.FOREIGN, None)
        # Not whole either: nobody's, where it began as petseg's.
        begins = text.startswith(b"petseg\x00")
        state = MaskState.CUT if begins else MaskState.FOREIGN
        assert records.judge(again[:-1]) == (state, None)
    assert records.judge(data) == (MaskState.OURS, record)


@pytest.mark.parametrize(("size", "state"), [(65536, MaskState.OURS), (65537, MaskState.FOREIGN)])
def test_a_record_that_is_too_large_is_no_record(size: int, state: MaskState) -> None:
    data, record = make()
    start, end = parts(data)["tEXt data"]
    # JSON may end with spaces.
    text = data[start:end].ljust(size)
    again = data[:HEADER_BYTES] + chunk(b"tEXt", text) + data[end + 4 :]
    found = record if state is MaskState.OURS else None
    assert records.judge(again) == (state, found)
    assert records.judge_head(again[: size + 200], len(again)) == (
        (state, found) if found else None
    )


def corrected(path: Path) -> Image.Image:
    """What a person makes of the mask: one pixel is another class."""
    with Image.open(path) as image:
        image.load()
        pixels = np.array(image)
    pixels[3, 5] = pixels[3, 5] % 3 + 1
    return Image.fromarray(pixels)


@pytest.mark.parametrize("keep_text", [True, False])
def test_a_corrected_mask_is_the_persons(keep_text: bool, tmp_path: Path) -> None:
    data, record = make()
    path = tmp_path / "x.png"
    path.write_bytes(data)
    info = PngImagePlugin.PngInfo()
    if keep_text:
        info.add_text("petseg", record.to_json())
    corrected(path).save(path, pnginfo=info)
    assert records.inspect(path) == (MaskState.FOREIGN, record if keep_text else None)


@pytest.mark.parametrize("correct", [True, False])
def test_a_mask_saved_by_opencv_is_the_persons(correct: bool, tmp_path: Path) -> None:
    """OpenCV keeps no text, and without a record nothing says that petseg made the same pixels."""
    path = tmp_path / "x.png"
    path.write_bytes(make()[0])
    pixels = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    np.testing.assert_array_equal(pixels, IDS + 1)
    pixels[3, 5] = pixels[3, 5] % 3 + 1 if correct else pixels[3, 5]
    assert cv2.imwrite(str(path), pixels)
    assert records.inspect(path) == (MaskState.FOREIGN, None)


def as_gimp_saves(pixels: np.ndarray, text: bytes | None) -> bytes:
    """A PNG with all that GIMP's dialogue offers: interlaced, with gamma, time and a comment."""
    height, width = pixels.shape
    rows = b""
    # Adam7: https://www.w3.org/TR/png-3/#8InterlaceMethods
    for y, x, down, right in (
        *((0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4)),
        *((2, 0, 4, 2), (0, 1, 2, 2), (1, 0, 2, 1)),
    ):
        rows += b"".join(b"\0" + row.tobytes() for row in pixels[y::down, x::right] if len(row))
    packed = zlib.compress(rows, 9)
    kept = [] if text is None else [chunk(b"tEXt", text)]
    return b"".join(
        (
            SIGNATURE,
            chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 1)),
            chunk(b"gAMA", struct.pack(">I", 45455)),
            chunk(b"bKGD", struct.pack(">H", 0)),
            chunk(b"pHYs", struct.pack(">IIB", 11811, 11811, 1)),
            chunk(b"tIME", struct.pack(">HBBBBB", 2026, 11, 22, 20, 15, 0)),
            chunk(b"tEXt", b"Comment\0Created with GIMP"),
            *kept,
            *(chunk(b"IDAT", packed[at : at + 100]) for at in range(0, len(packed), 100)),
            chunk(b"IEND", b""),
        )
    )


@pytest.mark.parametrize("keep_text", [True, False])
@pytest.mark.parametrize("correct", [True, False])
def test_a_mask_saved_with_gimps_settings(correct: bool, keep_text: bool, tmp_path: Path) -> None:
    data, record = make()
    start, end = parts(data)["tEXt data"]
    pixels = np.array(IDS + 1)
    if correct:
        pixels[3, 5] = pixels[3, 5] % 3 + 1
    path = tmp_path / "x.png"
    path.write_bytes(as_gimp_saves(pixels, data[start:end] if keep_text else None))
    with Image.open(path) as image:
        assert image.info["interlace"] == 1
        assert image.info["gamma"] == pytest.approx(1 / 2.2, abs=1e-3)
        assert image.text["Comment"] == "Created with GIMP"
        np.testing.assert_array_equal(np.array(image), pixels)
    ours = keep_text and not correct
    found = record if keep_text else None
    assert records.inspect(path) == (MaskState.OURS if ours else MaskState.FOREIGN, found)
    # And damaged, wherever it is, it is not petseg's to make again.
    whole = path.read_bytes()
    for place in range(0, len(whole), 7):
        damaged = bytearray(whole)
        damaged[place] ^= 0x10
        assert records.judge(bytes(damaged))[0] is MaskState.FOREIGN, place


@pytest.mark.parametrize("level", [0, 9])
def test_the_same_pixels_packed_anew_are_still_ours(level: int, tmp_path: Path) -> None:
    data, record = make()
    path = tmp_path / "x.png"
    path.write_bytes(data)
    with Image.open(path) as image:
        image.load()
        info = PngImagePlugin.PngInfo()
        info.add_text("petseg", image.text["petseg"])
        image.save(path, pnginfo=info, compress_level=level)
    assert path.read_bytes() != data
    assert records.data_crc32(path.read_bytes()) != record.data_crc32
    assert records.inspect(path) == (MaskState.OURS, record)


@pytest.mark.parametrize("mode", ["RGB", "P"])
def test_the_same_pixels_in_another_mode_are_not_ours(mode: str, tmp_path: Path) -> None:
    data, record = make()
    path = tmp_path / "x.png"
    path.write_bytes(data)
    info = PngImagePlugin.PngInfo()
    info.add_text("petseg", record.to_json())
    with Image.open(path) as image:
        changed = image.convert(mode)
    if mode == "P":  # a palette, and the same numbers in it
        np.testing.assert_array_equal(np.array(changed), IDS + 1)
    changed.save(path, pnginfo=info)
    assert records.inspect(path)[0] is MaskState.FOREIGN


def test_the_checksum_wants_a_whole_png() -> None:
    data, _ = make()
    with pytest.raises(ValueError, match="not a whole PNG"):
        records.data_crc32(b"hello")
    with pytest.raises(ValueError, match="not a whole PNG"):
        records.data_crc32(data[:-1])


def test_a_mask_without_text_in_unicode_is_ascii() -> None:
    _, record = make()
    assert records.embed(index.encode(Segmented(IDS, PET_CLASSES)), record).count(b"tEXt") == 1
    assert record.to_json().isascii()


def test_values_that_nothing_can_count_with_are_no_record() -> None:
    """A mask may be forged, and a table of all masks must not end of it."""
    good = json.loads(make()[1].to_json())
    assert Record.from_json(json.dumps(good)).height == 40
    for changes in (
        {"height": "40"},
        {"height": 1 << 31},
        {"width": 0},
        {"class_pixels": ["1", "2", "3"]},
        {"class_pixels": [0, 0, 0]},
        {"class_pixels": [1, 2, -3]},
        {"box": [0, 0, 1.5, 1]},
        {"confidence": float("nan")},
        {"uncertain": 2},
        {"provider": None},
        {"pixels_sha256": 5},
        {"image": {**good["image"], "name": "../x.jpg"}},
        {"image": {**good["image"], "name": ""}},
        {"image": {**good["image"], "name": "x\0.jpg"}},
        {"image": {**good["image"], "name": "\ud800.jpg"}},
        {"image": {**good["image"], "sha256": "\udcff"}},
        {"provider": "\ud800"},
        {"maker": {**good["maker"], "transform": "\udc80"}},
        {"image": {**good["image"], "mtime_ns": True}},
        {"maker": {**good["maker"], "model": []}},
    ):
        with pytest.raises(ValueError, match="not a record"):
            Record.from_json(json.dumps({**good, **changes}))


def test_a_head_tells_what_the_whole_mask_does() -> None:
    data, record = make(np.random.default_rng(0).integers(0, 3, (80, 90), np.uint8))
    head = data[:2048]
    assert len(head) < len(data)
    assert records.judge_head(head, len(data)) == (MaskState.OURS, record)
    # Of another length, or cut within the record: all of it is needed.
    assert records.judge_head(head, len(data) - 1) is None
    assert records.judge_head(data[:100], len(data)) is None
    assert records.judge_head(index.encode(Segmented(IDS, PET_CLASSES))[:60], 9000) is None
    # All of it is there.
    assert records.judge_head(data, len(data)) == (MaskState.OURS, record)
    assert records.judge_head(data[:-1], len(data) - 1)[0] is MaskState.CUT  # type: ignore[index]
    assert records.judge_head(b"", 0) == (MaskState.CUT, None)
