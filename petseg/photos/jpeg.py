"""A flawless JPEG through simplejpeg, at a smaller scale where that is enough.

It is libjpeg-turbo, as Pillow's decoder is, and gives the same pixels in less time.
"""

from __future__ import annotations

import numpy as np
import simplejpeg
from numpy.typing import NDArray

# What libjpeg-turbo scales down by without a detour, largest first.
_SCALES = (8, 4, 2, 1)
# A photo whose side is no multiple of the scale gets a last pixel that reaches beyond it, and all
# that is then squashed is moved: by no more than this, in pixels of the square.
_MOST_SHIFT = 0.1


def decode(data: bytes, size: tuple[int, int], side: int | None) -> NDArray[np.uint8] | None:
    """The pixels of a JPEG that libjpeg-turbo has nothing to say against; else None.

    Args:
        data: the whole file, of an RGB or greyscale JPEG.
        size: its width and height, pixels.
        side: of a square that the photo will be squashed into, pixels; None for full scale.

    Returns:
        RGB uint8 (H, W, 3), as it is stored; both sides divided by the scale, and rounded up.
    """
    scale = 1
    if side is not None:
        scale = next(n for n in _SCALES if n == 1 or all(_fits(length, n, side) for length in size))
    width, height = (-(-length // scale) for length in size)
    try:
        pixels: NDArray[np.uint8] = simplejpeg.decode_jpeg(
            data, fastdct=False, fastupsample=False, min_height=height, min_width=width
        )
    except ValueError:
        return None
    return pixels


def _fits(length: int, scale: int, side: int) -> bool:
    """Whether a photo's side keeps twice the square's pixels, and its place."""
    reached = -(-length // scale) * scale
    shift = side * (reached - length) / reached
    return length >= scale * 2 * side and shift <= _MOST_SHIFT
