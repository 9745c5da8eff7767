"""A segmented photo as programs and notebooks take it: arrays, pictures, and the mask's file."""

from __future__ import annotations

import dataclasses
import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from petseg import steps
from petseg.formats import alpha, index, overlay
from petseg.formats.catalog import INDEX
from petseg.masks import records
from petseg.masks.record import Maker
from petseg.masks.records import MaskState
from petseg.masks.segmented import Segmented
from petseg.segmentation import Segmentation
from petseg.steps import MaskKeptError, Photo
from petseg.system.temporary import replacing

# The longer side of what a notebook shows, pixels: more would only make the notebook's file large.
_SHOWN = 1024


@dataclass(frozen=True, eq=False, repr=False)
class Result(Segmentation):
    """One photo, segmented.

    In a notebook it shows itself, as `overlay` draws it, with a longer side of at most 1024 pixels.

    Attributes:
        ids: class ids, uint8 (H, W), of the photo's size, upright; `classes[id]` says what it is.
        mask: the values that stand for the classes on disk, uint8 (H, W), a trimap as
            Oxford-IIIT Pet's: 1 pet, 2 background, 3 border.
        foreground: bool (H, W): pet or border.
        shares: by each class's name, the part of the mask's area that is of it, 0..1.
        class_pixels: pixels of each class, by class id.
        box: the smallest one around the foreground, (x, y, width, height) in pixels; None without
            foreground.
        confidence: the mean of each pixel's largest probability, over the network's own pixels,
            0..1.
        uncertain: the share of the network's pixels whose largest probability lies below 0.6.
        probabilities: of the network, uint8 (C, S, S), 255 is certainty, whatever the photo's size.
        classes: the model's C classes: name, value on disk, colour, and whether foreground.
        height, width: of the photo, upright, pixels.
        path: of the photo; None where it was given as pixels.
        provider, precision: what the network was computed on and in.
        maker: which model, by its hash, and transform, as in the records of masks.
        photo: what is known of the photo's file; or its pixels, RGB uint8 (H, W, 3), where it was
            given as pixels.
        max_pixels: a photo of more is not decoded again, to be drawn on.
    """

    photo: Photo | NDArray[np.uint8]
    maker: Maker
    provider: str
    precision: str
    max_pixels: int

    @property
    def path(self) -> Path | None:
        return Path(self.photo.path) if isinstance(self.photo, Photo) else None

    @property
    def mask(self) -> NDArray[np.uint8]:
        return index.to_values(self.ids, self.classes)

    @property
    def foreground(self) -> NDArray[np.bool_]:
        return np.asarray(Segmented(self.ids, self.classes).foreground() != 0)

    @property
    def shares(self) -> dict[str, float]:
        return {
            item.name: pixels / self.ids.size
            for item, pixels in zip(self.classes, self.class_pixels, strict=True)
        }

    def overlay(self) -> Image.Image:
        """The photo with the mask laid over it and outlined, RGB: `--format overlay`.

        A photo that lies in a file is read once more for it.

        Raises:
            ImageError: the file cannot be read, or is another now.
        """
        return Image.fromarray(overlay.draw(self._segmented()))

    def cutout(self) -> Image.Image:
        """The photo cut out, RGBA with soft edges: `--format alpha`; otherwise as `overlay`."""
        return Image.fromarray(alpha.draw(self._segmented()))

    def save(self, path: str | os.PathLike[str], overwrite: bool = False) -> None:
        """Write the mask: 8-bit greyscale PNG, whole or not at all; folders are made.

        With what made it in it, byte for byte as petseg-batch writes it, which finds it done where
        the name is the one that it gives.  A mask of a photo that was given as pixels has no such
        record; petseg-batch takes it for a person's work, and keeps it.  Pictures that petseg-batch
        made of an earlier mask, in `masks/petseg/`, are left as they are.

        Args:
            path: where it goes; ends in .png.
            overwrite: replace what lies there whoever made it.

        Raises:
            ValueError: the name does not end in .png.
            MaskKeptError: a mask lies there that petseg did not make, or that was changed since.
            OSError: the file system refuses.
        """
        target = Path(path)
        if target.suffix != INDEX.suffix:
            raise ValueError(f"a mask is a PNG, whose name ends in {INDEX.suffix}, not {target}")
        state, _ = records.inspect(target, self.max_pixels)
        if state is MaskState.FOREIGN and not overwrite:
            raise MaskKeptError(
                f"{target} was not made by petseg, or was changed since; another name keeps both, "
                "overwrite=True replaces it"
            )
        data = self._pack(target.name)
        target.parent.mkdir(parents=True, exist_ok=True)
        with replacing(target) as part:
            part.write_bytes(data)

    def _pack(self, name: str) -> bytes:
        """The file of a mask of that name."""
        if not isinstance(self.photo, Photo):
            return index.encode(Segmented(self.ids, self.classes))
        identity = self.photo.identity
        stem, full = (steps.mask_name(identity.name, names) for names in ("stem", "full"))
        maker = dataclasses.replace(self.maker, names="full" if name == full != stem else "stem")
        return self.pack(identity, maker, self.provider, self.precision)[0]

    def _segmented(self) -> Segmented:
        pixels = self.photo
        if isinstance(pixels, Photo):
            pixels = steps.read_again(pixels, None, self.max_pixels)
        return Segmented(self.ids, self.classes, pixels, self.probabilities)

    def _repr_jpeg_(self) -> bytes:
        """For notebooks: https://ipython.readthedocs.io/en/stable/config/integrating.html."""
        picture = self.overlay()
        picture.thumbnail((_SHOWN, _SHOWN))
        return overlay.to_jpeg(np.array(picture))

    def __repr__(self) -> str:
        shares = ", ".join(f"{name} {share:.1%}" for name, share in self.shares.items())
        name = "pixels" if self.path is None else repr(str(self.path))
        return (
            f"<petseg.Result of {name}, {self.width}x{self.height}: {shares}; "
            f"confidence {self.confidence:.3f}>"
        )
