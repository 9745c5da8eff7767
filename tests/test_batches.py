from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from petseg.classes import PET_CLASSES
from petseg.data.augmentation import Augmentation
from petseg.data.batches import TrainingBatches
from petseg.data.pixels import Prepared, prepare
from petseg.network.model import BREED, HEAD, preprocess


@pytest.fixture(scope="module")
def samples(pets: Path, tmp_path_factory: pytest.TempPathFactory) -> Prepared:
    names = [f"pet_{index}" for index in range(22)]
    return prepare(pets, {"train": names}, PET_CLASSES, 64, tmp_path_factory.mktemp("pixels"))[
        "train"
    ]


def test_an_epoch_shows_every_sample_at_most_once(samples: Prepared) -> None:
    batches = TrainingBatches(samples, 4, 64, None, (0, 0))
    assert len(batches) == 5
    shown = np.concatenate([batches[index][0] for index in range(5)])
    assert (shown.shape, shown.dtype) == ((20, 64, 64, 3), np.float32)
    expected = preprocess(samples.images)
    found = [int(np.abs(expected - image).sum(axis=(1, 2, 3)).argmin()) for image in shown]
    assert len(set(found)) == 20
    np.testing.assert_array_equal(shown, expected[found])
    trimaps = np.concatenate([batches[index][1] for index in range(5)])
    np.testing.assert_array_equal(trimaps, samples.trimaps[found])
    other = TrainingBatches(samples, 4, 64, None, (0, 1))
    assert list(other.order) != list(batches.order)


def test_a_batch_depends_on_seed_and_index_alone(samples: Prepared) -> None:
    first = TrainingBatches(samples, 4, 32, Augmentation(), (3, 1))
    again = TrainingBatches(samples, 4, 32, Augmentation(), (3, 1))
    forwards = [first[index][0] for index in range(5)]
    backwards = [again[index][0] for index in reversed(range(5))]
    np.testing.assert_array_equal(forwards, backwards[::-1])
    other = TrainingBatches(samples, 4, 32, Augmentation(), (3, 2))
    assert (other[0][0] != first[0][0]).any()


EVERYTHING = Augmentation(
    rotation=20, shrink=1.2, hue=10, blur=1, sharpen=1, cutout=0.5, cutmix=0.5
)


def test_the_number_of_threads_changes_nothing(samples: Prepared) -> None:
    alone = TrainingBatches(samples, 4, 32, EVERYTHING, (3, 1), workers=1)
    expected = [alone[index] for index in range(len(alone))]
    shared = TrainingBatches(samples, 4, 32, EVERYTHING, (3, 1), workers=4)
    with ThreadPoolExecutor(4) as threads:
        found = list(threads.map(shared.__getitem__, range(len(shared))))
    for (images, trimaps), (pixels, ids) in zip(found, expected, strict=True):
        np.testing.assert_array_equal(images, pixels)
        np.testing.assert_array_equal(trimaps, ids)


def test_several_passes_show_every_sample_several_times(samples: Prepared) -> None:
    batches = TrainingBatches(samples, 4, 64, None, (0, 0), passes=3)
    assert len(batches) == 3 * 22 // 4
    first, second, third = batches.order.reshape(3, 22)
    assert sorted(first) == sorted(second) == sorted(third) == list(range(22))
    assert list(first) != list(second)


def test_breeds_go_with_their_images(samples: Prepared) -> None:
    breeds = np.eye(22, dtype=np.float32)
    batches = TrainingBatches(samples, 4, 64, None, (0, 0), breeds=breeds)
    _, truth = batches[2]
    np.testing.assert_array_equal(truth[HEAD], samples.trimaps[batches.order[8:12]])
    np.testing.assert_array_equal(truth[BREED].argmax(axis=1), batches.order[8:12])
    mixed = TrainingBatches(samples, 4, 64, Augmentation(cutmix=1), (0, 0), breeds=breeds)
    rows = mixed[2][1][BREED]
    np.testing.assert_allclose(rows.sum(axis=1), 1, rtol=1e-6)
    for row, own, other in zip(rows, mixed.order[8:12], np.roll(mixed.order[8:12], 1), strict=True):
        assert set(np.flatnonzero(row)) == {own, other}
        assert 0.06 < row[other] < 0.57
