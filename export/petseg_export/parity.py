"""Does the exported file compute what the Keras network computes?"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import keras
import numpy as np
import onnxruntime
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter

from petseg import dataset, imageio, transforms
from petseg.errors import DatasetError, ImageError, ModelError
from petseg.model import preprocess
from petseg.signature import INPUT, MASK, PROBABILITIES

IMAGES = 32
_BATCH = 8

# The largest difference of a probability, of 255, and the least share of equal mask pixels.
BOUNDS = {"float32": (1, 0.9999), "float16": (255, 0.999)}


@dataclass(frozen=True)
class Parity:
    """How close two networks are.

    Attributes:
        images: how many were compared.
        probability_difference: the largest, 0..255, over all pixels and classes.
        equal_pixels: share of mask pixels with the same class id, 0..1.
    """

    images: int
    probability_difference: int
    equal_pixels: float

    def __str__(self) -> str:
        return (
            f"{self.images} images, largest probability difference "
            f"{self.probability_difference} of 255, {self.equal_pixels:.4%} of mask pixels equal"
        )


def compare(network: keras.Model, model: bytes, images: NDArray[np.uint8]) -> Parity:
    """Run Keras in float32 and onnxruntime's CPU provider on the same images.

    Args:
        network: from `model.build_segmenter`, float32.
        model: the ONNX file's bytes.
        images: RGB uint8 (N, S, S, 3).
    """
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    difference = equal = pixels = 0
    for first in range(0, len(images), _BATCH):
        batch = images[first : first + _BATCH]
        mask, probabilities = session.run([MASK, PROBABILITIES], {INPUT: batch})
        expected = network.predict_on_batch(preprocess(batch))
        planes = np.rint(255 * expected.transpose(0, 3, 1, 2)).astype(np.int16)
        difference = max(difference, int(np.abs(planes - probabilities).max()))
        equal += int((mask == expected.argmax(axis=-1)).sum())
        pixels += mask.size
    return Parity(len(images), difference, equal / pixels)


def check(found: Parity, precision: str) -> None:
    """Raise ModelError where `found` is out of the bounds of `precision`."""
    difference, share = BOUNDS[precision]
    if found.probability_difference > difference or found.equal_pixels < share:
        raise ModelError(
            f"the {precision} file does not compute what the Keras network computes: {found}; "
            f"expected at most {difference} of 255 and at least {share:.2%}; nothing was written"
        )


def read_images(root: Path, size: int) -> NDArray[np.uint8]:
    """The first 32 photos that the lists of a data set name, squashed to (32, size, size, 3).

    Args:
        root: folder in Oxford's layout.
        size: S, pixels.

    Raises:
        DatasetError: no list, or fewer than 32 photos that can be read.
    """
    lists = [root / "annotations" / name for name in ("list.txt", "trainval.txt", "test.txt")]
    names = [name for path in lists if path.exists() for name in dataset.read_list(path)]
    if not names:
        raise DatasetError(f"{root} is not in Oxford-IIIT Pet's layout: it has no {lists[0]}")
    images: list[NDArray[np.uint8]] = []
    for name in dict.fromkeys(names):
        path = root / "images" / f"{name}.jpg"
        try:
            photo, _ = imageio.decode_reduced(path.read_bytes(), size)
            images.append(transforms.to_model(photo, size))
        except (OSError, ImageError):
            # Training names what it cannot read; here another photo serves as well.
            continue
        if len(images) == IMAGES:
            return np.stack(images)
    raise DatasetError(f"{root} has {len(images)} photos that can be read; {IMAGES} are compared")


def draw_images(size: int, count: int = IMAGES, seed: int = 0) -> NDArray[np.uint8]:
    """Seeded pictures, uint8 (count, size, size, 3): soft shapes on gradients of colour.

    Noise would not do: its averages are alike everywhere, and so would be what a network sees.
    """
    random = np.random.default_rng(seed)
    return np.stack([_draw(size, random) for _ in range(count)])


def _draw(size: int, random: np.random.Generator) -> NDArray[np.uint8]:
    corners = random.integers(0, 256, (2, 2, 3), dtype=np.uint8)
    picture = Image.fromarray(corners).resize((size, size), Image.Resampling.BILINEAR)
    pen = ImageDraw.Draw(picture)
    for _ in range(random.integers(2, 6)):
        color = tuple(random.integers(0, 256, 3).tolist())
        x, y = random.uniform(0, size, 2)
        radius = random.uniform(size / 16, size / 3)
        if random.random() < 0.5:
            pen.ellipse((x - radius, y - radius / 2, x + radius, y + radius / 2), fill=color)
        else:
            pen.regular_polygon((x, y, radius), n_sides=int(random.integers(3, 7)), fill=color)
    return np.array(picture.filter(ImageFilter.GaussianBlur(size / 128)))
