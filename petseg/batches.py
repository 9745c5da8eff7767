"""Batches for Keras, made of prepared samples on every backend alike."""

from __future__ import annotations

import keras
import numpy as np
from numpy.typing import NDArray

from petseg import transforms
from petseg.augmentation import Augmentation, augment
from petseg.machine import usable_cores
from petseg.model import preprocess
from petseg.pixels import Prepared

# Threads that make batches; more than this wait for each other on Python's lock.
_MAX_WORKERS = 8


class TrainingBatches(keras.utils.PyDataset):  # type: ignore[misc]
    """One epoch: every sample at most once, in an order drawn from the seed.

    Item i is a pair: preprocessed images float32 (B, S, S, 3) and class ids uint8 (B, S, S).  It
    depends on the seed and on i alone, not on the thread that makes it or on the items before.
    What does not fill a last batch is left for another epoch.
    """

    def __init__(
        self,
        samples: Prepared,
        batch_size: int,
        size: int,
        augmentation: Augmentation | None,
        seed: tuple[int, ...],
    ) -> None:
        workers = min(usable_cores(), _MAX_WORKERS)
        super().__init__(workers=workers, use_multiprocessing=False, max_queue_size=2 * workers)
        self.samples = samples
        self.batch_size = min(batch_size, len(samples.names))
        self.size = size
        self.augmentation = augmentation
        self.seed = seed
        self.order = np.random.default_rng(seed).permutation(len(samples.names))

    def __len__(self) -> int:
        return len(self.order) // self.batch_size

    def __getitem__(self, index: int) -> tuple[NDArray[np.float32], NDArray[np.uint8]]:
        chosen = self.order[index * self.batch_size : (index + 1) * self.batch_size]
        random = np.random.default_rng((*self.seed, index, 1))
        images = np.empty((len(chosen), self.size, self.size, 3), np.uint8)
        trimaps = np.empty((len(chosen), self.size, self.size), np.uint8)
        for place, sample in enumerate(chosen):
            image, trimap = self.samples.images[sample], self.samples.trimaps[sample]
            if self.augmentation is None:
                images[place] = transforms.to_model(image, self.size)
                trimaps[place] = transforms.trimap_to_model(trimap, self.size)
            else:
                images[place], trimaps[place] = augment(
                    image, trimap, self.size, self.augmentation, random
                )
        return preprocess(images), trimaps
