"""Tables of all masks, read with the programs that people read them with."""

from __future__ import annotations

import contextlib
import errno
import io
import json
import os
import re
import shutil
import subprocess
import sys
import types
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import duckdb
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from batching import batch, make_job, mask_bytes, read_mask, save_photos, tally, write_mask
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from PIL import Image
from pycocotools import mask as run_lengths
from pycocotools.coco import COCO

from petseg.classes import PET_CLASSES
from petseg.errors import PetsegError
from petseg.formats.coco import CocoFile
from petseg.formats.parquet import ParquetFile, Seconds
from petseg.masks.reading import MaskFile
from petseg.masks.record import Box, ImageIdentity, Maker, Record
from petseg.masks.records import inspect
from petseg.pages import tables
from petseg.system.text import as_text

COUNT = 6
EPOCH = datetime(1970, 1, 1)
ALL = ("coco", "parquet")


@pytest.fixture
def masks(tmp_path: Path) -> Path:
    """Six masks in two folders, with names of all kinds."""
    job = make_job(tmp_path / "masks")
    names = save_photos(tmp_path / "plain", COUNT, 20, 30)
    folder = tmp_path / "images"
    (folder / "a").mkdir(parents=True)
    odd = ("a/x y.png", "b.png", "#c.png", os.fsdecode(b"d\xff.png"), "caf\u00e9.png", "z.png")
    for number, (name, target) in enumerate(zip(names, odd, strict=True)):
        shutil.copy(tmp_path / "plain" / name, folder / target)
        write_mask(folder / target, target, job, seed=number)
    return job.masks


def rebuild(
    masks: Path,
    formats: tuple[str, ...] = ALL,
    review_below: float | None = None,
    photos: dict[str, str] | None = None,
    seconds: Seconds | None = None,
) -> list[str]:
    temporary = masks.with_name("masks-temporary")
    temporary.mkdir(exist_ok=True)
    notes = tables.rebuild(
        *(masks, temporary, PET_CLASSES, formats, review_below, None),
        *(photos or {}, seconds or Seconds(), 1_000_000),
    )
    assert list(temporary.iterdir()) == []
    return notes


def mask_file(name: str, ids: np.ndarray) -> MaskFile:
    """A person's mask."""
    areas = tuple(np.bincount(ids.ravel(), minlength=3).tolist())
    return MaskFile(name, "x.jpg", 0, True, None, *ids.shape, areas, None, ids)


def read_coco(masks: Path) -> COCO:
    with contextlib.redirect_stdout(io.StringIO()):
        return COCO(masks / "petseg" / tables.COCO)


def read_parquet(masks: Path) -> pd.DataFrame:
    return pd.read_parquet(masks / "petseg" / tables.PARQUET)


def test_coco_is_what_pycocotools_reads(masks: Path) -> None:
    assert rebuild(masks) == []
    coco = read_coco(masks)
    assert [item["file_name"] for item in coco.loadImgs(coco.getImgIds())] == [
        *("#c.png", "a/x y.png", "b.png", "caf\u00e9.png", "d\\xff.png", "z.png")
    ]
    assert [(item["id"], item["name"]) for item in coco.loadCats(coco.getCatIds())] == [
        *((1, "pet"), (3, "border"))
    ]
    for item in coco.loadImgs(coco.getImgIds()):
        name = os.fsdecode(item["file_name"].encode().replace(b"\\xff", b"\xff"))
        values = read_mask(masks / name)
        assert (item["height"], item["width"]) == values.shape
        seen = np.full(values.shape, 2, np.uint8)
        for annotation in coco.loadAnns(coco.getAnnIds(imgIds=item["id"])):
            there = coco.annToMask(annotation) == 1
            seen[there] = annotation["category_id"]
            assert annotation["area"] == there.sum()
            rows, columns = np.argwhere(there).T
            assert annotation["bbox"] == [
                *(columns.min(), rows.min(), np.ptp(columns) + 1, np.ptp(rows) + 1)
            ]
            assert annotation["iscrowd"] == 0
        np.testing.assert_array_equal(seen, values)


@given(
    arrays.array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=24).flatmap(
        lambda shape: arrays.arrays(np.uint8, shape, elements=st.integers(0, 2))
    )
)
def test_run_lengths_survive_the_round_trip(
    tmp_path_factory: pytest.TempPathFactory, ids: np.ndarray
) -> None:
    folder = tmp_path_factory.getbasetemp() / "run-lengths"
    folder.mkdir(exist_ok=True)
    with CocoFile(folder / "coco.json", folder, PET_CLASSES) as coco:
        coco.add(mask_file("x.png", ids))
    found = json.loads((folder / "coco.json").read_text())
    assert [(i["height"], i["width"]) for i in found["images"]] == [ids.shape]
    seen = np.ones(ids.shape, np.uint8)  # background, which is no object
    for item in found["annotations"]:
        # The values on disk are the ids, and one more.
        there = run_lengths.decode(item["segmentation"]) == 1
        assert item["area"] == there.sum() > 0
        rows, columns = np.argwhere(there).T
        assert item["bbox"] == [*(columns.min(), rows.min(), np.ptp(columns) + 1, np.ptp(rows) + 1)]
        seen[there] = item["category_id"] - 1
    np.testing.assert_array_equal(seen, ids)


short = st.text(max_size=8)
side, whole = st.integers(1, 2**31 - 1), st.integers(0, 2**62)
shares = st.floats(0, 1, width=32)
found_masks = st.builds(
    MaskFile,
    name=st.binary(min_size=1, max_size=12).map(os.fsdecode),
    photo=st.none() | st.binary(min_size=1, max_size=12).map(os.fsdecode),
    written_ns=st.integers(0, 2**62),
    by_person=st.booleans(),
    record=st.none()
    | st.builds(
        Record,
        image=st.builds(ImageIdentity, short, whole, whole, short),
        maker=st.builds(Maker, short, short, short, short),
        height=side,
        width=side,
        provider=short,
        precision=short,
        class_pixels=st.just((1, 0, 0)),
        box=st.none(),
        confidence=shares,
        uncertain=shares,
        pixels_sha256=short,
        data_crc32=whole,
    ),
    height=side,
    width=side,
    class_pixels=st.tuples(whole, whole, whole).filter(any),
    box=st.none() | st.builds(Box, side, side, side, side),
    ids=st.none(),
)


@given(st.lists(found_masks, max_size=5))
def test_rows_survive_the_round_trip(
    tmp_path_factory: pytest.TempPathFactory, listed: list[MaskFile]
) -> None:
    folder = tmp_path_factory.getbasetemp() / "rows"
    folder.mkdir(exist_ok=True)
    path = folder / "masks.parquet"
    path.unlink(missing_ok=True)
    with ParquetFile(path, folder, PET_CLASSES, Seconds()) as table:
        for mask in listed:
            table.add(mask)
    rows = pq.read_table(path).to_pylist()
    assert len(rows) == len(listed)
    for row, mask in zip(rows, listed, strict=True):
        assert (row["mask"], row["width"], row["height"]) == (
            *(as_text(mask.name), mask.width, mask.height),
        )
        assert row["path"] == (None if mask.photo is None else as_text(mask.photo))
        assert row["made_by"] == ("person" if mask.by_person else "petseg")
        for item, pixels in zip(PET_CLASSES, mask.class_pixels, strict=True):
            share = pixels / sum(mask.class_pixels)
            assert row[f"share_{item.name}"] == np.float32(share)
        box = tuple(row[f"box_{part}"] for part in Box._fields)
        assert box == (mask.box or (None,) * 4)
        assert row["written"] == EPOCH + timedelta(microseconds=mask.written_ns // 1000)
        assert row["seconds"] is None
        record = mask.record
        told = (
            *("confidence", "uncertain", "provider", "precision"),
            *("model", "photo_bytes", "photo_sha256"),
        )
        assert tuple(row[name] for name in told) == (
            (None,) * 7
            if record is None
            else (
                *(record.confidence, record.uncertain, record.provider, record.precision),
                *(record.maker.model, record.image.size, record.image.sha256),
            )
        )


def test_the_same_masks_give_the_same_coco_file(masks: Path) -> None:
    rebuild(masks)
    path = masks / "petseg" / tables.COCO
    first = path.read_bytes()
    rebuild(masks)
    assert path.read_bytes() == first


def test_a_folder_without_foreground_and_one_without_masks(tmp_path: Path) -> None:
    folder = tmp_path / "masks"
    folder.mkdir()
    rebuild(folder, review_below=1)
    assert read_coco(folder).getImgIds() == []
    assert len(read_parquet(folder)) == 0
    Image.fromarray(np.full((4, 5), 2, np.uint8)).save(folder / "x.png")
    rebuild(folder, photos={"x.png": "x.jpg"})
    coco = read_coco(folder)
    assert (len(coco.getImgIds()), coco.getAnnIds()) == (1, [])
    (row,) = read_parquet(folder).to_dict("records")
    assert (row["share_background"], row["share_pet"]) == (1, 0)
    assert pd.isna(row["box_x"])


def test_parquet_is_what_pandas_and_duckdb_read(masks: Path) -> None:
    rebuild(masks)
    table = read_parquet(masks)
    assert table["path"].is_monotonic_increasing
    for row in table[table["mask"] != "d\\xff.png"].to_dict("records"):
        values = read_mask(masks / row["mask"])
        _, record = inspect(masks / row["mask"])
        assert record is not None
        assert row["path"] == row["mask"]
        assert (row["height"], row["width"]) == values.shape
        for item in PET_CLASSES:
            share = (values == item.value).mean()
            assert row[f"share_{item.name}"] == pytest.approx(share, abs=1e-6)
        assert tuple(row[f"box_{side}"] for side in ("x", "y", "width", "height")) == record.box
        assert row["confidence"] == pytest.approx(record.confidence, abs=1e-6)
        assert row["uncertain"] == pytest.approx(record.uncertain, abs=1e-6)
        assert (row["made_by"], row["model"]) == ("petseg", record.maker.model)
        assert row["photo_sha256"] == record.image.sha256
        stamp = (masks / row["mask"]).stat().st_mtime_ns
        assert row["written"].value // 1000 == stamp // 1000
        assert pd.isna(row["seconds"])
    found = duckdb.sql(
        f"select count(*), avg(confidence), min(written) from '{masks / 'petseg' / tables.PARQUET}'"
    ).fetchall()[0]
    assert found[:2] == (COUNT, pytest.approx(table["confidence"].mean()))


def test_a_persons_mask_is_in_the_tables_too(masks: Path) -> None:
    pixels = np.full((20, 30), 2, np.uint8)
    pixels[5:10, 5:10] = 1
    for name in ("b.png", "new.png"):
        Image.fromarray(pixels).save(masks / name)
    notes = rebuild(masks, review_below=1.0, photos={"b.png": "b.jpg"})
    assert notes == [
        f"{COUNT - 1} masks to look at: see {masks / 'petseg' / 'review.txt'}",
        "1 masks carry no record, and no photo of this run is theirs: they are not in "
        f"{masks / 'petseg' / 'coco' / 'coco.json'}",
    ]
    coco = read_coco(masks)
    (image,) = [i for i in coco.loadImgs(coco.getImgIds()) if i["file_name"] == "b.jpg"]
    (annotation,) = coco.loadAnns(coco.getAnnIds(imgIds=image["id"]))
    np.testing.assert_array_equal(coco.annToMask(annotation), pixels == 1)
    rows = read_parquet(masks).set_index("mask")
    assert rows.loc["b.png", "path"] == "b.jpg"
    assert rows.loc["new.png", "path"] is None or pd.isna(rows.loc["new.png", "path"])
    assert list(rows.loc[["b.png", "new.png"], "made_by"]) == ["person", "person"]
    assert rows.loc["b.png", "share_pet"] == pytest.approx(25 / 600)
    assert pd.isna(rows.loc["b.png", "confidence"])


def test_the_pages_examples_run(
    masks: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(masks.parent)
    rebuild(masks)
    page = (Path(__file__).parents[1] / "docs" / "formats.md").read_text(encoding="utf-8")
    with_pycocotools, with_duckdb, _ = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    found: dict[str, Any] = {}
    exec(with_pycocotools, found)
    assert set(np.unique(found["pet"])) == {0, 1}
    capsys.readouterr()
    exec(with_duckdb)
    assert "share_pet" in capsys.readouterr().out
    # CVAT's "Segmentation mask 1.1": the zip program is not everywhere.
    _, for_cvat = re.findall(r"```sh\n(.*?)```", page, re.DOTALL)
    assert for_cvat.splitlines()[-1].startswith("(cd cvat && zip ")
    subprocess.run(["sh", "-ec", "\n".join(for_cvat.splitlines()[:-1])], check=True)
    labels = [
        line.split(":") for line in (masks.parent / "cvat/labelmap.txt").read_text().splitlines()
    ]
    for item in PET_CLASSES:
        name, color, *_ = labels[item.value]
        assert (name, color) == (item.name, ",".join(map(str, item.color)))
    assert len(labels) == 1 + max(item.value for item in PET_CLASSES)
    listing = masks.parent / "cvat/ImageSets/Segmentation/default.txt"
    names = listing.read_text(errors="surrogateescape").splitlines()
    expected = mask_bytes(masks)
    assert {f"{name}.png" for name in names} == set(expected)
    for name in names:
        copied = masks.parent / "cvat/SegmentationClass" / f"{name}.png"
        assert copied.read_bytes() == expected[f"{name}.png"]


def test_the_tasks_for_label_studio_lead_to_the_photos(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The page's recipe, but for the run lengths, which the other program's own package makes."""
    job = make_job(tmp_path / "masks", formats=("binary",))
    photos = ("a/x y+1.jpg", "b#1.png", "caf\u00e9.jpeg", os.fsdecode(b"d\xff.jpg"))
    for number, (plain, photo) in enumerate(
        zip(save_photos(tmp_path / "plain", len(photos), 20, 30), photos, strict=True)
    ):
        (tmp_path / "photos" / photo).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "plain" / plain).rename(tmp_path / "photos" / photo)
        mask = str(Path(photo).with_suffix(".png"))
        write_mask(tmp_path / "photos" / photo, mask, job, seed=number)
    rebuild(job.masks, ("coco",))

    def image2annotation(path: str, label: str, *names: str, **others: object) -> dict[str, Any]:
        assert (label, *names, others["model_version"]) == ("pet", "labels", "image", "petseg")
        values = read_mask(tmp_path / path)
        assert set(np.unique(values)) == {0, 255}
        return {"foreground": int((values > 128).sum())}

    package = types.ModuleType("label_studio_sdk.converter")
    package.brush = types.SimpleNamespace(image2annotation=image2annotation)  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "label_studio_sdk", types.ModuleType("label_studio_sdk"))
    monkeypatch.setitem(sys.modules, "label_studio_sdk.converter", package)
    monkeypatch.chdir(tmp_path)
    page = (Path(__file__).parents[1] / "docs" / "formats.md").read_text(encoding="utf-8")
    *_, for_label_studio = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    exec(for_label_studio, {})
    found = {}
    for task in json.loads((tmp_path / "tasks.json").read_text()):
        address = urlsplit(task["data"]["image"])
        assert (address.path, address.fragment) == ("/data/local-files/", "")
        (photo,) = parse_qs(address.query, strict_parsing=True)["d"]
        assert (tmp_path / photo).is_file()
        found[photo] = task["predictions"][0]["foreground"]
    assert set(found) == {f"photos/{photo}" for photo in photos[:3]}
    for photo, foreground in found.items():
        mask = (job.masks / photo.removeprefix("photos/")).with_suffix(".png")
        # Pet and border.
        assert foreground == (read_mask(mask) != 2).sum()


def test_seconds_outlive_the_run(masks: Path) -> None:
    seconds = Seconds()
    for number, name in enumerate(mask_bytes(masks)):
        seconds.add(name, number + 0.5)
    seconds.add("b.png", 7.25)  # twice: the last counts
    rebuild(masks, seconds=seconds)
    first = read_parquet(masks).set_index("mask")["seconds"]
    assert first["b.png"] == 7.25
    assert first.notna().all()
    # Another run makes one mask anew, and another without a table.
    again = Seconds()
    again.add("#c.png", 9.0)
    os.utime(masks / "z.png")
    rebuild(masks, seconds=again)
    second = read_parquet(masks).set_index("mask")["seconds"]
    assert second["#c.png"] == 9.0
    assert pd.isna(second["z.png"])
    rest = first.index.drop(["#c.png", "z.png"])
    assert (second[rest] == first[rest]).all()


def test_a_damaged_table_is_replaced(masks: Path) -> None:
    path = masks / "petseg" / tables.PARQUET
    path.parent.mkdir(parents=True)
    for data in (b"hello", b"PAR1" + bytes(100) + b"PAR1"):
        path.write_bytes(data)
        rebuild(masks, ("parquet",))
        assert len(read_parquet(masks)) == COUNT


def test_a_table_that_somebody_wrote_anew_ends_no_run(masks: Path) -> None:
    """It knows no seconds, knows them in other columns, or calls something else so."""
    rebuild(masks, ("parquet",), seconds=Seconds())
    path = masks / "petseg" / tables.PARQUET
    whole = pq.read_table(path)
    names = whole.column_names
    seconds = pa.array([1.5] * COUNT)
    known = whole.set_column(names.index("seconds"), "seconds", seconds)
    for table, found in [
        (whole.drop_columns("seconds"), 0),
        (whole.set_column(names.index("seconds"), "seconds", pa.array(["x"] * COUNT)), 0),
        (known.select(sorted(names, reverse=True)), COUNT),
    ]:
        pq.write_table(table, path)
        rebuild(masks, ("parquet",), seconds=Seconds())
        assert read_parquet(masks)["seconds"].notna().sum() == found


def test_half_a_mask_is_none(masks: Path) -> None:
    """A program that was killed while it saved one left it."""
    shutil.copy(masks / "z.png", masks / ".partial-0123abcd-z.png")
    rebuild(masks)
    assert len(read_parquet(masks)) == COUNT


def test_a_folder_that_cannot_be_read_is_none_that_cannot_be_written(
    masks: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def walk(folder: str) -> Iterator[str]:
        yield "a.png"
        raise OSError(errno.ESTALE, os.strerror(errno.ESTALE), f"{folder}/deep")

    monkeypatch.setattr("petseg.masks.reading.walk", walk)
    with pytest.raises(PetsegError, match=r"cannot read the folder .*/deep: Stale file handle"):
        rebuild(masks)


def test_many_rows_are_written_in_parts(masks: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rebuild(masks)
    whole = read_parquet(masks)
    monkeypatch.setattr("petseg.formats.parquet._ROWS_AT_ONCE", 4)
    rebuild(masks)
    assert pq.ParquetFile(masks / "petseg" / tables.PARQUET).num_row_groups == 2
    pd.testing.assert_frame_equal(read_parquet(masks), whole)


def test_tables_that_cannot_be_written(masks: Path) -> None:
    (masks / "petseg").mkdir()
    (masks / "petseg" / "coco").write_text("a file where a folder is to be")
    temporary = masks.with_name("masks-temporary")
    with pytest.raises(PetsegError, match=r"cannot write .*coco: .*; the masks are in place"):
        tables.rebuild(masks, temporary, PET_CLASSES, ("coco",), None, None, {}, Seconds(), 1)


def test_runs_shards_and_corrections_come_together(tiny_model: Path, tmp_path: Path) -> None:
    images, masks = tmp_path / "images", tmp_path / "masks"
    save_photos(images, COUNT)
    everything: dict[str, Any] = {"formats": ALL, "review_below": 1.0}
    (tmp_path / "first").write_text("000.png\n001.png\n002.png\n")
    batch(images, masks, tiny_model, list_file=tmp_path / "first", **everything)
    assert len(read_parquet(masks)) == 3
    pixels = read_mask(masks / "001.png")
    pixels[:20] = 1
    Image.fromarray(pixels).save(masks / "001.png")
    (tmp_path / "second").write_text("003.png\n004.png\n001.png\n")
    report = batch(images, masks, tiny_model, list_file=tmp_path / "second", **everything)
    assert tally(report) == (2, 1, 0, 0, 0)
    rows = read_parquet(masks).set_index("mask")
    assert list(rows.index) == [f"00{number}.png" for number in range(5)]
    assert rows.loc["001.png", "made_by"] == "person"
    assert rows.loc["001.png", "path"] == "001.png"
    assert (rows["seconds"].drop("001.png") > 0).all(), "an earlier run's seconds are lost"
    coco = read_coco(masks)
    assert len(coco.getImgIds()) == 5
    review = (masks / "petseg" / "review.txt").read_text().splitlines()
    assert review[0] == "# confidence below 1, least first: 4 of 4 masks"
    confidence = rows["confidence"].drop("001.png").sort_values()
    assert review[1:] == list(confidence.index)
    # Nothing is left to do, and nothing changes.
    before = json.loads((masks / "petseg" / tables.COCO).read_text())
    report = batch(images, masks, tiny_model, list_file=tmp_path / "second", **everything)
    assert tally(report) == (0, 3, 0, 0, 0)
    assert json.loads((masks / "petseg" / tables.COCO).read_text()) == before
    pd.testing.assert_frame_equal(read_parquet(masks).set_index("mask"), rows)


def test_a_run_that_was_stopped_leaves_the_tables_as_they_are(
    tiny_model: Path, tmp_path: Path
) -> None:
    images, masks = tmp_path / "images", tmp_path / "masks"
    save_photos(images, 3)
    (images / "000.png").write_bytes(b"")
    report = batch(images, masks, tiny_model, formats=ALL, fail_fast=True)
    assert report.stopped == "--fail-fast"
    assert not (masks / "petseg" / "coco").exists()
    assert "tables and lists of all masks are made when a run ends well" in report.notes
