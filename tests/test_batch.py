"""run_batch as a whole: what is done, what is left alone, and that nothing depends on how."""

from __future__ import annotations

import csv
import json
import os
import shutil
from pathlib import Path

import numpy as np
import onnx
import pytest
from batching import (
    assert_masks,
    batch,
    expected_mask,
    mask_bytes,
    picture,
    read_mask,
    save_photos,
    tally,
    tree,
)
from PIL import Image

from petseg.errors import MissingPackageError, ModelError, PetsegError
from petseg.formats import catalog
from petseg.masks.records import MaskState, inspect
from petseg.modelfile import signature
from petseg.planning.config import BatchConfig

COUNT = 5


@pytest.fixture
def images(tmp_path: Path) -> Path:
    save_photos(tmp_path / "images", COUNT)
    return tmp_path / "images"


@pytest.fixture(scope="module")
def done(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with images and their masks, to be copied."""
    folder = tmp_path_factory.mktemp("done")
    save_photos(folder / "images", COUNT)
    assert tally(batch(folder / "images", folder / "masks", tiny_model)) == (COUNT, 0, 0, 0, 0)
    return folder


@pytest.fixture
def again(done: Path, tmp_path: Path) -> Path:
    """A copy of a finished run: images/ and masks/."""
    shutil.copytree(done, tmp_path, dirs_exist_ok=True)
    return tmp_path


@pytest.fixture(scope="module")
def other_model(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The model with its classes turned round."""
    model = onnx.load(tiny_model)
    bias = next(
        tensor
        for tensor in model.graph.initializer
        if tensor.name == signature.read(tiny_model).layers["head"][1]
    )
    values = onnx.numpy_helper.to_array(bias)
    bias.CopyFrom(onnx.numpy_helper.from_array(values + np.float32([2, -2, 0]), bias.name))
    found = signature.read(tiny_model)
    graph_hash = signature.hash_graph(model.graph.SerializeToString())
    text = signature.Signature(**{**vars(found), "graph_hash": graph_hash}).to_json()
    del model.metadata_props[:]
    model.metadata_props.add(key=signature.METADATA_KEY, value=text)
    path = tmp_path_factory.mktemp("other") / "other.onnx"
    path.write_bytes(model.SerializeToString())
    return path


def lines(path: Path) -> list[list[str]]:
    with path.open(newline="", encoding="utf-8", errors="surrogateescape") as file:
        return list(csv.reader(file))


def test_masks_are_right(tiny_model: Path, tmp_path: Path) -> None:
    photos = {f"{name}.png": picture(n, *size) for n, (name, size) in enumerate(SIZES.items())}
    for name, pixels in photos.items():
        (tmp_path / "images" / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(tmp_path / "images" / name)
    report = batch(tmp_path / "images", tmp_path / "masks", tiny_model)
    assert tally(report) == (len(SIZES), 0, 0, 0, 0)
    assert_masks(tiny_model, tmp_path / "masks", photos)
    assert report.pixels == sum(height * width for height, width in SIZES.values())
    # Five photos are too few to try every batch size on.
    assert "; still trying batch sizes)" in report.summary()
    assert report.as_dict()["batch_size_found"] is False


SIZES = {
    "smaller": (40, 50),
    "just-right": (64, 64),
    "a/wide": (60, 300),
    "a/b/high": (310, 70),
    "large": (700, 600),
}


def test_nothing_depends_on_batches_and_workers(tiny_model: Path, tmp_path: Path) -> None:
    images = tmp_path / "images"
    save_photos(images, 21, 40, 50)
    (images / "010.png").write_bytes(b"")
    found = {}
    for size, workers in ((1, 1), (2, 3), (4, 1), (8, 3), (3, 2)):
        masks = tmp_path / f"masks-{size}-{workers}"
        report = batch(images, masks, tiny_model, batch_size=size, workers=workers)
        assert tally(report) == (20, 0, 1, 0, 0)
        # What was given needs no trial.
        assert f"(batches of {size}, {workers} workers)" in report.summary()
        found[size, workers] = mask_bytes(masks)
    first, *others = found.values()
    # Of the pixels: each file's record would differ by the photo's hash alone.
    assert len({read_mask(masks / name).tobytes() for name in first}) == 20
    assert all(other == first for other in others)


def test_the_same_command_again_does_nothing(again: Path, tiny_model: Path) -> None:
    before = tree(again / "masks")
    report = batch(again / "images", again / "masks", tiny_model)
    assert tally(report) == (0, COUNT, 0, 0, 0)
    after = tree(again / "masks")
    for changing in ("petseg", "petseg/stats.json"):
        before.pop(str(again / "masks" / changing))
        after.pop(str(again / "masks" / changing))
    assert after == before


def test_only_what_changed_is_done_again(again: Path, tiny_model: Path) -> None:
    before = mask_bytes(again / "masks")
    Image.fromarray(picture(70)).save(again / "images" / "001.png")
    Image.fromarray(picture(71)).save(again / "images" / "new.png")
    (again / "masks" / "003.png").unlink()
    report = batch(again / "images", again / "masks", tiny_model)
    assert tally(report) == (3, COUNT - 2, 0, 0, 0)
    after = mask_bytes(again / "masks")
    assert {name for name in after if after[name] != before.get(name)} == {"001.png", "new.png"}
    assert_masks(tiny_model, again / "masks", {"001.png": picture(70), "new.png": picture(71)})


def test_another_model_does_nothing_without_being_told(
    again: Path, tiny_model: Path, other_model: Path
) -> None:
    before = tree(again)
    with pytest.raises(PetsegError, match=r"5 masks in .* made by another model.*--redo"):
        batch(again / "images", again / "masks", other_model)
    assert tree(again) == before
    masks = mask_bytes(again / "masks")
    report = batch(again / "images", again / "masks", other_model, redo=True)
    assert tally(report) == (COUNT, 0, 0, 0, 0)
    assert all(data != masks[name] for name, data in mask_bytes(again / "masks").items())
    for number in range(COUNT):
        np.testing.assert_array_equal(
            read_mask(again / "masks" / f"00{number}.png"),
            expected_mask(other_model, picture(number)),
        )
    # And back: the masks end up as they were.
    batch(again / "images", again / "masks", tiny_model, redo=True)
    assert mask_bytes(again / "masks") == masks


def test_other_options_do_nothing_without_being_told(again: Path, tiny_model: Path) -> None:
    before = tree(again)
    with pytest.raises(PetsegError, match="size: source, now model"):
        batch(again / "images", again / "masks", tiny_model, size="model")
    assert tree(again) == before
    report = batch(again / "images", again / "masks", tiny_model, size="model", redo=True)
    assert tally(report) == (COUNT, 0, 0, 0, 0)
    assert read_mask(again / "masks" / "000.png").shape == (64, 64)


@pytest.mark.parametrize("redo", [False, True])
def test_a_persons_work_is_never_overwritten(redo: bool, again: Path, tiny_model: Path) -> None:
    pixels = read_mask(again / "masks" / "001.png")
    pixels[:5] = 1
    Image.fromarray(pixels).save(again / "masks" / "001.png")
    Image.fromarray(pixels).save(again / "masks" / "new.png")
    Image.fromarray(picture(72)).save(again / "images" / "new.png")
    theirs = {name: mask_bytes(again / "masks")[name] for name in ("001.png", "new.png")}
    report = batch(again / "images", again / "masks", tiny_model, redo=redo)
    expected = (COUNT - 1, 2, 0, 0, 0) if redo else (0, COUNT + 1, 0, 0, 0)
    assert tally(report) == expected
    assert report.counts.kept == 2
    assert mask_bytes(again / "masks").items() >= theirs.items()
    assert lines(again / "masks" / "petseg" / "kept.csv") == [["mask"], ["001.png"], ["new.png"]]
    assert "2 masks kept" in report.summary()

    report = batch(again / "images", again / "masks", tiny_model, overwrite=True)
    assert tally(report) == (COUNT + 1, 0, 0, 0, 0)
    assert_masks(tiny_model, again / "masks", {"001.png": picture(1), "new.png": picture(72)})
    assert not (again / "masks" / "petseg" / "kept.csv").exists()


@pytest.mark.parametrize("share", [0.0, 0.02, 0.1, 0.6, 0.999])
def test_a_mask_that_was_cut_off_is_made_again(share: float, again: Path, tiny_model: Path) -> None:
    before = mask_bytes(again / "masks")
    whole = before["002.png"]
    (again / "masks" / "002.png").write_bytes(whole[: int(share * len(whole))])
    report = batch(again / "images", again / "masks", tiny_model)
    assert tally(report) == (1, COUNT - 1, 0, 0, 0)
    assert mask_bytes(again / "masks") == before


def test_verify_looks_at_content(again: Path, tiny_model: Path) -> None:
    # BMP files of one size have one length: nothing but the content tells them apart.
    photo = again / "images" / "plain.bmp"
    Image.fromarray(picture(75)).save(photo)
    assert tally(batch(again / "images", again / "masks", tiny_model))[0] == 1
    stamp = photo.stat().st_mtime_ns
    Image.fromarray(picture(76)).save(photo)
    os.utime(photo, ns=(stamp, stamp))
    os.utime(again / "images" / "003.png", ns=(0, 5))
    (again / "aside").mkdir()
    shutil.copytree(again / "masks", again / "aside", dirs_exist_ok=True)
    assert tally(batch(again / "images", again / "masks", tiny_model)) == (1, COUNT, 0, 0, 0)
    assert_masks(tiny_model, again / "masks", {"plain.png": picture(75), "003.png": picture(3)})
    report = batch(again / "images", again / "aside", tiny_model, verify=True)
    assert tally(report) == (1, COUNT, 0, 0, 0)
    assert_masks(tiny_model, again / "aside", {"plain.png": picture(76), "003.png": picture(3)})


def test_formats_are_made_of_masks_that_are_there_without_the_network(
    again: Path, tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    formats = ("index", "color", "binary", "overlay")
    whole = batch(again / "images", tmp_path / "whole", tiny_model, formats=formats)
    assert tally(whole) == (COUNT, 0, 0, 0, 0)
    before = tree_of_masks(again)
    monkeypatch.setattr("petseg.runtime.open_session", None)
    report = batch(again / "images", again / "masks", tiny_model, formats=formats)
    assert tally(report) == (0, COUNT, 0, 0, 0)
    assert (report.counts.derived, report.counts.kept, report.exit_code) == (COUNT, 0, 0)
    assert f"formats made of {COUNT} masks that were there already" in report.summary()
    assert tree_of_masks(again) == before
    # The very bytes that the network's run writes.
    for chosen in formats[1:]:
        made = pictures(again / "masks", chosen)
        assert len(made) == COUNT
        assert made == pictures(tmp_path / "whole", chosen)
    report = batch(again / "images", again / "masks", tiny_model, formats=formats)
    assert (tally(report), report.counts.derived) == ((0, COUNT, 0, 0, 0), 0)
    (again / "masks" / "petseg" / "color" / "004.png").unlink()
    report = batch(again / "images", again / "masks", tiny_model, formats=formats)
    assert (tally(report), report.counts.derived) == ((0, COUNT, 0, 0, 0), 1)


def tree_of_masks(folder: Path) -> dict[str, tuple[bytes, int]]:
    """The masks' content and time."""
    return {name: value for name, value in tree(folder / "masks").items() if "/petseg" not in name}


def pictures(masks: Path, chosen: str) -> dict[str, bytes]:
    folder = masks / "petseg" / chosen
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def test_soft_edges_need_the_network_and_leave_the_rest_as_it_was(
    again: Path, tiny_model: Path
) -> None:
    color = ("index", "color")
    batch(again / "images", again / "masks", tiny_model, formats=color)
    before, colors = mask_bytes(again / "masks"), pictures(again / "masks", "color")
    report = batch(again / "images", again / "masks", tiny_model, formats=("index", "alpha"))
    assert tally(report) == (COUNT, 0, 0, 0, 0)
    assert mask_bytes(again / "masks") == before
    assert pictures(again / "masks", "color") == colors
    for number in range(COUNT):
        with Image.open(again / "masks" / "petseg" / "alpha" / f"00{number}.png") as image:
            assert (image.mode, image.size) == ("RGBA", (128, 96))
    assert tally(batch(again / "images", again / "masks", tiny_model, formats=color))[1] == COUNT


def test_formats_of_a_corrected_mask_show_the_correction(again: Path, tiny_model: Path) -> None:
    formats = ("index", "binary", "alpha", "overlay")
    batch(again / "images", again / "masks", tiny_model, formats=formats)
    pixels = read_mask(again / "masks" / "001.png")
    pixels[:, :64], pixels[:, 64:] = 1, 2
    Image.fromarray(pixels).save(again / "masks" / "001.png")
    # No mask at all, one of another size, and one that overlays cannot be laid over.
    (again / "masks" / "002.png").write_text("to do")
    Image.fromarray(pixels[:50]).save(again / "masks" / "003.png")
    theirs = mask_bytes(again / "masks")
    report = batch(again / "images", again / "masks", tiny_model, formats=formats)
    assert tally(report) == (0, COUNT - 1, 1, 0, 0)
    assert (report.counts.derived, report.counts.kept) == (1, 2)
    assert mask_bytes(again / "masks") == theirs
    beside = again / "masks" / "petseg"
    assert lines(beside / "kept.csv") == [["mask"], ["001.png"], ["002.png"]]
    ((_, _), (name, reason)) = lines(beside / "failures.csv")
    assert name == "003.png"
    assert "003.png is 128x50 pixels, the photo 128x96: they cannot be laid over" in reason
    with Image.open(beside / "binary" / "001.png") as image:
        np.testing.assert_array_equal(np.array(image), np.where(pixels == 1, 255, 0))
    with Image.open(beside / "alpha" / "001.png") as image:
        np.testing.assert_array_equal(np.array(image)[..., 3], np.where(pixels == 1, 255, 0))


def test_other_formats_of_the_networks_size(again: Path, tiny_model: Path) -> None:
    formats = ("index", "alpha", "overlay", "coco")
    masks = again / "small"
    batch(again / "images", masks, tiny_model, formats=formats, size="model")
    for chosen, ending in (("alpha", "png"), ("overlay", "jpg")):
        with Image.open(masks / "petseg" / chosen / f"000.{ending}") as image:
            assert image.size == (64, 64)
    coco = json.loads((masks / "petseg" / "coco" / "coco.json").read_text())
    assert {(item["height"], item["width"]) for item in coco["images"]} == {(96, 128)}
    assert {tuple(item["segmentation"]["size"]) for item in coco["annotations"]} == {(96, 128)}


def test_a_format_whose_package_is_missing_is_refused_before_any_work(
    images: Path, tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(catalog, "find_spec", lambda name: None)
    for chosen, package in catalog.TABLES.items():
        words = rf"--format {chosen} needs the package {package}, .*pip install 'petseg\[formats\]'"
        with pytest.raises(MissingPackageError, match=words):
            batch(images, tmp_path / "masks", tiny_model, formats=("index", chosen))
    assert not (tmp_path / "masks").exists()
    assert tally(batch(images, tmp_path / "masks", tiny_model, formats=("color",)))[0] == COUNT


def test_limit(images: Path, tiny_model: Path, tmp_path: Path) -> None:
    masks = tmp_path / "masks"
    report = batch(images, masks, tiny_model, limit=2)
    assert tally(report) == (2, 0, 0, 0, COUNT - 2)
    assert report.exit_code == 0
    assert set(mask_bytes(masks)) == {"000.png", "001.png"}
    assert tally(batch(images, masks, tiny_model, limit=2)) == (2, 2, 0, 0, 1)
    assert tally(batch(images, masks, tiny_model, limit=2)) == (1, 4, 0, 0, 0)


def test_fail_fast(images: Path, tiny_model: Path, tmp_path: Path) -> None:
    (images / "000.png").write_bytes(b"")
    save_photos(images / "more", 40, 20, 20)
    masks = tmp_path / "masks"
    report = batch(images, masks, tiny_model, fail_fast=True, batch_size=1)
    done, skipped, failed, _, left = tally(report)
    assert (skipped, failed) == (0, 1)
    assert left > 0
    assert done == len(mask_bytes(masks))
    assert report.exit_code == 1
    assert report.stopped == "--fail-fast"
    assert lines(masks / "petseg" / "failures.csv")[1][0] == "000.png"
    # Known before the work begins: none is begun.
    (images / "000.png").unlink()
    (images / "000.png").symlink_to("gone")
    report = batch(images, tmp_path / "other", tiny_model, fail_fast=True)
    assert tally(report) == (0, 0, 1, 0, COUNT - 1 + 40)
    assert report.exit_code == 1


def test_dry_run_writes_nothing(again: Path, tiny_model: Path) -> None:
    Image.fromarray(picture(73)).save(again / "images" / "new.png")
    (again / "images" / "notes.txt").write_text("hello")
    before = tree(again)
    report = batch(again / "images", again / "masks", tiny_model, dry_run=True)
    assert tally(report) == (0, COUNT, 0, 1, 1)
    assert report.exit_code == 0
    report = batch(again / "images", again / "new" / "masks", tiny_model, dry_run=True)
    assert tally(report) == (0, 0, 0, 1, COUNT + 1)
    assert tree(again) == before


def test_a_list(again: Path, tiny_model: Path) -> None:
    masks = again / "fresh"
    (again / "list.txt").write_text("003.png\n001.png\n")
    report = batch(again / "images", masks, tiny_model, list_file=again / "list.txt")
    assert tally(report) == (2, 0, 0, 0, 0)
    assert set(mask_bytes(masks)) == {"001.png", "003.png"}
    assert mask_bytes(masks).items() <= mask_bytes(again / "masks").items()
    (again / "images" / "000.png").rename(again / "images" / "pug_1.jpg")
    (again / "oxford.txt").write_text("# Image CLASS-ID SPECIES BREED ID\npug_1 1 2 1\n")
    report = batch(again / "images", masks, tiny_model, list_file=again / "oxford.txt")
    assert tally(report) == (1, 0, 0, 0, 0)
    np.testing.assert_array_equal(
        read_mask(masks / "pug_1.png"), expected_mask(tiny_model, picture(0))
    )


def test_a_file_and_a_glob(again: Path, tiny_model: Path) -> None:
    report = batch(again / "images" / "002.png", again / "one", tiny_model)
    assert tally(report) == (1, 0, 0, 0, 0)
    report = batch(f"{again}/images/00[13]*", again / "two", tiny_model)
    assert tally(report) == (2, 0, 0, 0, 0)
    found = mask_bytes(again / "one") | mask_bytes(again / "two")
    assert set(found) == {"001.png", "002.png", "003.png"}
    assert found.items() <= mask_bytes(again / "masks").items()


def test_a_mask_whose_name_would_be_too_long(tiny_model: Path, tmp_path: Path) -> None:
    images = tmp_path / "images"
    images.mkdir()
    for name in ("n" * 251 + ".png", "x.png"):
        Image.fromarray(picture(1)).save(images / name)
    # That one fails, whatever there is before.
    for done in (1, 0):
        report = batch(images, tmp_path / "full", tiny_model, names="full")
        assert tally(report) == (done, 1 - done, 1, 0, 0)
        assert report.exit_code == 3
    ((_, _), (name, reason)) = lines(tmp_path / "full" / "petseg" / "failures.csv")
    assert name == "n" * 251 + ".png"
    assert reason.startswith("no mask can have this name there (File name too long): nnn")


def test_a_mask_that_cannot_be_written_stops_the_run(
    images: Path, tiny_model: Path, tmp_path: Path
) -> None:
    (images / "sub").mkdir()
    Image.fromarray(picture(74)).save(images / "sub" / "x.png")
    masks = tmp_path / "masks"
    masks.mkdir()
    (masks / "sub").write_text("a file where a folder is to be")
    with pytest.raises(PetsegError, match=r"cannot write .*; what is done stays valid"):
        batch(images, masks, tiny_model)
    stats = json.loads((masks / "petseg" / "stats.json").read_text())
    assert (stats["stopped"], stats["exit_code"]) == ("error", 1)
    assert "cannot write" in stats["notes"][0]
    (masks / "sub").unlink()
    report = batch(images, masks, tiny_model)
    assert tally(report)[0] + stats["counts"]["done"] == COUNT + 1
    assert [path.name for path in (masks / "petseg").iterdir()] == ["stats.json"]


def test_stats_say_how_it_went(images: Path, tiny_model: Path, tmp_path: Path) -> None:
    (images / "broken.jpg").write_text("hello")
    elsewhere = tmp_path / "elsewhere" / "stats.json"
    report = batch(images, tmp_path / "masks", tiny_model, stats=elsewhere)
    assert not (tmp_path / "masks" / "petseg" / "stats.json").exists()
    stats = json.loads(elsewhere.read_text())
    assert stats["counts"]["done"] == COUNT
    assert stats["exit_code"] == report.exit_code == 3
    assert stats["provider"] == "cpu"
    assert stats["precision"] == "float32"
    assert stats["model"]["hash"] == signature.read(tiny_model).graph_hash
    assert stats["options"]["images"] == str(images)
    assert 0 < stats["model_load_seconds"] < stats["first_mask_seconds"] < stats["wall_seconds"]
    assert stats["images_per_second"] > 0
    assert stats["bottleneck"] in ("read", "infer", "write")
    assert stats["peak_memory_bytes"] > 10_000_000
    for name in ("confidence", "uncertain"):
        assert sum(stats[name]["histogram"]) == COUNT
        mean = np.average(np.arange(101) / 100, weights=stats[name]["histogram"])
        assert stats[name]["mean"] == pytest.approx(mean, abs=0.005)
    assert 1 / 3 <= stats["confidence"]["mean"] <= 1
    assert all(stage["p99_seconds"] is not None for stage in stats["stages"].values())


def test_records_say_what_made_them(done: Path, tiny_model: Path) -> None:
    for path in (done / "images").iterdir():
        state, record = inspect(done / "masks" / path.name)
        assert state is MaskState.OURS
        assert record is not None
        assert record.maker.model == signature.read(tiny_model).graph_hash
        assert record.image.mtime_ns == path.stat().st_mtime_ns
        assert (record.provider, record.precision) == ("cpu", "float32")
        assert (record.image.name, record.height, record.width) == (path.name, 96, 128)
        assert 1 / 3 <= record.confidence <= 1
        assert 0 <= record.uncertain <= 1
        inside = np.argwhere(read_mask(done / "masks" / path.name) != 2)
        (top, left), (bottom, right) = inside.min(axis=0), inside.max(axis=0)
        assert record.box == (left, top, right - left + 1, bottom - top + 1)


def test_a_model_that_wants_other_preparation_is_refused(
    images: Path, tiny_model: Path, tmp_path: Path
) -> None:
    model = onnx.load(tiny_model)
    text = model.metadata_props[0].value.replace('"bilinear"', '"bicubic"')
    assert "bicubic" in text
    del model.metadata_props[:]
    model.metadata_props.add(key=signature.METADATA_KEY, value=text)
    other = tmp_path / "other.onnx"
    other.write_bytes(model.SerializeToString())
    with pytest.raises(ModelError, match=r"wants photos prepared by .*bicubic"):
        batch(images, tmp_path / "masks", other)
    assert not (tmp_path / "masks").exists()


@pytest.mark.parametrize("name", ["batch_size", "workers", "limit", "max_pixels"])
def test_a_configuration_is_checked(name: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=f"{name} must be at least 1, not 0"):
        BatchConfig(images="x", masks=tmp_path, **{name: 0})


def test_a_time_limit_is_checked(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="read_timeout must be more than 0 seconds, not 0"):
        BatchConfig(images="x", masks=tmp_path, read_timeout=0)


def test_a_format_that_nobody_knows(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"formats are of .*, not \['oils'\]"):
        BatchConfig(images="x", masks=tmp_path, formats=("index", "oils"))
