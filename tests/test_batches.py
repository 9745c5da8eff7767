from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from petseg.augmentation import Augmentation
from petseg.batches import TrainingBatches
from petseg.classes import PET_CLASSES
from petseg.model import preprocess
from petseg.pixels import Prepared, prepare


@pytest.fixture(scope="module")
def samples(pets: Path, tmp_path_factory: pytest.TempPathFactory) -> Prepared:
    names = [f"pet_{index}" for index in range(22)]
    return prepare(pets, names, PET_CLASSES, 64, tmp_path_factory.mktemp("pixels"), "train")


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
