"""A model that is loaded, and a photo's way through it, from pixels or a file to a result."""

from __future__ import annotations

import os
import threading
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from petseg import runtime, segmentation, steps
from petseg.errors import ImageError
from petseg.library.result import Result
from petseg.masks.record import Maker
from petseg.photos import imageio, transforms
from petseg.planning.config import read_signature
from petseg.steps import Photo

# A file, an image that Pillow holds, or RGB uint8 (H, W, 3).
PhotoLike = str | os.PathLike[str] | Image.Image | NDArray[np.uint8]


@dataclass(frozen=True, eq=False)
class Reading:
    """A photo that was read.

    Attributes:
        photo: what is known of its file; or its pixels, RGB uint8 (H, W, 3), where it has none.
        seen: what the network sees of it, RGB uint8 (S, S, 3).
    """

    photo: Photo | NDArray[np.uint8]
    seen: NDArray[np.uint8]


class Segmenter:
    """A model, ready to run; any number of threads may use it.

    Attributes:
        session: the model on this machine; who wants more than `infer` opens streams of their own.
    """

    def __init__(
        self, model: Path, provider: str, precision: str, batch_size: int | None = None
    ) -> None:
        """Load a model.

        Args:
            model: a petseg ONNX file.
            provider: of `runtime.PROVIDERS`.
            precision: of `runtime.PRECISIONS`.
            batch_size: images at once through each stream; None leaves the choice.

        Raises:
            ModelError: the file cannot be run.
            ProviderError: the provider cannot be had here, or has no such precision.
            ValueError: there is no such provider.
        """
        signature = read_signature(model)
        chosen = runtime.choose(provider).provider
        self.session = runtime.open_session(model, signature, chosen, precision, batch_size)
        self._maker = Maker(signature.graph_hash, transforms.TRANSFORM, "source", "stem")
        self._stream, self._turn = self.session.open_stream(), threading.Lock()

    def read(self, photo: PhotoLike, max_pixels: int) -> Reading:
        """Bring a photo to the network's size.

        Raises:
            ImageError: it cannot be read; of a file, the message begins with its path.
            ValueError: pixels of another kind than RGB uint8 (H, W, 3).
        """
        side = self.session.signature.size
        if isinstance(photo, str | os.PathLike):
            path, seen = os.fspath(photo), np.empty((side, side, 3), np.uint8)
            try:
                return Reading(steps.read(path, seen, max_pixels), seen)
            except ImageError as error:
                raise ImageError(f"{path}: {error}") from error
        pixels = imageio.from_pillow(photo) if isinstance(photo, Image.Image) else _checked(photo)
        return Reading(pixels, transforms.to_model(pixels, side))

    def infer(self, seen: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """One photo, RGB uint8 (S, S, 3), to probabilities uint8 (C, S, S)."""
        with self._turn:
            probabilities: NDArray[np.uint8] = steps.infer(self._stream, seen[np.newaxis])[0]
        return probabilities

    def result(self, reading: Reading, probabilities: NDArray[np.uint8], max_pixels: int) -> Result:
        """Bring a photo's probabilities, uint8 (C, S, S), to its size."""
        photo, session = reading.photo, self.session
        if isinstance(photo, Photo):
            height, width = photo.height, photo.width
        else:
            height, width = photo.shape[:2]
        classes = session.signature.classes
        found = segmentation.segment(probabilities, height, width, classes)
        return Result(
            **vars(found),
            photo=photo,
            maker=self._maker,
            provider=session.provider,
            precision=session.precision,
            max_pixels=max_pixels,
        )


def _checked(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The same pixels in C order; who calls may have anything, whatever the types say."""
    found = np.asarray(pixels)
    if found.dtype == object:
        raise ValueError(
            "expected a file, a PIL.Image.Image or RGB pixels uint8 (H, W, 3), "
            f"found {type(pixels).__name__}"
        )
    if found.dtype != np.uint8 or found.shape[2:] != (3,) or not found.size:
        raise ValueError(
            f"expected RGB pixels uint8 (H, W, 3), found {found.dtype} {found.shape}; "
            "PIL.Image.fromarray knows grey pixels and those with transparency"
        )
    return np.ascontiguousarray(found)
