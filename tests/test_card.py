"""docs/card.py: its figures are those of the scores, and its pictures are there."""

from __future__ import annotations

import importlib
import json
import re
import shutil
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from batching import batch
from click.testing import CliRunner, Result
from PIL import Image

import petseg
from petseg.classes import PET_CLASSES, values_to_ids
from petseg.data import dataset
from petseg.photos import transforms
from petseg.planning.config import packaged
from petseg.scoring import evaluation, reliability
from petseg.scoring.folders import score_folders

DOCS = Path(__file__).parents[1] / "docs"
LIST = "annotations/trainval.txt"


@pytest.fixture(scope="module")
def masks(pets: Path, tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("card") / "masks"
    batch(pets / "images", folder, tiny_model)
    return folder


@pytest.fixture
def card(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(DOCS))
    return importlib.import_module("card")


def run(card: ModuleType, data: Path, masks: Path, *options: str | Path) -> Result:
    arguments = [data, masks, "--list", data / LIST, "--provider", "cpu", *options]
    return CliRunner().invoke(card.main, [str(argument) for argument in arguments])


def test_the_figures(
    card: ModuleType, pets: Path, masks: Path, tiny_model: Path, tmp_path: Path
) -> None:
    out = tmp_path / "worst"
    done = run(card, pets, masks, "--model", tiny_model, "--out", out, "--json")
    assert done.exit_code == 0, done.output
    found = json.loads(done.stdout)
    trimaps = pets / dataset.TRIMAPS
    names = dataset.read_list(pets / LIST)
    assert found["images"] == len(names) == 24

    everything = score_folders(masks, trimaps)
    rows = 100 * evaluation.row_shares(everything.confusion)
    np.testing.assert_allclose(found["confusion_percent"], rows)
    assert f"| pet | {rows[0, 0]:.1f} | {rows[0, 1]:.1f} | {rows[0, 2]:.1f} |" in done.stderr

    named = dataset.name_breeds(pets, names)
    assert {item["breed"] for item in found["breeds"]} == set(named) == set(named) - {None}
    for item in found["breeds"]:
        of_breed = [
            name for name, breed in zip(names, named, strict=True) if breed == item["breed"]
        ]
        own = score_folders(masks, trimaps, of_breed)
        assert (item["images"], item["mean_iou"]) == (8, own.scores.mean_iou)
        assert f"| {item['breed']} | 8 | {own.scores.pixel_accuracy:.4f} |" in done.stderr

    scored = {name: score_folders(masks, trimaps, [name]).scores.mean_iou for name in names}
    assert [item["mean_iou"] for item in found["worst"]] == sorted(scored.values())[:20]
    for place, item in enumerate(found["worst"], start=1):
        assert item["mean_iou"] == scored[item["name"]]
        assert f"| `{item['name']}` | {item['pixel_accuracy']:.4f} |" in done.stderr
        with Image.open(out / f"{place:02}-{item['name']}.png") as picture:
            colors = {color for _, color in picture.convert("RGB").getcolors(1 << 24) or ()}
            assert {item.color for item in PET_CLASSES} <= colors
    assert len(list(out.iterdir())) == 20

    counts = np.zeros((256, 2), np.int64)
    table = values_to_ids(PET_CLASSES)
    for name in names:
        photo, truth = dataset.read_sample(pets, name, table)
        result = petseg.segment(photo, tiny_model, "cpu")
        counts += reliability.count(result.probabilities, transforms.trimap_to_model(truth, 64))
    expected = reliability.bins(counts)
    own = found["calibration"]
    assert (own["images"], own["pixels"], own["size"]) == (24, 24 * 64 * 64, 64)
    assert own["expected_error"] == pytest.approx(reliability.expected_error(expected))
    assert [item["pixels"] for item in own["bins"]] == [item.pixels for item in expected]

    house = petseg.segment(importlib.import_module("demo").drawn_house(), tiny_model, "cpu")
    shares = found["without_pets"]
    assert shares["a drawn house on a lawn"] == house.foreground.mean()
    assert len(shares) == 2 + len(card.WITHOUT_PETS)


def test_the_section_is_markdown_whose_command_is_one(
    card: ModuleType, pets: Path, masks: Path, tiny_model: Path
) -> None:
    done = run(card, pets, masks, "--model", tiny_model, "--limit", "3", "--worst", "2")
    assert done.exit_code == 0, done.output
    for heading in ("In detail", "Confusion", "Breeds", "Calibration", "The worst 2"):
        assert re.search(rf"^##+ {heading}$", done.stdout, re.MULTILINE), heading
    tables = re.findall(r"(?:^\|.*\n)+", done.stdout, re.MULTILINE)
    assert len(tables) == 5
    for table in tables:
        head, line, *rows = table.splitlines()
        assert rows
        assert {row.count("|") for row in (head, line, *rows)} == {head.count("|")}
    assert f"{3 * 64 * 64:,} pixels of 3 of these images" in done.stdout
    (command,) = re.findall(r"^ {4}python docs/card\.py (.*)$", done.stdout, re.MULTILINE)
    words = command.replace("DATA", str(pets)).replace("masks", str(masks)).split()
    assert card.main.make_context("card", words).params["limit"] == 3


def test_masks_of_another_model_are_refused(card: ModuleType, pets: Path, masks: Path) -> None:
    done = run(card, pets, masks, "--model", packaged(), "--limit", "1")
    assert done.exit_code == 1
    assert "was made by another model than" in done.stderr


def test_a_photo_that_cannot_be_read_ends_it(
    card: ModuleType, pets: Path, masks: Path, tiny_model: Path, tmp_path: Path
) -> None:
    data = tmp_path / "pets"
    shutil.copytree(pets, data)
    (data / "images" / "pet_7.jpg").write_bytes(b"no photo")
    done = run(card, data, masks, "--model", tiny_model)
    assert done.exit_code == 1
    assert "pet_7.jpg" in done.stderr
