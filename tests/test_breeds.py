from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from petseg.classes import PET_CLASSES
from petseg.errors import DatasetError
from petseg.scoring import breeds, evaluation

RANDOM = np.random.default_rng(3)
CONFUSIONS = RANDOM.integers(0, 50, (5, 3, 3)) + 200 * np.eye(3, dtype=np.int64)
# The worst by far.
CONFUSIONS[3] = 100


def test_a_breed_scores_on_its_own_samples() -> None:
    found = breeds.score(CONFUSIONS, ["pug", "birman", None, "beagle", "pug"], PET_CLASSES)
    assert sorted(item.breed for item in found) == ["beagle", "birman", "pug"]
    assert found[0].breed == "beagle"
    assert [item.mean_iou for item in found] == sorted(item.mean_iou for item in found)
    assert found[0].mean_iou == pytest.approx(1 / 5)
    pug = next(item for item in found if item.breed == "pug")
    expected = evaluation.scores(CONFUSIONS[0] + CONFUSIONS[4], PET_CLASSES)
    assert (pug.images, pug.pixel_accuracy) == (2, expected.pixel_accuracy)
    assert (pug.mean_iou, pug.foreground_iou) == (expected.mean_iou, expected.foreground_iou)


def test_data_without_breeds_has_none() -> None:
    assert breeds.score(CONFUSIONS, [None] * 5, PET_CLASSES) == []


def test_the_file_holds_what_was_scored(tmp_path: Path) -> None:
    path = tmp_path / "breeds.csv"
    assert breeds.read(path) == []
    found = breeds.score(CONFUSIONS, ["pug", "b,c", "b,c", "beagle", "pug"], PET_CLASSES)
    breeds.write(path, found)
    assert breeds.read(path) == found
    table = pd.read_csv(path, index_col="breed")
    assert list(table.index) == [item.breed for item in found]
    assert table.loc["pug", "images"] == 2
    path.write_text("breed,images\npug,2\n")
    with pytest.raises(DatasetError, match=r"cannot read .*breeds\.csv"):
        breeds.read(path)
