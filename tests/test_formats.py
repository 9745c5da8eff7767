"""Pictures of masks: what is written can be read back, by other programs too."""

from __future__ import annotations

import io

import cv2
import numpy as np
import pytest
from batching import picture
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from PIL import Image

from petseg.classes import PET_CLASSES, SegmentClass, values_to_ids
from petseg.errors import ImageError
from petseg.formats import alpha, binary, catalog, color, index, overlay
from petseg.masks.segmented import Segmented
from petseg.photos.transforms import to_source

some_ids = arrays.arrays(
    np.uint8,
    arrays.array_shapes(min_dims=2, max_dims=2, max_side=40),
    elements=st.integers(0, len(PET_CLASSES) - 1),
)


def segmented(ids: np.ndarray, classes: tuple[SegmentClass, ...] = PET_CLASSES) -> Segmented:
    return Segmented(ids, classes, picture(1, *ids.shape))


def pillow(data: bytes) -> Image.Image:
    image = Image.open(io.BytesIO(data))
    image.load()
    return image


def opencv(data: bytes) -> np.ndarray:
    """Channels in OpenCV's order: BGR, BGRA."""
    pixels = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    assert pixels is not None
    return pixels


@given(some_ids)
def test_index_is_a_trimap(ids: np.ndarray) -> None:
    data = index.encode(segmented(ids))
    image = pillow(data)
    assert (image.format, image.mode, image.size) == ("PNG", "L", ids.shape[::-1])
    np.testing.assert_array_equal(np.array(image), ids + 1)
    np.testing.assert_array_equal(values_to_ids(PET_CLASSES)[np.array(image)], ids)
    np.testing.assert_array_equal(opencv(data), ids + 1)


@given(some_ids)
def test_color_holds_values_and_colors(ids: np.ndarray) -> None:
    data = color.encode(segmented(ids))
    image = pillow(data)
    assert (image.format, image.mode) == ("PNG", "P")
    np.testing.assert_array_equal(np.array(image), ids + 1)
    colors = np.array([item.color for item in PET_CLASSES], np.uint8)
    np.testing.assert_array_equal(np.array(image.convert("RGB")), colors[ids])
    np.testing.assert_array_equal(opencv(data), colors[ids][..., ::-1])


@given(some_ids)
def test_binary_is_255_in_the_foreground(ids: np.ndarray) -> None:
    data = binary.encode(segmented(ids))
    image = pillow(data)
    assert (image.format, image.mode) == ("PNG", "L")
    np.testing.assert_array_equal(np.array(image), np.where(ids == 1, 0, 255))
    np.testing.assert_array_equal(opencv(data), np.array(image))


OTHER_CLASSES = tuple(
    SegmentClass(f"class {value}", value, (value, 0, 255 - value), foreground=value in (0, 7))
    for value in (255, 0, 7, 128)
)


def test_classes_of_other_values_and_number() -> None:
    ids = np.arange(4, dtype=np.uint8).reshape(2, 2)
    what = segmented(ids, OTHER_CLASSES)
    np.testing.assert_array_equal(opencv(index.encode(what)), [[255, 0], [7, 128]])
    image = pillow(color.encode(what))
    np.testing.assert_array_equal(np.array(image), [[255, 0], [7, 128]])
    assert np.array(image.convert("RGB"))[1, 0].tolist() == [7, 0, 248]
    np.testing.assert_array_equal(opencv(binary.encode(what)), [[0, 255], [255, 0]])
    np.testing.assert_array_equal(opencv(alpha.encode(what))[..., 3], [[0, 255], [255, 0]])


def likely(pet: np.ndarray, border: np.ndarray) -> np.ndarray:
    """Probabilities uint8 (3, S, S) of shares (S, S)."""
    planes = np.stack((pet, 1 - pet - border, border))
    return np.rint(planes * 255).astype(np.uint8)


def test_alpha_is_the_photo_cut_out_softly() -> None:
    pet = np.linspace(0, 1, 64)[None].repeat(64, 0)
    probabilities = likely(pet, np.zeros_like(pet))
    photo = picture(2, 128, 256)
    ids = to_source(probabilities, 128, 256)
    data = alpha.encode(Segmented(ids, PET_CLASSES, photo, probabilities))
    image = pillow(data)
    assert (image.format, image.mode, image.size) == ("PNG", "RGBA", (256, 128))
    pixels = np.array(image)
    opacity = pixels[..., 3]
    np.testing.assert_array_equal(pixels[opacity > 0][:, :3], photo[opacity > 0])
    assert not pixels[opacity == 0].any(), "what is gone is still in the file"
    # Nothing, then an even rise, then everything; one half where the two are equally likely.
    across = opacity[64].astype(int)
    assert (np.diff(across) >= 0).all()
    assert (across[: int(0.28 * 256)] == 0).all()
    assert (across[int(0.72 * 256) :] == 255).all()
    assert abs(across[127] + across[128] - 255) <= 8
    assert len(np.unique(across)) > 50
    np.testing.assert_array_equal(opencv(data), pixels[..., [2, 1, 0, 3]])


def test_the_border_counts_half() -> None:
    border = np.ones((8, 8))
    probabilities = likely(np.zeros((8, 8)), border)
    what = Segmented(np.full((8, 8), 2, np.uint8), PET_CLASSES, picture(1, 8, 8), probabilities)
    assert set(np.array(pillow(alpha.encode(what)))[..., 3].ravel()) <= {127, 128, 129}


def test_alpha_of_a_drawn_mask_falls_across_its_border() -> None:
    ids = np.zeros((20, 60), np.uint8)
    ids[:, 20:40], ids[:, 40:] = 2, 1
    opacity = np.array(pillow(alpha.encode(segmented(ids))))[..., 3].astype(int)
    assert (opacity[:, :20] == 255).all()
    assert (opacity[:, 40:] == 0).all()
    fall = opacity[10, 19:41]
    assert (np.diff(fall) < 0).all()
    assert np.abs(fall - np.linspace(255, 0, 22)).max() < 8
    for only, value in ((0, 255), (1, 0)):
        flat = np.full((5, 5), only, np.uint8)
        assert (np.array(pillow(alpha.encode(segmented(flat))))[..., 3] == value).all()
    # A border alone has no side to fall to.
    flat = np.full((5, 5), 2, np.uint8)
    assert set(np.array(pillow(alpha.encode(segmented(flat))))[..., 3].ravel()) == {128}


def test_an_overlay_tints_and_outlines_the_foreground() -> None:
    ids = np.ones((200, 300), np.uint8)
    ids[50:150, 60:160], ids[50:150, 160:300] = 0, 2
    photo = np.full((200, 300, 3), 100, np.uint8)
    data = overlay.encode(Segmented(ids, PET_CLASSES, photo))
    image = pillow(data)
    assert (image.format, image.mode, image.size) == ("JPEG", "RGB", (300, 200))
    pixels = np.array(image).astype(int)
    np.testing.assert_allclose(opencv(data)[..., ::-1], pixels, atol=4)
    for (y, x), item in (((100, 100), PET_CLASSES[0]), ((100, 230), PET_CLASSES[2])):
        tinted = 0.55 * 100 + 0.45 * np.array(item.color)
        np.testing.assert_allclose(pixels[y, x], tinted, atol=6)
    np.testing.assert_allclose(pixels[20, 20], 100, atol=3)
    np.testing.assert_allclose(pixels[180, 250], 100, atol=3)
    # The edge is white and black; where the photo ends the pet goes on.
    assert pixels[50, 100].min() > 200
    assert pixels[100, 60].min() > 200
    assert pixels[49, 100].max() < 60
    assert pixels[100, 299].min() < 150
    assert pixels[100, 299].max() > 100
    np.testing.assert_array_equal(photo, 100)


def test_an_overlay_that_no_jpeg_can_hold() -> None:
    ids = np.zeros((1, 65501), np.uint8)
    what = Segmented(ids, PET_CLASSES, np.zeros((1, 65501, 3), np.uint8))
    with pytest.raises(ImageError, match=r"at most 65500 pixels; the photo is 65501x1: leave out"):
        overlay.encode(what)


@pytest.mark.parametrize("chosen", [catalog.INDEX, *catalog.PICTURES.values()])
def test_the_same_mask_gives_the_same_bytes(chosen: catalog.Picture) -> None:
    random = np.random.default_rng(1)
    ids = random.integers(0, 3, (50, 70), dtype=np.uint8)
    probabilities = random.integers(0, 256, (3, 16, 16), dtype=np.uint8)
    photo = picture(1, 50, 70)
    first = chosen.encode(Segmented(ids, PET_CLASSES, photo, probabilities))
    again = Segmented(ids.copy(order="F"), PET_CLASSES, photo.copy(), probabilities.copy())
    assert chosen.encode(again) == first


def test_formats_are_found_by_name() -> None:
    assert catalog.NAMES == ("index", "color", "binary", "alpha", "overlay", "coco", "parquet")
    assert all(name == item.name for name, item in catalog.PICTURES.items())
    assert len({*catalog.PICTURES, *catalog.TABLES, "index"}) == len(catalog.NAMES)
