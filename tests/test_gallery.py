"""The small pictures of a page, decoded again."""

from __future__ import annotations

import base64
import dataclasses
import io
from pathlib import Path

import numpy as np
import pytest
from batching import make_job, read_mask, write_mask
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from petseg.classes import PET_CLASSES
from petseg.masks.reading import MaskFile, read_all
from petseg.masks.record import Record
from petseg.pages.gallery import draw


def opened(address: str | None, kind: str) -> Image.Image:
    assert address is not None
    head, _, data = address.partition(",")
    assert head == f"data:{kind};base64"
    return Image.open(io.BytesIO(base64.b64decode(data)))


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """photos/x.png, of 600 x 400 pixels, red on the left and green on the right, and its mask."""
    pixels = np.zeros((400, 600, 3), np.uint8)
    pixels[:, :300, 0] = pixels[:, 300:, 1] = 200
    (tmp_path / "photos").mkdir()
    Image.fromarray(pixels).save(tmp_path / "photos" / "x.png")
    write_mask(tmp_path / "photos" / "x.png", "x.png", make_job(tmp_path / "masks"))
    return tmp_path


def mask_in(home: Path, photos: dict[str, str] | None = None) -> MaskFile:
    (mask,) = read_all(home / "masks", PET_CLASSES, photos or {}, with_ids=False)
    return mask


def test_photo_and_mask(home: Path) -> None:
    mask = mask_in(home)
    pair = draw(mask, home / "masks", home / "photos", PET_CLASSES)
    assert pair is not None
    assert (pair.name, pair.width, pair.height, pair.note) == ("x.png", 320, 213, "")
    assert mask.record is not None
    assert pair.confidence == mask.record.confidence
    photo = np.array(opened(pair.photo, "image/jpeg"))
    assert photo.shape == (213, 320, 3)
    np.testing.assert_allclose(photo[100, 50], (200, 0, 0), atol=6)
    np.testing.assert_allclose(photo[100, 250], (0, 200, 0), atol=6)
    small = np.array(opened(pair.mask, "image/png").convert("RGB"))
    ids = read_mask(home / "masks" / "x.png") - 1
    colors = np.array([item.color for item in PET_CLASSES], np.uint8)
    y = np.arange(213) * 400 // 213
    x = np.arange(320) * 600 // 320
    # Which of two neighbours is the nearest is a matter of rounding.
    assert (small == colors[ids[y][:, x]]).all(axis=2).mean() > 0.97
    assert pair.area == pytest.approx((ids != 1).mean())


def test_noise_stays_small(home: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (2000, 2000, 3), np.uint8)
    Image.fromarray(noise).resize((1000, 1000), Image.Resampling.NEAREST).save(
        home / "photos" / "x.png"
    )
    write_mask(home / "photos" / "x.png", "x.png", make_job(home / "masks"))
    pair = draw(mask_in(home), home / "masks", home / "photos", PET_CLASSES)
    assert pair is not None
    assert pair.photo is not None
    assert len(pair.photo) < 1.4 * (32 << 10)


def test_without_photos(home: Path) -> None:
    pair = draw(mask_in(home), home / "masks", None, PET_CLASSES)
    assert pair is not None
    assert (pair.photo, pair.note) == (None, "")


def test_another_photo_of_that_name_is_not_shown(home: Path) -> None:
    mask = mask_in(home)
    Image.fromarray(np.zeros((400, 600, 3), np.uint8)).save(home / "photos" / "x.png")
    pair = draw(mask, home / "masks", home / "photos", PET_CLASSES)
    assert pair is not None
    assert pair.photo is None
    assert pair.note == "the photo is no longer the one that the mask was made from"
    (home / "photos" / "x.png").unlink()
    pair = draw(mask, home / "masks", home / "photos", PET_CLASSES)
    assert pair is not None
    assert pair.note == "cannot be read: No such file or directory"


def test_another_photo_is_not_shown_beside_a_corrected_mask_either(home: Path) -> None:
    """It carries the record of the mask that it was made of."""
    path = home / "masks" / "x.png"
    with Image.open(path) as made:
        info = PngInfo()
        for key, text in made.text.items():  # type: ignore[attr-defined]
            info.add_text(key, text)
        corrected = np.asarray(made).copy()
    corrected[:50] = 2
    Image.fromarray(corrected).save(path, pnginfo=info)
    mask = mask_in(home)
    assert mask.by_person
    pair = draw(mask, home / "masks", home / "photos", PET_CLASSES)
    assert pair is not None
    assert (pair.photo is None, pair.note) == (False, "")
    Image.fromarray(np.zeros((400, 600, 3), np.uint8)).save(home / "photos" / "x.png")
    pair = draw(mask, home / "masks", home / "photos", PET_CLASSES)
    assert pair is not None
    assert pair.photo is None
    assert pair.note == "the photo is no longer the one that the mask was made from"


def test_the_mask_of_a_person(home: Path) -> None:
    Image.fromarray(np.full((400, 600), 1, np.uint8)).save(home / "masks" / "x.png")
    mask = mask_in(home)
    pair = draw(mask, home / "masks", home / "photos", PET_CLASSES)
    assert pair is not None
    assert (pair.name, pair.photo, pair.confidence, pair.area) == ("x.png", None, None, 1.0)
    assert pair.note == "nothing tells which photo this mask is of"
    pair = draw(mask_in(home, {"x.png": "x.png"}), home / "masks", home / "photos", PET_CLASSES)
    assert pair is not None
    assert pair.photo is not None
    Image.fromarray(np.full((40, 60), 1, np.uint8)).save(home / "masks" / "x.png")
    pair = draw(mask_in(home, {"x.png": "x.png"}), home / "masks", home / "photos", PET_CLASSES)
    assert pair is not None
    assert pair.note == "the photo has 600x400 pixels, and the mask is of 60x40"


@pytest.mark.parametrize("where", ["../secret.png", "{}/secret.png", "a/../../secret.png"])
def test_a_name_in_a_mask_does_not_lead_out_of_the_folder(home: Path, where: str) -> None:
    (home / "photos" / "x.png").rename(home / "secret.png")
    mask = mask_in(home)
    assert isinstance(mask.record, Record)
    crafted = dataclasses.replace(mask, photo=where.format(home))
    pair = draw(crafted, home / "masks", home / "photos", PET_CLASSES)
    assert pair is not None
    assert pair.photo is None
    assert pair.note == "the photo's name leads out of the folder of photos"


def test_a_mask_that_is_gone_is_left_out(home: Path) -> None:
    mask = mask_in(home)
    (home / "masks" / "x.png").write_bytes(b"something else")
    assert draw(mask, home / "masks", home / "photos", PET_CLASSES) is None
