from __future__ import annotations

import dataclasses
import json
from typing import Any

import pytest

from petseg.data.augmentation import Augmentation
from petseg.training.recipes import ARTICLE, LONG, RECIPES, SCRATCH, Stage, TrainConfig


def test_the_article() -> None:
    assert ARTICLE.stages == (Stage(size=224, epochs=3, learning_rate=1e-4),)
    assert (ARTICLE.batch_size, ARTICLE.optimizer, ARTICLE.split) == (8, "adam", "article")
    assert (ARTICLE.train_encoder, ARTICLE.encoder_weights) == (False, "imagenet")
    assert ARTICLE.augmentation is None


@pytest.mark.parametrize("recipe", RECIPES.values(), ids=RECIPES)
def test_a_configuration_comes_back_from_json(recipe: TrainConfig) -> None:
    config = dataclasses.replace(recipe, limit=40, clip_norm=None, init="start.keras", seed=7)
    values = json.loads(json.dumps({**config.to_json(), "split_hash": {}}))
    assert TrainConfig.from_json(values) == config
    del values["stages"]
    with pytest.raises(KeyError, match="stages"):
        TrainConfig.from_json(values)


def test_a_run_of_an_older_version_has_what_came_later_switched_off() -> None:
    values = json.loads(json.dumps(SCRATCH.to_json()))
    for name in ("passes", "ema_momentum", "normalize", "breed_weight", "filters", "classes"):
        del values[name]
    for stage in values["stages"]:
        del stage["batch_size"], stage["strength"]
    values["augmentation"] = {"zoom": 1.2, "flip": True}
    expected = dataclasses.replace(SCRATCH, augmentation=Augmentation(zoom=1.2))
    assert TrainConfig.from_json(values) == expected


def test_a_stage_may_have_its_own_batch_size_and_strength() -> None:
    first, second = Stage(64, 1, 1e-3), Stage(96, 1, 1e-3, batch_size=4, strength=0.5)
    config = dataclasses.replace(LONG, stages=(first, second), limit=16)
    assert [config.batch_size_of(stage) for stage in config.stages] == [16, 4]
    assert LONG.augmentation is not None
    assert config.augmentation_of(first) == LONG.augmentation
    assert config.augmentation_of(second) == LONG.augmentation.times(0.5)
    with pytest.raises(ValueError, match="16 samples do not fill a batch of 32"):
        dataclasses.replace(config, stages=(dataclasses.replace(first, batch_size=32),))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"stages": ()}, "at least one stage"),
        ({"filters": (4, 4)}, "filters must be five positive numbers"),
        ({"batch_size": 0}, "batch size must be at least 1"),
        ({"limit": 4}, "4 samples do not fill a batch of 8"),
        ({"optimizer": "sgd"}, "optimizer must be one of adam, adamw, not sgd"),
        ({"optimizer": "adam"}, "weight decay needs the optimizer adamw"),
        ({"schedule": "constant"}, "warm-up needs the schedule cosine"),
        ({"clip_norm": -1.0}, "must be positive"),
        ({"ema_momentum": 1.0}, r"ema_momentum must lie in 0\.\.1, not 1\.0"),
        ({"dice_weight": -1.0}, r"dice_weight cannot be negative: -1\.0"),
        ({"passes": 0}, "at least 1 pass, not 0"),
        ({"seed": -1}, "seed must lie in"),
        ({"precision": "int8"}, "precision must be one of"),
    ],
)
def test_a_configuration_is_checked(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(SCRATCH, **values)


@pytest.mark.parametrize(
    "values",
    [
        (100, 1, 1e-3),
        (64, 0, 1e-3),
        (64, 1, 0.0),
        (64, 1, 1e-3, 0),
        (64, 1, 1e-3, None, 1.5),
    ],
)
def test_a_stage_is_checked(values: tuple[Any, ...]) -> None:
    with pytest.raises(ValueError, match="not"):
        Stage(*values)
