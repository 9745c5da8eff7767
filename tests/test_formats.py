"""Mask formats: what is written can be read back, by other programs too."""

from __future__ import annotations

import io

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from PIL import Image

from petseg import masks
from petseg.classes import PET_CLASSES, SegmentClass, values_to_ids

some_ids = arrays.arrays(
    np.uint8,
    arrays.array_shapes(min_dims=2, max_dims=2, max_side=40),
    elements=st.integers(0, len(PET_CLASSES) - 1),
)


def read(data: bytes) -> Image.Image:
    image = Image.open(io.BytesIO(data))
    image.load()
    return image


@given(some_ids)
def test_index_is_a_trimap(ids: np.ndarray) -> None:
    image = read(masks.encode_index(ids, PET_CLASSES))
    assert (image.format, image.mode, image.size) == ("PNG", "L", ids.shape[::-1])
    np.testing.assert_array_equal(np.array(image), ids + 1)
    np.testing.assert_array_equal(values_to_ids(PET_CLASSES)[np.array(image)], ids)


@given(some_ids)
def test_color_holds_values_and_colors(ids: np.ndarray) -> None:
    image = read(masks.encode_color(ids, PET_CLASSES))
    assert (image.format, image.mode) == ("PNG", "P")
    np.testing.assert_array_equal(np.array(image), ids + 1)
    colors = np.array([item.color for item in PET_CLASSES], np.uint8)
    np.testing.assert_array_equal(np.array(image.convert("RGB")), colors[ids])


@pytest.mark.parametrize("encode", [masks.encode_index, masks.encode_color])
def test_classes_of_other_values_and_number(encode: masks.Encoder) -> None:
    classes = tuple(
        SegmentClass(f"class {value}", value, (value, 0, 255 - value), foreground=True)
        for value in (255, 0, 7, 128)
    )
    ids = np.arange(4, dtype=np.uint8).reshape(2, 2)
    image = read(encode(ids, classes))
    np.testing.assert_array_equal(np.array(image), [[255, 0], [7, 128]])
    if image.mode == "P":
        assert np.array(image.convert("RGB"))[1, 0].tolist() == [7, 0, 248]


def test_the_same_ids_give_the_same_bytes() -> None:
    ids = np.random.default_rng(1).integers(0, 3, (50, 70), dtype=np.uint8)
    for encode in (masks.encode_index, masks.encode_color):
        assert encode(ids, PET_CLASSES) == encode(ids.copy(order="F"), PET_CLASSES)


def test_formats_are_found_by_name() -> None:
    assert masks.NAMES == ("index", "color")
    assert masks.INDEX.name not in masks.EXTRA
    assert all(name == item.name for name, item in masks.EXTRA.items())
