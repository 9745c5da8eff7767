"""What is told of a folder of masks, against the same from all of them at once."""

from __future__ import annotations

import dataclasses
import random
import shutil
from pathlib import Path

import numpy as np
import pytest
from batching import make_job, save_photos, write_mask
from PIL import Image

from petseg.classes import PET_CLASSES
from petseg.masks.reading import MaskFile, read_all
from petseg.pages.survey import SHOWN, Survey, foreground_share

COUNT = 30


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Thirty masks, of which two were made with another model, and one more that a person drew."""
    home = tmp_path_factory.mktemp("survey")
    job = make_job(home / "masks")
    other = dataclasses.replace(job, maker=dataclasses.replace(job.maker, model="cd" * 32))
    for number, name in enumerate(save_photos(home / "photos", COUNT, 20, 30)):
        write_mask(home / "photos" / name, name, other if number < 2 else job, seed=number)
    Image.fromarray(np.full((40, 10), 2, np.uint8)).save(job.masks / "drawn.png")
    shutil.rmtree(job.temporary)
    return job.masks


@pytest.fixture(scope="module")
def masks(folder: Path) -> list[MaskFile]:
    found = list(read_all(folder, PET_CLASSES, {}, with_ids=False))
    assert len(found) == COUNT + 1
    return found


def survey_of(masks: list[MaskFile]) -> Survey:
    survey = Survey(PET_CLASSES)
    for mask in masks:
        survey.add(mask)
    return survey


def test_counts(masks: list[MaskFile]) -> None:
    survey = survey_of(masks)
    assert (survey.masks, survey.by_person, survey.empty) == (COUNT + 1, 1, 1)
    assert survey.pixels == COUNT * 20 * 30 + 400
    assert len(survey.confidence) == len(survey.uncertain) == COUNT
    assert len(survey.areas) == COUNT + 1
    confidences = [mask.record.confidence for mask in masks if mask.record is not None]
    assert survey.confidence.mean == pytest.approx(np.mean(confidences))
    shares = [np.divide(mask.class_pixels, sum(mask.class_pixels)) for mask in masks]
    means = [histogram.mean for histogram in survey.class_areas]
    np.testing.assert_allclose(means, np.mean(shares, axis=0))
    assert survey.areas.mean == pytest.approx(means[0] + means[2])
    by = sorted((made.by, made.model[:2], count) for made, count in survey.makers.items())
    assert by == [("person", "", 1), ("petseg", "ab", COUNT - 2), ("petseg", "cd", 2)]


def test_the_masks_to_show(masks: list[MaskFile]) -> None:
    survey = survey_of(masks)

    def share(mask: MaskFile) -> float:
        return foreground_share(mask, PET_CLASSES)

    shares = sorted(map(share, masks))
    assert [*map(share, survey.smallest.masks)] == shares[:SHOWN]
    assert [*map(share, survey.largest.masks)] == shares[::-1][:SHOWN]
    confidences = sorted(mask.record.confidence for mask in masks if mask.record is not None)
    found = [mask.record.confidence for mask in survey.unsure.masks if mask.record is not None]
    assert found == confidences[:SHOWN]
    assert len({mask.name for mask in survey.random.masks}) == SHOWN


def test_the_order_does_not_matter(masks: list[MaskFile]) -> None:
    mixed = random.Random(0).sample(masks, len(masks))
    first, second = survey_of(masks), survey_of(mixed)
    for kind in ("random", "unsure", "smallest", "largest"):
        assert getattr(first, kind).masks == getattr(second, kind).masks
    assert first.written.as_dict() == second.written.as_dict()
    assert first.makers == second.makers


def test_pixels_are_let_go(folder: Path) -> None:
    survey = Survey(PET_CLASSES)
    for mask in read_all(folder, PET_CLASSES, {}, with_ids=True):
        assert mask.ids is not None
        survey.add(mask)
    assert all(mask.ids is None for mask in survey.random.masks)


def test_makers_are_bounded(masks: list[MaskFile]) -> None:
    record = masks[0].record
    assert record is not None
    survey = Survey(PET_CLASSES)
    for number in range(300):
        maker = dataclasses.replace(record.maker, model=f"{number:064x}")
        survey.add(dataclasses.replace(masks[0], record=dataclasses.replace(record, maker=maker)))
    assert len(survey.makers) == 101
    assert survey.makers.total() == 300
