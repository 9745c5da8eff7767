from __future__ import annotations

import dataclasses
import json
from typing import Any

import pytest

from petseg.recipes import ARTICLE, RECIPES, SCRATCH, Stage, TrainConfig


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
    del values["seed"]
    with pytest.raises(KeyError, match="seed"):
        TrainConfig.from_json(values)


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
        ({"seed": -1}, "seed must lie in"),
        ({"precision": "int8"}, "precision must be one of"),
    ],
)
def test_a_configuration_is_checked(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(SCRATCH, **values)


@pytest.mark.parametrize("values", [(100, 1, 1e-3), (64, 0, 1e-3), (64, 1, 0.0)])
def test_a_stage_is_checked(values: tuple[int, int, float]) -> None:
    with pytest.raises(ValueError, match="not"):
        Stage(*values)
