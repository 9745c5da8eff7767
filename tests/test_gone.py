"""Masks whose photo is gone: told of, and never deleted."""

from __future__ import annotations

import csv
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from batching import MAKER, batch, invoke, make_job, save_photos, tally, tree, write_mask
from PIL import Image
from soak import colours

from petseg.errors import PetsegError
from petseg.photos import sources
from petseg.photos.shards import Shard
from petseg.planning.gone import find_gone
from petseg.planning.plan import Rules, make_plan

COUNT = 4


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return colours.write_model(tmp_path_factory.mktemp("model") / "colours.onnx")


@pytest.fixture
def scene(tmp_path: Path, model: Path) -> Path:
    """images/ and masks/ of a run, and then two of the photos are gone; a person drew one mask."""
    save_photos(tmp_path / "images" / "a", COUNT, 20, 30)
    save_photos(tmp_path / "images", COUNT, 20, 30)
    assert batch(tmp_path / "images", tmp_path / "masks", model).gone == 0
    for name in ("001.png", "a/002.png"):
        (tmp_path / "images" / name).unlink()
    # The kept mask of a photo that is there is not gone, this one is.
    for name in ("003.png", "=drawn.png"):
        Image.fromarray(np.full((20, 30), 2, np.uint8)).save(tmp_path / "masks" / name)
    (tmp_path / "masks" / "notes.txt").write_text("no mask")
    return tmp_path


GONE = ["001.png", "./=drawn.png", "a/002.png"]


def listed(masks: Path, name: str = "gone.csv") -> list[str]:
    with (masks / "petseg" / name).open(newline="") as file:
        (head, *rows) = csv.reader(file)
    assert head == ["mask"]
    return [row[0] for row in rows]


@pytest.mark.parametrize("options", [{}, {"redo": True}, {"overwrite": True}])
def test_they_are_told_of_and_stay_as_they_are(
    options: dict[str, Any], scene: Path, model: Path
) -> None:
    masks = scene / "masks"
    before = {name: (masks / name.removeprefix("./")).stat() for name in GONE}
    content = {name: (masks / name.removeprefix("./")).read_bytes() for name in GONE}
    report = batch(scene / "images", masks, model, **options)
    assert report.gone == report.as_dict()["gone"] == len(GONE)
    assert report.exit_code == 0
    assert "3 masks whose photo is gone; none of them was deleted" in report.summary()
    assert listed(masks) == GONE
    for name, status in before.items():
        after = (masks / name.removeprefix("./")).stat()
        assert (after.st_mtime_ns, after.st_ino) == (status.st_mtime_ns, status.st_ino)
        assert (masks / name.removeprefix("./")).read_bytes() == content[name]
    # A person's mask of a photo that is there is another list's.
    if options != {"overwrite": True}:
        assert listed(masks, "kept.csv") == ["003.png"]


def test_the_command_says_where_they_are_listed(scene: Path, model: Path) -> None:
    found = invoke(scene / "images", scene / "masks", "--model", model, "--json")
    assert found.code == 0
    assert f"3 gone: see {scene / 'masks' / 'petseg' / 'gone.csv'}" in found.err
    assert found.stats["gone"] == len(GONE)


def test_the_list_goes_when_they_are_back(scene: Path, model: Path) -> None:
    images, masks = scene / "images", scene / "masks"
    batch(images, masks, model)
    for name in ("001.png", "a/002.png"):
        shutil.copy(images / "000.png", images / name)
    (masks / "=drawn.png").unlink()
    assert batch(images, masks, model).gone == 0
    assert not (masks / "petseg" / "gone.csv").exists()


def test_a_run_that_is_not_of_all_photos_does_not_look(scene: Path, model: Path) -> None:
    images, masks = scene / "images", scene / "masks"
    (scene / "list").write_text("000.png\n")
    for options in (
        {"list_file": scene / "list"},
        {"shard": Shard(1, 2)},
        {"limit": 1},
        {"fail_fast": True},
    ):
        if "fail_fast" in options:
            (images / "broken.jpg").write_text("hello")
        report = batch(images, masks, model, **options)
        assert report.gone is None, options
        assert "gone" not in report.summary()
    for photos in (f"{images}/*.png", images / "000.png"):
        assert batch(photos, masks, model).gone is None
    assert not list((masks / "petseg").glob("gone*"))
    before = tree(scene)
    assert batch(images, masks, model, dry_run=True).gone is None
    assert tree(scene) == before


def found(images: Path, masks: Path) -> list[str]:
    rules = Rules(masks, MAKER, (), redo=False, overwrite=False, verify=False)
    plan = make_plan(sources.find(str(images)), rules)
    assert not list(find_gone(masks, images, plan, lambda: True))
    return list(find_gone(masks, images, plan, lambda: False))


def test_photos_that_cannot_be_read_are_not_gone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    images, job = tmp_path / "images", make_job(tmp_path / "masks")
    names = [f"{folder}/{name}" for folder in "ab" for name in save_photos(images / folder, 2)]
    for name in names:
        write_mask(images / name, name, job)
    (images / "b" / "000.png").write_bytes(b"")
    (images / "b" / "001.png").unlink()
    (images / "b" / "001.png").symlink_to("nowhere.png")
    assert found(images, job.masks) == []
    (images / "b" / "001.png").unlink()
    assert found(images, job.masks) == ["b/001.png"]
    # Permissions do not hold for root, whom tests may run as.
    scandir = os.scandir

    def refuse(path: str) -> Any:
        if path == str(images / "a"):
            raise PermissionError(13, "Permission denied", path)
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    assert found(images, job.masks) == ["b/001.png"]


def test_names_that_some_file_system_takes_for_one_are_one(tmp_path: Path) -> None:
    """A disk that knows no case may give a mask's name back in another."""
    images, job = tmp_path / "images", make_job(tmp_path / "masks")
    (name,) = save_photos(images, 1)
    (images / name).rename(images / "caf\u00e9.PNG")
    write_mask(images / "caf\u00e9.PNG", "CAFE\u0301.png", job)
    assert found(images, job.masks) == []


def test_photos_that_lie_in_the_folder_of_masks_are_no_masks(tmp_path: Path, model: Path) -> None:
    save_photos(tmp_path / "photos", 2)
    report = batch(tmp_path / "photos", tmp_path, model)
    assert (*tally(report), report.gone) == (2, 0, 0, 0, 0, 0)
    (tmp_path / "photos" / "000.png").unlink()
    assert batch(tmp_path / "photos", tmp_path, model).gone == 1
    assert listed(tmp_path) == ["000.png"]


def test_masks_that_cannot_be_looked_through(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    images, job = tmp_path / "images", make_job(tmp_path / "masks")
    save_photos(images, 1)
    rules = Rules(job.masks, MAKER, (), redo=False, overwrite=False, verify=False)
    plan = make_plan(sources.find(str(images)), rules)

    def refuse(path: str) -> Any:
        raise OSError(5, "Input/output error", path)

    monkeypatch.setattr(os, "scandir", refuse)
    words = f"cannot read the folder {job.masks}: Input/output error; the masks are in place"
    with pytest.raises(PetsegError, match=words):
        list(find_gone(job.masks, images, plan, lambda: False))
