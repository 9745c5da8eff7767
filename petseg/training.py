"""fit(config, data, run_dir): train a segmenter, or go on with a run that was cut off.

A run folder holds everything: `config.json` (what is computed), `split.json` (on which images),
`history.csv` (a row an epoch), `checkpoint-NNN.keras` (to go on from, removed at the end),
`model.keras`, `metrics.json`, `curves.png` and `predictions.png`.
"""

from __future__ import annotations

import csv
import json
import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray

from petseg import dataset, evaluation, plots, weights
from petseg.batches import TrainingBatches
from petseg.errors import DatasetError
from petseg.hardware import choose_precision
from petseg.model import Architecture, build_segmenter, preprocess
from petseg.progress import EpochProgress
from petseg.recipes import Stage, TrainConfig

HISTORY_FIELDS = (
    "epoch",
    "size",
    "learning_rate",
    "loss",
    "accuracy",
    "val_loss",
    "val_accuracy",
    "val_mean_iou",
    "seconds",
    "images_per_second",
)
_PANEL_SAMPLES = 6
_CALIBRATION_IMAGES = 16


@dataclass(frozen=True)
class TrainResult:
    """Where a finished run lies, and how its model scores on the validation part."""

    run_dir: Path
    scores: evaluation.Scores


def fit(config: TrainConfig, data: Path, run_dir: Path) -> TrainResult:
    """Train as `config` says; a run folder that holds checkpoints is gone on with.

    Args:
        config: the run.
        data: folder in Oxford's layout.
        run_dir: the run's folder; made if it is not there.

    Raises:
        DatasetError: data or weights are missing, damaged or do not fit.
    """
    run_dir.mkdir(parents=True, exist_ok=True)
    keras.utils.set_random_seed(config.seed)
    split = _split(config, data)
    _write_json(run_dir / "config.json", {**config.to_json(), "split_hash": _hashes(split)})
    _write_json(
        run_dir / "split.json", {"train": split.train, "validation": split.validation}
    )
    size = max(stage.size for stage in config.stages)
    cache = run_dir / "pixels"
    train = dataset.prepare(data, split.train, config.classes, size, cache, "train")
    validation = dataset.prepare(data, split.validation, config.classes, size, cache, "validation")
    if len(train.names) < config.batch_size:
        raise DatasetError(f"{len(train.names)} samples do not fill a batch of {config.batch_size}")
    with _policy(choose_precision(config.precision)):
        run = _Run(config, run_dir, train, validation)
        run.go()
        scores = run.finish()
    shutil.rmtree(cache)
    return TrainResult(run_dir, scores)


def _split(config: TrainConfig, data: Path) -> dataset.Split:
    cut = dataset.split_article if config.split == "article" else dataset.split_official
    split = cut(data, config.seed)
    if config.limit is None:
        return split
    kept = max(config.limit // 4, 1)
    return dataset.Split(split.train[: config.limit], split.validation[:kept])


def _hashes(split: dataset.Split) -> dict[str, str]:
    return {
        "train": dataset.hash_names(split.train),
        "validation": dataset.hash_names(split.validation),
    }


@contextmanager
def _policy(name: str) -> Iterator[None]:
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(name)
    try:
        yield
    finally:
        keras.config.set_dtype_policy(before)


class _Run:
    """The state of one run: its model, how many epochs are done, and the best score so far."""

    def __init__(
        self,
        config: TrainConfig,
        run_dir: Path,
        train: dataset.Prepared,
        validation: dataset.Prepared,
    ) -> None:
        self.config = config
        self.run_dir = run_dir
        self.train = train
        self.validation = validation
        self.checkpoint, self.done = _newest_checkpoint(run_dir)
        self.history = _read_history(run_dir, self.done)
        self.confusion: evaluation.Confusion | None = None

    def go(self) -> None:
        first = 0
        model: keras.Model | None = None
        for stage in self.config.stages:
            last = first + stage.epochs
            if self.done < last:
                model = self._enter(stage, first, model)
                for epoch in range(self.done, last):
                    self._epoch(model, stage, epoch)
            first = last

    def _enter(self, stage: Stage, first: int, previous: keras.Model | None) -> keras.Model:
        """The model a stage goes on with, compiled."""
        if self.done > first and self.checkpoint is not None:
            # Within a stage: optimiser state and all.
            model: keras.Model = keras.models.load_model(self.checkpoint)
            return model
        model = build_segmenter(self._architecture(stage.size))
        if previous is None and self.checkpoint is not None:
            previous = keras.models.load_model(self.checkpoint, compile=False)
        if previous is not None:
            model.set_weights(previous.get_weights())
        else:
            self._initialize(model, stage)
        model.get_layer("encoder").trainable = self.config.train_encoder
        model.compile(
            optimizer=_optimizer(self.config, stage, len(self.train.names)),
            loss="sparse_categorical_crossentropy",
            metrics=["accuracy"],
            # XLA pays on accelerators and for jax; on a CPU TensorFlow's own kernels are faster.
            jit_compile=keras.backend.backend() == "jax"
            or bool(keras.distribution.list_devices("gpu")),
        )
        return model

    def _architecture(self, size: int) -> Architecture:
        return Architecture(size, len(self.config.classes), self.config.filters)

    def _initialize(self, model: keras.Model, stage: Stage) -> None:
        if self.config.init is not None:
            print(weights.load_start(model, Path(self.config.init)))
            return
        sample = TrainingBatches(self.train, _CALIBRATION_IMAGES, stage.size, None, (0,))
        images, _ = sample[0]
        print(weights.initialize(model, self.config.encoder_weights, images, self.config.seed))

    def _epoch(self, model: keras.Model, stage: Stage, epoch: int) -> None:
        batches = TrainingBatches(
            self.train,
            self.config.batch_size,
            stage.size,
            self.config.augmentation,
            (self.config.seed, epoch),
        )
        started = time.perf_counter()
        progress = EpochProgress(epoch, self.config.epochs, len(batches), self.config.batch_size)
        logs = model.fit(
            batches, initial_epoch=epoch, epochs=epoch + 1, shuffle=False, verbose=0,
            callbacks=[progress],
        ).history
        seconds = time.perf_counter() - started
        val_loss, confusion = validate(model, self.validation, stage.size, self.config)
        figures = self._scores(confusion)
        row = {
            "epoch": epoch + 1,
            "size": stage.size,
            "learning_rate": float(model.optimizer.learning_rate),
            "loss": logs["loss"][-1],
            "accuracy": logs["accuracy"][-1],
            "val_loss": val_loss,
            "val_accuracy": figures.pixel_accuracy,
            "val_mean_iou": figures.mean_iou,
            "seconds": seconds,
            "images_per_second": len(batches) * self.config.batch_size / seconds,
        }
        self._keep(model, epoch + 1, row)
        print(
            f"epoch {epoch + 1}/{self.config.epochs}  {stage.size} px  "
            f"loss {row['loss']:.4f}  accuracy {row['accuracy']:.4f}  "
            f"val_loss {val_loss:.4f}  val_accuracy {figures.pixel_accuracy:.4f}  "
            f"val_mean_iou {figures.mean_iou:.4f}  {row['images_per_second']:.1f} images/s",
            flush=True,
        )

    def _scores(self, confusion: evaluation.Confusion) -> evaluation.Scores:
        return evaluation.scores(confusion, self.config.classes)

    def _keep(self, model: keras.Model, done: int, row: dict[str, Any]) -> None:
        """Write the checkpoint first: a history row without its checkpoint is cut off again."""
        path = self.run_dir / f"checkpoint-{done:04d}.keras"
        save_atomically(model, path)
        if self.checkpoint is not None and self.checkpoint != path:
            self.checkpoint.unlink()
        self.checkpoint, self.done = path, done
        self.history.append({name: str(value) for name, value in row.items()})
        _write_history(self.run_dir, self.history)
        plots.curves(self.history, self.run_dir / "curves.png")

    def finish(self) -> evaluation.Scores:
        """Write the model in float32, and what the validation part says of it."""
        assert self.checkpoint is not None
        trained = keras.models.load_model(self.checkpoint, compile=False)
        size = self.config.stages[-1].size
        _, confusion = validate(trained, self.validation, size, self.config)
        with _policy("float32"):
            model = build_segmenter(self._architecture(size))
        model.set_weights(trained.get_weights())
        model.get_layer("encoder").trainable = self.config.train_encoder
        save_atomically(model, self.run_dir / "model.keras")
        images = self.validation.images[:_PANEL_SAMPLES]
        shown = np.stack([dataset.transforms.to_model(image, size) for image in images])
        truth = np.stack(
            [
                dataset.transforms.trimap_to_model(trimap, size)
                for trimap in self.validation.trimaps[:_PANEL_SAMPLES]
            ]
        )
        predicted = _predict(trained, shown).argmax(axis=-1).astype(np.uint8)
        plots.predictions(
            shown, truth, predicted, self.config.classes, self.run_dir / "predictions.png"
        )
        figures = self._scores(confusion)
        _write_json(
            self.run_dir / "metrics.json",
            {
                "part": "validation",
                "images": len(self.validation.names),
                "size": size,
                "precision": trained.dtype_policy.name,
                **figures.as_dict(),
                "confusion": confusion.tolist(),
                "broken": {**self.train.broken, **self.validation.broken},
            },
        )
        self.checkpoint.unlink()
        return figures


def validate(
    model: keras.Model, samples: dataset.Prepared, size: int, config: TrainConfig
) -> tuple[float, evaluation.Confusion]:
    """Mean cross-entropy per pixel in nats, and the confusion matrix, at `size`."""
    classes = len(config.classes)
    confusion = np.zeros((classes, classes), np.int64)
    loss = 0.0
    for first in range(0, len(samples.names), config.batch_size):
        part = slice(first, first + config.batch_size)
        images = np.stack([dataset.transforms.to_model(i, size) for i in samples.images[part]])
        truth = np.stack(
            [dataset.transforms.trimap_to_model(t, size) for t in samples.trimaps[part]]
        )
        probabilities = _predict(model, images)
        chosen = np.take_along_axis(probabilities, truth[..., None].astype(np.intp), axis=-1)
        loss -= float(np.log(np.maximum(chosen, 1e-7)).mean(axis=(1, 2)).sum())
        confusion += evaluation.confusion_matrix(truth, probabilities.argmax(axis=-1), classes)
    return loss / len(samples.names), confusion


def _predict(model: keras.Model, images: NDArray[np.uint8]) -> NDArray[np.float32]:
    return np.asarray(model.predict_on_batch(keras.ops.convert_to_numpy(preprocess(images))))


def _optimizer(config: TrainConfig, stage: Stage, samples: int) -> keras.optimizers.Optimizer:
    steps = stage.epochs * (samples // config.batch_size)
    rate: float | keras.optimizers.schedules.LearningRateSchedule = stage.learning_rate
    if config.schedule == "cosine":
        warmup = min(config.warmup_steps, steps // 10)
        rate = keras.optimizers.schedules.CosineDecay(
            initial_learning_rate=0.0 if warmup else stage.learning_rate,
            decay_steps=steps - warmup,
            warmup_target=stage.learning_rate if warmup else None,
            warmup_steps=warmup,
        )
    if config.optimizer == "adamw":
        return keras.optimizers.AdamW(
            rate, weight_decay=config.weight_decay, global_clipnorm=config.clip_norm
        )
    return keras.optimizers.Adam(rate, global_clipnorm=config.clip_norm)


def save_atomically(model: keras.Model, path: Path) -> None:
    """Save a model so that `path` is whole or not there."""
    temporary = path.with_name(f".{os.getpid()}-{path.name}")
    try:
        model.save(temporary)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def _newest_checkpoint(run_dir: Path) -> tuple[Path | None, int]:
    found = sorted(run_dir.glob("checkpoint-*.keras"))
    if not found:
        return None, 0
    return found[-1], int(found[-1].stem.rpartition("-")[2])


def _read_history(run_dir: Path, done: int) -> list[dict[str, str]]:
    path = run_dir / "history.csv"
    if not path.exists():
        return []
    with path.open(newline="", encoding="utf-8") as file:
        return [row for row in csv.DictReader(file) if int(row["epoch"]) <= done]


def _write_history(run_dir: Path, history: list[dict[str, str]]) -> None:
    temporary = run_dir / ".history.csv"
    with temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, HISTORY_FIELDS)
        writer.writeheader()
        writer.writerows(history)
    temporary.replace(run_dir / "history.csv")


def _write_json(path: Path, value: dict[str, Any]) -> None:
    temporary = path.with_name(f".{path.name}")
    temporary.write_text(json.dumps(value, indent=1) + "\n", encoding="utf-8")
    temporary.replace(path)
