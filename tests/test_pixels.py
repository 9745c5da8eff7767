from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from petseg import dataset, pixels, transforms
from petseg.classes import PET_CLASSES, values_to_ids
from petseg.errors import DatasetError

NAMES = [f"pet_{index}" for index in range(24)]


def test_pixels_are_what_batch_would_see(pets: Path, tmp_path: Path) -> None:
    found = pixels.prepare(pets, NAMES, PET_CLASSES, 64, tmp_path, "train")
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
    found = pixels.prepare(root, NAMES, PET_CLASSES, 32, tmp_path / "cache", "train")
    assert found.names == tuple(name for name in NAMES if name != "pet_3")
    assert found.broken == {"pet_3": "the file is empty (0 bytes)"}
    assert "left out pet_3: the file is empty" in capsys.readouterr().err
    whole = pixels.prepare(pets, NAMES, PET_CLASSES, 32, tmp_path / "whole", "train")
    np.testing.assert_array_equal(found.images[3], whole.images[4])
    np.testing.assert_array_equal(found.trimaps[3:], whole.trimaps[4:])

    (root / "annotations" / "trimaps" / "pet_9.png").unlink()
    with pytest.raises(DatasetError, match=r"more than 5% of all 24; the last: pet_9: .*No such"):
        pixels.prepare(root, NAMES, PET_CLASSES, 32, tmp_path / "cache", "train")


def test_a_full_disk_is_noticed_before(pets: Path, tmp_path: Path) -> None:
    size = shutil.disk_usage(tmp_path).free // 4 // len(NAMES)
    side = int(size**0.5) + 32
    with pytest.raises(DatasetError, match=r"need .* GB .* are free; choose another disk"):
        pixels.prepare(pets, NAMES, PET_CLASSES, side, tmp_path, "train")
