from __future__ import annotations

import dataclasses
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from petseg.errors import DatasetError
from petseg.network import weights
from petseg.network.model import BREED, HEAD, build_segmenter, preprocess
from petseg.training import learner
from petseg.training.recipes import LONG, SCRATCH

TINY = dataclasses.replace(
    LONG, filters=(4, 4, 8, 8, 8), encoder_weights="none", warmup_steps=0, ema_momentum=0.9
)


def draw(count: int) -> np.ndarray:
    found: np.ndarray = preprocess(
        np.random.default_rng(0).integers(0, 256, (count, 64, 64, 3), np.uint8)
    )
    return found


def test_a_learner_with_breeds_tells_both() -> None:
    model = learner.build_learner(TINY, 64, breeds=5)
    found = model.predict_on_batch(draw(2))
    assert (found[HEAD].shape, found[BREED].shape) == ((2, 64, 64, 3), (2, 5))
    np.testing.assert_allclose(np.exp(found[HEAD]).sum(axis=-1), 1, atol=1e-5)
    plain = learner.build_learner(dataclasses.replace(SCRATCH, filters=TINY.filters), 64, breeds=0)
    assert plain.output_shape == (None, 64, 64, 3)
    assert plain.count_params() == build_segmenter(learner.architecture(TINY, 64)).count_params()


def test_the_loss_is_the_recipes() -> None:
    model = learner.build_learner(TINY, 64, breeds=5)
    learner.compile_learner(model, TINY, TINY.stages[0], steps=10)
    images = draw(2)
    truth = {
        HEAD: np.random.default_rng(1).integers(0, 3, (2, 64, 64), np.uint8),
        BREED: np.eye(5, dtype=np.float32)[[1, 3]],
    }
    found = model.predict_on_batch(images)
    logits = found[BREED] - found[BREED].max(axis=1, keepdims=True)
    logs = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
    breed = -(logs * truth[BREED]).sum(axis=1).mean()
    segmentation = float(model.loss[HEAD](truth[HEAD], found[HEAD]))
    total = model.test_on_batch(images, truth, return_dict=True)["loss"]
    assert total == pytest.approx(segmentation + TINY.breed_weight * breed, rel=1e-4)
    assert TINY.dice_weight == model.loss[HEAD].dice_weight


def test_with_a_frozen_encoder_it_learns_and_a_checkpoint_gives_what_is_kept(
    tmp_path: Path,
) -> None:
    config = dataclasses.replace(TINY, train_encoder=False)
    model = learner.build_learner(config, 64, breeds=5)
    learner.start(model, config, 64, draw(4))
    learner.compile_learner(model, config, config.stages[0], steps=10)
    before = weights.learnt(model)
    truth = {HEAD: np.zeros((4, 64, 64), np.uint8), BREED: np.eye(5, dtype=np.float32)[:4]}
    for _ in range(3):
        model.train_on_batch(draw(4), truth)
    after = weights.learnt(model)
    for name, pair in after.items():
        same = all((found == old).all() for found, old in zip(pair, before[name], strict=True))
        # Its statistics included.
        assert same == name.startswith("block"), name

    model.save(tmp_path / "checkpoint-0001.keras")
    network = build_segmenter(learner.architecture(TINY, 64))
    origin = weights.load_start(network, tmp_path / "checkpoint-0001.keras", 0)
    assert str(origin) == f"started from {tmp_path / 'checkpoint-0001.keras'}"
    expected = [array for pair in after.values() for array in pair]
    for found, array in zip(network.get_weights(), expected, strict=True):
        np.testing.assert_array_equal(found, array)
    with pytest.raises(DatasetError, match="cannot start from"):
        weights.load_start(build_segmenter(), tmp_path / "checkpoint-0001.keras", 0)


STEPS = """
import dataclasses, sys
import keras, numpy as np
from petseg.network import weights
from petseg.training import learner
from petseg.network.model import BREED, HEAD, preprocess
from petseg.training.recipes import LONG

config = dataclasses.replace(
    LONG, filters=(4, 4, 8, 8, 8), init=sys.argv[1], warmup_steps=0, ema_momentum=0.5
)
random = np.random.default_rng(0)
images = preprocess(random.integers(0, 256, (4, 64, 64, 3), np.uint8))
model = learner.build_learner(config, 64, breeds=0)
learner.start(model, config, 64, images)
learner.compile_learner(model, config, config.stages[0], steps=100)
trimaps = random.integers(0, 3, (4, 64, 64), np.uint8)
trimaps[:, :8] = 255
losses = [model.fit(images, trimaps, batch_size=4, verbose=0).history["loss"][0] for _ in range(3)]
kept = weights.learnt(model)["connect_1/refine"]
print(keras.backend.backend(), *losses, *(float(np.abs(array).sum()) for array in kept))
"""


@pytest.mark.jax
def test_all_of_it_is_the_same_on_jax(tmp_path: Path) -> None:
    source = build_segmenter(learner.architecture(TINY, 64))
    weights.initialize(source, "none", draw(4), seed=0)
    source.save(tmp_path / "start.keras")
    found = {}
    for backend in ("tensorflow", "jax"):
        done = subprocess.run(
            [sys.executable, "-c", STEPS, str(tmp_path / "start.keras")],
            env={**os.environ, "KERAS_BACKEND": backend},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        name, *numbers = done.stdout.split()
        assert name == backend
        found[backend] = [float(number) for number in numbers]
    # Later figures follow from the gradients of the steps before.
    assert found["jax"] == pytest.approx(found["tensorflow"], rel=1e-3)
    assert found["jax"][0] != found["jax"][2]
