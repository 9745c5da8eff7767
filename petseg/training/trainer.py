"""fit(config, data, run_dir): train a segmenter, or go on with a run that was cut off."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

import keras
import numpy as np
from numpy.typing import NDArray

from petseg.data import dataset
from petseg.data.batches import TrainingBatches
from petseg.data.pixels import prepare
from petseg.errors import DatasetError
from petseg.network import weights
from petseg.network.averages import averaged_weights
from petseg.network.model import build_segmenter, table
from petseg.scoring import breeds, evaluation
from petseg.system.temporary import replacing
from petseg.training import events, learner, spread
from petseg.training.display import Display
from petseg.training.precision import choose_precision
from petseg.training.progress import TrainingProgress, accuracy, say
from petseg.training.recipes import Stage, TrainConfig
from petseg.training.runs import RunFolder
from petseg.training.validation import predict, validate

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


def fit(
    config: TrainConfig,
    data: Path,
    run_dir: Path,
    tensorboard: bool = False,
    devices: tuple[int, ...] = (),
) -> TrainResult:
    """Train as `config` says.  The same call goes on with a run that was cut off.

    A run resumed on the same machine ends as if it had not been cut off: weights and optimiser come
    back from the last epoch's checkpoint, order and augmentation follow from seed and epoch.

    Args:
        config: the run; that of the folder, if it holds one already.
        data: folder in Oxford's layout.
        run_dir: the run's folder (see `runs`); made if it is not there.
        tensorboard: whether TensorBoard's files are written, too.
        devices: to share each batch out among, by their numbers; empty for the backend's choice.

    Raises:
        DatasetError: data, breeds or weights are missing, damaged or do not fit, the folder holds
            another run or a finished one, or another process is at work in it.
        MissingPackageError: TensorBoard is asked for and not installed.
        PetsegError: there is no such device, or a batch cannot be shared out among so many.
    """
    if tensorboard:
        events.writer_class()
    scope = spread.scope(devices)
    for stage in config.stages:
        spread.check(config.batch_size_of(stage), len(devices))
    folder = RunFolder(run_dir)
    split = None
    if not folder.begun:
        split = dataset.split(data, config.split, config.seed, config.limit)
        weights.check(config.encoder_weights, config.init)
        _breeds(config, data, split.train)
    with folder.locked():
        if split is not None and not folder.begun:
            folder.begin(config, split, data)
        elif folder.finished:
            raise DatasetError(f"the run is finished; petseg-export model.onnx --from {run_dir}")
        elif folder.config() != config:
            raise DatasetError(f"{run_dir} holds a run with other options; choose another folder")
        folder.sweep()
        try:
            with Display(config, folder, tensorboard) as display:
                return _Run(config, folder, data, display, scope).go()
        finally:
            folder.sweep()


def summary(config: TrainConfig) -> str:
    """The layers of the network that `config` trains last, as a table."""
    model = build_segmenter(learner.architecture(config, config.stages[-1].size))
    model.get_layer("encoder").trainable = config.train_encoder
    return table(model)


def _breeds(config: TrainConfig, data: Path, names: tuple[str, ...]) -> NDArray[np.float32] | None:
    if not config.breed_weight:
        return None
    return dataset.breed_table(dataset.read_breeds(data), names)


class _Run:
    """One process' work on a run: its samples, its networks, and what was done before."""

    def __init__(
        self,
        config: TrainConfig,
        folder: RunFolder,
        data: Path,
        display: Display,
        scope: spread.Scope,
    ) -> None:
        self.config = config
        self.scope = scope
        self.folder = folder
        self.data = data
        self.display = display
        self.precision = choose_precision(config.precision, learner.on_gpu())
        size = max(stage.size for stage in config.stages)
        split = folder.split()
        parts = {"train": split.train, "validation": split.validation}
        prepared = prepare(data, parts, config.classes, size, folder.pixels)
        self.train, self.validation = prepared["train"], prepared["validation"]
        largest = max(map(config.batch_size_of, config.stages))
        if len(self.train.names) < largest:
            raise DatasetError(f"{len(self.train.names)} samples do not fill a batch of {largest}")
        self.breeds = _breeds(config, data, self.train.names)
        self.history = folder.history()
        self.progress = TrainingProgress(config.stages)

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
                with learner.policy(self.precision):
                    network = build_segmenter(learner.architecture(self.config, stage.size))
                for epoch in range(done, last):
                    self._epoch(model, network, stage, epoch)
            first = last
        return self._finish()

    def _enter(self, stage: Stage, first: int, previous: keras.Model | None) -> keras.Model:
        """The compiled learner that a stage, whose epochs begin at `first`, goes on with."""
        checkpoint, done = self.folder.checkpoint()
        if checkpoint is not None and done > first:
            # Within a stage: the optimiser's state and all.
            return self._load(checkpoint)
        count = 0 if self.breeds is None else self.breeds.shape[1]
        with self.scope(), learner.policy(self.precision):
            model = learner.build_learner(self.config, stage.size, count)
        if previous is None and checkpoint is not None:
            previous = self._load(checkpoint)
        if previous is not None:
            model.set_weights(averaged_weights(previous))
        else:
            images, _ = self._plain(_CALIBRATION_IMAGES, stage)[0]
            say(str(learner.start(model, self.config, stage.size, images)))
        steps = stage.epochs * len(self._batches(stage, epoch=first))
        with self.scope():
            learner.compile_learner(model, self.config, stage, steps)
        return model

    def _batches(self, stage: Stage, epoch: int) -> TrainingBatches:
        return TrainingBatches(
            self.train,
            self.config.batch_size_of(stage),
            stage.size,
            self.config.augmentation_of(stage),
            (self.config.seed, epoch),
            self.config.passes,
            self.breeds,
        )

    def _plain(self, count: int, stage: Stage) -> TrainingBatches:
        """Batches of training samples as they are."""
        return TrainingBatches(self.train, count, stage.size, None, (0,), breeds=self.breeds)

    def _build_metrics(self, model: keras.Model, stage: Stage) -> None:
        """Keep a first `fit` from building them: on jax and torch that costs it its first batch,
        and a resumed epoch would see its samples in another order.
        """
        if keras.backend.backend() != "tensorflow":
            model.test_on_batch(*self._plain(1, stage)[0])

    def _epoch(self, model: keras.Model, network: keras.Model, stage: Stage, epoch: int) -> None:
        config = self.config
        batches = self._batches(stage, epoch)
        shown = len(batches) * batches.batch_size
        started = time.perf_counter()
        with self.scope(), self.progress.epoch(epoch, len(batches), batches.batch_size):
            logs = model.fit(
                batches,
                initial_epoch=epoch,
                epochs=epoch + 1,
                shuffle=False,
                verbose=0,
                callbacks=[keras.callbacks.LambdaCallback(on_train_batch_end=self.progress.step)],
            ).history
        seconds = time.perf_counter() - started
        # What is scored is what would be kept.
        weights.assign(network, weights.learnt(model), self.folder.path)
        val_loss, confusions = validate(network, self.validation, stage.size, batches.batch_size)
        figures = evaluation.scores(confusions.sum(axis=0), config.classes)
        row = {
            "epoch": epoch + 1,
            "size": stage.size,
            "learning_rate": float(keras.ops.convert_to_numpy(model.optimizer.learning_rate)),
            "loss": logs["loss"][-1],
            "accuracy": accuracy(logs)[-1],
            "val_loss": val_loss,
            "val_accuracy": figures.pixel_accuracy,
            "val_mean_iou": figures.mean_iou,
            "seconds": seconds,
            "images_per_second": shown / seconds,
        }
        self.history.append({name: str(value) for name, value in row.items()})
        # Before the checkpoint, which the epoch is not done again after.
        self.display.predictions(
            epoch + 1,
            stage.size,
            self.validation,
            lambda images: predict(network, images).argmax(axis=-1),
        )
        self.folder.keep_epoch(epoch + 1, self.history, model.save)
        self.display.epoch(self.history)
        say(
            f"epoch {epoch + 1}/{config.epochs}  {stage.size} px  "
            f"loss {row['loss']:.4f}  accuracy {row['accuracy']:.4f}  "
            f"val_loss {val_loss:.4f}  val_accuracy {figures.pixel_accuracy:.4f}  "
            f"val_mean_iou {figures.mean_iou:.4f}  {row['images_per_second']:.1f} images/s"
        )

    def _finish(self) -> TrainResult:
        """Write the model in float32, and what the validation part says of it."""
        checkpoint, _ = self.folder.checkpoint()
        assert checkpoint is not None
        trained = self._load(checkpoint)
        arrays = weights.learnt(trained)
        # What the checkpoint computes in: it may come from another machine.
        precision = trained.get_layer("connect_1").dtype_policy.name
        stage = self.config.stages[-1]
        networks = []
        for name in ("float32", precision):
            with learner.policy(name):
                networks.append(build_segmenter(learner.architecture(self.config, stage.size)))
            weights.assign(networks[-1], arrays, checkpoint)
        # A mixed policy is stored with the layers; what is kept computes in float32.
        kept, scored = networks
        kept.get_layer("encoder").trainable = self.config.train_encoder
        with replacing(self.folder.model_file) as temporary:
            kept.save(temporary)
        batch_size = self.config.batch_size_of(stage)
        _, confusions = validate(scored, self.validation, stage.size, batch_size)
        confusion = confusions.sum(axis=0)
        figures = evaluation.scores(confusion, self.config.classes)
        names = dataset.name_breeds(self.data, self.validation.names)
        breed_scores = breeds.score(confusions, names, self.config.classes)
        if breed_scores:
            breeds.write(self.folder.breeds_file, breed_scores)
        self.folder.keep_metrics(
            {
                "part": "validation",
                "images": len(self.validation.names),
                "size": stage.size,
                "precision": precision,
                **figures.as_dict(),
                "confusion": confusion.tolist(),
                "broken": {**self.train.broken, **self.validation.broken},
            }
        )
        self.display.end(self.history, confusion)
        self.folder.finish()
        return TrainResult(self.folder.path, len(self.validation.names), figures)

    def _load(self, checkpoint: Path) -> keras.Model:
        with self.scope():
            return learner.load(checkpoint, self.precision)
