"""docs/own-data.md: its code makes a data set that training takes, and its commands work."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw

from petseg.classes import PET_CLASSES, values_to_ids
from petseg.data import dataset
from petseg.errors import ImageError

PAGE = Path(__file__).parents[1] / "docs" / "own-data.md"
COUNT, WIDTH, HEIGHT = 40, 120, 90
MODULES = {
    "petseg-train": "petseg.cli.train",
    "petseg-export": "petseg_export.cli",
    "petseg-batch": "petseg.cli.batch",
    "petseg-eval": "petseg.cli.eval",
}


def blocks(language: str) -> list[str]:
    """The page's blocks in this language."""
    return re.findall(rf"```{language}\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with photos/ of a warm disc and drawn/, where it is white."""
    random = np.random.default_rng(0)
    for folder in ("photos", "drawn"):
        (tmp_path / folder).mkdir()
    for number in range(COUNT):
        x, y = random.integers(30, 90), random.integers(25, 65)
        radius = int(random.integers(12, 25))
        disc = (x - radius, y - radius, x + radius, y + radius)
        photo = Image.new("RGB", (WIDTH, HEIGHT), tuple(random.integers(0, 120, 3).tolist()))
        ImageDraw.Draw(photo).ellipse(disc, fill=(230, 140, 60))
        photo.save(tmp_path / "photos" / f"pet {number}.{'webp' if number % 4 else 'jpg'}")
        drawn = Image.new("L", photo.size)
        ImageDraw.Draw(drawn).ellipse(disc, fill=255)
        drawn.save(tmp_path / "drawn" / f"pet {number}.png")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_masks_in_black_and_white_become_a_data_set(home: Path) -> None:
    (code,) = blocks("python")
    exec(code, {})
    split = dataset.split(home / "pets", "official", 0, None)
    test = dataset.read_list(home / "pets/annotations/test.txt")
    assert len(test) == COUNT // 5
    everything = {*split.train, *split.validation, *test}
    assert len(split.train) + len(split.validation) + len(test) == len(everything) == COUNT
    assert everything == {path.name for path in (home / "photos").iterdir()}
    for name in everything:
        photo, ids = dataset.read_sample(home / "pets", name, values_to_ids(PET_CLASSES))
        assert photo.shape[:2] == ids.shape == (HEIGHT, WIDTH)
        with Image.open(home / "drawn" / f"{dataset.stem(name)}.png") as image:
            white = np.asarray(image) > 127
        # The border is a pixel on either side of the edge, and nothing else changes.
        assert white[ids == 0].all()
        assert not white[ids == 1].any()
        beside = np.pad(white, 1, mode="edge")
        shifts = (beside[:-2, 1:-1], beside[2:, 1:-1], beside[1:-1, :-2], beside[1:-1, 2:])
        np.testing.assert_array_equal(ids == 2, np.any([part != white for part in shifts], axis=0))


def test_what_the_page_says_of_bad_trimaps(home: Path) -> None:
    (code,) = blocks("python")
    exec(code, {})
    table = values_to_ids(PET_CLASSES)
    trimap = home / "pets/annotations/trimaps/pet 0.png"
    with Image.open(trimap) as image:
        values = np.array(image)
    Image.fromarray(values - np.uint8(1)).save(trimap)
    with pytest.raises(ImageError, match="has the values"):
        dataset.read_sample(home / "pets", "pet 0.jpg", table)
    Image.fromarray(values[1:]).save(trimap)
    with pytest.raises(ImageError, match="120x90, its trimap 120x89"):
        dataset.read_sample(home / "pets", "pet 0.jpg", table)
    palette = Image.fromarray(values)
    palette.putpalette([0, 0, 0, 255, 0, 0])
    palette.save(trimap)
    with pytest.raises(ImageError, match="the mask cannot be read"):
        dataset.read_sample(home / "pets", "pet 0.jpg", table)


@pytest.mark.long
def test_the_commands_of_the_page(home: Path, tiny_model: Path) -> None:
    """One after the other, with a network small enough to train here."""
    (code,) = blocks("python")
    exec(code, {})
    shutil.copy(tiny_model, home / "model.onnx")
    programs = home / "bin"
    programs.mkdir()
    for name, module in MODULES.items():
        (programs / name).write_text(
            f"#!{sys.executable}\nfrom {module} import main\nif __name__ == '__main__': main()\n"
        )
        (programs / name).chmod(0o755)
    # The first is of other classes, which tests/test_end_to_end.py goes through.
    _, tune, scratch = blocks("sh")
    sizes = "petseg-train --filters 4,4,8,8,8 "
    environment = os.environ | {"PATH": f"{programs}:{os.environ['PATH']}"}
    scores: list[str] = []
    for block in (
        tune.replace("petseg-train ", f"{sizes}--size 64 "),
        scratch.replace("petseg-train ", f"{sizes}--size 32,64 --epochs 1,1 --out runs/scratch "),
    ):
        done = subprocess.run(
            ["sh", "-e", "-c", block], env=environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        scores += re.findall(r"^images +(\d+)$", done.stdout, re.MULTILINE)
    assert scores == [str(COUNT // 5)]
    split = json.loads((home / "runs/mine/split.json").read_text())
    assert not {*split["train"], *split["validation"]} & set(
        dataset.read_list(home / "pets/annotations/test.txt")
    )
    assert len(list((home / "masks").glob("*.png"))) == COUNT // 5
    assert (home / "runs/scratch/metrics.json").exists()
