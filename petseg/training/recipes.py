"""What a training run is: one frozen dataclass, checked when built and saved with the run."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, replace
from typing import Any, Literal, get_args

from petseg.classes import PET_CLASSES, SegmentClass
from petseg.data.augmentation import Augmentation

Precision = Literal["auto", "float32", "mixed_bfloat16", "mixed_float16"]
SplitName = Literal["article", "official"]
OptimizerName = Literal["adam", "adamw"]
ScheduleName = Literal["constant", "cosine"]

_CHOICES = {
    "precision": Precision,
    "split": SplitName,
    "optimizer": OptimizerName,
    "schedule": ScheduleName,
}
# Seeds are numpy's and Keras' alike.
_MAX_SEED = 2**32 - 1


@dataclass(frozen=True)
class Stage:
    """A part of a run at one input size.

    Attributes:
        size: side of the input, pixels; a multiple of 32.
        epochs: how many (see `TrainConfig.passes`).
        learning_rate: the highest of the stage; see `TrainConfig.schedule`.
        batch_size: samples a step; None takes the run's.
        strength: part of the run's augmentation that is used, 0..1.
    """

    size: int
    epochs: int
    learning_rate: float
    batch_size: int | None = None
    strength: float = 1.0

    def __post_init__(self) -> None:
        if self.size < 32 or self.size % 32:
            raise ValueError(f"a stage's size must be a positive multiple of 32, not {self.size}")
        if self.epochs < 1:
            raise ValueError(f"a stage needs at least 1 epoch, not {self.epochs}")
        if not 0 < self.learning_rate < 1:
            raise ValueError(f"the learning rate must lie in 0..1, not {self.learning_rate}")
        if self.batch_size is not None and self.batch_size < 1:
            raise ValueError(f"the batch size must be at least 1, not {self.batch_size}")
        if not 0 <= self.strength <= 1:
            raise ValueError(f"the augmentation's strength must lie in 0..1, not {self.strength}")


@dataclass(frozen=True)
class TrainConfig:
    """Everything that decides what a run computes.

    Attributes:
        recipe: the name of the recipe it started from.
        stages: one after the other, each from the weights of the one before.
        batch_size: samples a step; what is left over at the end of an epoch is not used.
        passes: how often an epoch shows each training sample.
        optimizer: "adam" (Kingma and Ba 2015) or "adamw" (Loshchilov and Hutter 2019).
        weight_decay: of adamw's kernels, per step and times the learning rate.
        clip_norm: gradients are scaled down to this global L2 norm; None leaves them.
        schedule: "constant", or "cosine": linear warm-up, then half a cosine down to 0.
        warmup_steps: of the cosine schedule, in each stage; at most a tenth of the stage.
        ema_momentum: of an average of the weights over training, which is what is validated and
            kept (Polyak and Juditsky 1992); 0 keeps the weights themselves.
        normalize: whether the network is trained with batch normalisation, which is folded into
            what is kept.
        dice_weight, boundary_weight, label_smoothing: see `losses.SegmentationLoss`.
        breed_weight: of the cross-entropy of an auxiliary head that tells breeds apart; it is no
            part of what is kept.
        augmentation: None leaves the samples as they are.
        train_encoder: whether the encoder's weights change.
        encoder_weights: "imagenet", "none", or the path of an .npz file.
        init: run, .keras or .onnx file whose weights are the start, in place of encoder_weights.
        split: "article" (80/20 of everything) or "official" (trainval less a validation part).
        seed: of split, initial weights, order and augmentation.
        precision: Keras' dtype policy; "auto" chooses for this machine.
        limit: at most this many training samples, and a quarter of it for validation.
        classes: what is told apart.
        filters: the encoder's channels.
    """

    recipe: str
    stages: tuple[Stage, ...]
    batch_size: int
    passes: int = 1
    optimizer: OptimizerName = "adam"
    weight_decay: float = 0.0
    clip_norm: float | None = None
    schedule: ScheduleName = "constant"
    warmup_steps: int = 0
    ema_momentum: float = 0.0
    normalize: bool = False
    dice_weight: float = 0.0
    boundary_weight: float = 0.0
    label_smoothing: float = 0.0
    breed_weight: float = 0.0
    augmentation: Augmentation | None = None
    train_encoder: bool = False
    encoder_weights: str = "imagenet"
    init: str | None = None
    split: SplitName = "article"
    seed: int = 0
    precision: Precision = "auto"
    limit: int | None = None
    classes: tuple[SegmentClass, ...] = PET_CLASSES
    filters: tuple[int, int, int, int, int] = (64, 128, 256, 512, 512)

    def __post_init__(self) -> None:
        for name, choices in _CHOICES.items():
            if getattr(self, name) not in get_args(choices):
                raise ValueError(
                    f"{name} must be one of {', '.join(get_args(choices))}, "
                    f"not {getattr(self, name)}"
                )
        if not self.stages:
            raise ValueError("a run needs at least one stage")
        if len(self.filters) != 5 or min(self.filters) < 1:
            raise ValueError(f"filters must be five positive numbers, not {self.filters}")
        if self.batch_size < 1:
            raise ValueError(f"the batch size must be at least 1, not {self.batch_size}")
        if self.passes < 1:
            raise ValueError(f"an epoch needs at least 1 pass, not {self.passes}")
        largest = max(map(self.batch_size_of, self.stages))
        if self.limit is not None and self.limit < largest:
            raise ValueError(f"{self.limit} samples do not fill a batch of {largest}")
        if not 0 <= self.weight_decay < 1:
            raise ValueError(f"weight decay must lie in 0..1, not {self.weight_decay}")
        if self.weight_decay and self.optimizer != "adamw":
            raise ValueError(f"weight decay needs the optimizer adamw, not {self.optimizer}")
        if self.clip_norm is not None and self.clip_norm <= 0:
            raise ValueError(
                f"the norm to clip gradients to must be positive, not {self.clip_norm}"
            )
        if self.warmup_steps < 0:
            raise ValueError(f"warm-up steps cannot be negative: {self.warmup_steps}")
        if self.warmup_steps and self.schedule != "cosine":
            raise ValueError(f"warm-up needs the schedule cosine, not {self.schedule}")
        for name in ("ema_momentum", "label_smoothing"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"{name} must lie in 0..1, not {getattr(self, name)}")
        for name in ("dice_weight", "boundary_weight", "breed_weight"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} cannot be negative: {getattr(self, name)}")
        if not 0 <= self.seed <= _MAX_SEED:
            raise ValueError(f"the seed must lie in 0..{_MAX_SEED}, not {self.seed}")

    @property
    def epochs(self) -> int:
        """Epochs of all stages."""
        return sum(stage.epochs for stage in self.stages)

    def batch_size_of(self, stage: Stage) -> int:
        """Samples a step in a stage."""
        return stage.batch_size or self.batch_size

    def augmentation_of(self, stage: Stage) -> Augmentation | None:
        """What is done to the samples of a stage."""
        return self.augmentation and self.augmentation.times(stage.strength)

    def to_json(self) -> dict[str, Any]:
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> TrainConfig:
        """The inverse of `to_json`; keys that are no fields are passed over.

        A field that is not there, as in a run of an older version, takes its default.

        Raises:
            TypeError, KeyError: a field without default is missing, or one is of the wrong kind.
            ValueError: a value that no run can have.
        """
        known = {
            item.name: values[item.name]
            for item in dataclasses.fields(cls)
            if item.name in values or item.default is dataclasses.MISSING
        }
        known["stages"] = tuple(Stage(**stage) for stage in known["stages"])
        if known.get("augmentation") is not None:
            known["augmentation"] = Augmentation(**known["augmentation"])
        if "classes" in known:
            known["classes"] = tuple(map(SegmentClass.from_json, known["classes"]))
        if "filters" in known:
            known["filters"] = tuple(known["filters"])
        return cls(**known)


ARTICLE = TrainConfig(
    recipe="article",
    stages=(Stage(size=224, epochs=3, learning_rate=1e-4),),
    batch_size=8,
)

# Without ImageNet weights beyond the encoder's first blocks, everything has to learn.
SCRATCH = TrainConfig(
    recipe="scratch",
    stages=(
        Stage(size=128, epochs=24, learning_rate=3e-4),
        Stage(size=224, epochs=2, learning_rate=1e-4),
    ),
    batch_size=8,
    optimizer="adamw",
    weight_decay=1e-4,
    clip_norm=1.0,
    schedule="cosine",
    warmup_steps=200,
    augmentation=Augmentation(),
    train_encoder=True,
    encoder_weights="none",
    split="official",
)

# Scratch with all that is expected to carry further.  Its values are first ones: none of them has
# been through a long run yet.
LONG = replace(
    SCRATCH,
    recipe="long",
    # Detail is learnt last and with milder changes, which are also nearer to what is asked in use.
    stages=(
        Stage(size=128, epochs=30, learning_rate=1e-3),
        Stage(size=224, epochs=6, learning_rate=2e-4, strength=0.6),
    ),
    # Enough samples for batch statistics, few enough for the memory of a small machine.
    batch_size=16,
    # An epoch's end (validation, checkpoint, curves) takes seconds, as long as a fast GPU's epoch.
    passes=4,
    # Behind normalisation a kernel's size does not matter but for the size of its steps, which
    # decay is what keeps from shrinking: it has to be felt within a run, unlike scratch's 1e-4.
    weight_decay=0.02,
    warmup_steps=400,
    # Some 500 steps, about two passes over the samples: longer than the noise of single batches,
    # much shorter than a stage.
    ema_momentum=0.998,
    # Thirteen drawn layers train faster and at higher rates.
    normalize=True,
    # The score is IoU, which Dice follows and which weighs the thin border class like the others.
    dice_weight=0.5,
    # Most errors lie near boundaries; most pixels do not.
    boundary_weight=1.0,
    # Annotators differ by a pixel or two.
    label_smoothing=0.05,
    # Nothing else teaches an encoder without ImageNet what animals look like.
    breed_weight=0.2,
    augmentation=Augmentation(
        # Pets fill the photo or a small part of it, and are seldom upright alone.
        zoom=1.6,
        shrink=1.3,
        stretch=1.25,
        rotation=20.0,
        # Indoor light, night shots, faded colours.
        brightness=0.15,
        contrast=0.35,
        gamma=1.4,
        saturation=0.5,
        hue=12.0,
        greyscale=0.1,
        # Photos at work are sharper or softer than the copies trained on.
        blur=1.2,
        sharpen=0.8,
        # 3,312 photos are few: no single patch of a pet may be what it is known by.
        cutout=0.25,
        cutmix=0.25,
    ),
)

# Long from all of ImageNet's weights, fine-tuned end to end.  Its values are first ones, too: the
# recipe has not been through a run.
BEST = replace(
    LONG,
    recipe="best",
    encoder_weights="imagenet",
    # The encoder need not learn what animals look like, but keep it: fewer passes, in steps that
    # do not overwrite it, and no breeds.
    stages=(
        Stage(size=128, epochs=10, learning_rate=2e-4),
        Stage(size=224, epochs=6, learning_rate=1e-4, strength=0.6),
    ),
    breed_weight=0.0,
)

# What each reaches, on what machine, in which time: `reached.REACHED`.
RECIPES = {recipe.recipe: recipe for recipe in (ARTICLE, SCRATCH, LONG, BEST)}
