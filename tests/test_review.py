"""The loop of docs/review.md: list the least certain masks, correct them, train on them."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from batching import batch, invoke, mask_bytes, picture, read_mask, save_photos, tally
from click.testing import CliRunner
from PIL import Image

from petseg.classes import PET_CLASSES, values_to_ids
from petseg.data import dataset
from petseg.masks import reading
from petseg.masks.records import inspect
from petseg.network import weights
from petseg.planning.config import packaged
from petseg.training.runs import RunFolder

PAGE = Path(__file__).parents[1] / "docs" / "review.md"
COUNT = 12


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tiny_model: Path) -> Path:
    """A folder with photos/ of three kinds and model.onnx, as the page has it."""
    save_photos(tmp_path / "drawn", COUNT)
    (tmp_path / "photos" / "a").mkdir(parents=True)
    for number in range(COUNT):
        folder = "a/" if number % 3 == 0 else ""
        ending = "jpg" if number % 2 else "png"
        image = Image.fromarray(picture(number))
        image.save(tmp_path / "photos" / f"{folder}pet {number}.{ending}", quality=95)
    shutil.copy(tiny_model, tmp_path / "model.onnx")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def confidences(folder: Path) -> dict[str, float]:
    """By photo."""
    found = reading.read_all(folder, PET_CLASSES, {}, with_ids=False)
    return {str(mask.photo): mask.record.confidence for mask in found if mask.record is not None}


def listed(home: Path) -> list[str]:
    lines = (home / "masks/petseg/review.txt").read_text().splitlines()
    assert lines[0].startswith("# confidence below ")
    return lines[1:]


def correct(path: Path) -> None:
    """What a person does: the upper half is pet."""
    pixels = read_mask(path)
    pixels[: len(pixels) // 2] = 1
    Image.fromarray(pixels).save(path)


def test_the_least_certain_come_first(home: Path, tiny_model: Path) -> None:
    batch(home / "photos", home / "masks", tiny_model, review_below=0.0)
    assert listed(home) == []
    found = confidences(home / "masks")
    assert len(found) == COUNT
    middle = float(np.median([*found.values()]))
    batch(home / "photos", home / "masks", tiny_model, review_below=middle)
    worst = [name for name in sorted(found, key=lambda name: found[name]) if found[name] < middle]
    assert len(worst) == COUNT // 2
    assert sorted(listed(home)) == sorted(worst)
    assert [found[name] for name in listed(home)] == sorted(found[name] for name in worst)


def test_the_list_is_one_for_every_command(home: Path, tiny_model: Path) -> None:
    for name in ("#first.png", " second.png"):
        Image.fromarray(picture(50 + len(name))).save(home / "photos" / name)
    Image.fromarray(picture(60)).save(home / "photos" / "line\nbreak.png")
    report = batch(home / "photos", home / "masks", tiny_model, review_below=1.0)
    assert "1 names with a line break cannot be listed there" in report.notes
    names = listed(home)
    assert len(names) == COUNT + 2
    assert {"./#first.png", "./ second.png"} <= set(names)
    review = home / "masks/petseg/review.txt"
    # petseg-batch --list
    report = batch(home / "photos", home / "again", tiny_model, list_file=review)
    assert tally(report) == (COUNT + 2, 0, 0, 0, 0)
    expected = mask_bytes(home / "masks")
    expected.pop("line\nbreak.png")
    assert mask_bytes(home / "again") == expected
    # the lists of a data set
    data = home / "data"
    (data / "annotations").mkdir(parents=True)
    (data / "images").symlink_to(home / "photos")
    (data / "annotations" / "trimaps").symlink_to(home / "masks")
    assert dataset.read_list(review) == names
    for name in names:
        photo, ids = dataset.read_sample(data, name, values_to_ids(PET_CLASSES))
        assert photo.shape[:2] == ids.shape
        place = masks_name(name)
        np.testing.assert_array_equal(ids + 1, read_mask(home / "masks" / place))


def masks_name(photo: str) -> str:
    return str(Path(photo).with_suffix(".png"))


def test_the_list_gets_shorter_as_masks_are_corrected(home: Path, tiny_model: Path) -> None:
    batch(home / "photos", home / "masks", tiny_model, review_below=1.0)
    first, *rest = listed(home)
    correct(home / "masks" / masks_name(first))
    report = batch(home / "photos", home / "masks", tiny_model, review_below=1.0)
    assert listed(home) == rest
    assert report.counts.kept == 1
    assert masks_name(first) in (home / "masks/petseg/kept.csv").read_text()


def test_the_option_of_the_command(home: Path) -> None:
    found = invoke("photos", "masks", "--review-below", "1", "--json")
    assert found.code == 0, found.err
    assert found.stats["options"]["review_below"] == 1
    assert f"{COUNT} masks to look at: see masks/petseg/review.txt" in found.err
    assert len(listed(home)) == COUNT
    wrong = invoke("photos", "masks", "--review-below", "80")
    assert (wrong.code, "--review-below" in wrong.err) == (2, True)


def blocks() -> list[str]:
    """The page's commands, a string a block."""
    return re.findall(r"```sh\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)


def as_processes(home: Path, block: str) -> None:
    """A block as somebody types it into a shell."""
    programs = home / "bin"
    programs.mkdir(exist_ok=True)
    for name, module in (
        ("petseg-batch", "petseg.cli.batch"),
        ("petseg-train", "petseg.cli.train"),
        ("petseg-export", "petseg_export.cli"),
    ):
        (programs / name).write_text(
            f"#!{sys.executable}\nfrom {module} import main\nif __name__ == '__main__': main()\n"
        )
        (programs / name).chmod(0o755)
    environment = os.environ | {"PATH": f"{programs}:{os.environ['PATH']}"}
    done = subprocess.run(
        ["sh", "-e", "-c", block], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def in_this_process(home: Path, block: str) -> None:
    """The same lines, petseg's commands among them without the seconds that each takes to start."""
    from petseg.cli import batch, train
    from petseg_export import cli as export

    programs = {
        "petseg-batch": (batch.main, ("--provider", "cpu", "--no-report")),
        "petseg-train": (train.main, ()),
        "petseg-export": (export.main, ()),
    }
    for line in block.splitlines():
        name, *arguments = shlex.split(line, comments=True)
        if name in programs:
            command, options = programs[name]
            done = CliRunner().invoke(command, [*arguments, *options])
            assert done.exit_code == 0, done.output
        else:
            subprocess.run(["sh", "-e", "-c", line], cwd=home, check=True)


@pytest.mark.parametrize(
    "execute", [in_this_process, pytest.param(as_processes, marks=pytest.mark.long)]
)
def test_the_whole_loop(home: Path, execute: Callable[[Path, str], None]) -> None:
    """The page's blocks, one after the other, with a network small enough to train here."""

    def run(block: str) -> None:
        # All masks are listed, and the tiny network's sizes are not the recipe's.
        block = block.replace("--review-below 0.85", "--review-below 1")
        block = block.replace("petseg-train ", "petseg-train --size 64 --filters 4,4,8,8,8 ")
        execute(home, block)

    first, keep, again, train, new_model = blocks()
    run(first)
    before = mask_bytes(home / "masks")
    assert len(listed(home)) == len(before) == COUNT
    run(keep)
    corrected = [masks_name(name) for name in listed(home)[:4]]
    for name in corrected:
        correct(home / "masks" / name)
    theirs = mask_bytes(home / "masks")
    run(again)
    assert len(listed(home)) == COUNT - 4
    with Image.open((home / "masks/petseg/overlay" / corrected[0]).with_suffix(".jpg")) as overlay:
        assert overlay.size == (128, 96)
    run(train)
    config = RunFolder(home / "runs/corrected").config()
    assert config.init == str(home / "model.onnx")
    assert (home / "runs/corrected/metrics.json").exists()
    names = (home / "runs/corrected/split.json").read_text()
    assert all(Path(name).stem in names for name in corrected)
    run(new_model)
    start, learnt = (weights.read_onnx(home / f"{n}.onnx")[1] for n in ("model", "corrected"))
    assert list(start) == list(learnt)
    for name, (kernel, _) in learnt.items():
        # The decoder has learnt, in small steps; the encoder is what it was.
        steps = np.abs(kernel - start[name][0]).max()
        assert steps == 0 if name.startswith("block") else 0 < steps < 1e-3, name
    after = mask_bytes(home / "masks")
    for name in after:
        if name in corrected:
            assert after[name] == theirs[name]
        else:
            _, record = inspect(home / "masks" / name)
            assert record is not None
            assert after[name] != before[name]


def test_the_model_in_the_package_is_tuned_by_the_pages_command(pets: Path, home: Path) -> None:
    """Its float16 weights, on a few small photos."""
    from petseg.cli import train

    (line,) = re.findall(r"^petseg-train (.*)$", PAGE.read_text(encoding="utf-8"), re.MULTILINE)
    line = line.replace("model.onnx", str(packaged())).replace("--epochs 3", "--epochs 1")
    shutil.copytree(pets, home / "data")
    done = CliRunner().invoke(train.main, [*shlex.split(line), "--size", "32", "--limit", "8"])
    assert done.exit_code == 0, done.output
    assert f"started from {packaged()}" in done.stderr
    kept = home / "runs/corrected/model.keras"
    assert kept.stat().st_size > 4 * 26_369_987
    kept.unlink()  # pytest would keep it


def test_how_a_few_dozen_are_split(tmp_path: Path) -> None:
    for folder in (dataset.IMAGES, dataset.TRIMAPS):
        (tmp_path / folder).mkdir(parents=True)
    found = re.search(r"few dozen, (\d+) say, (\d+) are trained on and (\d+)", PAGE.read_text())
    assert found is not None
    count, train, validation = map(int, found.groups())
    names = "".join(f"{number}.jpg\n" for number in range(count))
    (tmp_path / "annotations/list.txt").write_text(names)
    split = dataset.split(tmp_path, "article", 0, None)
    assert (len(split.train), len(split.validation)) == (train, validation)
