"""The whole chain through its commands, on pictures that are drawn here."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

TRAIN, TEST = 48, 12
COMMANDS = {
    "train": "from petseg.cli.train import main; main()",
    "export": "from petseg_export.cli import main; main()",
    "batch": "from petseg.cli.batch import main; main()",
    "eval": "from petseg.cli.eval import main; main()",
}


def draw_sample(random: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """A warm disc (pet, 1) with a bright rim (border, 3) on a cold, uneven ground (2).

    Returns RGB uint8 (H, W, 3) and trimap values uint8 (H, W).
    """
    height, width = int(random.integers(80, 120)), int(random.integers(80, 140))
    rows, columns = np.mgrid[:height, :width]
    middle = random.uniform(0.35, 0.65, 2) * (height, width)
    radius = random.uniform(0.2, 0.3) * min(height, width)
    distance = np.hypot(rows - middle[0], columns - middle[1])
    trimap = np.select([distance < radius, distance < radius + 6], [1, 3], 2).astype(np.uint8)
    colors = np.array([[0, 0, 0], [200, 90, 40], [40, 80, 150], [240, 230, 120]])
    shade = random.normal(0, 12, (height, width, 3)) + 30 * np.sin(columns / 9)[..., None]
    return np.clip(colors[trimap] + shade, 0, 255).astype(np.uint8), trimap


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small data set in Oxford's layout, with a test list of its own."""
    root = tmp_path_factory.mktemp("data")
    (root / "images").mkdir()
    (root / "annotations" / "trimaps").mkdir(parents=True)
    random = np.random.default_rng(0)
    names = [f"disc_{number:02}" for number in range(TRAIN + TEST)]
    for name in names:
        image, trimap = draw_sample(random)
        Image.fromarray(image).save(root / "images" / f"{name}.jpg", quality=92)
        Image.fromarray(trimap).save(root / "annotations" / "trimaps" / f"{name}.png")
    for file, part in (("list", names), ("trainval", names[:TRAIN]), ("test", names[TRAIN:])):
        lines = "".join(f"{name} 1 1 1\n" for name in part)
        (root / "annotations" / f"{file}.txt").write_text(lines)
    return root


def run(folder: Path, command: str, *arguments: str | Path) -> str:
    """Run a command in `folder` as a process of its own; returns its standard output."""
    done = subprocess.run(
        [sys.executable, "-c", COMMANDS[command], *map(str, arguments)],
        cwd=folder,
        env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def test_a_segmenter_is_trained_exported_run_and_scored(data: Path, tmp_path: Path) -> None:
    recipe = (
        "--recipe scratch --encoder-weights none --size 64,96 --epochs 20,4 "
        "--learning-rate 2e-3,1e-3 --filters 8,8,16,16,16 --batch-size 4 --zoom 1.1 "
        "--precision float32"
    )
    run(tmp_path, "train", "--data", data, *recipe.split())
    (run_dir,) = (tmp_path / "runs").iterdir()
    history = (run_dir / "history.csv").read_text().splitlines()
    assert len(history) == 1 + 24
    on_validation = json.loads((run_dir / "metrics.json").read_text())

    run(tmp_path, "export", "model.onnx", "--data", data)
    test_list = data / "annotations" / "test.txt"
    run(tmp_path, "batch", data / "images", "masks", "--list", test_list, "--quiet")
    masks = sorted((tmp_path / "masks").glob("*.png"))
    assert [mask.stem for mask in masks] == [f"disc_{n:02}" for n in range(TRAIN, TRAIN + TEST)]

    trimaps = data / "annotations" / "trimaps"
    scores = json.loads(run(tmp_path, "eval", "masks", trimaps, "--list", test_list, "--json"))
    assert scores["images"] == TEST
    # Everything called background scores 0.3; a network that learnt nothing scores less.
    assert scores["mean_iou"] > 0.75
    assert scores["iou"]["pet"] > 0.8
    # The way back to the photo's size and the export cost little against Keras' own figures.
    assert abs(scores["mean_iou"] - on_validation["mean_iou"]) < 0.1
