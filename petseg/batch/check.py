"""How much of the masks a quicker precision changes, on the user's own photos."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from petseg import steps
from petseg.errors import ImageError
from petseg.photos import imageio, transforms
from petseg.runtime import Session

# Photos that are looked at, spread evenly over all.
PHOTOS = 32


@dataclass(frozen=True)
class Agreement:
    """How far two sessions agree.

    Attributes:
        photos: how many were compared.
        equal_pixels: share of mask pixels, at the network's size, of the same class, 0..1.
    """

    photos: int
    equal_pixels: float

    def __str__(self) -> str:
        share = np.floor(1e5 * self.equal_pixels) / 1e5
        return f"{share:.3%} of mask pixels as in float32, on {self.photos} of the photos"


def compare(
    session: Session, reference: Session, paths: Sequence[str], max_pixels: int
) -> Agreement | None:
    """Put some of the photos through both sessions.

    Args:
        session: what the run computes with.
        reference: the same weights in float32.
        paths: the run's photos; those that cannot be read are passed over.
        max_pixels: larger ones are, too.

    Returns:
        None where no photo can be read.
    """
    side = session.signature.size
    chosen = np.linspace(0, len(paths) - 1, min(PHOTOS, len(paths))).round().astype(int)
    streams = session.open_stream(), reference.open_stream()
    photos = equal = 0
    for place in chosen:
        try:
            _, data = steps.identify(paths[place], max_pixels)
            image, _ = imageio.decode_reduced(data, side, max_pixels)
        except ImageError:
            continue
        pixels = transforms.to_model(image, side)[np.newaxis]
        masks = [stream.run(pixels)[0].argmax(axis=0) for stream in streams]
        equal += int((masks[0] == masks[1]).sum())
        photos += 1
    return Agreement(photos, equal / (photos * side * side)) if photos else None
