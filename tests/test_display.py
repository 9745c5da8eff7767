from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from petseg.classes import PET_CLASSES
from petseg.data.dataset import Split
from petseg.data.pixels import Prepared
from petseg.photos import transforms
from petseg.training import strips
from petseg.training.display import Display
from petseg.training.recipes import SCRATCH
from petseg.training.runs import HISTORY_FIELDS, Row, RunFolder

NAMES = tuple(f"pet_{number}" for number in range(8))


def row(epoch: int) -> Row:
    return {**dict.fromkeys(HISTORY_FIELDS, "0.5"), "epoch": str(epoch)}


def test_each_epoch_leaves_what_can_be_looked_at(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    samples = Prepared(
        NAMES,
        random.integers(0, 256, (8, 48, 48, 3), np.uint8),
        random.integers(0, 3, (8, 48, 48), np.uint8),
        {},
    )
    folder = RunFolder(tmp_path / "run")
    folder.begin(SCRATCH, Split(("a",), NAMES), tmp_path)
    history: list[Row] = []
    # The same six photos after each epoch, whatever its size, also where another process goes on.
    seen: list[np.ndarray] = []
    photos: set[bytes] = set()
    with Display(SCRATCH, folder, tensorboard=True) as display:
        for epoch in (1, 2):
            size = 32 * epoch

            def predict(images: np.ndarray, size: int = size, epoch: int = epoch) -> np.ndarray:
                assert images.shape == (6, size, size, 3)
                seen.append(images)
                return np.full(images.shape[:3], epoch, np.int64)

            display.predictions(epoch, size, samples, predict)
            photos.add((folder.pictures / strips.PHOTOS).read_bytes())
            assert folder.split().validation[:6] == NAMES[:6]
            history.append(row(epoch))
            folder.keep_epoch(epoch, history, Path.touch)
            display.epoch(history)
            assert f"{epoch} of 26 epochs" in (folder.path / "report.html").read_text()
    assert {path.name for path in folder.path.iterdir()} == {
        *("config.json", "split.json", "history.csv", "checkpoint-0002.keras", "tensorboard"),
        *("curves.png", "predictions.png", "predictions", "report.html"),
    }
    assert len(photos) == 1
    for epoch, images in enumerate(seen, 1):
        expected = [transforms.to_model(image, 32 * epoch) for image in samples.images[:6]]
        np.testing.assert_array_equal(images, expected)
    for epoch, path in strips.epochs(folder.pictures, 6, 99).items():
        assert tuple(np.array(Image.open(path))[9, 9]) == PET_CLASSES[epoch].color
    truth = np.array(Image.open(folder.pictures / strips.TRUTH))
    ids = [transforms.trimap_to_model(ids, strips.SIDE) for ids in samples.trimaps[:6]]
    colors = np.array([item.color for item in PET_CLASSES])
    np.testing.assert_array_equal(truth, colors[np.concatenate(ids, axis=1)])
    (events,) = (folder.path / "tensorboard").iterdir()
    assert events.stat().st_size > 0

    # The process that finishes the run has trained none of it.
    (folder.path / "curves.png").unlink()
    confusion = np.diag([10, 20, 30])
    metrics = {"images": 8, "size": 64, "precision": "float32", "broken": {}}
    folder.keep_metrics({**metrics, "confusion": confusion.tolist()})
    with Display(SCRATCH, folder, tensorboard=False) as display:
        display.end(history, confusion)
    assert (folder.path / "curves.png").exists()
    assert (folder.path / "confusion.png").exists()
    assert "<dd>100.0 %</dd>" in (folder.path / "report.html").read_text()
