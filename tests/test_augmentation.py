from __future__ import annotations

import dataclasses
import inspect
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from petseg.classes import IGNORED
from petseg.data import coloring, warping
from petseg.data.augmentation import Augmentation, augment

GEOMETRY_ONLY = Augmentation(
    zoom=1.6, shrink=1.3, stretch=1.2, rotation=20, brightness=0, contrast=0, saturation=0
)
ALL = Augmentation(
    **dict.fromkeys(("zoom", "shrink", "stretch", "gamma"), 1.4),
    **dict.fromkeys(("rotation", "hue"), 20.0),
    **dict.fromkeys(("greyscale", "blur", "sharpen", "cutout", "cutmix"), 0.5),
)


def sample(height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    """A photo in which each class has one grey value: 0 black, 1 grey, 2 white."""
    y, x = np.mgrid[:height, :width]
    trimap = ((x * 3 // width + y * 2 // height) % 3).astype(np.uint8)
    return np.repeat(trimap[..., None] * np.uint8(120), 3, axis=2), trimap


@given(st.integers(20, 90), st.integers(20, 90), st.integers(0, 2**32 - 1))
def test_photo_and_mask_are_cut_and_mirrored_alike(height: int, width: int, seed: int) -> None:
    image, trimap = sample(height, width)
    pixels, ids = augment(image, trimap, 64, GEOMETRY_ONLY, np.random.default_rng(seed))
    assert (pixels.shape, pixels.dtype) == ((64, 64, 3), np.uint8)
    assert (ids.shape, ids.dtype) == ((64, 64), np.uint8)
    # They may differ only where the photo's edges are smooth.
    same = np.abs(pixels[..., 0].astype(int) - ids * 120) < 60
    assert same.mean() > 0.9


def test_half_of_the_samples_are_mirrored() -> None:
    image, trimap = sample(64, 64)
    image[:, :32], image[:, 32:] = 0, 255
    how = Augmentation(zoom=1, brightness=0, contrast=0, saturation=0)
    random = np.random.default_rng(0)
    left = [augment(image, trimap, 64, how, random)[0][0, 0, 0] for _ in range(200)]
    assert set(left) == {0, 255}
    assert 70 < left.count(255) < 130
    still = Augmentation(flip=False, zoom=1, brightness=0, contrast=0, saturation=0)
    found, ids = augment(image, trimap, 64, still, random)
    np.testing.assert_array_equal(found, image)
    np.testing.assert_array_equal(ids, trimap)


@given(st.integers(0, 2**32 - 1))
def test_colours_stay_within_their_ranges(seed: int) -> None:
    image = np.full((8, 8, 3), 128, np.uint8)
    how = Augmentation(brightness=0.1, contrast=0, saturation=0)
    pixels, _ = augment(image, image[..., 0], 8, how, np.random.default_rng(seed))
    assert np.ptp(pixels) == 0
    assert abs(int(pixels[0, 0, 0]) - 128) <= 26


def test_the_seed_decides() -> None:
    image, trimap = sample(50, 70)
    first, again, other = (
        augment(image, trimap, 32, ALL, np.random.default_rng(seed))[0] for seed in (1, 1, 2)
    )
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()


def test_every_range_is_drawn_from() -> None:
    random = np.random.default_rng(0)
    image = random.integers(0, 256, (64, 64, 3), np.uint8)
    still = Augmentation(flip=False, zoom=1, brightness=0, contrast=0, saturation=0)
    for name in (
        "zoom",
        "shrink",
        "stretch",
        "rotation",
        "brightness",
        "contrast",
        "gamma",
        "saturation",
        "hue",
        "greyscale",
        "blur",
        "sharpen",
        "cutout",
    ):
        how = dataclasses.replace(still, **{name: getattr(ALL, name)})
        changed = [
            bool((augment(image, image[..., 0], 64, how, random)[0] != image).any())
            for _ in range(40)
        ]
        # Some are done to a third or a half of the samples.
        assert sum(changed) > 5, name
        if name in ("greyscale", "blur", "sharpen", "cutout"):
            assert sum(changed) < 32, name


@pytest.mark.parametrize("how", [GEOMETRY_ONLY, ALL, dataclasses.replace(ALL, shrink=1.0)])
def test_ranges_are_kept_and_used(how: Augmentation, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the changes are asked for reaches from one end of each range to the other."""
    asked: dict[str, list[float]] = {}

    def watch(module: ModuleType, name: str, *names: str) -> None:
        real = getattr(module, name)

        def watching(*arguments: Any, **options: Any) -> Any:
            given = inspect.signature(real).bind(*arguments, **options).arguments
            for argument in names:
                asked.setdefault(f"{name} {argument}", []).append(given[argument])
            return real(*arguments, **options)

        monkeypatch.setattr(module, name, watching)

    watch(warping, "warp", "zoom", "stretch", "angle")
    watch(coloring, "change_tone", "gamma", "contrast", "brightness")
    watch(coloring, "change_chroma", "saturation", "hue")
    watch(coloring, "blur", "sigma")
    watch(coloring, "sharpen", "amount")
    image, trimap = sample(32, 32)
    random = np.random.default_rng(0)
    for _ in range(600):
        augment(image, trimap, 32, how, random)
    grey = asked["change_chroma saturation"].count(0.0)
    assert how.greyscale == pytest.approx(grey / 600, abs=0.07)
    asked["change_chroma saturation"] = [x for x in asked["change_chroma saturation"] if x]
    if how.blur:
        # Sharpening blurs, too, by one pixel.
        asked["blur sigma"] = [x for x in asked["blur sigma"] if x != 1]
    ranges = {
        "warp zoom": (1 / how.shrink, how.zoom),
        "warp stretch": (1 / how.stretch, how.stretch),
        "warp angle": (-how.rotation, how.rotation),
        "change_tone gamma": (1 / how.gamma, how.gamma),
        "change_tone contrast": (1 - how.contrast, 1 + how.contrast),
        "change_tone brightness": (-how.brightness, how.brightness),
        "change_chroma saturation": (1 - how.saturation, 1 + how.saturation),
        "change_chroma hue": (-how.hue, how.hue),
    }
    if how.blur:
        ranges |= {"blur sigma": (0.1, how.blur), "sharpen amount": (0, how.sharpen)}
    assert asked.keys() == ranges.keys()
    for name, (least, most) in ranges.items():
        margin = 0.05 * (most - least) + 1e-9
        assert least - 1e-9 <= min(asked[name]) <= least + margin, name
        assert most - margin <= max(asked[name]) <= most + 1e-9, name


def test_holes_are_not_asked_for() -> None:
    image, trimap = sample(64, 64)
    how = dataclasses.replace(GEOMETRY_ONLY, cutout=1.0)
    _, ids = augment(image, trimap, 64, how, np.random.default_rng(0))
    assert 0 < (ids == IGNORED).mean() < 0.2
    assert set(np.unique(ids)) <= {0, 1, 2, IGNORED}


def test_strength_narrows_every_range() -> None:
    assert ALL.times(1) == ALL
    half = ALL.times(0.5)
    assert (half.zoom, half.rotation, half.cutmix) == (pytest.approx(1.4**0.5), 10, 0.25)
    none = ALL.times(0)
    image, trimap = sample(64, 64)
    random = np.random.default_rng(0)
    shown = [augment(image, trimap, 64, none, random) for _ in range(20)]
    for pixels, ids in shown:
        mirrored = (ids != trimap).any()
        np.testing.assert_array_equal(ids[:, ::-1] if mirrored else ids, trimap)
        np.testing.assert_array_equal(pixels[:, ::-1] if mirrored else pixels, image)


def test_ranges_are_checked() -> None:
    with pytest.raises(ValueError, match=r"zoom must be at least 1, not 0\.5"):
        Augmentation(zoom=0.5)
    with pytest.raises(ValueError, match=r"contrast must lie in 0\.\.1"):
        Augmentation(contrast=2)
    with pytest.raises(ValueError, match=r"hue must lie in 0\.\.180 degrees, not -1"):
        Augmentation(hue=-1)
    with pytest.raises(ValueError, match="blur cannot be negative: -1"):
        Augmentation(blur=-1)
