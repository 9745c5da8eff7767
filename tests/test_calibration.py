"""What int8 learns from photos: which photos, and how large each activation gets."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import helper
from PIL import Image

from petseg.errors import DatasetError
from petseg_export import calibration, parity


def test_photos_are_those_of_trainval_alone(pets: Path, tmp_path: Path) -> None:
    root = tmp_path / "pets"
    shutil.copytree(pets, root)
    lines = (root / "annotations" / "trainval.txt").read_text().splitlines()
    (root / "annotations" / "trainval.txt").write_text("\n".join(lines[:21]) + "\n")
    (root / "annotations" / "test.txt").write_text("\n".join(lines[21:]) + "\n")
    photos = calibration.read_photos(root, 64)
    assert photos.images.shape == (20, 64, 64, 3)
    assert photos.images.dtype == np.uint8
    assert sorted(photos.names) == sorted(f"images/pet_{index}.jpg" for index in range(20))
    assert len({image.tobytes() for image in photos.images}) == 20
    (root / "annotations" / "trainval.txt").unlink()
    with pytest.raises(DatasetError, match=r"trainval\.txt, which does not exist"):
        calibration.read_photos(root, 64)


def test_a_list_may_hold_paths(pets: Path, tmp_path: Path) -> None:
    root = tmp_path / "pets"
    shutil.copytree(pets, root)
    (root / "images" / "a b").mkdir()
    names = []
    for index in range(16):
        name = f"a b/pet.{index}.jpeg"
        (root / "images" / f"pet_{index}.jpg").rename(root / "images" / name)
        names.append(name)
    (root / "annotations" / "trainval.txt").write_text("\n".join([*names, "pet_20"]) + "\n")
    photos = calibration.read_photos(root, 32)
    assert photos.names == (*(f"images/{name}" for name in sorted(names)), "images/pet_20.jpg")


def test_photos_of_a_plain_folder(pets: Path, tmp_path: Path) -> None:
    root = tmp_path / "photos"
    shutil.copytree(pets / "images", root / "below")
    (root / "notes.txt").write_text("hello")
    (root / "below" / "pet_3.jpg").write_bytes(b"")
    photos = calibration.read_photos(root, 32)
    assert len(photos.names) == 23
    assert photos.names[0] == "below/pet_0.jpg"
    for index in range(4, 12):
        (root / "below" / f"pet_{index}.jpg").unlink()
    with pytest.raises(DatasetError, match="has 15 photos that can be read; at least 16"):
        calibration.read_photos(root, 32)
    with pytest.raises(DatasetError, match="there is no folder"):
        calibration.read_photos(root / "none", 32)
    (root / "empty").mkdir()
    with pytest.raises(DatasetError, match="has 0 photos that can be read"):
        calibration.read_photos(root / "empty", 32)


def test_a_hundred_photos_are_spread_over_all(tmp_path: Path) -> None:
    source = tmp_path / "one.png"
    Image.fromarray(parity.draw_images(32, 1)[0]).save(source)
    folder = tmp_path / "many"
    folder.mkdir()
    for index in range(301):
        (folder / f"{index:03}.png").hardlink_to(source)
    names = calibration.read_photos(folder, 32).names
    assert len(names) == calibration.MOST
    assert (names[0], names[-1]) == ("000.png", "300.png")
    steps = np.diff([int(name[:3]) for name in names])
    assert set(steps) <= {3, 4}


def test_limits_are_means_of_each_images_largest_value(tiny_model: Path) -> None:
    model = onnx.load(tiny_model)
    before = model.SerializeToString()
    images = parity.draw_images(64, 6, seed=4)
    limits = calibration.activation_limits(model, images)
    assert model.SerializeToString() == before
    # 21 ReLUs and 3 additions.
    assert len(limits) == 24
    names = list(limits)
    del model.graph.output[:]
    model.graph.output.extend(
        helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None) for name in names
    )
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    for name, values in zip(names, session.run(names, {"images": images}), strict=True):
        assert limits[name] == pytest.approx(values.max(axis=(1, 2, 3)).mean(), rel=1e-5), name
        assert limits[name] > 0
