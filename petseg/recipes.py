"""What a training run is: one frozen dataclass, checked when built and saved with the run."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any, Literal, get_args

from petseg.augmentation import Augmentation
from petseg.classes import PET_CLASSES, SegmentClass

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
        epochs: passes over the training samples.
        learning_rate: the highest of the stage; see `TrainConfig.schedule`.
    """

    size: int
    epochs: int
    learning_rate: float

    def __post_init__(self) -> None:
        if self.size < 32 or self.size % 32:
            raise ValueError(f"a stage's size must be a positive multiple of 32, not {self.size}")
        if self.epochs < 1:
            raise ValueError(f"a stage needs at least 1 epoch, not {self.epochs}")
        if not 0 < self.learning_rate < 1:
            raise ValueError(f"the learning rate must lie in 0..1, not {self.learning_rate}")


@dataclass(frozen=True)
class TrainConfig:
    """Everything that decides what a run computes.

    Attributes:
        recipe: the name of the recipe it started from.
        stages: one after the other, each from the weights of the one before.
        batch_size: samples a step; what is left over at the end of an epoch is not used.
        optimizer: "adam" (Kingma and Ba 2015) or "adamw" (Loshchilov and Hutter 2019).
        weight_decay: of adamw, per step and times the learning rate.
        clip_norm: gradients are scaled down to this global L2 norm; None leaves them.
        schedule: "constant", or "cosine": linear warm-up, then half a cosine down to 0.
        warmup_steps: of the cosine schedule, in each stage; at most a tenth of the stage.
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
    optimizer: OptimizerName = "adam"
    weight_decay: float = 0.0
    clip_norm: float | None = None
    schedule: ScheduleName = "constant"
    warmup_steps: int = 0
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
        if self.limit is not None and self.limit < self.batch_size:
            raise ValueError(f"{self.limit} samples do not fill a batch of {self.batch_size}")
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
        if not 0 <= self.seed <= _MAX_SEED:
            raise ValueError(f"the seed must lie in 0..{_MAX_SEED}, not {self.seed}")

    @property
    def epochs(self) -> int:
        """Epochs of all stages."""
        return sum(stage.epochs for stage in self.stages)

    def to_json(self) -> dict[str, Any]:
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> TrainConfig:
        """The inverse of `to_json`; keys that are no fields are passed over.

        Raises:
            TypeError, KeyError: a field is missing or of the wrong kind.
            ValueError: a value that no run can have.
        """
        known = {item.name: values[item.name] for item in dataclasses.fields(cls)}
        augmentation = known["augmentation"]
        return cls(
            **{
                **known,
                "stages": tuple(Stage(**stage) for stage in known["stages"]),
                "classes": tuple(
                    SegmentClass(**{**item, "color": tuple(item["color"])})
                    for item in known["classes"]
                ),
                "filters": tuple(known["filters"]),
                "augmentation": augmentation and Augmentation(**augmentation),
            }
        )


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

RECIPES = {recipe.recipe: recipe for recipe in (ARTICLE, SCRATCH)}
