"""Archives in a store, through the real engine: their masks are those of archives here."""

from __future__ import annotations

import json
import os
import shutil
import tarfile
import tempfile
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fsspec
import pytest
from batching import batch, invoke, mask_bytes, save_photos, tally
from stores import Watched, at, failing, watched

from petseg.errors import PetsegError
from petseg.photos.shards import Shard
from petseg.remote.archives import in_store

COUNT = 6
MASKS = "memory://bucket/masks"


@pytest.fixture
def store(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[type[Watched]]:
    """An empty store; what is fetched lies in a folder of the test's own."""
    (tmp_path / "staging").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "staging"))
    with watched() as found:
        yield found
    # Whatever became of the run, nothing is left behind.
    assert not [path for path in (tmp_path / "staging").rglob("*") if path.is_file()]


@pytest.fixture
def packed(store: type[Watched], tmp_path: Path) -> Path:
    """A folder with a tar and a zip file of different photos; both lie in the store, too."""
    folder = tmp_path / "photos"
    save_photos(folder / "a", COUNT)
    for path in folder.rglob("*.png"):
        os.utime(path, (1_700_000_000, 1_700_000_000))
    here = tmp_path / "packed"
    here.mkdir()
    with tarfile.open(here / "one.tar", "w") as packed:
        packed.add(folder, ".")
    with zipfile.ZipFile(here / "two.zip", "w") as packed_zip:
        for number in range(2):
            packed_zip.write(folder / "a" / f"00{number}.png", f"{number}.png")
        packed_zip.writestr("notes.txt", "no image")
    fs = fsspec.filesystem("memory")
    for path in here.iterdir():
        fs.pipe_file(f"/bucket/{path.name}", path.read_bytes())
    store.requests.clear()
    return here


def masks_in(fs: Any, root: str = "/bucket/masks") -> dict[str, bytes]:
    found = {path.removeprefix(f"{root}/"): fs.cat_file(path) for path in fs.find(root)}
    return {name: data for name, data in found.items() if not name.startswith("petseg/")}


def test_an_archive_gives_the_masks_that_it_gives_here(
    store: type[Watched], packed: Path, tiny_model: Path, tmp_path: Path
) -> None:
    batch(packed / "one.tar", tmp_path / "expected", tiny_model)
    expected = mask_bytes(tmp_path / "expected")
    assert len(expected) == COUNT
    assert tally(batch("memory://bucket/one.tar", tmp_path / "masks", tiny_model))[0] == COUNT
    assert mask_bytes(tmp_path / "masks") == expected
    # Whole and once; nothing was listed, and no member asked for.
    assert store.requests == [("get", "/bucket/one.tar")]
    places = ("memory://bucket/one.tar", MASKS, tiny_model)
    assert tally(batch(*places)) == (COUNT, 0, 0, 0, 0)
    assert masks_in(fsspec.filesystem("memory")) == expected
    assert tally(batch(*places)) == (0, COUNT, 0, 0, 0)
    # What was begun here goes on there, for all that records tell is the archive's own.
    assert tally(batch("memory://bucket/one.tar", tmp_path / "expected", tiny_model))[1] == COUNT


def test_of_several_archives_each_is_a_folder(
    store: type[Watched], packed: Path, tiny_model: Path, tmp_path: Path
) -> None:
    fs = fsspec.filesystem("memory")
    fs.pipe_file("/bucket/more/three.tar", (packed / "one.tar").read_bytes())
    (packed / "more").mkdir()
    shutil.copy(packed / "one.tar", packed / "more" / "three.tar")
    for pattern, count in (("*.tar", COUNT), ("**/*.tar", 2 * COUNT), ("*.zip", 2)):
        there, here = tmp_path / "there", tmp_path / "here"
        found = invoke(f"memory://bucket/{pattern}", there, "--model", tiny_model, "--json")
        assert (found.code, found.counts["done"]) == (0, count), found.err
        assert f"fetching {1 + (count > COUNT)} archives, 0." in found.err
        batch(packed / pattern, here, tiny_model)
        assert mask_bytes(there) == mask_bytes(here)
        shutil.rmtree(there)
        shutil.rmtree(here)
    # Masks beside the archives are no archives.
    assert tally(batch("memory://bucket/*.zip", MASKS, tiny_model)) == (2, 0, 0, 1, 0)
    assert sorted(masks_in(fs)) == ["two/0.png", "two/1.png"]


def test_masks_of_stored_archives_in_shards(
    store: type[Watched], packed: Path, tiny_model: Path, tmp_path: Path
) -> None:
    for number in (1, 2):
        options = {"shards": 2, "shard": Shard(number, 2)}
        report = batch("memory://bucket/one.tar", tmp_path / "masks", tiny_model, **options)
        assert report.counts.done > 0
    # Each of them has fetched it.
    assert store.requests == [("get", "/bucket/one.tar")] * 2
    found: dict[str, bytes] = {}
    for shard in (tmp_path / "masks").glob("*.tar"):
        with tarfile.open(shard) as masks:
            found |= {one.name: masks.extractfile(one).read() for one in masks}  # type: ignore[union-attr]
    batch(packed / "one.tar", tmp_path / "expected", tiny_model)
    assert found == mask_bytes(tmp_path / "expected")


def test_what_a_store_throttles_is_asked_again_and_a_bad_member_fails_alone(
    store: type[Watched], packed: Path, tiny_model: Path, tmp_path: Path
) -> None:
    with zipfile.ZipFile(packed / "two.zip") as found:
        place = found.getinfo("1.png").header_offset + 30 + len("1.png") + 100
    data = bytearray((packed / "two.zip").read_bytes())
    data[place] ^= 0xFF
    fs = fsspec.filesystem("memory")
    fs.pipe_file("/bucket/two.zip", bytes(data))
    store.fault = at("/bucket/two.zip", failing(2, ConnectionResetError("gone")), "get")
    report = batch("memory://bucket/two.zip", tmp_path / "masks", tiny_model)
    assert tally(report) == (1, 0, 1, 1, 0)
    assert report.store_retries == 2
    failures = (tmp_path / "masks" / "petseg" / "failures.csv").read_text()
    assert "1.png,cannot be read from memory://bucket/two.zip: " in failures
    told = (tmp_path / "masks" / "petseg" / "stats.json").read_text()
    assert json.loads(told)["options"]["images"] == "memory://bucket/two.zip"
    assert str(tmp_path / "staging") not in failures + told


def test_archives_that_do_not_fit_are_not_fetched(
    store: type[Watched], tiny_model: Path, tmp_path: Path
) -> None:
    """One larger than the disk, without taking its room."""
    (tmp_path / "packed").mkdir()
    with (tmp_path / "packed" / "big.tar").open("wb") as file:
        file.truncate(shutil.disk_usage(tmp_path).total + (1 << 30))
    for images in ("big.tar", "*.tar"):
        with pytest.raises(PetsegError, match=r"1 archives, .* MB, from file:.* do not fit into"):
            batch(f"file://{tmp_path}/packed/{images}", tmp_path / "masks", tiny_model)
    assert not (tmp_path / "masks").exists()


def test_an_archive_that_changes_meanwhile_ends_the_run(
    store: type[Watched], packed: Path, tiny_model: Path, tmp_path: Path
) -> None:
    fs = fsspec.filesystem("memory")
    grown = (packed / "one.tar").read_bytes() + bytes(512)

    def grow() -> None:
        fs.pipe_file("/bucket/one.tar", grown)

    store.fault = at("/bucket/one.tar", grow, "get")
    with pytest.raises(PetsegError, match=r"memory://bucket/one\.tar was listed with .* changed"):
        batch("memory://bucket/one.tar", tmp_path / "masks", tiny_model)
    assert not (tmp_path / "masks").exists()


@pytest.mark.parametrize("name", ["../up.tar", "a//b.tar", "e\0.tar"])
def test_an_archives_name_leads_nowhere_else(
    store: type[Watched], packed: Path, tiny_model: Path, tmp_path: Path, name: str
) -> None:
    fs = fsspec.filesystem("memory")
    with fs.open("/bucket/one.tar", "rb") as file:
        data = file.read()
        fs.store[f"/bucket/{name}"] = type(file)(fs, f"/bucket/{name}", data)
    with pytest.raises(PetsegError, match="its masks would lie in a folder of this name"):
        batch("memory://bucket/**/*.tar", tmp_path / "masks", tiny_model)
    assert not [path for verb, path in store.requests if verb == "get"]


@pytest.mark.parametrize(
    ("images", "options", "message"),
    [
        ("memory://bucket/none.tar", {}, r"there is no folder, file or pattern memory:.*none\.tar"),
        ("memory://bucket/none*.tar", {}, "there is no folder, file or pattern"),
        ("memory://bucket/one.tar.gz", {}, r"compressed as a whole.*unpack it to a \.tar"),
        ("memory://bucket/*.tgz", {}, "compressed as a whole"),
        ("memory://bucket/folder.zip", {}, r"is a folder .* write memory://bucket/folder\.zip/"),
        ("memory://bucket/bad.tar", {}, r"cannot read the archive memory://bucket/bad\.tar: "),
        ("memory://bucket/one.tar", {"verify": True}, "--verify .* is packed"),
        ("memory://bucket/one.tar", {"check": True}, "--check .* is packed"),
        ("file://{packed}/*.tar", {"shards": 2, "masks": "{packed}"}, "finds shards of masks"),
        ("file://{packed}/masks-000000.tar", {"shards": 2, "masks": "{packed}"}, "finds shards"),
    ],
)
def test_what_cannot_be_had_is_refused_before_anything_is_done(
    store: type[Watched],
    packed: Path,
    tiny_model: Path,
    tmp_path: Path,
    images: str,
    options: dict[str, Any],
    message: str,
) -> None:
    fs = fsspec.filesystem("memory")
    fs.pipe_file("/bucket/folder.zip/x.png", b"")
    fs.pipe_file("/bucket/bad.tar", b"no archive at all" * 100)
    options = dict(options)
    masks = Path(options.pop("masks", "{tmp_path}/masks").format(packed=packed, tmp_path=tmp_path))
    with pytest.raises(PetsegError, match=message):
        batch(images.format(packed=packed), masks, tiny_model, **options)
    assert not (masks / "petseg").exists()


def test_a_folder_with_an_archives_name_is_one_with_a_slash(
    store: type[Watched], packed: Path, tiny_model: Path, tmp_path: Path
) -> None:
    photo = (tmp_path / "photos" / "a" / "000.png").read_bytes()
    fsspec.filesystem("memory").pipe_file("/bucket/folder.zip/x.png", photo)
    report = batch("memory://bucket/folder.zip/", tmp_path / "masks", tiny_model)
    assert tally(report) == (1, 0, 0, 0, 0)
    # One whose name could be a pattern is no pattern where there is such a file.
    data = (packed / "one.tar").read_bytes()
    fsspec.filesystem("memory").pipe_file("/bucket/odd[1].tar", data)
    assert tally(batch("memory://bucket/odd[1].tar", tmp_path / "odd", tiny_model))[0] == COUNT
    assert "a/000.png" in mask_bytes(tmp_path / "odd")


def test_what_is_an_archive_in_a_store_its_name_tells() -> None:
    assert in_store("s3://bucket/photos.TAR")
    assert in_store("s3://bucket/*/shard-*.zip")
    for images in ("photos.tar", "s3://x.tar/photos", "s3://x/a.tar/", "zip://::s3://x/a.zip"):
        assert not in_store(images), images
