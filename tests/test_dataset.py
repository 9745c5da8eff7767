from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from petseg.classes import PET_CLASSES, values_to_ids
from petseg.data import dataset
from petseg.errors import DatasetError, ImageError

TABLE = values_to_ids(PET_CLASSES)


@pytest.fixture
def copied(pets: Path, tmp_path: Path) -> Path:
    shutil.copytree(pets, tmp_path / "pets")
    return tmp_path / "pets"


def test_oxfords_lists_are_read(tmp_path: Path) -> None:
    path = tmp_path / "list.txt"
    path.write_text("#Image CLASS-ID SPECIES BREED ID\nAbyssinian_1 1 1 1\n\nbeagle_2 5 2 1\n")
    assert dataset.read_list(path) == ["Abyssinian_1", "beagle_2"]
    path.write_text("# least first\na/x y.jpg\n./#z.WEBP\nplain.v2 1 1\n")
    assert dataset.read_list(path) == ["a/x y.jpg", "./#z.WEBP", "plain.v2"]
    path.write_text("# nothing\n")
    with pytest.raises(DatasetError, match="names no images"):
        dataset.read_list(path)
    path.write_bytes(b"a.jpg\nb\0.jpg\n")
    with pytest.raises(DatasetError, match="is no text"):
        dataset.read_list(path)
    with pytest.raises(DatasetError, match="cannot read the list"):
        dataset.read_list(tmp_path / "missing.txt")


@given(st.integers(0, 2**32 - 1))
def test_a_split_shares_nothing_and_loses_nothing(pets: Path, seed: int) -> None:
    for cut, count in ((dataset.split_article, 5), (dataset.split_official, 2)):
        split = cut(pets, seed)
        assert len(split.validation) == count
        assert sorted(split.train + split.validation) == sorted(f"pet_{i}" for i in range(24))
        assert cut(pets, seed) == split


@pytest.mark.parametrize("seed", range(5))
def test_a_photo_of_two_names_lies_in_one_part(copied: Path, seed: int) -> None:
    """As where a review list, which has paths, is joined with Oxford's."""
    path = copied / "annotations" / "trainval.txt"
    names = [f"pet_{index}" for index in range(24)]
    path.write_text("\n".join([*names, *(f"./{name}.jpg" for name in names[:12])]))
    split = dataset.split_official(copied, seed)
    assert sorted(split.train + split.validation) == sorted(names)


def test_a_list_that_begins_with_a_byte_order_mark(copied: Path) -> None:
    for name in ("list.txt", "trainval.txt"):
        path = copied / "annotations" / name
        lines = path.read_text().splitlines()[1:]
        path.write_text("\n".join(lines), encoding="utf-8-sig")
        assert dataset.read_list(path) == [line.split()[0] for line in lines]
    assert sorted(dataset.read_breeds(copied)) == sorted(f"pet_{index}" for index in range(24))


def test_a_split_follows_the_seed_and_not_the_lists_order(copied: Path) -> None:
    split = dataset.split_official(copied, 1)
    assert split != dataset.split_official(copied, 2)
    path = copied / "annotations" / "trainval.txt"
    lines = path.read_text().splitlines()
    path.write_text("\n".join([*reversed(lines), lines[-1]]) + "\n")
    assert dataset.split_official(copied, 1) == split


def test_only_the_list_that_is_needed_has_to_be_there(copied: Path) -> None:
    (copied / "annotations" / "list.txt").unlink()
    assert len(dataset.split_official(copied, 0).train) == 22
    with pytest.raises(DatasetError, match=r"list\.txt, .*lists there: trainval\.txt"):
        dataset.split_article(copied, 0)


def test_another_layout_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=r"expected the folders .* found no images"):
        dataset.split_official(tmp_path, 0)


def test_one_image_cannot_be_split(copied: Path) -> None:
    (copied / "annotations" / "trainval.txt").write_text("pet_0\n")
    with pytest.raises(DatasetError, match="too few"):
        dataset.split_official(copied, 0)


def test_a_sample_is_photo_and_class_ids_of_one_size(pets: Path) -> None:
    image, ids = dataset.read_sample(pets, "pet_3", TABLE)
    assert image.shape == (*ids.shape, 3)
    assert sorted(np.unique(ids)) == [0, 1, 2]
    trimap = np.array(Image.open(pets / "annotations" / "trimaps" / "pet_3.png"))
    np.testing.assert_array_equal(ids, trimap - 1)


def test_a_sample_may_be_named_by_its_image(copied: Path) -> None:
    photo, trimap = dataset.read_sample(copied, "pet_0", TABLE)
    inner = copied / "images" / "a b"
    inner.mkdir()
    (copied / "annotations/trimaps/a b").mkdir()
    Image.fromarray(photo).save(inner / "x.y.png")
    Image.fromarray(trimap + np.uint8(1)).save(copied / "annotations/trimaps/a b/x.y.png")
    for name in ("pet_0.jpg", "./pet_0.jpg", "a b/x.y.png"):
        found = dataset.read_sample(copied, name, TABLE)
        np.testing.assert_array_equal(found[0], photo)
        np.testing.assert_array_equal(found[1], trimap)
    with pytest.raises(ImageError, match=r"cannot read .*pet_0\.jpeg: No such file"):
        dataset.read_sample(copied, "pet_0.jpeg", TABLE)


def test_what_is_wrong_with_a_sample_is_said(copied: Path) -> None:
    image, trimap = copied / "images" / "pet_0.jpg", copied / "annotations/trimaps/pet_0.png"
    Image.new("RGB", (8, 6)).save(image)
    with pytest.raises(ImageError, match="the photo is 8x6, its trimap"):
        dataset.read_sample(copied, "pet_0", TABLE)
    image.unlink()
    with pytest.raises(ImageError, match=r"cannot read .*pet_0\.jpg: No such file"):
        dataset.read_sample(copied, "pet_0", TABLE)
    Image.fromarray(np.array([[1, 2, 7]], np.uint8)).save(trimap)
    with pytest.raises(ImageError, match=r"values \[7\], expected \[1, 2, 3\]"):
        dataset.read_trimap(trimap, TABLE)
    Image.new("RGB", (8, 6)).save(trimap)
    with pytest.raises(ImageError, match="found mode RGB"):
        dataset.read_trimap(trimap, TABLE)
    Image.new("L", (800, 600)).save(trimap)
    trimap.write_bytes(trimap.read_bytes()[:80])
    with pytest.raises(ImageError, match=r"the mask cannot be read: .*truncated"):
        dataset.read_trimap(trimap, TABLE)


def test_the_hash_of_names_does_not_follow_their_order() -> None:
    assert dataset.hash_names(["a", "b"]) == dataset.hash_names(["b", "a"])
    assert dataset.hash_names(["a", "b"]) != dataset.hash_names(["ab"])


def test_breeds_are_the_lists_second_words(pets: Path) -> None:
    breeds = dataset.read_breeds(pets)
    assert [breeds[f"pet_{index}"] for index in range(4)] == [0, 1, 2, 0]
    table = dataset.breed_table(breeds, ["pet_5", "pet_0"])
    assert table.dtype == np.float32
    assert table.tolist() == [[0, 0, 1], [1, 0, 0]]
    with pytest.raises(DatasetError, match=r"1 training samples have no breed .* first is other"):
        dataset.breed_table(breeds, ["pet_5", "other"])


def test_without_breeds_it_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=r"cannot read breeds from .*--breed-weight 0"):
        dataset.read_breeds(tmp_path)
    (tmp_path / "annotations").mkdir()
    (tmp_path / "annotations" / "list.txt").write_text("# names\none 2\ntwo\n")
    with pytest.raises(DatasetError, match=r"list\.txt, line 3: expected .* found 'two'"):
        dataset.read_breeds(tmp_path)


def test_breeds_are_called_by_what_their_files_share(tmp_path: Path) -> None:
    (tmp_path / "annotations").mkdir()
    path = tmp_path / "annotations" / "list.txt"
    path.write_text(
        "#Image CLASS-ID SPECIES BREED ID\n"
        "Abyssinian_1 1 1 1\nAbyssinian_202 1 1 1\namerican_bulldog_10 2 2 1\n"
        # Two numbers share a word, one has two, one has none.
        "cat_1 3 1 1\ncat_2 4 1 1\npug_1 5 2 1\nmops_1 5 2 1\nrex 6 1 1\n"
    )
    names = ["Abyssinian_202", "american_bulldog_10", "cat_1", "cat_2", "pug_1", "rex", "new_1"]
    assert dataset.name_breeds(tmp_path, names) == [
        *("Abyssinian", "american_bulldog", "breed 3", "breed 4", "breed 5", "breed 6", None)
    ]
    # A list of paths, and none.
    path.write_text("a/x.jpg\n")
    assert dataset.name_breeds(tmp_path, ["a/x.jpg"]) == [None]
    path.unlink()
    assert dataset.name_breeds(tmp_path, ["a", "b"]) == [None, None]
