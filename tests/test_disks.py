"""Disks that are full, fail or may not be written to: a clear end, and the same command goes on."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
from batching import Result, batch, command, mask_bytes, read_mask, save_photos, tally
from failing_disk import BROKEN, FULL, QUOTA, READ_ONLY, failing, remount, small_disk
from soak import colours

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="mounts and preloading are Linux's")

COUNT, BAD = 24, 300
# Long enough that the list of those that fail is written while the run goes on.
LONG = "x" * 60
OPTIONS = ("--workers", "2", "--format", "color", "--format", "coco")


@dataclass(frozen=True)
class Scene:
    """Photos, some of which fail, and what an undisturbed run makes of them."""

    images: Path
    model: Path
    undisturbed: dict[str, bytes]
    beside: dict[str, bytes]

    def run(self, masks: Path, environment: dict[str, str] | None = None) -> Result:
        return command(self.images, masks, "--model", self.model, *OPTIONS, env=environment)

    def check_end(self, masks: Path, result: Result, words: str) -> None:
        """It ended with a line that says why, and every mask that is there is right."""
        assert result.code == 1, result.err
        last = result.err.splitlines()[-1]
        assert last.startswith("error: cannot write "), result.err
        assert words in last
        for ugly in ("Traceback", "Exception ignored", "Error:"):
            assert ugly not in result.err, result.err
        assert mask_bytes(masks).items() <= self.undisturbed.items()

    def check_goes_on(self, masks: Path) -> None:
        """The same command, where nothing fails any more, makes the rest."""
        before = {path: path.stat().st_mtime_ns for path in masks.glob("*.png")}
        report = batch(self.images, masks, self.model, formats=("color", "coco"))
        assert report.exit_code == 3
        assert tally(report) == (COUNT - len(before), len(before), BAD, 0, 0)
        assert {path: path.stat().st_mtime_ns for path in before} == before
        assert mask_bytes(masks) == self.undisturbed
        for name in ("color", "coco"):
            made = mask_bytes(masks / "petseg" / name)
            assert made == {key: data for key, data in self.beside.items() if key in made}
            assert len(made) == (1 if name == "coco" else COUNT)
        reserved = sorted(path.name for path in (masks / "petseg").iterdir())
        assert reserved == ["coco", "color", "failures.csv", "stats.json"]


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Scene:
    folder = tmp_path_factory.mktemp("disks")
    save_photos(folder / "images", COUNT, 90, 120)
    for number in range(BAD):
        (folder / "images" / f"bad-{LONG}-{number}.jpg").write_text("hello")
    model = colours.write_model(folder / "colours.onnx")
    batch(folder / "images", folder / "masks", model, formats=("color", "coco"))
    masks = mask_bytes(folder / "masks")
    assert len({read_mask(folder / "masks" / name).tobytes() for name in masks}) == COUNT
    made = folder / "masks" / "petseg"
    beside = mask_bytes(made / "color") | mask_bytes(made / "coco")
    return Scene(folder / "images", model, masks, beside)


@pytest.mark.parametrize(
    ("calls", "code", "after"),
    [
        ("open", READ_ONLY, 4),
        ("write", QUOTA, 5),
        ("write", BROKEN, 8),
        ("rename", FULL, 0),
        *(
            pytest.param(calls, code, after, marks=pytest.mark.long)
            for calls in ("mkdir", "open", "write", "rename")
            for code in (FULL, QUOTA, BROKEN, READ_ONLY)
            for after in (0, 1, 7)
            # Folders are few.
            if after < 4 or calls != "mkdir"
        ),
    ],
)
def test_masks_that_cannot_be_written(
    calls: str, code: int, after: int, scene: Scene, tmp_path: Path
) -> None:
    masks = tmp_path / "masks"
    result = scene.run(masks, failing(masks, calls, code, after))
    scene.check_end(masks, result, os.strerror(code))
    scene.check_goes_on(masks)


@pytest.mark.parametrize("name", ["stats.json", "failures.csv", "coco"])
@pytest.mark.parametrize(
    "code", [FULL, pytest.param(BROKEN, marks=pytest.mark.long)], ids=["full", "broken"]
)
def test_lists_and_tables_that_cannot_be_written(
    name: str, code: int, scene: Scene, tmp_path: Path
) -> None:
    masks = tmp_path / "masks"
    result = scene.run(masks, failing(name, "write", code, 0))
    scene.check_end(masks, result, os.strerror(code))
    assert ("the masks are in place" in result.err) == (name != "failures.csv")
    scene.check_goes_on(masks)


@pytest.mark.parametrize("options", ["size=120k", "nr_inodes=25"], ids=["no room", "no inodes"])
def test_a_disk_that_is_full(options: str, scene: Scene, tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    with small_disk(disk, options):
        result = scene.run(disk / "masks")
        scene.check_end(disk / "masks", result, "No space left on device")
        assert 0 < len(mask_bytes(disk / "masks")) < COUNT
        remount(disk, "size=64m,nr_inodes=1000")
        scene.check_goes_on(disk / "masks")


def test_a_disk_that_may_only_be_read(scene: Scene, tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    with small_disk(disk, "size=64m"):
        assert scene.run(disk / "masks").code == 3
        (disk / "masks" / "000.png").unlink()
        remount(disk, "ro")
        result = scene.run(disk / "masks")
        assert result.code == 1
        assert "is not writable" in result.err
        remount(disk, "rw")
        scene.check_goes_on(disk / "masks")
