"""Batches for Keras, made of prepared samples on every backend alike."""

from __future__ import annotations

from typing import Any

import cv2
import keras
import numpy as np
from numpy.typing import NDArray

from petseg.data import patches
from petseg.data.augmentation import Augmentation, augment
from petseg.data.pixels import Prepared
from petseg.network.model import BREED, HEAD, preprocess
from petseg.photos import transforms
from petseg.system.machine import usable_cores

# Threads that make batches.  What takes long is OpenCV's and numpy's and lets go of Python's lock.
_MAX_WORKERS = 16


class TrainingBatches(keras.utils.PyDataset):  # type: ignore[misc]
    """One epoch: the samples in an order drawn from the seed, each as often as there are passes.

    Item i is a pair: preprocessed images float32 (B, S, S, 3) and class ids uint8 (B, S, S), or
    with breeds a dictionary of the ids and of each image's parts of the breeds, float32 (B, K).
    It depends on the seed and on i alone, not on the thread that makes it or on the items before.
    What does not fill a last batch is left for another epoch.
    """

    def __init__(
        self,
        samples: Prepared,
        batch_size: int,
        size: int,
        augmentation: Augmentation | None,
        seed: tuple[int, ...],
        passes: int = 1,
        breeds: NDArray[np.float32] | None = None,
        workers: int | None = None,
    ) -> None:
        """Draw the order.

        Args:
            samples: at least one.
            batch_size: B; at most all samples.
            size: S, pixels.
            augmentation: None leaves the samples as they are.
            seed: of order and augmentation.
            passes: how often each sample is shown.
            breeds: one row a sample, 1 for its breed and 0 for others, float32 (N, K).
            workers: threads that make batches; None takes one a core.
        """
        workers = workers or min(usable_cores(), _MAX_WORKERS)
        super().__init__(workers=workers, use_multiprocessing=False, max_queue_size=2 * workers)
        # These threads are the parallel ones; OpenCV's own would only stand in their way.
        cv2.setNumThreads(1)
        self.samples = samples
        self.batch_size = min(batch_size, len(samples.names))
        self.size = size
        self.augmentation = augmentation
        self.seed = seed
        self.breeds = breeds
        random = np.random.default_rng(seed)
        self.order = np.concatenate([random.permutation(len(samples.names)) for _ in range(passes)])

    def __len__(self) -> int:
        return len(self.order) // self.batch_size

    def __getitem__(self, index: int) -> tuple[NDArray[np.float32], Any]:
        chosen = self.order[index * self.batch_size : (index + 1) * self.batch_size]
        random = np.random.default_rng((*self.seed, index, 1))
        images = np.empty((len(chosen), self.size, self.size, 3), np.uint8)
        trimaps = np.empty((len(chosen), self.size, self.size), np.uint8)
        breeds = None if self.breeds is None else self.breeds[chosen]
        for place, sample in enumerate(chosen):
            image, trimap = self.samples.images[sample], self.samples.trimaps[sample]
            if self.augmentation is None:
                images[place] = transforms.to_model(image, self.size)
                trimaps[place] = transforms.trimap_to_model(trimap, self.size)
            else:
                images[place], trimaps[place] = augment(
                    image, trimap, self.size, self.augmentation, random
                )
        if self.augmentation is not None and self.augmentation.cutmix:
            parts = patches.mix(images, trimaps, self.augmentation.cutmix, random)[:, None]
            if breeds is not None:
                breeds = (1 - parts) * breeds + parts * np.roll(breeds, 1, axis=0)
        pixels = preprocess(images)
        return pixels, trimaps if breeds is None else {HEAD: trimaps, BREED: breeds}
