"""`make demo`: its pictures, and the whole of it with a small model."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from PIL import Image

from petseg.classes import PET_CLASSES
from petseg.photos import imageio, sources

SCRIPT = Path(__file__).parents[1] / "docs" / "demo.py"


@pytest.fixture(scope="module")
def demo() -> ModuleType:
    spec = importlib.util.spec_from_file_location("demo", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _run(folder: Path, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(SCRIPT), *map(str, arguments)]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)


def test_every_picture_can_be_read_and_is_the_cat_upright(demo: ModuleType, tmp_path: Path) -> None:
    demo.draw(tmp_path)
    cat = np.asarray(demo.cat_photo()).astype(int)
    found = {source.name: source for source in sources.find(str(tmp_path))}
    assert all(source.is_image and source.problem is None for source in found.values())
    photos = {name: imageio.decode(Path(item.path).read_bytes()) for name, item in found.items()}
    assert len({photo.shape for photo in photos.values()}) >= 6
    for name in ("cat.jpg", *(f"turned/exif-{turn}.jpg" for turn in (3, 6, 8))):
        assert np.abs(photos[name] - cat).mean() < 4, name
    for turn in (6, 8):
        with Image.open(tmp_path / f"turned/exif-{turn}.jpg") as stored:
            assert stored.size == (cat.shape[0], cat.shape[1])
    assert np.abs(photos["colour/grey-16-bit.png"] - cat.mean(2)[..., None]).mean() < 12
    assert (photos["colour/transparent.png"][0, 0] == 255).all()


def test_pictures_that_are_there_are_left_alone(demo: ModuleType, tmp_path: Path) -> None:
    def times() -> dict[Path, int]:
        return {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*") if path.is_file()}

    demo.draw(tmp_path)
    before = times()
    demo.draw(tmp_path)
    assert times() == before


def test_the_demo_makes_a_mask_for_each_picture_and_can_run_twice(
    tiny_model: Path, tmp_path: Path
) -> None:
    for _ in range(2):
        done = _run(tmp_path, "--model", tiny_model)
        assert done.returncode == 0, done.stderr
        assert done.stdout.splitlines()[-1].startswith("Look at demo/look.png: ")
    masks = set()
    pictures = list(sources.find(str(tmp_path / "demo/images")))
    for source in pictures:
        photo = imageio.decode(Path(source.path).read_bytes())
        with Image.open((tmp_path / "demo/masks" / source.name).with_suffix(".png")) as mask:
            assert mask.size == (photo.shape[1], photo.shape[0])
            assert mask.mode == "L"
            assert set(np.unique(mask)) <= {item.value for item in PET_CLASSES}
            masks.add(mask.tobytes())
    assert len(pictures) == 16
    assert len(masks) >= 14  # the picture turned by a lossless half turn may equal another
    with Image.open(tmp_path / "demo/look.png") as picture:
        colors = {color for _, color in picture.getcolors(1 << 24) or ()}
    assert {item.color for item in PET_CLASSES} <= colors


def test_the_demo_with_a_folder_of_ones_own(
    demo: ModuleType, tiny_model: Path, tmp_path: Path
) -> None:
    own = tmp_path / "my photos"
    own.mkdir()
    demo.cat_photo().save(own / "a.jpg")
    (own / "broken.jpg").write_bytes((own / "a.jpg").read_bytes()[:2000])
    before = {path.name: path.read_bytes() for path in own.iterdir()}
    done = _run(tmp_path, own, "--model", tiny_model)
    assert done.returncode == 0, done.stderr
    assert "1 failed" in done.stderr
    assert "demo/look-my photos.png" in done.stdout
    assert (tmp_path / "demo/look-my photos.png").exists()
    assert (tmp_path / "demo/masks-my photos/a.png").exists()
    assert {path.name: path.read_bytes() for path in own.iterdir()} == before
    # A second run leaves finished masks alone.
    made = (tmp_path / "demo/masks-my photos/a.png").stat().st_mtime_ns
    assert _run(tmp_path, own, "--model", tiny_model).returncode == 0
    assert (tmp_path / "demo/masks-my photos/a.png").stat().st_mtime_ns == made


def test_the_demo_that_cannot_run_says_so(tiny_model: Path, tmp_path: Path) -> None:
    done = _run(tmp_path, tmp_path / "nowhere", "--model", tiny_model)
    assert done.returncode == 1
    assert "nowhere" in done.stderr
    assert "Look at" not in done.stdout
    assert not list(tmp_path.rglob("*.png"))
