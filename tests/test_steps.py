"""What happens to one image: read and write, without a network between them."""

from __future__ import annotations

import dataclasses
import hashlib
import ntpath
import os
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from batching import MAKER, make_job, picture, read_mask, write_mask
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from petseg import steps
from petseg.errors import ImageError
from petseg.formats.catalog import PICTURES
from petseg.masks.record import Record
from petseg.masks.records import MaskState, hash_pixels, inspect
from petseg.masks.segmented import Segmented
from petseg.photos import imageio, transforms
from petseg.steps import Job, MaskKeptError


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    path = tmp_path / "photo.png"
    Image.fromarray(picture(1, 30, 44)).save(path)
    return path


@pytest.fixture
def job(tmp_path: Path) -> Job:
    return make_job(tmp_path / "masks")


def state(path: Path) -> tuple[MaskState, Record]:
    found, record = inspect(path)
    assert record is not None
    return found, record


def test_read_fills_the_networks_input(photo: Path, job: Job) -> None:
    pixels = np.zeros((16, 16, 3), np.uint8)
    os.utime(photo, ns=(5, 1_700_000_000_123_456_789))
    found = steps.read(str(photo), pixels, job.max_pixels)
    assert (found.height, found.width) == (30, 44)
    np.testing.assert_array_equal(pixels, transforms.to_model(picture(1, 30, 44), 16))
    data = photo.read_bytes()
    assert found.identity.size == len(data)
    assert found.identity.mtime_ns == 1_700_000_000_123_456_789
    assert found.identity.sha256 == hashlib.sha256(data).hexdigest()


def test_read_refuses(photo: Path, job: Job, tmp_path: Path) -> None:
    pixels = np.zeros((16, 16, 3), np.uint8)
    with pytest.raises(ImageError, match="cannot be read: No such file"):
        steps.read(str(tmp_path / "gone.png"), pixels, job.max_pixels)
    with pytest.raises(ImageError, match="cannot be read: not a regular file"):
        steps.read(str(tmp_path), pixels, job.max_pixels)
    with pytest.raises(ImageError, match="over the limit of 1319"):
        steps.read(str(photo), pixels, 1319)


def test_a_file_too_large_for_any_image_is_not_read(photo: Path) -> None:
    limit = imageio.max_bytes(100)
    os.truncate(photo, limit)
    assert steps.identify(str(photo), 100)[0].size == limit
    os.truncate(photo, limit + 1)
    words = f"is {limit + 1} bytes, over the limit of {limit} for images of 100 pixels; raise --max"
    with pytest.raises(ImageError, match=words):
        steps.identify(str(photo), 100)


def test_write_puts_a_mask_with_its_record(photo: Path, job: Job) -> None:
    write_mask(photo, "a/b/x.png", job, seed=3)
    mask = read_mask(job.masks / "a" / "b" / "x.png")
    probabilities = np.random.default_rng(3).integers(0, 256, (3, 16, 16), dtype=np.uint8)
    np.testing.assert_array_equal(mask, transforms.to_source(probabilities, 30, 44) + 1)
    found, record = state(job.masks / "a" / "b" / "x.png")
    assert found is MaskState.OURS
    assert record.maker == MAKER
    assert (record.provider, record.precision) == ("cpu", "float32")
    assert record.image.size == photo.stat().st_size
    assert record.class_pixels == tuple((mask == value).sum() for value in (1, 2, 3))
    assert sum(record.class_pixels) == 30 * 44
    assert record.pixels_sha256 == hash_pixels(mask)
    assert record.confidence == pytest.approx(probabilities.max(0).mean() / 255, abs=1e-4)
    assert list(job.temporary.iterdir()) == []


def test_the_batch_that_a_photo_was_computed_in_is_recorded(photo: Path, job: Job) -> None:
    write_mask(photo, "x.png", job)
    plain = (job.masks / "x.png").read_bytes()
    assert state(job.masks / "x.png")[1].padded is None
    assert b"padded" not in plain
    found = steps.read(str(photo), np.empty((16, 16, 3), np.uint8), job.max_pixels)
    probabilities = np.random.default_rng(1).integers(0, 256, (3, 16, 16), dtype=np.uint8)
    steps.write("x.png", found._replace(padded=32), probabilities, job)
    assert state(job.masks / "x.png")[1].padded == 32
    steps.write("x.png", found, probabilities, job)
    assert (job.masks / "x.png").read_bytes() == plain


def test_the_same_image_gives_the_same_bytes(photo: Path, job: Job) -> None:
    write_mask(photo, "x.png", job)
    first = (job.masks / "x.png").read_bytes()
    write_mask(photo, "x.png", job)
    assert (job.masks / "x.png").read_bytes() == first
    write_mask(photo, "x.png", job, seed=2)
    assert (job.masks / "x.png").read_bytes() != first


def test_masks_of_the_networks_size(photo: Path, job: Job) -> None:
    job = dataclasses.replace(job, maker=dataclasses.replace(MAKER, size="model"))
    write_mask(photo, "x.png", job, seed=3)
    probabilities = np.random.default_rng(3).integers(0, 256, (3, 16, 16), dtype=np.uint8)
    np.testing.assert_array_equal(read_mask(job.masks / "x.png"), probabilities.argmax(0) + 1)


def test_other_formats_lie_in_a_folder_each(photo: Path, job: Job) -> None:
    write_mask(photo, "a/x.jpg.png", dataclasses.replace(job, formats=("color",)))
    beside = job.masks / "petseg" / "color" / "a" / "x.jpg.png"
    with Image.open(beside) as image:
        assert image.mode == "P"
        np.testing.assert_array_equal(np.array(image), read_mask(job.masks / "a" / "x.jpg.png"))


def test_other_formats_never_belong_to_an_earlier_mask(photo: Path, job: Job) -> None:
    write_mask(photo, "x.png", dataclasses.replace(job, formats=("color",)))
    assert (job.masks / "petseg" / "color" / "x.png").exists()
    write_mask(photo, "x.png", job, seed=2)
    assert not (job.masks / "petseg" / "color" / "x.png").exists()


def test_somebodys_mask_that_appeared_meanwhile_is_kept(photo: Path, job: Job) -> None:
    theirs = job.masks / "x.png"
    theirs.parent.mkdir()
    Image.fromarray(np.ones((30, 44), np.uint8)).save(theirs)
    before = theirs.read_bytes()
    with pytest.raises(MaskKeptError, match=r"x\.png was not made by petseg"):
        write_mask(photo, "x.png", job)
    assert theirs.read_bytes() == before
    assert not (job.masks / "petseg").exists()
    write_mask(photo, "x.png", dataclasses.replace(job, replace_any=True))
    assert inspect(theirs)[0] is MaskState.OURS


def test_somebodys_mask_that_was_saved_while_ours_was_drawn_is_kept(
    photo: Path, job: Job, monkeypatch: pytest.MonkeyPatch
) -> None:
    theirs, overlay = job.masks / "x.png", PICTURES["overlay"]
    saved: list[bytes] = []

    def drawn(segmented: Segmented) -> bytes:
        theirs.parent.mkdir()
        Image.fromarray(np.ones((30, 44), np.uint8)).save(theirs)
        saved.append(theirs.read_bytes())
        return overlay.encode(segmented)

    monkeypatch.setitem(PICTURES, "overlay", dataclasses.replace(overlay, encode=drawn))
    with pytest.raises(MaskKeptError, match=r"x\.png was not made by petseg"):
        write_mask(photo, "x.png", dataclasses.replace(job, formats=("color", "overlay")))
    assert [theirs.read_bytes()] == saved
    assert not (job.masks / "petseg").exists()


def test_a_link_in_a_masks_place_is_replaced_not_followed(photo: Path, job: Job) -> None:
    job.masks.mkdir()
    (job.masks / "x.png").symlink_to(photo)
    before = photo.read_bytes()
    write_mask(photo, "x.png", dataclasses.replace(job, replace_any=True))
    assert photo.read_bytes() == before
    assert not (job.masks / "x.png").is_symlink()


def test_a_mask_that_cannot_be_put_leaves_nothing(photo: Path, job: Job) -> None:
    job.masks.mkdir()
    (job.masks / "a").write_text("a file where a folder is to be")
    with pytest.raises(OSError, match="a"):
        write_mask(photo, "a/x.png", job)
    assert [path.name for path in job.masks.iterdir()] == ["a"]


@pytest.mark.parametrize(
    ("name", "stem", "full"),
    [
        ("x.jpg", "x.png", "x.jpg.png"),
        ("a/b.c/x.tar.JPG", "a/b.c/x.tar.png", "a/b.c/x.tar.JPG.png"),
        ("a.b/x", "a.b/x.png", "a.b/x.png"),
        (".jpg", ".jpg.png", ".jpg.png"),
        ("..png", "..png.png", "..png.png"),
        ("x.png", "x.png", "x.png.png"),
    ],
)
def test_mask_names(name: str, stem: str, full: str) -> None:
    assert steps.mask_name(name, "stem") == stem
    assert steps.mask_name(name, "full") == full


# File names as Linux has them: any bytes but "/" and NUL, not "." nor "..".
file_names = (
    st.binary(min_size=1, max_size=20)
    .map(
        lambda data: (
            data.replace(b"/", b"-").replace(b"\x00", b"0").decode("utf-8", "surrogateescape")
        )
    )
    .filter(lambda name: name not in {".", ".."})
)
paths = st.lists(file_names, min_size=1, max_size=4).map("/".join)


@given(paths, st.sampled_from(["stem", "full"]))
def test_masks_stay_inside_their_folder(name: str, names: str) -> None:
    found = steps.mask_name(name, names)
    folder = Path("/masks")
    inside = Path(os.path.normpath(folder / found))
    assert folder in inside.parents
    assert inside == folder / found
    assert found.rpartition("/")[0] == name.rpartition("/")[0]
    assert found.endswith(".png")
    beside = steps.extra_path(folder, PICTURES["color"], found)
    assert folder / "petseg" / "color" in Path(os.path.normpath(beside)).parents


@given(paths, paths)
def test_full_names_never_meet(one: str, other: str) -> None:
    meet = steps.mask_name(one, "full") == steps.mask_name(other, "full")
    assert meet == (one == other)


@given(st.lists(st.text(st.sampled_from("ab. ~"), min_size=1, max_size=5), min_size=1))
def test_names_are_the_same_on_windows(parts: list[str]) -> None:
    name = "/".join(parts)
    here = [steps.mask_name(name, names) for names in ("stem", "full")]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(steps, "os", SimpleNamespace(path=ntpath))
        assert [steps.mask_name(name, names) for names in ("stem", "full")] == here
