"""Photos and masks in stores, through the real engine: fsspec's memory file system and `file://`."""

from __future__ import annotations

import json
import os
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pytest
from batching import batch, invoke, mask_bytes, picture, read_mask, save_photos, tally
from patience import with_patience
from PIL import Image
from stores import Watched, at, failing, watched

from petseg.batch.report import Report
from petseg.errors import PetsegError
from petseg.masks import png, records
from petseg.photos.shards import Shard
from petseg.planning.config import BatchConfig
from petseg.remote.site import RemoteSite, opened
from petseg.remote.stage import Stage
from petseg.remote.store import Store

COUNT = 6
PHOTOS, MASKS = "memory://bucket/photos", "memory://bucket/masks"


@pytest.fixture
def store(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[type[Watched]]:
    """An empty store; what is staged lies in a folder of the test's own."""
    (tmp_path / "staging").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "staging"))
    with watched() as found:
        yield found
    # Whatever became of the run, nothing is left behind.
    assert not [path for path in (tmp_path / "staging").rglob("*") if path.is_file()]


@pytest.fixture
def local(store: type[Watched], tmp_path: Path) -> Path:
    """Photos in the store, in two folders, and the same on this machine, with the same times."""
    folder = tmp_path / "photos"
    for name in save_photos(folder / "a", COUNT // 2):
        (folder / "a" / name).replace(folder / "a" / f"a{name}")
    save_photos(folder, COUNT // 2)
    for name in ("a000.png", "a001.png", "a002.png"):
        number = int(name[1:4]) + 50
        Image.fromarray(picture(number)).save(folder / "a" / name)
    (folder / "notes.txt").write_text("no image")
    fs = fsspec.filesystem("memory")
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            name = path.relative_to(folder).as_posix()
            fs.pipe_file(f"/bucket/photos/{name}", path.read_bytes())
            made = int(fs.created(f"/bucket/photos/{name}").timestamp() * 1e6) * 1000
            os.utime(path, ns=(made, made))
    store.requests.clear()
    return folder


def masks_in(fs: Any, root: str = "/bucket/masks") -> dict[str, bytes]:
    """Every mask in the store, but nothing of petseg's own folder."""
    found = {path.removeprefix(f"{root}/"): fs.cat_file(path) for path in fs.find(root)}
    return {name: data for name, data in found.items() if not name.startswith("petseg/")}


def stats_in(fs: Any) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(fs.cat_file("/bucket/masks/petseg/stats.json"))
    return found


def run(model: Path, images: Any = PHOTOS, masks: Any = MASKS, **options: Any) -> Report:
    return batch(images, masks, model, **options)


def test_the_masks_are_those_of_a_local_run(
    store: type[Watched], local: Path, tiny_model: Path, tmp_path: Path
) -> None:
    report = run(tiny_model)
    assert tally(report) == (COUNT, 0, 0, 1, 0)
    batch(local, tmp_path / "masks", tiny_model)
    # Byte for byte, the records with the photos' sizes, times and hashes among them.
    fs = fsspec.filesystem("memory")
    assert masks_in(fs) == mask_bytes(tmp_path / "masks")
    stats = stats_in(fs)
    assert stats["counts"]["done"] == COUNT
    assert (stats["options"]["images"], stats["options"]["masks"]) == (PHOTOS, MASKS)
    assert str(tmp_path / "staging") not in json.dumps(stats)
    # One listing each, and one put for each mask and for the stats.
    verbs = [verb for verb, path in store.requests if "photos" in path or verb == "put"]
    assert verbs.count("find") == 1
    assert verbs.count("read") == COUNT
    assert verbs.count("put") == COUNT + 1


def test_a_second_run_skips_by_listing_and_heads(
    store: type[Watched], local: Path, tiny_model: Path
) -> None:
    run(tiny_model)
    store.requests.clear()
    assert tally(run(tiny_model)) == (0, COUNT, 0, 1, 0)
    read = [path for verb, path in store.requests if verb == "read"]
    assert len(read) == COUNT
    assert all(path.startswith("/bucket/masks/") for path in read)
    # A photo that is another now has another time.
    fs = fsspec.filesystem("memory")
    fs.pipe_file("/bucket/photos/000.png", (local / "001.png").read_bytes())
    assert tally(run(tiny_model)) == (1, COUNT - 1, 0, 1, 0)


def test_a_persons_mask_is_kept(store: type[Watched], local: Path, tiny_model: Path) -> None:
    run(tiny_model)
    fs = fsspec.filesystem("memory")
    target = "/bucket/masks/001.png"
    # The record stays, as some programs leave it, while the pixels change.
    record = records.judge(fs.cat_file(target))[1]
    assert record is not None
    theirs = png.encode(np.full((96, 128), 2, np.uint8))
    fs.pipe_file(target, records.embed(theirs, record))
    before = fs.cat_file(target)
    report = run(tiny_model)
    assert (report.counts.skipped, report.counts.kept) == (COUNT, 1)
    report = run(tiny_model, redo=True)
    assert (report.counts.done, report.counts.kept) == (COUNT - 1, 1)
    assert fs.cat_file(target) == before
    assert b"001.png" in fs.cat_file("/bucket/masks/petseg/kept.csv")
    report = run(tiny_model, overwrite=True)
    assert (report.counts.done, report.counts.kept) == (COUNT, 0)
    assert not fs.exists("/bucket/masks/petseg/kept.csv")


def test_a_mask_that_appears_while_the_run_goes_on_is_kept(
    store: type[Watched], local: Path, tiny_model: Path
) -> None:
    fs = fsspec.filesystem("memory")

    def draw() -> None:
        fs.store["/bucket/masks/000.png"] = fs.store["/bucket/photos/notes.txt"]

    store.fault = at("/bucket/photos/000.png", draw)
    report = run(tiny_model)
    assert (report.counts.done, report.counts.kept) == (COUNT - 1, 1)
    assert fs.cat_file("/bucket/masks/000.png") == b"no image"


def test_what_passes_is_asked_again_and_counted(
    store: type[Watched], local: Path, tiny_model: Path
) -> None:
    store.fault = at("/bucket/photos/a/a001.png", failing(2, ConnectionResetError("gone")))
    report = run(tiny_model)
    assert tally(report) == (COUNT, 0, 0, 1, 0)
    assert report.store_retries == 2
    assert stats_in(fsspec.filesystem("memory"))["store_retries"] == 2


def test_a_photo_that_cannot_be_had_fails_alone(
    store: type[Watched], local: Path, tiny_model: Path
) -> None:
    store.fault = at("/bucket/photos/002.png", failing(99, PermissionError("not yours")))
    report = run(tiny_model)
    assert tally(report) == (COUNT - 1, 0, 1, 1, 0)
    assert report.exit_code == 3
    listed = fsspec.filesystem("memory").cat_file("/bucket/masks/petseg/failures.csv")
    assert b"002.png,it may not be read: not yours" in listed


def test_a_store_that_does_not_answer_costs_the_image(
    store: type[Watched], local: Path, tiny_model: Path
) -> None:
    def attempt(limit: float) -> None:
        never = threading.Event()
        store.fault = at("/bucket/photos/002.png", lambda: never.wait(2 * limit + 30) and None)
        report = run(tiny_model, masks=f"{MASKS}-{limit}", read_timeout=limit)
        never.set()
        assert tally(report) == (COUNT - 1, 0, 1, 1, 0)

    with_patience(attempt)


def test_masks_that_may_not_be_written_end_the_run(
    store: type[Watched], local: Path, tiny_model: Path
) -> None:
    def refuse(verb: str, path: str) -> None:
        if verb == "put":
            raise PermissionError("read only")

    store.fault = refuse
    with pytest.raises(PetsegError, match="may not write to memory://bucket/masks: read only"):
        run(tiny_model)
    assert masks_in(fsspec.filesystem("memory")) == {}


def test_a_photo_that_changes_meanwhile_fails(
    store: type[Watched], local: Path, tiny_model: Path
) -> None:
    fs = fsspec.filesystem("memory")
    grown = (local / "000.png").read_bytes() + b"\0"
    path = "/bucket/photos/000.png"

    def grow() -> None:
        store.fault = None
        fs.pipe_file(path, grown)

    store.fault = at(path, grow)
    report = run(tiny_model)
    assert tally(report) == (COUNT - 1, 0, 1, 1, 0)


def test_names_that_lead_elsewhere_are_refused(
    store: type[Watched], local: Path, tiny_model: Path
) -> None:
    data = (local / "000.png").read_bytes()
    fs = fsspec.filesystem("memory")
    for name in ("../up.png", "a/../../up.png", "b//c.png", "./d.png", "e\0/f.png"):
        with fs.open("/bucket/photos/000.png", "rb") as file:
            fs.store[f"/bucket/photos/{name}"] = type(file)(fs, f"/bucket/photos/{name}", data)
    report = run(tiny_model)
    assert tally(report) == (COUNT, 0, 5, 1, 0)
    assert len(masks_in(fs)) == COUNT


def test_formats_are_made_of_masks_that_are_there(
    store: type[Watched], local: Path, tiny_model: Path
) -> None:
    fs = fsspec.filesystem("memory")
    run(tiny_model)
    masks = masks_in(fs)
    report = run(tiny_model, formats=("index", "color", "overlay"))
    assert (report.counts.derived, report.counts.done) == (COUNT, 0)
    assert masks_in(fs) == masks
    for name in ("color/a/a000.png", "overlay/a/a000.jpg"):
        assert fs.exists(f"/bucket/masks/petseg/{name}")
    # A mask that is made anew takes the pictures along, which would pass for its own.
    fs.pipe_file("/bucket/photos/000.png", (local / "001.png").read_bytes())
    assert run(tiny_model).counts.done == 1
    assert not fs.exists("/bucket/masks/petseg/color/000.png")
    assert fs.exists("/bucket/masks/petseg/color/001.png")


def test_model_and_list_may_lie_there_and_the_rest_here(
    store: type[Watched], local: Path, tiny_model: Path, tmp_path: Path
) -> None:
    fs = fsspec.filesystem("memory")
    fs.pipe_file("/bucket/tiny.onnx", tiny_model.read_bytes())
    fs.pipe_file("/bucket/list.txt", b"# two\n./a/a001.png 1 1 1\n001.png\nnone\n")
    there = ("--model", "memory://bucket/tiny.onnx", "--list", "memory://bucket/list.txt")
    result = invoke(PHOTOS, tmp_path / "masks", *there, "--json")
    assert result.code == 3
    assert result.counts["done"] == 2
    assert result.stats["model"]["path"] == "memory://bucket/tiny.onnx"
    assert sorted(mask_bytes(tmp_path / "masks")) == ["001.png", "a/a001.png"]
    # And the other way round.
    result = invoke(local, MASKS, *there[:2], "--report", "--json")
    assert result.counts["done"] == COUNT
    assert len(masks_in(fs)) == COUNT
    assert "report.html" in result.err


def test_a_pattern_and_a_single_photo(
    store: type[Watched], local: Path, tiny_model: Path, tmp_path: Path
) -> None:
    report = run(tiny_model, f"{PHOTOS}/a/*.png")
    assert tally(report) == (COUNT // 2, 0, 0, 0, 0)
    assert sorted(masks_in(fsspec.filesystem("memory"))) == ["a000.png", "a001.png", "a002.png"]
    assert tally(run(tiny_model, f"{PHOTOS}/000.png", tmp_path / "one")) == (1, 0, 0, 0, 0)


def test_a_file_system_that_shows_what_is_being_written(
    store: type[Watched], local: Path, tiny_model: Path, tmp_path: Path
) -> None:
    report = run(tiny_model, f"file://{local}", f"file://{tmp_path / 'masks'}")
    assert tally(report) == (COUNT, 0, 0, 1, 0)
    batch(local, tmp_path / "expected", tiny_model)
    found, expected = mask_bytes(tmp_path / "masks"), mask_bytes(tmp_path / "expected")
    assert found.keys() == expected.keys()
    for name in expected:
        np.testing.assert_array_equal(
            read_mask(tmp_path / "masks" / name), read_mask(tmp_path / "expected" / name)
        )
    assert [path.name for path in (tmp_path / "masks" / "petseg").iterdir()] == ["stats.json"]
    again = run(tiny_model, f"file://{local}", f"file://{tmp_path / 'masks'}")
    assert tally(again) == (0, COUNT, 0, 1, 0)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"verify": True}, "--verify reads photos"),
        ({"check": True}, "--check reads photos"),
        ({"formats": ("index", "parquet")}, "--format parquet reads all masks"),
        ({"review_below": 0.5}, "--review-below reads all masks"),
        ({"masks": f"{PHOTOS}/masks"}, "lie inside one another"),
        ({"images": "memory://bucket/**/*.png"}, "lie inside one another"),
        ({"images": "file://{local}", "masks": "{local}/masks"}, "lie inside one another"),
        ({"images": "{local}", "masks": "file://{local}/masks"}, "lie inside one another"),
        ({"images": "memory://bucket/none"}, "there is no folder, file or pattern"),
        ({"images": "nosuch://bucket/photos"}, "cannot use nosuch://bucket/photos"),
        ({"model": "memory://bucket/none.onnx"}, "cannot read memory://bucket/none.onnx"),
    ],
)
def test_what_cannot_be_had_is_refused_before_anything_is_done(
    store: type[Watched], local: Path, tiny_model: Path, options: dict[str, Any], message: str
) -> None:
    options = {
        name: value.format(local=local) if isinstance(value, str) else value
        for name, value in options.items()
    }
    model = options.pop("model", tiny_model)
    with pytest.raises(PetsegError, match=message):
        run(model, **options)
    assert not [path for verb, path in store.requests if verb == "put"]
    assert masks_in(fsspec.filesystem("memory")) == {}
    assert not (local / "masks").exists()


def test_a_password_is_nowhere_shown_or_kept(
    store: type[Watched], local: Path, tiny_model: Path
) -> None:
    fs = fsspec.filesystem("memory")
    fs.cp("/bucket", "/ann:secret@bucket", recursive=True)
    fs.pipe_file("/ann:secret@bucket/tiny.onnx", tiny_model.read_bytes())
    url = "memory://ann:secret@bucket"
    photo = "/ann:secret@bucket/photos/000.png"
    store.fault = at(photo, failing(99, PermissionError(f"{url}/photos/000.png is not yours")))
    result = invoke(f"{url}/photos", f"{url}/masks", "--model", f"{url}/tiny.onnx", "--json")
    # The store got the real one.
    assert (result.code, result.counts["done"]) == (3, COUNT - 1)
    assert len(masks_in(fs, "/ann:secret@bucket/masks")) == COUNT - 1
    told = fs.cat_file("/ann:secret@bucket/masks/petseg/failures.csv")
    stats = fs.cat_file("/ann:secret@bucket/masks/petseg/stats.json")
    for text in (result.out, result.err, told.decode(), stats.decode()):
        assert "ann:***@bucket" in text
        assert "secret" not in text
    # Nor in errors, of places or of options.
    for arguments in (
        (f"{url}/none", f"{url}/masks"),
        (f"{url}/photos", f"{url}/photos/masks"),
        (f"{url}/photos", f"{url}/masks", "--verify"),
        (f"{url}/photos", f"{url}/masks", "--stats", f"{url}/stats.json"),
        (f"{url}/photos", f"{url}/masks", "--list", f"{url}/list.txt", "--list-key", "x"),
        ("nosuch://ann:secret@bucket/photos", "masks"),
    ):
        result = invoke(*arguments)
        assert result.code in (1, 2), arguments
        assert "ann:***@bucket" in result.err, arguments
        assert "secret" not in result.err, arguments


@pytest.mark.parametrize("verb", ["read", "put"])
def test_a_store_that_holds_the_run_back_is_named(
    store: type[Watched], local: Path, tiny_model: Path, verb: str
) -> None:
    one = threading.Lock()

    def one_by_one(found: str, path: str) -> None:
        if found == verb and path.endswith(".png"):
            with one:
                time.sleep(0.4)

    assert run(tiny_model, masks="memory://bucket/first").bottleneck != "store"
    store.fault = one_by_one
    report = run(tiny_model)
    assert report.bottleneck == "store"
    assert report.store_wait_seconds > 0.3 * COUNT
    assert stats_in(fsspec.filesystem("memory"))["bottleneck"] == "store"


def test_a_store_whose_package_is_missing(
    store: type[Watched], tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "fsspec", None)
    with pytest.raises(PetsegError, match=r"pip install 'petseg\[remote\]'"):
        run(tiny_model)


def test_masks_that_cannot_be_put_end_the_run_while_photos_come(
    store: type[Watched], tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Photos that arrive say nothing about masks that do not."""
    monkeypatch.setattr("petseg.remote.asking._WAITS", (0.0,))
    monkeypatch.setattr("petseg.engines.streak._MOST", 4)
    fs = fsspec.filesystem("memory")
    for name in save_photos(tmp_path / "many", 12):
        fs.pipe_file(f"/bucket/photos/{name}", (tmp_path / "many" / name).read_bytes())

    def refuse(verb: str, path: str) -> None:
        if verb == "put":
            raise OSError("the disk is on fire")

    store.fault = refuse
    with pytest.raises(PetsegError, match=r"4 images one after the other failed.*on fire"):
        run(tiny_model)


def test_what_a_store_forbids_in_its_own_words_is_a_matter_of_permission(
    store: type[Watched], local: Path, tiny_model: Path
) -> None:
    def refuse(verb: str, path: str) -> None:
        if verb == "put":
            raise OSError("Forbidden: https://example.com/o?x")  # as gcsfs says it

    store.fault = refuse
    with pytest.raises(PetsegError, match=r"may not write to .*credentials"):
        run(tiny_model)


def test_pictures_are_of_the_mask_beside_them(
    store: type[Watched], local: Path, tiny_model: Path
) -> None:
    fs = fsspec.filesystem("memory")
    run(tiny_model, formats=("index", "color"))
    # Somebody removes a mask and leaves its picture, and draws another one meanwhile.
    fs.rm_file("/bucket/masks/000.png")
    fs.rm_file("/bucket/masks/001.png")
    fs.rm_file("/bucket/masks/petseg/color/001.png")

    def draw() -> None:
        fs.store["/bucket/masks/001.png"] = fs.store["/bucket/photos/notes.txt"]

    store.fault = at("/bucket/photos/001.png", draw)
    report = run(tiny_model, formats=("index",))
    assert (report.counts.done, report.counts.kept) == (1, 1)
    assert not fs.exists("/bucket/masks/petseg/color/000.png")
    assert not fs.exists("/bucket/masks/petseg/color/001.png")
    assert fs.cat_file("/bucket/masks/001.png") == b"no image"


def test_an_object_is_no_folder_for_masks(
    store: type[Watched], local: Path, tiny_model: Path
) -> None:
    fs = fsspec.filesystem("memory")
    fs.pipe_file("/bucket/x.png", b"somebody's")
    store.requests.clear()
    with pytest.raises(PetsegError, match=r"x\.png is a file, and masks need a folder"):
        run(tiny_model, masks="memory://bucket/x.png")
    assert not [path for verb, path in store.requests if verb == "put"]


def test_formats_that_need_no_photo_fetch_none(
    store: type[Watched], local: Path, tiny_model: Path
) -> None:
    run(tiny_model)
    store.requests.clear()
    assert run(tiny_model, formats=("index", "color")).counts.derived == COUNT
    assert not [path for verb, path in store.requests if verb == "read" and "photos" in path]


def test_stats_stay_on_this_machine(
    store: type[Watched], local: Path, tiny_model: Path, tmp_path: Path
) -> None:
    run(tiny_model)
    run(tiny_model, stats=tmp_path / "stats.json")
    # An earlier run's stay there.
    assert stats_in(fsspec.filesystem("memory"))["counts"]["done"] == COUNT
    result = invoke(PHOTOS, MASKS, "--stats", "memory://bucket/stats.json")
    assert result.code == 2
    assert "--stats is a file on this machine" in result.err


def test_of_other_shards_photos_nothing_is_kept(
    store: type[Watched], local: Path, tiny_model: Path
) -> None:
    kept = []
    for number in (1, 2, 3):
        config = BatchConfig(PHOTOS, Path(MASKS), model=tiny_model, shard=Shard(number, 3))
        with opened(config) as site:
            assert isinstance(site, RemoteSite)
            sources = [*site.find()]
            assert len(sources) == COUNT + 1
            kept.append(set(site._entries))
            assert kept[-1] == {one.name for one in sources if Shard(number, 3).holds(one.name)}
    assert sum(map(len, kept)) == COUNT + 1


def test_shards_lists_and_limits_in_a_store(
    store: type[Watched], local: Path, tiny_model: Path
) -> None:
    fs = fsspec.filesystem("memory")
    done = [run(tiny_model, shard=Shard(number, 2)).counts.done for number in (1, 2)]
    assert sum(done) == COUNT
    assert {"stats-1-of-2.json", "stats-2-of-2.json"} <= {
        path.rpartition("/")[2] for path in fs.find("/bucket/masks/petseg")
    }
    fs.pipe_file("/bucket/two.jsonl", b'{"path": "000.png"}\n{"path": "a/a001.png"}\n')
    there = {"list_file": "memory://bucket/two.jsonl", "redo": True}
    assert run(tiny_model, dry_run=True, **there).counts.done == 0
    assert run(tiny_model, limit=1, **there).counts.done == 1
    assert run(tiny_model, **there).counts.done == 2


def test_tidying_that_takes_long_is_no_failure(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("petseg.remote.site._PATIENCE_SECONDS", 5.0)
    never = threading.Event()
    monkeypatch.setattr(Store, "tidy", lambda store: never.wait(60))
    save_photos(tmp_path / "photos", 1)
    started = time.monotonic()
    report = run(tiny_model, str(tmp_path / "photos"), f"file://{tmp_path / 'masks'}")
    assert report.exit_code == 0
    assert time.monotonic() - started >= 5
    never.set()


def test_no_folder_stays_on_the_stage(tmp_path: Path) -> None:
    stage = Stage(tmp_path)
    for name in ("1/a/x.png", "1/a/y.png", "petseg/color/1/a/x.png"):
        stage.write_mask(name, b"mask")
    stage.remove_mask("1/a/x.png")
    assert (stage.masks / "1/a/y.png").exists()
    assert stage.take("1/a/y.png") == b"mask"
    assert stage.take("petseg/color/1/a/x.png") == b"mask"
    assert stage.take("1/a/y.png") is None
    stage.remove_mask("nowhere/x.png")
    assert list(stage.masks.iterdir()) == []
