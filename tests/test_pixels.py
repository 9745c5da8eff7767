from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from petseg.classes import PET_CLASSES, values_to_ids
from petseg.data import dataset, pixels
from petseg.errors import DatasetError
from petseg.photos import transforms

NAMES = [f"pet_{index}" for index in range(24)]


def prepare(root: Path, size: int, cache: Path) -> pixels.Prepared:
    """All of them as one part."""
    return pixels.prepare(root, {"train": NAMES}, PET_CLASSES, size, cache)["train"]


def test_pixels_are_what_batch_would_see(pets: Path, tmp_path: Path) -> None:
    found = prepare(pets, 64, tmp_path)
    assert found.names == tuple(NAMES)
    assert found.broken == {}
    image, trimap = dataset.read_sample(pets, "pet_7", values_to_ids(PET_CLASSES))
    np.testing.assert_array_equal(found.images[7], transforms.to_model(image, 64))
    np.testing.assert_array_equal(found.trimaps[7], transforms.trimap_to_model(trimap, 64))
    images, trimaps = found.at(slice(6, 9), 32)
    assert (images.shape, trimaps.shape) == ((3, 32, 32, 3), (3, 32, 32))
    np.testing.assert_array_equal(images[1], transforms.to_model(found.images[7], 32))


def test_a_broken_sample_is_named_left_out_and_counted(
    pets: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = tmp_path / "pets"
    shutil.copytree(pets, root)
    (root / "images" / "pet_3.jpg").write_bytes(b"")
    found = prepare(root, 32, tmp_path / "cache")
    assert found.names == tuple(name for name in NAMES if name != "pet_3")
    assert found.broken == {"pet_3": "the file is empty (0 bytes)"}
    assert "left out pet_3: the file is empty" in capsys.readouterr().err
    whole = prepare(pets, 32, tmp_path / "whole")
    np.testing.assert_array_equal(found.images[3], whole.images[4])
    np.testing.assert_array_equal(found.trimaps[3:], whole.trimaps[4:])

    (root / "annotations" / "trimaps" / "pet_9.png").unlink()
    with pytest.raises(DatasetError, match=r"more than 5% of all 24; the last: pet_9: .*No such"):
        prepare(root, 32, tmp_path / "cache")


def test_a_trimap_with_other_values_is_named_and_counted(
    pets: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = tmp_path / "pets"
    shutil.copytree(pets, root)
    path = root / "annotations" / "trimaps" / "pet_5.png"
    trimap = np.array(Image.open(path))
    trimap[0, 0] = 7
    Image.fromarray(trimap).save(path)
    found = prepare(root, 32, tmp_path / "cache")
    assert found.names == tuple(name for name in NAMES if name != "pet_5")
    assert list(found.broken) == ["pet_5"]
    assert "values [7], expected [1, 2, 3]" in found.broken["pet_5"]
    assert f"left out pet_5: {found.broken['pet_5']}" in capsys.readouterr().err


def test_what_is_broken_is_a_share_of_the_whole_run(pets: Path, tmp_path: Path) -> None:
    root = tmp_path / "pets"
    shutil.copytree(pets, root)
    split = dataset.split(root, "article", seed=0, limit=16)
    assert (len(split.train), len(split.validation)) == (16, 4)
    parts = {"train": split.train, "validation": split.validation}
    # A quarter of those that are validated on, and a twentieth of all.
    (root / "images" / f"{split.validation[1]}.jpg").write_bytes(b"")
    found = pixels.prepare(root, parts, PET_CLASSES, 32, tmp_path / "cache")
    assert found["train"].names == split.train
    assert found["train"].broken == {}
    assert found["validation"].names == (split.validation[0], *split.validation[2:])
    assert list(found["validation"].broken) == [split.validation[1]]
    # One more, in whichever part.
    (root / "images" / f"{split.train[0]}.jpg").write_bytes(b"")
    words = f"2 samples in .* more than 5% of all 20; the last: {split.validation[1]}: the file is"
    with pytest.raises(DatasetError, match=words):
        pixels.prepare(root, parts, PET_CLASSES, 32, tmp_path / "cache")


def test_a_full_disk_is_noticed_before(pets: Path, tmp_path: Path) -> None:
    size = shutil.disk_usage(tmp_path).free // 4 // len(NAMES)
    side = int(size**0.5) + 32
    with pytest.raises(DatasetError, match=r"need .* GB .* are free; choose another disk"):
        prepare(pets, side, tmp_path)
