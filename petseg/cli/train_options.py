"""The hyperparameters as options: declared, explained with the recipes' values, and read."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, get_args

import click

from petseg.data import class_file
from petseg.data.augmentation import Augmentation
from petseg.training.recipes import (
    RECIPES,
    OptimizerName,
    Precision,
    ScheduleName,
    SplitName,
    Stage,
    TrainConfig,
)

Decorator = Callable[[Callable[..., None]], Callable[..., None]]

# What every stage must be given a value of, and what may be one value for all stages.
_STAGE_OPTIONS = ("size", "epochs", "learning_rate")
_COMMON_OPTIONS = ("batch_size", "strength")
_AUGMENTATION_OPTIONS = tuple(item.name for item in dataclasses.fields(Augmentation))


class Each(click.ParamType):  # type: ignore[type-arg]
    """One value a stage, separated by commas."""

    def __init__(self, kind: click.ParamType[Any]) -> None:
        self.kind = kind
        self.name = f"{kind.name},..."

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[Any, ...]:
        if isinstance(value, tuple):
            return value
        return tuple(self.kind.convert(part, param, ctx) for part in str(value).split(","))


def _choice(names: Any) -> click.Choice[str]:
    return click.Choice(get_args(names))


def _of_recipe(flags: str, kind: click.ParamType[Any] | None, text: str = "") -> Decorator:
    """An option that takes the place of a field of the recipe."""
    field = _field(flags)
    values = {name: getattr(recipe, field) for name, recipe in RECIPES.items()}
    return click.option(flags, default=None, type=kind, help=_with_defaults(text, values))


def _of_stage(flag: str, kind: click.ParamType[Any], text: str) -> Decorator:
    """An option that takes the place of a field of every stage."""
    field = _field(flag)
    values = {
        name: tuple(getattr(stage, field) for stage in recipe.stages)
        for name, recipe in RECIPES.items()
    }
    return click.option(flag, type=Each(kind), help=_with_defaults(text, values))


def _of_augmentation(flags: str, kind: click.ParamType[Any] | None, text: str) -> Decorator:
    field = _field(flags)
    values = {
        name: getattr(recipe.augmentation, field)
        for name, recipe in RECIPES.items()
        if recipe.augmentation is not None
    }
    return click.option(
        flags, default=None, type=kind, help=_with_defaults(f"With --augment: {text}", values)
    )


def _field(flags: str) -> str:
    return flags.partition("/")[0].removeprefix("--").replace("-", "_")


def _with_defaults(text: str, values: Mapping[str, Any]) -> str:
    shown = {name: _shown(value) for name, value in values.items()}
    if len(set(shown.values())) == 1:
        return f"{text}  [{next(iter(shown.values()))}]"
    return f"{text}  [{'; '.join(f'{name}: {value}' for name, value in shown.items())}]"


def _shown(value: Any) -> str:
    if isinstance(value, tuple):
        return ",".join(map(_shown, value))
    if isinstance(value, bool):
        return "yes" if value else "no"
    return "none" if value is None else str(value)


_OPTIONS = (
    _of_stage("--epochs", click.INT, "Passes over the training samples."),
    _of_stage("--size", click.INT, "Input side in pixels, a multiple of 32."),
    _of_stage("--learning-rate", click.FLOAT, "The highest of the stage."),
    click.option(
        "--batch-size",
        type=Each(click.INT),
        help=_with_defaults(
            "Samples a step, one number or one a stage.",
            {name: recipe.batch_size for name, recipe in RECIPES.items()},
        ),
    ),
    _of_recipe("--passes", click.INT, "How often an epoch shows each training sample."),
    _of_recipe("--optimizer", _choice(OptimizerName)),
    _of_recipe("--weight-decay", click.FLOAT, "Of adamw's kernels."),
    _of_recipe("--clip-norm", click.FLOAT, "Largest global norm of the gradients; 0 leaves them."),
    _of_recipe("--schedule", _choice(ScheduleName), "Of the learning rate in a stage."),
    _of_recipe("--warmup-steps", click.INT, "Of the cosine schedule, in each stage."),
    _of_recipe(
        "--ema-momentum", click.FLOAT, "Of the average of weights that is kept; 0 for none."
    ),
    _of_recipe(
        "--normalize/--no-normalize", None, "Train with batch normalisation, folded at the end."
    ),
    _of_recipe("--dice-weight", click.FLOAT, "Of soft Dice, beside cross-entropy."),
    _of_recipe("--boundary-weight", click.FLOAT, "Added to the weight of pixels near boundaries."),
    _of_recipe("--label-smoothing", click.FLOAT, "Part of the truth spread over all classes."),
    _of_recipe("--breed-weight", click.FLOAT, "Of telling breeds apart, by list.txt's numbers."),
    click.option(
        "--augment/--no-augment",
        default=None,
        help="Vary training samples.  [article: --no-augment]",
    ),
    _of_stage("--strength", click.FLOAT, "With --augment: part of the ranges below, 0..1."),
    _of_augmentation("--flip/--no-flip", None, "mirror half of the samples."),
    _of_augmentation("--zoom", click.FLOAT, "enlarge by up to this factor."),
    _of_augmentation("--shrink", click.FLOAT, "reduce by up to this factor."),
    _of_augmentation("--stretch", click.FLOAT, "change the ratio of sides by up to this factor."),
    _of_augmentation("--rotation", click.FLOAT, "turn by up to this angle, degrees, either way."),
    _of_augmentation("--brightness", click.FLOAT, "add up to this share of 255, either way."),
    _of_augmentation("--contrast", click.FLOAT, "change by up to this share, either way."),
    _of_augmentation("--gamma", click.FLOAT, "exponent up to this, or one divided by it."),
    _of_augmentation("--saturation", click.FLOAT, "change by up to this share, either way."),
    _of_augmentation(
        "--hue", click.FLOAT, "turn colours by up to this angle, degrees, either way."
    ),
    _of_augmentation("--greyscale", click.FLOAT, "share of the samples without colour."),
    _of_augmentation("--blur", click.FLOAT, "blur a third by up to this many pixels."),
    _of_augmentation("--sharpen", click.FLOAT, "sharpen another third by up to this amount."),
    _of_augmentation("--cutout", click.FLOAT, "share of the samples with a hole."),
    _of_augmentation("--cutmix", click.FLOAT, "share of the samples with a part of another."),
    _of_recipe("--train-encoder/--freeze-encoder", None),
    _of_recipe(
        "--encoder-weights",
        click.STRING,
        "imagenet, none, or a FILE.npz; what a file does not hold is drawn so that it trains.",
    ),
    click.option(
        "--init",
        type=click.Path(exists=True, path_type=Path),
        help="Start from all weights of a run, a FILE.keras or a FILE.onnx.",
    ),
    _of_recipe(
        "--split",
        _choice(SplitName),
        "article: list.txt, 80/20; official: trainval.txt, 90/10, test.txt is never read.",
    ),
    click.option(
        "--classes",
        type=click.Path(exists=True, dir_okay=False, path_type=Path),
        help="FILE.csv with name,value,color,foreground of each class, or a FILE.onnx that has "
        "them.  [pet 1, background 2, border 3]",
    ),
    _of_recipe("--precision", _choice(Precision), "auto takes bfloat16 where it is fast."),
    _of_recipe("--seed", click.IntRange(min=0), "Of split, drawn weights, order and augmentation."),
    click.option(
        "--limit",
        type=click.IntRange(min=1),
        help="Train on at most this many images, validate on a quarter of that.",
    ),
    _of_recipe("--filters", Each(click.INT), "Channels of the encoder's five blocks."),
)


def hyperparameters(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command an option for every hyperparameter; None stands for the recipe's value."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


def configure(recipe: TrainConfig, options: Mapping[str, Any]) -> TrainConfig:
    """A recipe with the options that were given (those that are not None) in its place.

    Raises:
        click.UsageError: options that no run can have, or that do not go together.
        DatasetError, ModelError: the file of classes holds none.
    """
    given = {name: value for name, value in options.items() if value is not None}
    # One batch size is the run's; several are the stages' own.
    if len(given.get("batch_size", ())) == 1:
        common = {"batch_size": given["batch_size"][0]}
        given["batch_size"] = (None,)
    else:
        common = {}
    try:
        columns = (*_STAGE_OPTIONS, *_COMMON_OPTIONS)
        stages = _stages(recipe, {name: given.pop(name) for name in columns if name in given})
        augmentation = _augmentation(
            recipe,
            given.pop("augment", recipe.augmentation is not None),
            {name: given.pop(name) for name in _AUGMENTATION_OPTIONS if name in given},
        )
        if given.get("encoder_weights") not in {None, "imagenet", "none"}:
            given["encoder_weights"] = str(Path(given["encoder_weights"]).resolve())
        if "init" in given:
            given["init"] = str(given["init"].resolve())
        if "classes" in given:
            given["classes"] = class_file.read(given["classes"])
        if given.get("clip_norm") == 0:
            given["clip_norm"] = None
        return dataclasses.replace(
            recipe, stages=stages, augmentation=augmentation, **common, **given
        )
    except ValueError as error:
        raise click.UsageError(str(error)) from error


def _stages(recipe: TrainConfig, given: Mapping[str, tuple[Any, ...]]) -> tuple[Stage, ...]:
    columns = {
        name: given.get(name, tuple(getattr(stage, name) for stage in recipe.stages))
        for name in _STAGE_OPTIONS
    }
    if len({len(column) for column in columns.values()}) > 1:
        counts = ", ".join(
            f"{len(column)} for --{name.replace('_', '-')}"
            + ("" if name in given else f" (from the recipe {recipe.recipe})")
            for name, column in columns.items()
        )
        raise ValueError(f"every stage needs one value of each, found {counts}")
    count = len(columns["size"])
    for name in _COMMON_OPTIONS:
        columns[name] = _for_all(name, recipe, given.get(name), count)
    return tuple(
        Stage(**dict(zip(columns, row, strict=True))) for row in zip(*columns.values(), strict=True)
    )


def _for_all(
    name: str, recipe: TrainConfig, given: tuple[Any, ...] | None, count: int
) -> tuple[Any, ...]:
    """One value a stage of what may be one value for all of them."""
    values = given or tuple(getattr(stage, name) for stage in recipe.stages)
    if len(set(values)) == 1 and len(values) in (1, len(recipe.stages)):
        return values[:1] * count
    if len(values) == count:
        return values
    raise ValueError(
        f"--{name.replace('_', '-')} needs one value for all stages or one for each of {count}, "
        f"found {','.join(map(str, values))}"
        + ("" if given else f" (from the recipe {recipe.recipe})")
    )


def _augmentation(
    recipe: TrainConfig, augment: bool, given: Mapping[str, Any]
) -> Augmentation | None:
    if augment:
        return dataclasses.replace(recipe.augmentation or Augmentation(), **given)
    if given:
        raise ValueError(f"--{next(iter(given))} needs --augment: samples are not varied")
    return None
