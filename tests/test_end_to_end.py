"""The whole chain through its commands, on pictures drawn here, with classes of their own."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from chain import run
from PIL import Image

from petseg.classes import SegmentClass
from petseg.data import class_file

TRAIN, TEST = 40, 10
CLASSES = """name,value,color,foreground
tabby cat,7,#e6553c,yes
dog,10,#3ca06e,yes
floor,0,#2d5087,no
rim,255,#facd50,no
"""
FOUR = (
    SegmentClass("tabby cat", 7, (230, 85, 60), foreground=True),
    SegmentClass("dog", 10, (60, 160, 110), foreground=True),
    SegmentClass("floor", 0, (45, 80, 135), foreground=False),
    SegmentClass("rim", 255, (250, 205, 80), foreground=False),
)


def draw_sample(random: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """A bright and a dark disc, each with a yellow rim, on a cold, uneven floor.

    Returns RGB uint8 (H, W, 3) and class ids (H, W).
    """
    height, width = int(random.integers(80, 120)), int(random.integers(120, 160))
    rows, columns = np.mgrid[:height, :width]
    ids = np.full(rows.shape, 2)
    sides = (0.27, 0.73) if random.random() < 0.5 else (0.73, 0.27)
    for kind, side in enumerate(sides):
        distance = np.hypot(rows - random.uniform(0.35, 0.65) * height, columns - side * width)
        radius = random.uniform(0.2, 0.3) * height
        ids[distance < radius + 6] = 3
        ids[distance < radius] = kind
    colors = np.array([[240, 235, 230], [20, 25, 30], [60, 100, 160], [240, 200, 70]])
    shade = random.normal(0, 12, (height, width, 3)) + 20 * np.sin(columns / 9)[..., None]
    return np.clip(colors[ids] + shade, 0, 255).astype(np.uint8), ids


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small data set in Oxford's layout, with a test list of its own."""
    root = tmp_path_factory.mktemp("data")
    (root / "images").mkdir()
    (root / "annotations" / "trimaps").mkdir(parents=True)
    random = np.random.default_rng(0)
    values = np.array([item.value for item in FOUR], np.uint8)
    names = [f"disc_{number:02}" for number in range(TRAIN + TEST)]
    for name in names:
        image, ids = draw_sample(random)
        Image.fromarray(image).save(root / "images" / f"{name}.jpg", quality=92)
        Image.fromarray(values[ids]).save(root / "annotations" / "trimaps" / f"{name}.png")
    for file, part in (("list", names), ("trainval", names[:TRAIN]), ("test", names[TRAIN:])):
        lines = "".join(f"{name} 1 1 1\n" for name in part)
        (root / "annotations" / f"{file}.txt").write_text(lines)
    (root / "classes.csv").write_text(CLASSES)
    return root


def test_a_segmenter_is_trained_exported_run_and_scored(data: Path, tmp_path: Path) -> None:
    recipe = (
        "--recipe scratch --encoder-weights none --size 64,96 --epochs 2,1 --passes 9 "
        "--learning-rate 1e-3,5e-4 --filters 16,16,32,32,32 --batch-size 4 --zoom 1.1 "
        "--precision float32"
    )
    run(tmp_path, "train", "--data", data, "--classes", data / "classes.csv", *recipe.split())
    (run_dir,) = (tmp_path / "runs").iterdir()
    history = (run_dir / "history.csv").read_text().splitlines()
    assert len(history) == 1 + 3
    on_validation = json.loads((run_dir / "metrics.json").read_text())

    run(tmp_path, "export", "model.onnx", "--data", data)
    assert class_file.read(tmp_path / "model.onnx") == FOUR
    test_list = data / "annotations" / "test.txt"
    options = ("--list", test_list, "--format", "coco", "--quiet")
    run(tmp_path, "batch", data / "images", "masks", *options)
    masks = sorted((tmp_path / "masks").glob("*.png"))
    assert [mask.stem for mask in masks] == [f"disc_{n:02}" for n in range(TRAIN, TRAIN + TEST)]
    for mask in masks:
        with Image.open(mask) as image:
            assert image.mode == "L"
            assert set(np.unique(image)) == {item.value for item in FOUR}
    coco = json.loads((tmp_path / "masks/petseg/coco/coco.json").read_text())
    assert [item["name"] for item in coco["categories"]] == ["tabby cat", "dog"]

    told = ("masks", data / "annotations" / "trimaps", "--list", test_list, "--json")
    scores = json.loads(run(tmp_path, "eval", *told, "--classes", "model.onnx"))
    assert scores == json.loads(run(tmp_path, "eval", *told, "--classes", data / "classes.csv"))
    assert scores["images"] == TEST
    assert list(scores["iou"]) == [item.name for item in FOUR]
    assert scores["foreground"] == ["tabby cat", "dog"]
    # A network that calls everything floor, or both discs by one name, scores less.
    assert scores["mean_iou"] > 0.75
    assert min(scores["iou"].values()) > 0.6
    # The way back to the photo's size and the export cost little against Keras' own figures.
    assert abs(scores["mean_iou"] - on_validation["mean_iou"]) < 0.1

    # The report knows from the last run what the values mean.
    page = run(tmp_path, "report", "masks").strip()
    assert "tabby cat" in (tmp_path / page).read_text()
