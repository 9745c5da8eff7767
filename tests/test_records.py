"""The record inside each mask, and what is told from it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from batching import picture
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, PngImagePlugin

from petseg import records
from petseg.classes import PET_CLASSES, ids_to_values
from petseg.formats import index
from petseg.formats.segmented import Segmented
from petseg.record import RECORD_VERSION, Box, ImageIdentity, Maker, Record
from petseg.records import MaskState

IDS = (picture(1, 40, 60)[..., 0] % 3).astype(np.uint8)

text = st.text(max_size=40)
whole = st.integers(0, 2**63 - 1)
# As Python has the names of files: bytes that are no UTF-8 are surrogates.
names = st.binary(max_size=40).map(
    lambda data: data.replace(b"/", b"").decode("utf-8", "surrogateescape")
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
    assert data.startswith(png[: records.HEADER_BYTES])
    text = b"petseg\0" + json.dumps(values).encode()
    return png[: records.HEADER_BYTES] + records.chunk(b"tEXt", text) + png[records.HEADER_BYTES :]


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


def test_what_others_cut_off_is_theirs(tmp_path: Path) -> None:
    path = tmp_path / "x.png"
    png = index.encode(Segmented(IDS, PET_CLASSES))
    for length in range(48, len(png)):
        path.write_bytes(png[:length])
        assert records.inspect(path) == (MaskState.FOREIGN, None), length
    for data in (b"hello", b"\x00" * 100, b"\x89PNX", b"GIF89a"):
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
        {"image": {**good["image"], "mtime_ns": True}},
        {"maker": {**good["maker"], "model": []}},
    ):
        with pytest.raises(ValueError, match="not a record"):
            Record.from_json(json.dumps({**good, **changes}))
