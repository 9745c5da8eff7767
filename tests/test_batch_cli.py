"""The command petseg-batch: what it prints and where, and how it ends."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from batching import command, invoke, mask_bytes, picture, save_photos, tree
from click.testing import CliRunner
from PIL import Image
from soak import colours

from petseg import runtime
from petseg.cli import batch as cli
from petseg.formats import catalog
from petseg.modelfile import signature
from petseg.photos import imageio
from petseg.planning.config import DEFAULT_READ_TIMEOUT, packaged

COUNT = 3


@pytest.fixture
def images(tmp_path: Path) -> Path:
    save_photos(tmp_path / "images", COUNT)
    return tmp_path / "images"


def test_the_options_it_knows_by_heart_are_the_real_ones() -> None:
    assert cli.PROVIDERS == runtime.PROVIDERS
    assert cli.FORMATS == catalog.NAMES
    assert cli.MAX_PIXELS == imageio.DEFAULT_MAX_PIXELS
    assert cli.READ_TIMEOUT == DEFAULT_READ_TIMEOUT


def test_it_says_what_it_does(images: Path, tiny_model: Path, tmp_path: Path) -> None:
    (images / "broken.jpg").write_text("hello")
    (images / "notes\n.txt").write_text("hello")
    found = command(images, tmp_path / "masks", "--model", tiny_model)
    assert found.code == 3
    assert found.out == ""
    for words in (
        f"model: {tiny_model} (--model)",
        "5 files: 4 to do, 0 skipped, 0 unreadable, 1 ignored\n",
        "ignored, as they are no images: notes\\n.txt\n",
        "provider: ",
        "failed: broken.jpg: not an image in a format that can be read",
        "5 files: 3 done, 0 skipped, 1 failed, 1 ignored, 0 left",
        "images/s on ",
        "held back by: ",
        f"1 failures: see {tmp_path / 'masks' / 'petseg' / 'failures.csv'}",
    ):
        assert words in found.err
    assert "Traceback" not in found.err


def test_formats_of_masks_that_are_there_are_not_to_do(
    images: Path, tiny_model: Path, tmp_path: Path
) -> None:
    options = (images, tmp_path / "masks", "--model", tiny_model)
    assert invoke(*options, "--limit", "2").code == 0
    found = invoke(*options, "--format", "color")
    assert found.code == 0
    assert (
        "3 files: 1 to do, 0 skipped, 0 unreadable, 0 ignored; 2 masks are there, and other "
        "formats are made of them\n"
    ) in found.err
    assert "3 files: 1 done, 2 skipped, 0 failed" in found.err
    assert "formats made of 2 masks that were there already" in found.err
    again = invoke(*options, "--format", "color")
    assert "3 files: 0 to do, 3 skipped, 0 unreadable, 0 ignored\n" in again.err


def test_json_is_all_of_stdout(images: Path, tiny_model: Path, tmp_path: Path) -> None:
    found = command(images, tmp_path / "masks", "--model", tiny_model, "--json")
    assert found.code == 0
    assert len(found.out.splitlines()) == 1
    assert found.counts["done"] == COUNT
    written = json.loads((tmp_path / "masks" / "petseg" / "stats.json").read_text())
    assert found.stats == written
    assert f"{COUNT} done" in found.err


def test_json_also_tells_why_nothing_was_done(
    images: Path, tiny_model: Path, tmp_path: Path
) -> None:
    found = invoke(images, images, "--model", tiny_model, "--json")
    assert found.code == 1
    assert found.stats["exit_code"] == 1
    assert "is the folder of the photos" in found.stats["error"]
    assert found.stats["error"] in found.err


def test_what_must_be_equal_stops_with_1_and_says_what_changed(
    images: Path, tiny_model: Path, tmp_path: Path
) -> None:
    masks = tmp_path / "masks"
    other = colours.write_model(tmp_path / "other.onnx")
    assert invoke(images, masks, "--model", tiny_model).code == 0
    before = tree(masks)
    for arguments, words in (
        (("--model", tiny_model, "--size", "model"), "size: source, now model"),
        (("--model", other), f"model: {signature.read(tiny_model).graph_hash[:12]}, now "),
    ):
        found = invoke(images, masks, *arguments, "--json")
        assert found.code == found.stats["exit_code"] == 1
        assert words in found.stats["error"]
        assert f"{COUNT} masks in {masks} were made by another model" in found.stats["error"]
        assert "--redo makes petseg's own masks again" in found.stats["error"]
        assert tree(masks) == before
    # A person's is taken by --overwrite alone; redone are petseg's.
    Image.new("L", (128, 96), 2).save(masks / "001.png")
    found = invoke(images, masks, "--model", other, "--redo", "--json")
    assert (found.code, found.counts["done"], found.counts["kept"]) == (0, COUNT - 1, 1)
    found = invoke(images, masks, "--model", other, "--overwrite", "--json")
    assert (found.code, found.counts["done"], found.counts["kept"]) == (0, COUNT, 0)


def test_all_formats_at_once(images: Path, tiny_model: Path, tmp_path: Path) -> None:
    options = [word for name in catalog.NAMES for word in ("--format", name)]
    found = invoke(images, tmp_path / "masks", "--model", tiny_model, *options, "--json")
    assert found.code == 0, found.err
    beside = tmp_path / "masks" / "petseg"
    assert sorted(path.name for path in beside.iterdir()) == [
        *("alpha", "binary", "coco", "color", "overlay", "parquet", "stats.json")
    ]
    for chosen in catalog.PICTURES.values():
        names = sorted(path.name for path in (beside / chosen.name).iterdir())
        assert names == [f"00{number}{chosen.suffix}" for number in range(COUNT)]


def test_quiet(images: Path, tiny_model: Path, tmp_path: Path) -> None:
    found = command(images, tmp_path / "masks", "--model", tiny_model, "--quiet")
    assert (found.code, found.out, found.err) == (0, "", "")
    (images / "broken.jpg").write_text("hello")
    found = command(images, tmp_path / "masks", "--model", tiny_model, "--quiet", "--json")
    assert (found.code, found.err) == (3, "")
    assert found.counts["failed"] == 1
    found = command(images, images, "--model", tiny_model, "--quiet")
    assert found.code == 1
    assert found.err.startswith("error: ")


def test_names_that_are_no_text(images: Path, tiny_model: Path, tmp_path: Path) -> None:
    (images / os.fsdecode(b"\xff\n.jpg")).write_text("hello")
    (images / "\x1b[31mred.jpg").write_text("hello")
    (images / "caf\u00e9.jpg").write_text("hello")
    found = command(images, tmp_path / "masks", "--model", tiny_model)
    assert found.code == 3, found.err
    assert "failed: \\udcff\\n.jpg: " in found.err
    assert "failed: \\x1b[31mred.jpg: " in found.err
    assert "failed: caf\u00e9.jpg: " in found.err
    assert "\x1b[31m" not in found.err
    rows = (tmp_path / "masks" / "petseg" / "failures.csv").read_bytes()
    assert b'"\xff\n.jpg"' in rows


def test_folders_that_are_no_text(images: Path, tiny_model: Path, tmp_path: Path) -> None:
    strange = tmp_path / os.fsdecode(b"\xff images")
    images.rename(strange)
    arguments = (strange, tmp_path / os.fsdecode(b"masks \xfe"), "--model", tiny_model, "--json")
    found = command(*arguments)
    assert found.code == 0, found.err
    assert found.stats["options"]["images"] == str(strange)
    assert len(mask_bytes(arguments[1])) == COUNT
    shutil.copy(strange / "000.png", strange / "000.jpg")
    found = command(*arguments)
    assert found.code == 1
    assert "000.jpg and 000.png" in found.err
    assert "Traceback" not in found.err


@pytest.mark.parametrize(
    "arguments",
    [
        ["--workers", "0"],
        ["--batch-size", "x"],
        ["--limit", "-1"],
        ["--provider", "quantum"],
        ["--format", "oil-painting"],
        ["--size", "large"],
        ["--no-such-option"],
    ],
)
def test_wrong_usage(arguments: list[str], images: Path, tmp_path: Path) -> None:
    before = tree(tmp_path)
    found = CliRunner().invoke(cli.main, [str(images), str(tmp_path / "masks"), *arguments])
    assert found.exit_code == 2
    assert arguments[0] in found.stderr
    assert found.stdout == ""
    assert tree(tmp_path) == before


def test_a_pattern_without_quotes(images: Path, tmp_path: Path) -> None:
    """The shell has put the photos in its place."""
    before = tree(tmp_path)
    photos = sorted(map(str, images.iterdir()))
    found = CliRunner().invoke(cli.main, [*photos, str(tmp_path / "masks")])
    assert (found.exit_code, found.stdout) == (2, "")
    assert f"found {len(photos) + 1} arguments" in found.stderr
    assert "a pattern in quotes" in found.stderr
    assert tree(tmp_path) == before


def test_provider_cuda_without_cuda(images: Path, tiny_model: Path, tmp_path: Path) -> None:
    if runtime.choose("auto").provider == "cuda":
        pytest.skip("this machine has CUDA")
    before = tree(tmp_path)
    found = command(images, tmp_path / "masks", "--model", tiny_model, "--provider", "cuda")
    assert found.code == 1
    (line,) = [line for line in found.err.splitlines() if line.startswith("error: ")]
    assert line.startswith("error: --provider cuda: ")
    assert any(
        words in line for words in ("no NVIDIA driver", "is missing; pip install", "no CUDA;")
    )
    assert tree(tmp_path) == before
    found = command(images, tmp_path / "masks", "--model", tiny_model, "--provider", "auto")
    assert found.code == 0
    (line,) = [line for line in found.err.splitlines() if line.startswith("provider: ")]
    assert line.startswith(("provider: openvino (", "provider: cpu ("))
    assert "no cuda: " in line


def test_the_model_that_is_taken(
    images: Path, tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = tmp_path / "here"
    here.mkdir()
    monkeypatch.chdir(here)
    shutil.copy(tiny_model, here / "model.onnx")
    found = invoke(images, tmp_path / "masks")
    assert found.code == 0, found.err
    assert "model: model.onnx (in this folder)" in found.err
    (here / "model.onnx").unlink()
    monkeypatch.setattr("petseg.planning.config.files", lambda package: tmp_path / package)
    found = invoke(images, tmp_path / "masks")
    assert found.code == 1
    assert "no model: name one with --model, or make ./model.onnx with petseg-export" in found.err
    (tmp_path / "petseg" / "assets").mkdir(parents=True)
    shutil.copy(tiny_model, tmp_path / "petseg" / "assets" / "petseg.onnx")
    found = invoke(images, tmp_path / "masks")
    assert found.code == 0, found.err
    assert "petseg.onnx (from the package)" in found.err


def test_options_reach_the_run(images: Path, tiny_model: Path, tmp_path: Path) -> None:
    (tmp_path / "list").write_text("000.png\n002.png\n")
    masks_folder = tmp_path / "masks"
    found = invoke(
        *(images, masks_folder, "--model", tiny_model, "--json", "--provider", "cpu"),
        *("--list", tmp_path / "list", "--limit", "1", "--size", "model", "--names", "full"),
        *("--format", "color", "--batch-size", "2", "--workers", "1"),
        *("--max-pixels", "100000", "--read-timeout", "7.5", "--stats", tmp_path / "stats.json"),
    )
    assert found.code == 0, found.err
    assert found.counts | {"files": 2, "done": 1, "left": 1} == found.counts
    assert set(mask_bytes(masks_folder)) == {"000.png.png"}
    with Image.open(masks_folder / "petseg" / "color" / "000.png.png") as image:
        assert image.size == (64, 64)
    assert (tmp_path / "stats.json").exists()
    for flag in ("--redo", "--overwrite", "--verify", "--fail-fast", "--dry-run"):
        found = invoke(
            *(images, masks_folder, "--model", tiny_model, "--json", "--size", "model"),
            *("--names", "full", "--format", "color", flag),
        )
        assert found.code == 0, found.err
        assert found.stats["options"][flag.strip("-").replace("-", "_")] is True


def test_dry_run(images: Path, tiny_model: Path, tmp_path: Path) -> None:
    Image.fromarray(picture(50)).save(images / "x.jpg")
    before = tree(tmp_path)
    found = invoke(images, tmp_path / "masks", "--model", tiny_model, "--dry-run", "--json")
    assert found.code == 0
    assert found.counts | {"files": COUNT + 1, "left": COUNT + 1} == found.counts
    assert f"{COUNT + 1} files: {COUNT + 1} to do" in found.err
    assert tree(tmp_path) == before


def test_help_loads_nothing_heavy() -> None:
    heavy = {"numpy", "PIL", "onnxruntime", "tqdm", "matplotlib", "tensorflow", "keras"}
    script = (
        "import sys; from petseg.cli.batch import main\n"
        "try: main(['--help'])\n"
        "except SystemExit as end: assert end.code == 0\n"
        "print(*sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, check=True)
    text = done.stdout.decode()
    assert "Exit codes: 0 all done; 1 could not run" in " ".join(text.split())
    assert "--max-pixels" in text
    assert heavy.isdisjoint(text.split())


def test_an_unexpected_error_keeps_its_traceback(
    images: Path, tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def surprise(*arguments: object) -> None:
        raise ZeroDivisionError("a bug")

    monkeypatch.setattr("petseg.batch.run.make_plan", surprise)
    with pytest.raises(ZeroDivisionError, match="a bug"):
        invoke(images, tmp_path / "masks", "--model", tiny_model)


def test_check_says_how_far_a_quicker_precision_agrees(
    images: Path, tiny_model: Path, tmp_path: Path
) -> None:
    options = ("--model", tiny_model, "--check", "--json")
    found = invoke(images, tmp_path / "masks", *options)
    assert found.code == 0
    words = "check: float32 on cpu: 100.000% of mask pixels as in float32, on 3 of the photos"
    assert words in found.err
    assert found.stats["equal_to_float32"] == 1.0
    found = invoke(images, tmp_path / "other", *options, "--provider", "openvino")
    assert found.code == 0
    assert 0.9 < found.stats["equal_to_float32"] <= 1.0
    assert (
        invoke(images, tmp_path / "third", *options[:2], "--json").stats["equal_to_float32"] is None
    )


def test_int8_without_an_int8_model(
    images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As in a package that was built without it."""
    real = packaged

    def without(precision: str = "auto") -> Path:
        return tmp_path / "none.onnx" if precision == "int8" else real(precision)

    monkeypatch.setattr("petseg.planning.config.packaged", without)
    found = invoke(images, tmp_path / "masks", "--precision", "int8")
    assert found.code == 1
    assert "the package has no int8 model: make one with petseg-export int8.onnx" in found.err
