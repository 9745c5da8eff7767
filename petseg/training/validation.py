"""How a network does on samples it was not trained on."""

from __future__ import annotations

import keras
import numpy as np
from numpy.typing import NDArray

from petseg.data.pixels import Prepared
from petseg.network.model import preprocess
from petseg.scoring.evaluation import Confusion, confusion_matrix

# Keras' sparse cross-entropy keeps probabilities this far from 0 (keras.backend.epsilon()).
_EPSILON = 1e-7


def validate(
    model: keras.Model, samples: Prepared, size: int, batch_size: int
) -> tuple[float, NDArray[np.int64]]:
    """Cross-entropy over all pixels of all samples, and each sample's confusion matrix.

    Args:
        model: from `model.build_segmenter`.
        samples: at least one.
        size: the model's input size, pixels.
        batch_size: samples at a time.

    Returns:
        Mean cross-entropy per pixel in nats, and int64 (N, C, C), rows truth, columns prediction;
        their sum is the matrix of all pixels.
    """
    classes = model.output_shape[-1]
    confusions: list[Confusion] = []
    loss = 0.0
    for first in range(0, len(samples.names), batch_size):
        images, truth = samples.at(slice(first, first + batch_size), size)
        probabilities = predict(model, images)
        chosen = np.take_along_axis(probabilities, truth[..., None].astype(np.intp), axis=-1)
        loss -= float(np.log(np.maximum(chosen, _EPSILON)).mean(axis=(1, 2)).sum())
        predicted = probabilities.argmax(axis=-1)
        confusions += [
            confusion_matrix(*pair, classes) for pair in zip(truth, predicted, strict=True)
        ]
    return loss / len(samples.names), np.stack(confusions)


def predict(model: keras.Model, images: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Probabilities float32 (N, S, S, C) for RGB uint8 (N, S, S, 3)."""
    return np.asarray(model.predict_on_batch(preprocess(images)), np.float32)
