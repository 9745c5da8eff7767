"""Does the exported file compute what the Keras network computes?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import keras
import numpy as np
import onnxruntime
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter

from petseg.classes import PET_CLASSES, SegmentClass, values_to_ids
from petseg.data import dataset
from petseg.errors import DatasetError, ImageError, ModelError
from petseg.modelfile.signature import INPUT, MASK, PROBABILITIES
from petseg.network.model import preprocess
from petseg.photos import imageio, transforms
from petseg.scoring import evaluation

# So many, where nobody asks for more.
IMAGES = 32
_BATCH = 8

# The largest difference of a probability, of 255, and the least share of equal mask pixels.
# Rounding to int8 is averaged over a layer's channels: 0.997 was measured for VGG16's, 0.967 for
# 4 to 8 channels of drawn weights.  The bound finds broken files, `MOST_LOST` poor ones.
BOUNDS = {"float32": (1, 0.9999), "float16": (255, 0.999), "int8": (255, 0.95)}
# How much mean IoU a file may lose, where the photos' trimaps are there.
MOST_LOST = {"float32": 0.0005, "float16": 0.0005, "int8": 0.003}


@dataclass(frozen=True)
class Pictures:
    """What two networks are compared on.

    Attributes:
        images: RGB uint8 (N, S, S, 3).
        trimaps: class ids uint8 (N, S, S), where they are known.
        classes: what the ids mean.
    """

    images: NDArray[np.uint8]
    trimaps: NDArray[np.uint8] | None = None
    classes: tuple[SegmentClass, ...] = PET_CLASSES


@dataclass(frozen=True)
class Parity:
    """How close two networks are.

    Attributes:
        images: how many were compared.
        probability_difference: the largest, 0..255, over all pixels and classes.
        equal_pixels: share of mask pixels with the same class id, 0..1.
        mean_iou: of the Keras network and of the ONNX file, where trimaps were there.
    """

    images: int
    probability_difference: int
    equal_pixels: float
    mean_iou: tuple[float, float] | None = None

    def __str__(self) -> str:
        text = (
            f"{self.images} images, largest probability difference "
            f"{self.probability_difference} of 255, {self.equal_pixels:.4%} of mask pixels equal"
        )
        if self.mean_iou is None:
            return text
        keras_iou, onnx_iou = self.mean_iou
        return f"{text}, mean IoU {onnx_iou:.4f} where Keras has {keras_iou:.4f}"


def compare(network: keras.Model, model: bytes, pictures: Pictures) -> Parity:
    """Run Keras in float32 and onnxruntime's CPU provider on the same images.

    Args:
        network: from `model.build_segmenter`, float32.
        model: the ONNX file's bytes.
        pictures: what both are given.
    """
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    difference = equal = pixels = 0
    images = pictures.images
    counts = np.zeros((2, len(pictures.classes), len(pictures.classes)), np.int64)
    for first in range(0, len(images), _BATCH):
        batch = images[first : first + _BATCH]
        mask, probabilities = session.run([MASK, PROBABILITIES], {INPUT: batch})
        expected = network.predict_on_batch(preprocess(batch))
        planes = np.rint(255 * expected.transpose(0, 3, 1, 2)).astype(np.int16)
        difference = max(difference, int(np.abs(planes - probabilities).max()))
        masks = expected.argmax(axis=-1), mask
        equal += int((masks[0] == masks[1]).sum())
        pixels += mask.size
        if pictures.trimaps is not None:
            truth = pictures.trimaps[first : first + _BATCH]
            counts += [evaluation.confusion_matrix(truth, ids, counts.shape[1]) for ids in masks]
    if pictures.trimaps is None:
        return Parity(len(images), difference, equal / pixels)
    keras_iou, onnx_iou = (evaluation.scores(part, pictures.classes).mean_iou for part in counts)
    return Parity(len(images), difference, equal / pixels, (keras_iou, onnx_iou))


def check(found: Parity, precision: str) -> None:
    """Raise ModelError where `found` is out of the bounds of `precision`."""
    difference, share = BOUNDS[precision]
    lost = 0.0 if found.mean_iou is None else found.mean_iou[0] - found.mean_iou[1]
    apart = found.probability_difference > difference or found.equal_pixels < share
    if apart or lost > MOST_LOST[precision]:
        raise ModelError(
            f"the {precision} file does not compute what the Keras network computes: {found}; "
            f"expected at most {difference} of 255, at least {share:.2%}, and at most "
            f"{MOST_LOST[precision]} of mean IoU lost; nothing was written"
        )


def read_pictures(
    root: Path,
    size: int,
    classes: tuple[SegmentClass, ...],
    names: Sequence[str] = (),
    count: int = IMAGES,
) -> Pictures:
    """The first photos that a data set has, with their trimaps, if any.

    Args:
        root: folder in Oxford's layout.
        size: S, pixels.
        classes: what the trimaps' values mean.
        names: come first, in the manner of a list's, and then those of trainval.txt or else
            list.txt.  Of an official split this leaves the test list alone: a file is refused by
            what is found here.
        count: how many; photos that cannot be read are passed over.

    Raises:
        DatasetError: no list, or fewer photos that can be read.
    """
    lists = [root / "annotations" / name for name in ("trainval.txt", "list.txt")]
    listed = [name for path in lists if path.exists() for name in dataset.read_list(path)]
    if not listed:
        raise DatasetError(f"{root} is not in Oxford-IIIT Pet's layout: it has no {lists[0]}")
    table = values_to_ids(classes)
    annotated = (root / dataset.TRIMAPS).is_dir()
    images: list[NDArray[np.uint8]] = []
    trimaps: list[NDArray[np.uint8]] = []
    for name in dict.fromkeys([*names, *listed]):
        try:
            photo, _ = imageio.decode_reduced(dataset.image_path(root, name).read_bytes(), size)
            if annotated:
                trimap = dataset.read_trimap(dataset.trimap_path(root, name), table)
                trimaps.append(transforms.trimap_to_model(trimap, size))
        except (OSError, ImageError):
            # Training names what it cannot read; here another photo serves as well.
            continue
        images.append(transforms.to_model(photo, size))
        if len(images) == count:
            return Pictures(np.stack(images), np.stack(trimaps) if annotated else None, classes)
    raise DatasetError(f"{root} has {len(images)} photos that can be read; {count} are compared")


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
