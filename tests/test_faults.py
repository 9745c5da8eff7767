"""Every kind of fault in one folder, good photos between them: each costs itself and no more."""

from __future__ import annotations

import csv
import os
import re
import shutil
import sys
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from batching import (
    Pixels,
    batch,
    expected_mask,
    invoke,
    mask_bytes,
    picture,
    read_mask,
    tally,
    tree,
)
from fault_contents import contents
from fault_places import surroundings
from faults import MAX_PIXELS, SUFFIXES, every_format, no_images
from nobody import as_nobody, give
from PIL import Image

from petseg.batch.report import Report
from petseg.batch.run import run_batch
from petseg.engines.outcome import Outcome
from petseg.planning.config import BatchConfig

FAULTS = [*every_format(), *contents(), *no_images(), *surroundings()]
PHOTOS = [picture(seed, 30, 40) for seed in range(8)]


def home(number: int) -> str:
    """The folder that a fault has for itself and two good photos, one before and one behind it."""
    return f"{number:03}"


def good(number: int) -> dict[str, Pixels]:
    """Those two."""
    return {"!.bmp": PHOTOS[number % 8], "~.bmp": PHOTOS[(number + 5) % 8]}


@dataclass(frozen=True)
class Scene:
    """The one run, and what it told."""

    images: Path
    masks: Path
    model: Path
    report: Report
    failures: dict[str, str]
    kept: set[str]
    told: Counter[str]

    def again(self) -> Report:
        """The same once more."""
        return batch(self.images, self.masks, self.model, workers=2, max_pixels=MAX_PIXELS)


def rows(masks: Path, name: str) -> list[list[str]]:
    path = masks / "petseg" / name
    with path.open(newline="", encoding="utf-8", errors="surrogateescape") as file:
        return list(csv.reader(file))[1:]


@pytest.fixture(scope="module")
def scene(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Scene:
    images, masks = (tmp_path_factory.mktemp("faults") / name for name in ("images", "masks"))
    for number, fault in enumerate(FAULTS):
        folder = images / home(number)
        folder.mkdir(parents=True)
        for name, pixels in good(number).items():
            Image.fromarray(pixels).save(folder / name)
        fault.put(folder / fault.name)
        if fault.mask is not None:
            (masks / home(number)).mkdir(parents=True)
            fault.mask(masks / home(number) / "x.png")
    expected = [expected_mask(tiny_model, pixels) for pixels in PHOTOS]
    assert len({mask.tobytes() for mask in expected}) == len(PHOTOS)
    assert all(set(mask.ravel()) == {1, 2, 3} for mask in expected)
    told: Counter[str] = Counter()

    class Progress:
        def begin(self, todo: int, provider: str, skipped: int, failed: int) -> None:
            # Everything was looked at, nothing is begun.
            for number, fault in enumerate(FAULTS):
                if fault.then is not None:
                    fault.then(images / home(number) / fault.name)
                if fault.comes is not None:
                    (masks / home(number)).mkdir(parents=True)
                    fault.comes(masks / home(number) / "x.png")

        def count(self, outcome: Outcome) -> None:
            if outcome.status == "failed":
                told[f"failed: {outcome.work.name}: {outcome.problem}"] += 1

        def tick(self) -> None:
            pass

    config = BatchConfig(
        images=str(images),
        masks=masks,
        model=tiny_model,
        provider="cpu",
        workers=2,
        max_pixels=MAX_PIXELS,
    )
    report = run_batch(config, lambda line: told.update([line]), Progress())
    failures = rows(masks, "failures.csv")
    kept = rows(masks, "kept.csv")
    assert len({name for name, _ in failures}) == len(failures)
    return Scene(
        images,
        masks,
        tiny_model,
        report,
        dict(failures),
        {name for (name,) in kept},
        told,
    )


def count(outcome: str) -> int:
    return sum(fault.outcome == outcome for fault in FAULTS)


def test_there_are_many_kinds() -> None:
    assert len({fault.kind for fault in FAULTS}) >= 60
    # Each is named once in one format.
    named = Counter((fault.kind, fault.name) for fault in FAULTS)
    assert set(named.values()) == {1}, named.most_common(3)


@pytest.mark.skipif(
    sys.platform != "linux" or "HEIF" not in SUFFIXES,
    reason="without Linux's own files or HEIF there are fewer",
)
def test_the_page_says_how_many() -> None:
    page = (Path(__file__).parents[1] / "docs" / "reliability.md").read_text()
    kinds = len({fault.kind for fault in FAULTS})
    stated = re.findall(r"\| (\d+) kinds, (\d+) files \|", page)
    assert stated == [(str(kinds), str(len(FAULTS)))]


def test_the_counts_add_up(scene: Scene) -> None:
    done = count("done") + 2 * len(FAULTS)
    assert tally(scene.report) == (done, count("kept"), count("failed"), count("ignored"), 0)
    assert scene.report.counts.kept == count("kept")
    assert scene.report.exit_code == 3
    assert scene.report.worker_restarts == 0
    assert len(scene.failures) == count("failed")
    assert [path.name for path in (scene.masks / "petseg").glob("tmp-*")] == []


@pytest.mark.parametrize("number", range(len(FAULTS)), ids=map(str, FAULTS))
def test_fault(number: int, scene: Scene) -> None:
    fault = FAULTS[number]
    name = f"{home(number)}/{fault.name}"
    mask = scene.masks / f"{os.path.splitext(name)[0]}.png"  # noqa: PTH122 - Path.stem is another's
    if fault.outcome == "done":
        assert fault.pixels is not None
        found = read_mask(mask)
        assert found.shape == fault.pixels.shape[:2]
        np.testing.assert_array_equal(found, expected_mask(scene.model, fault.pixels))
    elif fault.outcome == "kept":
        assert mask.is_symlink() or mask.exists()
    else:
        assert not mask.is_symlink()
        assert not mask.exists()
    reason = scene.failures.get(name)
    assert (reason is not None) == (fault.outcome == "failed"), reason
    assert (f"{home(number)}/x.png" in scene.kept) == (fault.outcome == "kept")
    if reason is not None:
        assert fault.words
        assert fault.words in reason
        assert scene.told[f"failed: {name}: {reason}"] == 1
    for neighbour, pixels in good(number).items():
        beside = (scene.masks / home(number) / neighbour).with_suffix(".png")
        np.testing.assert_array_equal(read_mask(beside), expected_mask(scene.model, pixels))


def test_what_failed_is_tried_again_and_nothing_else_is(scene: Scene) -> None:
    lasting = {
        f"{home(number)}/{fault.name}": fault
        for number, fault in enumerate(FAULTS)
        if fault.outcome == "failed" and fault.then is None
    }
    before = mask_bytes(scene.masks)
    report = scene.again()
    assert report.counts.done == 0
    assert report.counts.skipped == count("done") + count("kept") + 2 * len(FAULTS)
    assert mask_bytes(scene.masks) == before
    again = dict(rows(scene.masks, "failures.csv"))
    assert {name: again[name] for name in lasting} == {
        name: scene.failures[name] for name in lasting
    }
    for name in again:
        path = scene.images / name
        shutil.rmtree(path) if path.is_dir() else path.unlink()
        Image.fromarray(PHOTOS[0]).save(path, "PNG")
    report = scene.again()
    assert report.counts.failed == 0
    assert report.counts.done == len(again)
    assert not (scene.masks / "petseg" / "failures.csv").exists()
    for name in lasting:
        mask = read_mask((scene.masks / name).with_suffix(".png"))
        np.testing.assert_array_equal(mask, expected_mask(scene.model, PHOTOS[0]))


@pytest.mark.parametrize(
    ("names", "advice"),
    [
        (("X.jpg", "x.png"), "; --names full, in a new folder, gives x.jpg.png"),
        (("a/caf\u00e9.jpg", "a/cafe\u0301.jpg"), "; rename them"),
        (
            ("caf\u00e9.jpg", "CAFE\u0301.png"),
            "; --names full, in a new folder, gives x.jpg.png",
        ),
    ],
    ids=["case", "Unicode form", "both"],
)
def test_names_that_meet_end_the_run_before_anything_is_written(
    names: tuple[str, str], advice: str, tmp_path: Path, tiny_model: Path
) -> None:
    for name in (*names, "other.png"):
        (tmp_path / "images" / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(PHOTOS[1]).save(tmp_path / "images" / name)
    if len([path for path in (tmp_path / "images").rglob("*") if path.is_file()]) < 3:
        pytest.skip("this file system takes these names for one")
    before = tree(tmp_path)
    found = invoke(tmp_path / "images", tmp_path / "masks", "--model", tiny_model)
    assert found.code == 1
    words = " and ".join(sorted(names))
    assert f"error: 1 mask names are claimed more than once: {words}{advice}" in found.err
    assert tree(tmp_path) == before


def test_what_may_not_be_read(tiny_model: Path, open_folder: Path) -> None:
    images, masks = open_folder / "images", open_folder / "masks"
    model = shutil.copy(tiny_model, open_folder / "model.onnx")
    for name in ("good", "secret", "closed/inner", "theirs", "hidden/inner", "other/inner"):
        (images / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(PHOTOS[1]).save(images / f"{name}.png")
    for folder in (masks, masks / "hidden"):
        folder.mkdir()
        give(folder)
    for secret in (masks / "theirs.png", masks / "hidden" / "inner.png"):
        Image.fromarray(PHOTOS[1]).save(secret)
        secret.chmod(0)
    for closed in (images / "secret.png", images / "closed", masks / "hidden"):
        closed.chmod(0)
    try:
        code, _, errors = as_nobody(
            open_folder, images, masks, "--model", model, "--review-below", "1"
        )
        failures, kept = rows(masks, "failures.csv"), rows(masks, "kept.csv")
    finally:
        for closed in (images / "closed", masks / "hidden"):
            closed.chmod(0o755)
    assert code == 3, errors
    assert "6 files: 2 done, 1 skipped, 3 failed, 0 ignored, 0 left" in errors
    assert kept == [["theirs.png"]]
    assert dict(failures) == {
        "closed/": "the folder cannot be read: Permission denied",
        "hidden/inner.png": "its mask cannot be looked at: Permission denied",
        "secret.png": "cannot be read: Permission denied",
    }
    for name, reason in failures:
        assert errors.count(f"failed: {name}: {reason}") == 1
    listed = (masks / "petseg" / "review.txt").read_text().splitlines()[1:]
    assert sorted(listed) == ["good.png", "other/inner.png"]
    for name in ("good.png", "other/inner.png"):
        found = read_mask(masks / name)
        np.testing.assert_array_equal(found, expected_mask(tiny_model, PHOTOS[1]))
