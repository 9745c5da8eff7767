"""fit(config, data, run_dir): train a segmenter, or go on with a run that was cut off."""

from __future__ import annotations

import importlib
import sys
import time
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import keras
from tqdm import tqdm

from petseg import dataset, evaluation, plots, weights
from petseg.batches import TrainingBatches
from petseg.errors import DatasetError
from petseg.model import Architecture, build_segmenter, table
from petseg.pixels import prepare
from petseg.precision import choose_precision
from petseg.progress import EpochProgress
from petseg.recipes import Stage, TrainConfig
from petseg.runs import RunFolder
from petseg.temporary import replacing
from petseg.validation import predict, validate

_PANEL_SAMPLES = 6
_CALIBRATION_IMAGES = 16


@dataclass(frozen=True)
class TrainResult:
    """Where a finished run lies, and how its model scores on the validation part.

    Attributes:
        run_dir: the run's folder.
        images: samples of the validation part.
        scores: its figures, at the last stage's size.
    """

    run_dir: Path
    images: int
    scores: evaluation.Scores


def fit(config: TrainConfig, data: Path, run_dir: Path) -> TrainResult:
    """Train as `config` says.  The same call goes on with a run that was cut off.

    A run resumed on the same machine ends as if it had not been cut off: weights and optimiser come
    back from the last epoch's checkpoint, order and augmentation follow from seed and epoch.

    Args:
        config: the run; that of the folder, if it holds one already.
        data: folder in Oxford's layout.
        run_dir: the run's folder (see `runs`); made if it is not there.

    Raises:
        DatasetError: data or weights are missing, damaged or do not fit, the folder holds another
            run or a finished one, or another process is at work in it.
    """
    folder = RunFolder(run_dir)
    split = None if folder.begun else _split(config, data)
    if split is not None:
        weights.check(config.encoder_weights, config.init)
    with folder.locked():
        if split is not None and not folder.begun:
            folder.begin(config, split, data)
        elif folder.finished:
            raise DatasetError(f"the run is finished; petseg-export model.onnx --from {run_dir}")
        elif folder.config() != config:
            raise DatasetError(f"{run_dir} holds a run with other options; choose another folder")
        folder.sweep()
        try:
            return _Run(config, folder, data).go()
        finally:
            folder.sweep()


def summary(config: TrainConfig) -> str:
    """The layers of the network that `config` trains last, as a table."""
    model = build_segmenter(_architecture(config, config.stages[-1].size))
    model.get_layer("encoder").trainable = config.train_encoder
    return table(model)


def _architecture(config: TrainConfig, size: int) -> Architecture:
    return Architecture(size, len(config.classes), config.filters)


def _split(config: TrainConfig, data: Path) -> dataset.Split:
    cut = dataset.split_article if config.split == "article" else dataset.split_official
    split = cut(data, config.seed)
    if config.limit is None:
        return split
    kept = max(config.limit // 4, 1)
    return dataset.Split(split.train[: config.limit], split.validation[:kept])


def on_gpu() -> bool:
    """Whether the backend computes on a GPU."""
    if keras.backend.backend() == "torch":
        # Keras lists no devices for torch.
        return bool(importlib.import_module("torch").cuda.is_available())
    # Of all devices: jax raises where a kind that is asked for is not there.
    return any(device.startswith("gpu") for device in keras.distribution.list_devices())


@contextmanager
def _policy(name: str) -> Iterator[None]:
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(name)
    try:
        yield
    finally:
        keras.config.set_dtype_policy(before)


def _say(line: str) -> None:
    # Not over a progress bar, and not to stdout, which is for results.
    tqdm.write(line, file=sys.stderr)


class _Run:
    """One process' work on a run: its samples, its model, and what was done before."""

    def __init__(self, config: TrainConfig, folder: RunFolder, data: Path) -> None:
        self.config = config
        self.folder = folder
        self.precision = choose_precision(config.precision, on_gpu())
        size = max(stage.size for stage in config.stages)
        split = folder.split()
        self.train, self.validation = (
            prepare(data, names, config.classes, size, folder.pixels, part)
            for part, names in (("train", split.train), ("validation", split.validation))
        )
        if len(self.train.names) < config.batch_size:
            raise DatasetError(
                f"{len(self.train.names)} samples do not fill a batch of {config.batch_size}"
            )
        self.history = folder.history()

    def go(self) -> TrainResult:
        keras.utils.set_random_seed(self.config.seed)
        model: keras.Model | None = None
        first = 0
        for stage in self.config.stages:
            last = first + stage.epochs
            done = self.folder.checkpoint()[1]
            if done < last:
                model = self._enter(stage, first, model)
                self._build_metrics(model, stage)
                for epoch in range(done, last):
                    self._epoch(model, stage, epoch)
            first = last
        return self._finish()

    def _enter(self, stage: Stage, first: int, previous: keras.Model | None) -> keras.Model:
        """The compiled model that a stage, whose epochs begin at `first`, goes on with."""
        checkpoint, done = self.folder.checkpoint()
        if checkpoint is not None and done > first:
            # Within a stage: the optimiser's state and all.  A loaded model's own policy, which
            # decides whether its loss is scaled, is the one in force and not the stored one.
            with _policy(self.precision):
                return _load(checkpoint, compiled=True)
        with _policy(self.precision):
            model = build_segmenter(_architecture(self.config, stage.size))
        if previous is None and checkpoint is not None:
            previous = _load(checkpoint, compiled=False)
        if previous is not None:
            model.set_weights(previous.get_weights())
        else:
            self._initialize(model, stage)
        model.get_layer("encoder").trainable = self.config.train_encoder
        backend = keras.backend.backend()
        model.compile(
            optimizer=_optimizer(self.config, stage, len(self.train.names)),
            loss="sparse_categorical_crossentropy",
            metrics=["accuracy"],
            # On a CPU TensorFlow's own kernels are faster than XLA's.
            jit_compile=backend == "jax" or (backend == "tensorflow" and on_gpu()),
        )
        return model

    def _initialize(self, model: keras.Model, stage: Stage) -> None:
        if self.config.init is not None:
            _say(weights.load_start(model, Path(self.config.init)))
            return
        images, _ = TrainingBatches(self.train, _CALIBRATION_IMAGES, stage.size, None, (0,))[0]
        _say(weights.initialize(model, self.config.encoder_weights, images, self.config.seed))

    def _build_metrics(self, model: keras.Model, stage: Stage) -> None:
        """Keep a first `fit` from building them: on jax and torch that costs it its first batch,
        and a resumed epoch would see its samples in another order.
        """
        if keras.backend.backend() != "tensorflow":
            model.test_on_batch(*TrainingBatches(self.train, 1, stage.size, None, (0,))[0])

    def _epoch(self, model: keras.Model, stage: Stage, epoch: int) -> None:
        config = self.config
        seed = (config.seed, epoch)
        batches = TrainingBatches(
            self.train, config.batch_size, stage.size, config.augmentation, seed
        )
        started = time.perf_counter()
        with EpochProgress(epoch, config.epochs, len(batches), config.batch_size) as progress:
            logs = model.fit(
                batches,
                initial_epoch=epoch,
                epochs=epoch + 1,
                shuffle=False,
                verbose=0,
                callbacks=[progress],
            ).history
        seconds = time.perf_counter() - started
        val_loss, confusion = validate(model, self.validation, stage.size, config.batch_size)
        figures = evaluation.scores(confusion, config.classes)
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
            "images_per_second": len(batches) * config.batch_size / seconds,
        }
        self.history.append({name: str(value) for name, value in row.items()})
        self.folder.keep_epoch(epoch + 1, self.history, model.save)
        plots.curves(self.history, self.folder.path / "curves.png")
        _say(
            f"epoch {epoch + 1}/{config.epochs}  {stage.size} px  "
            f"loss {row['loss']:.4f}  accuracy {row['accuracy']:.4f}  "
            f"val_loss {val_loss:.4f}  val_accuracy {figures.pixel_accuracy:.4f}  "
            f"val_mean_iou {figures.mean_iou:.4f}  {row['images_per_second']:.1f} images/s"
        )

    def _finish(self) -> TrainResult:
        """Write the model in float32, and what the validation part says of it."""
        checkpoint, _ = self.folder.checkpoint()
        assert checkpoint is not None
        trained = _load(checkpoint, compiled=False)
        size = self.config.stages[-1].size
        # A mixed policy is stored with the layers; what is kept computes in float32.
        with _policy("float32"):
            model = build_segmenter(_architecture(self.config, size))
        model.set_weights(trained.get_weights())
        model.get_layer("encoder").trainable = self.config.train_encoder
        with replacing(self.folder.model_file) as temporary:
            model.save(temporary)
        _, confusion = validate(trained, self.validation, size, self.config.batch_size)
        figures = evaluation.scores(confusion, self.config.classes)
        images, truth = self.validation.at(slice(_PANEL_SAMPLES), size)
        predicted = predict(trained, images).argmax(axis=-1)
        plots.predictions(
            images, truth, predicted, self.config.classes, self.folder.path / "predictions.png"
        )
        self.folder.finish(
            {
                "part": "validation",
                "images": len(self.validation.names),
                "size": size,
                # What the checkpoint computes in: it may come from another machine.
                "precision": trained.get_layer("connect_1").dtype_policy.name,
                **figures.as_dict(),
                "confusion": confusion.tolist(),
                "broken": {**self.train.broken, **self.validation.broken},
            }
        )
        return TrainResult(self.folder.path, len(self.validation.names), figures)


def _load(checkpoint: Path, compiled: bool) -> keras.Model:
    try:
        return keras.models.load_model(checkpoint, compile=compiled)
    except (OSError, ValueError, TypeError, KeyError, zipfile.BadZipFile) as error:
        raise DatasetError(
            f"cannot go on from {checkpoint}: {error}; begin the run again in another folder"
        ) from error


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
