from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result
from PIL import Image

from petseg.cli.eval import main


def run(*arguments: str | Path) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


def write(path: Path, values: list[list[int]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.array(values, np.uint8)).save(path)


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path]:
    """Masks and trimaps of two images, one in a subfolder: 6 of 8 pixels right."""
    masks, trimaps = tmp_path / "masks", tmp_path / "trimaps"
    write(trimaps / "a.png", [[1, 1], [2, 3]])
    write(masks / "a.png", [[1, 2], [2, 3]])
    write(trimaps / "cats" / "b.png", [[2, 2, 2, 1]])
    write(masks / "cats" / "b.png", [[2, 2, 2, 3]])
    return masks, trimaps


def test_table_and_json(folders: tuple[Path, Path]) -> None:
    table = run(*folders)
    assert table.exit_code == 0
    assert "pixel accuracy        0.7500" in table.stdout
    assert "images                     2" in table.stdout
    values = json.loads(run(*folders, "--json").stdout)
    assert values["images"] == 2
    assert values["pixels"] == 8
    assert values["iou"] == pytest.approx({"pet": 1 / 3, "background": 4 / 5, "border": 1 / 2})
    assert values["mean_iou"] == pytest.approx((1 / 3 + 4 / 5 + 1 / 2) / 3)
    assert values["foreground_iou"] == pytest.approx(3 / 4)
    assert values["confusion"] == [[1, 1, 1], [0, 4, 0], [0, 0, 1]]


def test_quiet(folders: tuple[Path, Path]) -> None:
    # A bar is for terminals.
    assert run(*folders).stderr == ""
    for option in ("--json", "--quiet"):
        result = run(*folders, "--quiet", option)
        assert (result.exit_code, result.stderr) == (0, "")
        assert "0.75" in result.stdout


def test_a_list_may_name_photos(folders: tuple[Path, Path], tmp_path: Path) -> None:
    masks, trimaps = folders
    (tmp_path / "list").write_text("# least first\ncats/b.jpg\n")
    result = run(masks, trimaps, "--list", tmp_path / "list", "--json")
    assert (result.exit_code, json.loads(result.stdout)["pixels"]) == (0, 4)
    for folder in folders:
        write(folder / "cats" / "b.jpg.png", [[1, 1]])
    result = run(masks, trimaps, "--list", tmp_path / "list", "--json")
    assert (result.exit_code, json.loads(result.stdout)["pixels"]) == (0, 2)


def test_what_petseg_batch_keeps_beside_the_masks_is_no_mask(folders: tuple[Path, Path]) -> None:
    masks, trimaps = folders
    write(masks / "petseg" / "color" / "a.png", [[9]])
    # Oxford's archive holds such files; they are no images.
    (trimaps / "._a.png").write_bytes(b"Mac OS X")
    assert run(masks, trimaps).exit_code == 0


def test_files_on_one_side_only_are_named(folders: tuple[Path, Path]) -> None:
    masks, trimaps = folders
    for index in range(7):
        write(trimaps / f"more_{index}.png", [[1]])
    write(masks / "odd.png", [[1]])
    result = run(masks, trimaps)
    assert result.exit_code == 1
    assert "7 names (more_0; more_1; more_2; more_3; more_4; ...) without a mask" in result.stderr
    assert "1 name (odd) without a trimap" in result.stderr
    assert "--list" in result.stderr


def test_a_list_leaves_the_others_out(folders: tuple[Path, Path], tmp_path: Path) -> None:
    masks, trimaps = folders
    write(trimaps / "more.png", [[1]])
    listed = tmp_path / "list.txt"
    listed.write_text("#Image CLASS-ID\na 1 1 1\n")
    values = json.loads(run(masks, trimaps, "--list", listed, "--json").stdout)
    assert (values["images"], values["pixel_accuracy"]) == (1, 0.75)
    listed.write_text("a\nmore\n")
    result = run(masks, trimaps, "--list", listed)
    assert result.exit_code == 1
    assert "1 name (more) without a mask" in result.stderr


def test_other_sizes_values_and_modes_are_named(folders: tuple[Path, Path]) -> None:
    masks, trimaps = folders
    write(masks / "a.png", [[1, 1, 1]])
    write(masks / "cats" / "b.png", [[0, 2, 2, 38]])
    write(trimaps / "c.png", [[1]])
    Image.new("P", (1, 1)).save(masks / "c.png")
    write(trimaps / "d.png", [[1]])
    (masks / "d.png").write_bytes(b"no image")
    result = run(masks, trimaps)
    assert result.exit_code == 1
    assert "cannot score 4 pairs" in result.stderr
    assert "a: the mask is 3x1, its trimap 2x2" in result.stderr
    assert "the mask has the values [0, 38], expected [1, 2, 3]" in result.stderr
    assert "expected 8-bit greyscale, found mode P" in result.stderr
    assert "the mask cannot be read: not an image" in result.stderr


def test_missing_and_empty_folders(folders: tuple[Path, Path], tmp_path: Path) -> None:
    masks, trimaps = folders
    missing = run(tmp_path / "nowhere", trimaps)
    assert (missing.exit_code, "there is no folder" in missing.stderr) == (1, True)
    shutil.rmtree(masks)
    masks.mkdir()
    empty = run(masks, trimaps)
    assert (empty.exit_code, "there are no .png files in" in empty.stderr) == (1, True)


def test_masks_in_a_store_are_to_be_copied(folders: tuple[Path, Path]) -> None:
    masks, trimaps = folders
    for arguments in (("s3://b/m", trimaps), (masks, "https://u:secret@host/t")):
        found = run(*arguments)
        assert (found.exit_code, found.stdout) == (2, "")
        assert "is in a store" in found.stderr
        assert "copy the masks" in found.stderr
        assert "secret" not in found.stderr


def test_the_base_install_is_enough() -> None:
    code = (
        "import sys, petseg.cli.eval\n"
        "print(sorted({'keras', 'tensorflow', 'onnx', 'onnxruntime'} & set(sys.modules)))"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"
