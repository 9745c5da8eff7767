"""petseg-batch --shards: the masks of a run without it, packed, whatever ends the run."""

from __future__ import annotations

import io
import json
import os
import re
import shutil
import signal
import sys
import tarfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from batching import Result, batch, command, invoke, mask_bytes, picture, save_photos, tally, tree
from click.testing import CliRunner
from failing_disk import FULL, failing, remount, small_disk
from killing import PATIENCE_SECONDS, Scene, wait_for
from PIL import Image
from soak import colours

from petseg.batch.run import run_batch
from petseg.classes import PET_CLASSES
from petseg.cli.report import main as report_command
from petseg.errors import PetsegError
from petseg.masks import packs
from petseg.masks import reading as folder_of_masks
from petseg.masks.reading import MaskFile
from petseg.masks.record import Record
from petseg.masks.records import judge
from petseg.pages import gallery
from petseg.photos.shards import Shard
from petseg.planning.config import BatchConfig
from petseg.scoring.folders import score_folders
from petseg.system.temporary import host

COUNT, EACH = 40, 7

linux = pytest.mark.skipif(sys.platform != "linux", reason="processes, mounts and preloading")


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Scene:
    """Photos in two folders, and what a run without shards makes of them."""
    folder = tmp_path_factory.mktemp("scene")
    save_photos(folder / "images", COUNT - 3, 400, 500)
    for number, name in enumerate(("a/x.png", "a/b/x.png", f"{'long/' * 20}x.png")):
        (folder / "images" / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(picture(100 + number)).save(folder / "images" / name)
    model = colours.write_model(folder / "colours.onnx")
    batch(folder / "images", folder / "masks", model)
    masks = mask_bytes(folder / "masks")
    assert len(set(masks.values())) == COUNT
    return Scene(folder / "images", model, masks)


@dataclass(frozen=True)
class Packed:
    """What lies in a folder of shards, as Python's tarfile reads it."""

    masks: dict[str, bytes]
    sizes: list[int]


def unpack(masks: Path) -> Packed:
    """All shards; there must be nothing else but petseg's own folder."""
    found: dict[str, bytes] = {}
    sizes = []
    for path in sorted(masks.iterdir()):
        if path.is_dir():
            assert path.name == "petseg" or not any(path.iterdir())
            continue
        with tarfile.open(path, "r:") as tar:
            members = tar.getmembers()
            sizes.append(len(members))
            for member in members:
                file = tar.extractfile(member)
                assert file is not None
                found[member.name] = file.read()
    return Packed(found, sizes)


def webdataset_key(name: str) -> tuple[str, str]:
    """A sample's key and what the member is of it, as WebDataset's `base_plus_ext` splits names."""
    match = re.fullmatch(r"((?:.*/|)[^.]+)[.]([^/]*)", name)
    assert match is not None
    return match[1], match[2]


def there(masks: Path) -> int:
    return len(packs.index(masks))


def record_of(mask: bytes) -> Record:
    found = judge(mask)[1]
    assert found is not None
    return found


def test_the_masks_are_those_of_a_run_without(scene: Scene, tmp_path: Path) -> None:
    masks = tmp_path / "masks"
    options = ("--model", scene.model, "--shards", str(EACH), "--workers", "2", "--json")
    found = invoke(scene.images, masks, *options)
    assert found.code == 0, found.err
    assert found.counts["done"] == COUNT
    packed = unpack(masks)
    assert packed.masks == scene.undisturbed
    assert packed.sizes == [EACH] * (COUNT // EACH) + [COUNT % EACH]
    assert [path.name for path in (masks / "petseg").iterdir()] == ["stats.json"]
    assert json.loads((masks / "petseg" / "stats.json").read_text()) == found.stats
    # Samples have the photos' names.
    photos = (path.relative_to(scene.images) for path in scene.images.rglob("*.png"))
    keys = [key for key, suffix in map(webdataset_key, packed.masks) if suffix == "png"]
    assert sorted(keys) == sorted(name.with_suffix("").as_posix() for name in photos)
    # Again: nothing is to be done, and nothing is touched but the stats.
    before = tree(masks)
    assert invoke(scene.images, masks, *options).counts["skipped"] == COUNT
    changed = {path for path, found in tree(masks).items() if before.get(path) != found}
    assert changed <= {str(masks / "petseg"), str(masks / "petseg" / "stats.json")}


def test_photos_from_shards_give_shards(scene: Scene, tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    for number in range(2):
        with tarfile.open(tmp_path / "photos" / f"shard-{number:03}.tar", "w") as tar:
            for name in ("000.png", "001.png"):
                tar.add(scene.images / name, name)
    report = batch(f"{tmp_path}/photos/*.tar", tmp_path / "masks", scene.model, shards=3)
    assert tally(report) == (4, 0, 0, 0, 0)
    packed = unpack(tmp_path / "masks")
    assert packed.sizes == [3, 1]
    assert set(packed.masks) == {f"shard-00{n}/00{k}.png" for n in range(2) for k in range(2)}
    with pytest.raises(PetsegError, match="finds shards of masks"):
        batch(f"{tmp_path}/*/*.tar", tmp_path / "masks", scene.model, shards=3)


def test_a_photo_that_changed_is_done_again(scene: Scene, tmp_path: Path) -> None:
    images, masks = tmp_path / "images", tmp_path / "masks"
    images.mkdir()
    for name in ("000.png", "001.png", "002.png"):
        shutil.copy2(scene.images / name, images / name)
    batch(images, masks, scene.model, shards=2)
    shutil.copy(images / "002.png", images / "000.png")
    assert tally(batch(images, masks, scene.model, shards=2)) == (1, 2, 0, 0, 0)
    packed = unpack(masks)
    assert packed.sizes == [2, 1, 1]
    changed = record_of(packed.masks["000.png"])
    assert changed.pixels_sha256 == record_of(packed.masks["002.png"]).pixels_sha256
    assert tally(batch(images, masks, scene.model, shards=2)) == (0, 3, 0, 0, 0)
    assert tally(batch(images, masks, scene.model, shards=2, redo=True)) == (3, 0, 0, 0, 0)
    assert unpack(masks).sizes == [2, 1, 1, 2, 1]
    with pytest.raises(PetsegError, match="another model or with other options"):
        batch(images, masks, scene.model, shards=2, size="model")


def test_single_files_come_first(scene: Scene, tmp_path: Path) -> None:
    """Petseg's own are done; a person's are kept, whenever they come."""
    masks = tmp_path / "masks"
    (masks / "a").mkdir(parents=True)
    (masks / "000.png").write_bytes(scene.undisturbed["000.png"])
    (masks / "001.png").write_bytes(scene.undisturbed["001.png"][:-20])
    (masks / "a" / "x.png").write_bytes(b"mine")
    report = batch(scene.images, masks, scene.model, shards=COUNT)
    assert tally(report) == (COUNT - 2, 2, 0, 0, 0)
    assert report.counts.kept == 1
    # The one that was cut off is nobody's, and gone.
    loose = {"000.png": scene.undisturbed["000.png"], "a/x.png": b"mine"}
    packed = masks / packs.tar_name(0)
    assert mask_bytes(masks) == loose | {packed.name: packed.read_bytes()}
    (masks / "002.png").write_bytes(b"mine, too")
    report = batch(scene.images, masks, scene.model, shards=COUNT, redo=True)
    assert (report.counts.done, report.counts.kept) == (COUNT - 2, 2)
    assert not (masks / "000.png").exists()
    assert (masks / "a" / "x.png").read_bytes() == b"mine"
    report = batch(scene.images, masks, scene.model, shards=COUNT, overwrite=True)
    assert tally(report) == (COUNT, 0, 0, 0, 0)
    assert unpack(masks).masks == scene.undisturbed


def test_single_files_that_stay_are_told_of(scene: Scene, tmp_path: Path) -> None:
    masks = tmp_path / "masks"
    said: list[str] = []

    def run(**options: Any) -> list[str]:
        said.clear()
        options = {
            "provider": "cpu",
            "report": False,
            "model": scene.model,
            "shards": COUNT,
        } | options
        run_batch(BatchConfig(str(scene.images), masks, **options), said.append)
        return [line for line in said if line.startswith("--shards packs masks as they are made")]

    masks.mkdir()
    for name in ("000.png", "001.png"):
        (masks / name).write_bytes(scene.undisturbed[name])
    assert len(run(limit=1)) == 1
    (line,) = run()
    assert "of the 3 skipped, 2 are single files and stay so; --redo" in line
    assert run(redo=True) == []
    # All of them are packed now.
    assert run() == []
    assert unpack(masks).masks == scene.undisturbed


def test_a_persons_mask_in_a_shard_is_kept(scene: Scene, tmp_path: Path) -> None:
    masks = tmp_path / "masks"
    masks.mkdir()
    buffer = io.BytesIO()
    Image.new("L", (500, 400), 2).save(buffer, "PNG")
    with tarfile.open(masks / packs.tar_name(0), "w") as tar:
        member = tarfile.TarInfo("000.png")
        member.size = len(buffer.getvalue())
        tar.addfile(member, io.BytesIO(buffer.getvalue()))
    report = batch(scene.images, masks, scene.model, shards=COUNT, redo=True)
    assert (report.counts.done, report.counts.kept) == (COUNT - 1, 1)
    assert unpack(masks).masks == scene.undisturbed | {"000.png": buffer.getvalue()}


def test_a_run_without_shards_does_not_begin_anew(scene: Scene, tmp_path: Path) -> None:
    masks = tmp_path / "masks"
    batch(scene.images, masks, scene.model, shards=COUNT)
    before = tree(masks)
    with pytest.raises(PetsegError, match="are in shards, tar files: add --shards"):
        batch(scene.images, masks, scene.model)
    with pytest.raises(PetsegError, match="are in shards, tar files: copy them"):
        batch(scene.images, f"file://{masks}", scene.model)
    assert tree(masks) == before


@pytest.mark.parametrize(
    ("options", "code", "words"),
    [
        (("--shards", "0"), 2, "0 is not in the range"),
        (("--shards", "5", "--format", "color"), 1, "unpacked into a folder (tar -xf)"),
        (("--shards", "5", "--engine", "ray"), 1, "--shard K/N --shards COUNT instead"),
    ],
)
def test_what_does_not_go_together(
    options: tuple[str, ...], code: int, words: str, scene: Scene, tmp_path: Path
) -> None:
    found = invoke(scene.images, tmp_path / "masks", "--model", scene.model, *options)
    assert found.code == code
    assert words in found.err
    assert not (tmp_path / "masks").exists()
    found = invoke(scene.images, "memory://b/masks", "--model", scene.model, "--shards", "5")
    assert found.code == 1
    assert "name a folder, and copy it there" in found.err


def test_a_dry_run_touches_nothing(scene: Scene, tmp_path: Path) -> None:
    masks = tmp_path / "masks"
    batch(scene.images, masks, scene.model, shards=COUNT - 1)
    whole = masks / packs.tar_name(1)
    whole.rename(masks / packs.part_name(1, host(), "00000000"))
    before = tree(masks)
    report = batch(scene.images, masks, scene.model, shards=5, dry_run=True)
    assert report.counts.skipped == COUNT
    assert tree(masks) == before
    # Where there is nothing to be done, what was left is ended all the same.
    assert tally(batch(scene.images, masks, scene.model, shards=5)) == (0, COUNT, 0, 0, 0)
    assert unpack(masks).masks == scene.undisturbed


@linux
def test_kill_9_costs_what_was_in_flight(scene: Scene, tmp_path: Path) -> None:
    masks = tmp_path / "masks"
    options = ("--shards", str(EACH))
    for goal in (5, 20):
        process = scene.start(masks, *options)
        wait_for(lambda goal=goal: there(masks) >= goal, process)
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        found = packs.index(masks)
        assert goal <= len(found) < COUNT, "killed too late to show anything"
        for name, member in found.items():
            assert packs.read(member, 1 << 20) == scene.undisturbed[name]
        # As a machine without power may leave it.
        for pack in packs.find(masks):
            if pack.host is not None and goal > 5:
                os.truncate(pack.path, pack.path.stat().st_size - 100)
    done = there(masks)
    code, counts = scene.finish(masks, *options)
    assert code == 0
    assert counts | {"files": COUNT, "done": COUNT - done, "skipped": done} == counts
    packed = unpack(masks)
    assert packed.masks == scene.undisturbed
    # None of them twice.
    assert sum(packed.sizes) == COUNT
    assert set(packed.sizes[:-1]) == {EACH}
    assert sorted(path.name for path in (masks / "petseg").iterdir()) == ["stats.json"]


@linux
@pytest.mark.parametrize(
    ("number", "code"),
    [(signal.SIGTERM, 143), pytest.param(signal.SIGINT, 130, marks=pytest.mark.long)],
)
def test_a_signal_ends_the_shard(
    number: signal.Signals, code: int, scene: Scene, tmp_path: Path
) -> None:
    masks = tmp_path / "masks"
    process = scene.start(masks, "--shards", "1000", "--json", "--batch-size", "1")
    wait_for(lambda: there(masks) >= 3, process)
    os.killpg(process.pid, number)
    out, errors = process.communicate(timeout=PATIENCE_SECONDS)
    assert process.returncode == code, errors
    counts = json.loads(out)["counts"]
    packed = unpack(masks)
    assert packed.sizes == [counts["done"]]
    assert packed.masks.items() < scene.undisturbed.items()


@linux
@pytest.mark.parametrize(
    "shards",
    [
        pytest.param(False, id="the same photos"),
        pytest.param(True, id="a half each", marks=pytest.mark.long),
    ],
)
def test_two_runs_at_once(shards: bool, scene: Scene, tmp_path: Path) -> None:
    masks = tmp_path / "masks"
    runs = []
    for k in (1, 2):
        share = ("--shard", f"{k}/2") if shards else ()
        runs.append(scene.start(masks, "--shards", str(EACH), "--json", *share))
    done = 0
    for process in runs:
        out, errors = process.communicate(timeout=120)
        assert process.returncode == 0, errors
        done += json.loads(out)["counts"]["done"]
    packed = unpack(masks)
    assert packed.masks == scene.undisturbed
    assert sum(packed.sizes) == done
    assert done == COUNT if shards else COUNT <= done <= 2 * COUNT
    report = batch(scene.images, masks, scene.model, shards=EACH)
    assert tally(report) == (0, COUNT, 0, 0, 0)


def check_full(scene: Scene, masks: Path, result: Result) -> None:
    """It ended with a line that says why; then the same command makes the rest."""
    assert result.code == 1, result.err
    last = result.err.splitlines()[-1]
    assert last.startswith(f"error: cannot write {masks}/masks-00000"), result.err
    assert ".part: No space left on device; what is done stays valid" in last
    assert "Traceback" not in result.err
    found = packs.index(masks)
    assert 0 < len(found) < COUNT
    for name, member in found.items():
        assert packs.read(member, 1 << 20) == scene.undisturbed[name]
    for pack in packs.find(masks):
        # Cut back to what is whole.
        assert pack.host is None or pack.path.stat().st_size == packs.look(pack.path).end


@linux
def test_a_shard_that_cannot_be_written(scene: Scene, tmp_path: Path) -> None:
    masks = tmp_path / "masks"
    arguments = (scene.images, masks, "--model", scene.model, "--shards", str(EACH))
    result = command(*arguments, env=failing(f"{masks}/masks-", "write", FULL, 10))
    check_full(scene, masks, result)
    done = there(masks)
    report = batch(scene.images, masks, scene.model, shards=EACH)
    assert tally(report) == (COUNT - done, done, 0, 0, 0)
    assert unpack(masks).masks == scene.undisturbed
    assert sum(unpack(masks).sizes) == COUNT


@linux
@pytest.mark.long
def test_a_disk_that_is_full(scene: Scene, tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    with small_disk(disk, "size=60k"):
        masks = disk / "masks"
        arguments = (scene.images, masks, "--model", scene.model, "--shards", "1000")
        check_full(scene, masks, command(*arguments))
        remount(disk, "size=64m")
        done = there(masks)
        report = batch(scene.images, masks, scene.model, shards=1000)
        assert tally(report) == (COUNT - done, done, 0, 0, 0)
        assert unpack(masks).masks == scene.undisturbed


def test_all_that_reads_masks_reads_shards(scene: Scene, tmp_path: Path) -> None:
    loose, packed = tmp_path / "loose", tmp_path / "packed"
    options = {"formats": ("index", "coco"), "review_below": 1.0}
    batch(scene.images, loose, scene.model, **options)
    batch(scene.images, packed, scene.model, shards=EACH, **options)
    for name in ("coco/coco.json", "review.txt"):
        made = (packed / "petseg" / name).read_bytes()
        assert made == (loose / "petseg" / name).read_bytes()

    def told(folder: Path) -> list[MaskFile]:
        return list(folder_of_masks.read_all(folder, PET_CLASSES, {}, with_ids=False))

    assert [mask.name for mask in told(packed)] == [mask.name for mask in told(loose)]
    assert [mask.record for mask in told(packed)] == [mask.record for mask in told(loose)]
    one, other = (
        gallery.draw(told(where)[0], where, None, PET_CLASSES) for where in (packed, loose)
    )
    assert one is not None
    assert one == other
    scores = score_folders(packed, loose)
    assert scores.images == COUNT
    assert scores.confusion.sum() == scores.confusion.trace()
    # A single file comes first, and a part counts as far as it is whole.
    Image.new("L", (500, 400), 2).save(packed / "000.png")
    last = packed / packs.tar_name(COUNT // EACH)
    last.rename(packed / packs.part_name(COUNT // EACH, "other", "00000000"))
    by_name = {mask.name: mask for mask in told(packed)}
    assert len(by_name) == COUNT
    assert by_name["000.png"].by_person
    confusion = score_folders(packed, loose).confusion
    assert confusion.sum() > confusion.trace()
    done = CliRunner().invoke(report_command, [str(packed)])
    assert done.exit_code == 0, done.output
    assert (packed / "petseg" / "report.html").exists()
    last.write_bytes(b"x" * 1000)
    done = CliRunner().invoke(report_command, [str(packed)])
    assert done.exit_code == 1
    assert "is damaged" in done.output


def test_shards_of_shards(scene: Scene, tmp_path: Path) -> None:
    """Each part's tar files lie beside the others', and each part's stats have their own name."""
    masks = tmp_path / "masks"
    counts = [
        batch(scene.images, masks, scene.model, shards=EACH, shard=Shard(k, 3)).counts.done
        for k in (1, 2, 3)
    ]
    assert sum(counts) == COUNT
    assert unpack(masks).masks == scene.undisturbed
    assert sorted(path.name for path in (masks / "petseg").iterdir()) == [
        f"stats-{k}-of-3.json" for k in (1, 2, 3)
    ]
