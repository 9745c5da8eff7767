"""A folder of masks: which lie in it, and what each says of its photo."""

from __future__ import annotations

import dataclasses
import os
import struct
from pathlib import Path

import numpy as np
import pytest
from batching import MAKER, make_job, read_mask, save_photos, write_mask
from PIL import Image, PngImagePlugin

from petseg.classes import PET_CLASSES, SegmentClass, values_to_ids
from petseg.errors import ImageError, PetsegError
from petseg.masks import png, reading
from petseg.masks.reading import MaskFile
from petseg.masks.record import Box
from petseg.masks.records import MaskState, inspect, judge


def read_all(
    folder: Path, photos: dict[str, str] | None = None, with_ids: bool = True
) -> dict[str, MaskFile]:
    found = list(reading.read_all(folder, PET_CLASSES, photos or {}, with_ids))
    assert all((mask.ids is not None) or not with_ids for mask in found)
    by_name = {mask.name: mask for mask in found}
    assert len(by_name) == len(found)
    return by_name


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Masks of five photos in three folders, with pictures beside them."""
    job = make_job(tmp_path / "masks", formats=("color",))
    save_photos(tmp_path / "images", 5, 20, 30)
    for number, name in enumerate(("b.png", "a/d.png", "a/c.png", "a/e/petseg/x.png", "z.png")):
        write_mask(tmp_path / "images" / f"00{number}.png", name, job, seed=number)
    return job.masks


def test_every_mask_is_found_in_order_and_nothing_else(folder: Path, tmp_path: Path) -> None:
    (folder / "notes.txt").write_text("hello")
    (folder / "broken.png").write_bytes(b"hello")
    Image.new("RGB", (3, 3)).save(folder / "a" / "picture.png")
    (folder / "empty.png").write_bytes(b"")
    (folder / "gone.png").symlink_to("nowhere.png")
    (folder / "round").symlink_to(folder)
    os.mkfifo(folder / "pipe.png")
    found = read_all(folder)
    assert list(found) == ["a/c.png", "a/d.png", "a/e/petseg/x.png", "b.png", "z.png"]
    assert list(read_all(folder, with_ids=False)) == list(found)
    others = reading.Others(PET_CLASSES)
    assert len(list(reading.read_all(folder, PET_CLASSES, {}, False, on_other=others.add))) == 5
    assert str(others) == (
        "5 files among the masks cannot be used, and no table, page or picture shows them: "
        "expected 8-bit greyscale PNGs with the values 1, 2, 3: a/picture.png; broken.png; "
        "empty.png; gone.png; pipe.png"
    )
    with pytest.raises(PetsegError, match=r"cannot read the folder .*/nowhere: No such file"):
        read_all(tmp_path / "nowhere")


def test_many_masks_come_in_order(tmp_path: Path) -> None:
    tmp_path.joinpath("m").mkdir()
    names = [f"{number:04}.png" for number in range(150)]
    for name in reversed(names):
        Image.fromarray(np.full((3, 2), 1 + len(name) % 3, np.uint8)).save(tmp_path / "m" / name)
    assert list(read_all(tmp_path / "m")) == names


def test_a_mask_of_petsegs_is_told_by_its_record(folder: Path) -> None:
    for with_ids in (True, False):
        mask = read_all(folder, with_ids=with_ids)["a/d.png"]
        path = folder / "a" / "d.png"
        assert mask.record == inspect(path)[1]
        assert mask.record is not None
        # The photo lies where the mask's name says, and is called what the record says.
        assert mask.photo == "a/001.png"
        assert (mask.height, mask.width, mask.by_person) == (20, 30, False)
        assert mask.class_pixels == mask.record.class_pixels
        assert mask.box == mask.record.box
        assert mask.written_ns == path.stat().st_mtime_ns
    assert read_all(folder)["b.png"].photo == "000.png"
    np.testing.assert_array_equal(read_all(folder)["z.png"].ids, read_mask(folder / "z.png") - 1)


def test_a_persons_mask_is_measured(folder: Path) -> None:
    pixels = np.full((20, 30), 2, np.uint8)
    pixels[3:7, 10:15], pixels[7, 10:15] = 1, 3
    with Image.open(folder / "z.png") as image:
        info = PngImagePlugin.PngInfo()
        info.add_text("petseg", image.text["petseg"])
    for name, with_record in (("z.png", True), ("b.png", False), ("a/new.png", False)):
        Image.fromarray(pixels).save(folder / name, pnginfo=info if with_record else None)
    found = read_all(folder, {"b.png": "b.webp"}, with_ids=False)
    # By its record, by what the run saw, and not at all.
    assert found["z.png"].photo == "004.png"
    assert found["b.png"].photo == "b.webp"
    assert found["a/new.png"].photo is None
    for name in ("z.png", "b.png", "a/new.png"):
        mask = found[name]
        assert (mask.by_person, mask.record) == (True, None)
        assert mask.class_pixels == (20, 575, 5)
        assert mask.box == Box(10, 3, 5, 5)
        assert (mask.height, mask.width) == (20, 30)


def test_masks_of_the_networks_size_tell_of_the_photo(folder: Path, tmp_path: Path) -> None:
    job = make_job(tmp_path / "small", maker=dataclasses.replace(MAKER, size="model"))
    write_mask(tmp_path / "images" / "000.png", "x.png", job)
    mask = read_all(job.masks)["x.png"]
    assert mask.ids is not None
    assert mask.ids.shape == (16, 16)
    assert (mask.height, mask.width, sum(mask.class_pixels)) == (20, 30, 256)
    assert mask.box is not None
    assert mask.box.x + mask.box.width <= 30
    assert mask.box.width > 16


def test_masks_of_other_classes_are_passed_over(folder: Path) -> None:
    two = tuple(SegmentClass(f"c{value}", value, (0, 0, 0), foreground=True) for value in (1, 2))
    assert list(reading.read_all(folder, two, {}, with_ids=False)) == []
    assert list(reading.read_all(folder, two, {}, with_ids=True)) == []


def resized(data: bytes, width: int, height: int) -> bytes:
    """The same PNG, with a header that claims another size."""
    header = struct.pack(">II", width, height) + data[24:29]
    return png.SIGNATURE + png.chunk(b"IHDR", header) + data[png.HEADER_BYTES :]


def test_a_mask_too_large_is_not_decoded(folder: Path) -> None:
    ours, theirs = (folder / "b.png").read_bytes(), folder / "a" / "new.png"
    Image.fromarray(np.full((30, 40), 2, np.uint8)).save(theirs)
    plain = theirs.read_bytes()
    # As many pixels as would take all memory, in a file of some bytes.
    for data in (resized(ours, 2**31 - 1, 2**31 - 1), resized(plain, 60_000, 60_000)):
        with pytest.raises(ImageError, match=r"pixels, over the limit of 250000000; raise --max"):
            reading.decode(data, values_to_ids(PET_CLASSES), theirs)
    # With a record whose checksum fits no longer, only the pixels could tell whose it is.
    text = ours.index(b'"data_crc32":') + len(b'"data_crc32":')
    start, end = png.HEADER_BYTES, ours.index(b"IDAT") - 4
    changed = bytearray(ours[start + 8 : end - 4])
    changed[text - start - 8] ^= 1
    forged = ours[:start] + png.chunk(b"tEXt", bytes(changed)) + ours[end:]
    assert judge(forged)[0] is MaskState.OURS
    assert judge(forged, max_pixels=20 * 30 - 1)[0] is MaskState.FOREIGN
    assert judge(resized(forged, 2**31 - 1, 2**31 - 1))[0] is MaskState.FOREIGN
    found = {mask.name for mask in reading.read_all(folder, PET_CLASSES, {}, False, 1000)}
    assert found == {"a/c.png", "a/d.png", "a/e/petseg/x.png", "b.png", "z.png"}
    found = {mask.name for mask in reading.read_all(folder, PET_CLASSES, {}, True, 100)}
    assert found == set()


def test_what_is_wrong_with_a_mask_is_said(folder: Path) -> None:
    table = values_to_ids(PET_CLASSES)
    path = folder / "b.png"
    data = path.read_bytes()
    np.testing.assert_array_equal(reading.decode(data, table, path), read_mask(path) - 1)
    with pytest.raises(
        ImageError,
        match=r"the mask cannot be read: not an image .*b\.png",
    ):
        reading.decode(b"hello", table, path)
    with pytest.raises(ImageError, match=r"the mask cannot be read: damaged .*b\.png"):
        reading.decode(data[: len(data) // 2] + data[-12:], table, path)
