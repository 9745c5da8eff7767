from __future__ import annotations

import contextlib
import csv
import dataclasses
import io
import json
import re
import shutil
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

from petseg.classes import PET_CLASSES
from petseg.data import dataset
from petseg.data.pixels import prepare
from petseg.errors import DatasetError
from petseg.network.model import build_segmenter, preprocess
from petseg.pages import html
from petseg.scoring import breeds, evaluation
from petseg.training import learner, plots, progress, trainer
from petseg.training.recipes import LONG, SCRATCH, Stage
from petseg.training.runs import HISTORY_FIELDS, RunFolder
from petseg.training.validation import validate

# Everything a run can have but a trained encoder, whose layers take TensorFlow long to trace.
TINY = dataclasses.replace(
    LONG,
    stages=(Stage(32, 2, 3e-3), Stage(64, 1, 1e-3, batch_size=5, strength=0.5)),
    filters=(4, 4, 4, 4, 4),
    batch_size=4,
    passes=2,
    ema_momentum=0.8,
    train_encoder=False,
    precision="float32",
)
# Without what changes weights that training does not.
SHORT = dataclasses.replace(
    SCRATCH,
    stages=(Stage(32, 2, 3e-3),),
    filters=TINY.filters,
    batch_size=4,
    precision="float32",
)


def weights_of(run: Path) -> list[np.ndarray]:
    found: list[np.ndarray] = keras.models.load_model(run / "model.keras").get_weights()
    return found


def history_of(run: Path) -> list[dict[str, str]]:
    """The rows without what the clock says."""
    with (run / "history.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    return [{key: row[key] for key in HISTORY_FIELDS[:-2]} for row in rows]


@pytest.fixture(scope="module")
def logged(pets: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A run that nothing disturbed, and what it said where there was no terminal."""
    run = tmp_path_factory.mktemp("runs") / "finished"
    log = io.StringIO()
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stderr(log):
        patch.setattr(progress, "LOG_SECONDS", 0)
        trainer.fit(TINY, pets, run)
    return run, log.getvalue()


@pytest.fixture(scope="module")
def finished(logged: tuple[Path, str]) -> Path:
    """That run."""
    return logged[0]


def test_a_log_tells_of_each_step(logged: tuple[Path, str]) -> None:
    _, log = logged
    assert "\r" not in log
    steps = re.findall(
        r"^epoch (\d)/3, step (\d+) of (\d+), loss [\d.]+, accuracy 0\.\d{4}, "
        r"(?:[\d.]+|\?) images/s, (?:\d\d:\d\d|\?) left$",
        log,
        re.MULTILINE,
    )
    counts = {int(epoch): int(count) for epoch, _, count in steps}
    assert list(counts) == [1, 2, 3]
    assert counts[1] == counts[2] != counts[3]
    expected = [(epoch, step) for epoch in counts for step in range(1, counts[epoch] + 1)]
    assert [(int(epoch), int(step)) for epoch, step, _ in steps] == expected
    assert len(re.findall(r"^epoch \d/3  \d+ px  loss ", log, re.MULTILINE)) == 3


def test_a_finished_run_holds_what_is_promised(finished: Path) -> None:
    assert sorted(path.name for path in finished.iterdir()) == [
        ".lock",
        "breeds.csv",
        "config.json",
        "confusion.png",
        "curves.png",
        "history.csv",
        "metrics.json",
        "model.keras",
        "predictions",
        "predictions.png",
        "report.html",
        "split.json",
    ]
    assert sorted(path.name for path in (finished / "predictions").iterdir()) == [
        *("epoch-0001.png", "epoch-0002.png", "epoch-0003.png", "photos.jpg", "truth.png")
    ]
    rows = history_of(finished)
    assert [(row["epoch"], row["size"]) for row in rows] == [("1", "32"), ("2", "32"), ("3", "64")]
    assert float(rows[1]["loss"]) < float(rows[0]["loss"])


def test_the_metrics_are_those_of_the_model(finished: Path, pets: Path, tmp_path: Path) -> None:
    metrics = json.loads((finished / "metrics.json").read_text())
    names = RunFolder(finished).split().validation
    samples = prepare(pets, {"validation": names}, PET_CLASSES, 64, tmp_path)["validation"]
    model = keras.models.load_model(finished / "model.keras")
    loss, confusions = validate(model, samples, 64, 1)
    assert confusions.shape == (2, 3, 3)
    confusion = confusions.sum(axis=0)
    assert metrics["confusion"] == confusion.tolist()
    assert metrics["images"] == len(names) == 2
    assert metrics["pixels"] == 2 * 64 * 64
    assert metrics["mean_iou"] == evaluation.scores(confusion, PET_CLASSES).mean_iou
    last = history_of(finished)[-1]
    assert float(last["val_loss"]) == pytest.approx(loss, rel=1e-5)
    assert float(last["val_mean_iou"]) == pytest.approx(metrics["mean_iou"])
    assert metrics["precision"] == "float32"
    named = dataset.name_breeds(pets, names)
    table = breeds.read(finished / "breeds.csv")
    assert {item.breed for item in table} == set(named)
    for item in table:
        own = confusions[[breed == item.breed for breed in named]]
        assert item.images == len(own)
        assert item.mean_iou == evaluation.scores(own.sum(axis=0), PET_CLASSES).mean_iou
    page = (finished / "report.html").read_text()
    assert f"<dd>{html.percent(metrics['mean_iou'])}</dd>" in page
    assert f"<code>petseg-export model.onnx --from {finished}</code>" in page


def test_validation_loss_is_keras_own(pets: Path, tmp_path: Path) -> None:
    names = [f"pet_{i}" for i in range(5)]
    samples = prepare(pets, {"some": names}, PET_CLASSES, 64, tmp_path)["some"]
    model = build_segmenter(learner.architecture(TINY, 64))
    images, trimaps = samples.at(slice(5), 64)
    model.compile(loss="sparse_categorical_crossentropy", metrics=["accuracy"])
    expected, accuracy = model.evaluate(preprocess(images), trimaps, verbose=0)
    loss, confusions = validate(model, samples, 64, 2)
    confusion = confusions.sum(axis=0)
    assert loss == pytest.approx(expected, rel=1e-5)
    assert np.trace(confusion) / confusion.sum() == pytest.approx(accuracy)


class Killed(BaseException):
    """Stands for a kill: nothing catches it on the way out."""


def test_a_run_cut_off_anywhere_ends_as_if_undisturbed(
    finished: Path, pets: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = tmp_path / "run"
    # A killed process cleans nothing up.
    monkeypatch.setattr(RunFolder, "sweep", lambda self: None)

    def cut_off(target: Any, name: str, call: int, done: int) -> None:
        """Start or go on, killed at the call of target.name, with `done` epochs to go on from."""
        original = getattr(target, name)
        calls = 0

        def wrapper(*args: Any, **kwargs: Any) -> Any:
            nonlocal calls
            calls += 1
            if calls == call:
                raise Killed
            return original(*args, **kwargs)

        with monkeypatch.context() as patch:
            patch.setattr(target, name, wrapper)
            with pytest.raises(Killed):
                trainer.fit(TINY, pets, run)
        assert RunFolder(run).checkpoint()[1] == done
        assert not RunFolder(run).finished

    # In the first epoch; between history and checkpoint of the second; at the start of the
    # second stage; and when all is there and the checkpoint, too.
    cut_off(trainer.TrainingProgress, "step", 2, done=0)
    cut_off(keras.Model, "save", 2, done=1)
    assert len(history_of(run)) == 2
    cut_off(trainer.TrainingProgress, "epoch", 2, done=2)
    cut_off(RunFolder, "finish", 1, done=3)
    result = trainer.fit(TINY, pets, run)

    assert history_of(run) == history_of(finished)
    for found, expected in zip(weights_of(run), weights_of(finished), strict=True):
        np.testing.assert_array_equal(found, expected)
    metrics = json.loads((run / "metrics.json").read_text())
    assert metrics == json.loads((finished / "metrics.json").read_text())
    pictures = [f"predictions/epoch-000{epoch}.png" for epoch in (1, 2, 3)]
    for name in ("breeds.csv", "curves.png", "confusion.png", "predictions.png", *pictures):
        assert (run / name).read_bytes() == (finished / name).read_bytes()
    assert result.scores.mean_iou == metrics["mean_iou"]


# A CPU computes float16 slowly.
@pytest.mark.long
def test_scaled_losses_and_a_trained_encoder_resume_too(
    pets: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = dataclasses.replace(
        TINY, stages=(Stage(32, 2, 3e-3),), train_encoder=True, precision="mixed_float16"
    )
    trainer.fit(config, pets, tmp_path / "whole")
    with monkeypatch.context() as patch:

        def kill(*arguments: object) -> None:
            raise Killed

        patch.setattr(plots, "curves", kill)
        with pytest.raises(Killed):
            trainer.fit(config, pets, tmp_path / "cut")
    trainer.fit(config, pets, tmp_path / "cut")
    assert history_of(tmp_path / "cut") == history_of(tmp_path / "whole")
    for found, expected in zip(
        weights_of(tmp_path / "cut"), weights_of(tmp_path / "whole"), strict=True
    ):
        np.testing.assert_array_equal(found, expected)


def test_a_frozen_encoder_stays_what_it_was(
    pets: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = build_segmenter(learner.architecture(SHORT, 32))
    arrays = {
        f"{layer.name}/{name}": array
        for layer in source.get_layer("encoder").layers
        for name, array in zip(("kernel", "bias"), layer.get_weights(), strict=False)
    }
    np.savez(tmp_path / "encoder.npz", **arrays)
    config = dataclasses.replace(
        SHORT, train_encoder=False, encoder_weights=str(tmp_path / "encoder.npz")
    )
    run = tmp_path / "run"
    with monkeypatch.context() as patch:

        def kill(*arguments: object) -> None:
            raise Killed

        # After the first epoch, so that the second goes on from a checkpoint.
        patch.setattr(plots, "curves", kill)
        with pytest.raises(Killed):
            trainer.fit(config, pets, run)
    trainer.fit(config, pets, run)
    model = keras.models.load_model(run / "model.keras")
    expected = source.get_layer("encoder").get_weights()
    for found, given in zip(model.get_layer("encoder").get_weights(), expected, strict=True):
        np.testing.assert_array_equal(found, given)
    assert len(model.trainable_weights) == 18
    losses = [float(row["loss"]) for row in history_of(run)]
    assert losses[1] < losses[0]


def test_a_run_in_mixed_precision_starts_from_another_and_leaves_a_float32_model(
    finished: Path, pets: Path, tmp_path: Path
) -> None:
    config = dataclasses.replace(
        SHORT, init=str(finished), stages=(Stage(32, 1, 1e-9),), precision="mixed_bfloat16"
    )
    trainer.fit(config, pets, tmp_path)
    for found, expected in zip(weights_of(tmp_path), weights_of(finished), strict=True):
        np.testing.assert_allclose(found, expected, atol=1e-6)
    model = keras.models.load_model(tmp_path / "model.keras")
    layers = [
        *model.layers,
        *model.get_layer("encoder").layers,
        model.get_layer("connect_1").refine,
    ]
    assert {layer.dtype_policy.name for layer in layers} == {"float32"}
    assert json.loads((tmp_path / "metrics.json").read_text())["precision"] == "mixed_bfloat16"


def test_broken_samples_are_counted_and_too_many_stop_the_run(pets: Path, tmp_path: Path) -> None:
    root = tmp_path / "pets"
    shutil.copytree(pets, root)
    config = dataclasses.replace(SHORT, stages=(Stage(32, 1, 1e-3),), train_encoder=False)
    first, second = dataset.split(root, config.split, config.seed, config.limit).train[:2]
    (root / "images" / f"{first}.jpg").write_bytes(b"no photo")
    trainer.fit(config, root, tmp_path / "one")
    metrics = json.loads((tmp_path / "one" / "metrics.json").read_text())
    assert metrics["broken"] == {first: "not an image in a format that can be read"}
    (root / "images" / f"{second}.jpg").write_bytes(b"")
    with pytest.raises(DatasetError, match="cannot be used, more than 5%"):
        trainer.fit(config, root, tmp_path / "two")
    assert not RunFolder(tmp_path / "two").pixels.exists()


def test_a_folder_of_another_or_a_finished_run_is_left_alone(
    finished: Path, pets: Path, tmp_path: Path
) -> None:
    before = (finished / "model.keras").read_bytes()
    with pytest.raises(DatasetError, match="the run is finished; petseg-export"):
        trainer.fit(TINY, pets, finished)
    assert (finished / "model.keras").read_bytes() == before
    folder = RunFolder(tmp_path)
    folder.begin(TINY, RunFolder(finished).split(), pets)
    with pytest.raises(DatasetError, match="holds a run with other options"):
        trainer.fit(dataclasses.replace(TINY, seed=1), pets, tmp_path)
    assert folder.config() == TINY


def test_nothing_is_begun_with_weights_that_are_not_there(pets: Path, tmp_path: Path) -> None:
    config = dataclasses.replace(SHORT, encoder_weights="missing.npz")
    with pytest.raises(DatasetError, match=r"cannot read encoder weights from missing\.npz"):
        trainer.fit(config, pets, tmp_path / "run")
    (tmp_path / "other.keras").write_text("no model")
    config = dataclasses.replace(SHORT, init=str(tmp_path / "other.keras"))
    with pytest.raises(DatasetError, match=r"cannot start from .*other\.keras: "):
        trainer.fit(config, pets, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_nothing_is_begun_without_the_breeds_that_are_asked_for(pets: Path, tmp_path: Path) -> None:
    root = tmp_path / "pets"
    shutil.copytree(pets, root)
    (root / "annotations" / "list.txt").unlink()
    with pytest.raises(DatasetError, match=r"cannot read breeds from .*list\.txt"):
        trainer.fit(TINY, root, tmp_path / "run")
    assert not (tmp_path / "run").exists()
    dataset.split(root, SHORT.split, SHORT.seed, SHORT.limit)


def test_a_limit_holds_for_both_parts(pets: Path) -> None:
    split = dataset.split(pets, SHORT.split, SHORT.seed, limit=4)
    assert (len(split.train), len(split.validation)) == (4, 1)
