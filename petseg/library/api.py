"""petseg for other programs: a photo, or any number of them, to masks in memory.

The same steps as petseg-batch, and so the same masks.
"""

from __future__ import annotations

import functools
import os
import threading
import warnings
from collections.abc import Generator, Iterable
from pathlib import Path

from petseg.errors import ImageError
from petseg.library.ahead import Ahead, OnError
from petseg.library.result import Result
from petseg.library.segmenter import PhotoLike, Segmenter
from petseg.photos.imageio import DEFAULT_MAX_PIXELS
from petseg.planning.config import find_model
from petseg.system import machine

__all__ = ["OnError", "PhotoLike", "Result", "segment", "stream"]

# Models that stay loaded.
_KEPT = 2
_loading = threading.Lock()


def segment(
    photo: PhotoLike,
    model: str | Path | None = None,
    provider: str = "auto",
    precision: str = "auto",
    *,
    max_pixels: int = DEFAULT_MAX_PIXELS,
) -> Result:
    """Segment one photo.

    The model is loaded by the first call and stays loaded: calls with the same model, provider and
    precision, from whatever thread, share it.  The two that were used last are kept.

    Args:
        photo: a file; a `PIL.Image.Image`; or pixels, RGB uint8 (H, W, 3), which are not copied.
            Files and Pillow's images are turned upright, laid over white where they are
            transparent, and read as petseg-batch reads them.
        model: a petseg ONNX file; None takes `./model.onnx` if there is one, else the model in the
            package.
        provider: "auto", "cuda", "openvino" or "cpu".
        precision: what the network is computed in: "auto", "float32", "tf32", "bfloat16",
            "float16" or "int8"; "auto" is the provider's fastest for the model's file.
        max_pixels: larger files are refused.

    Raises:
        ImageError: the photo cannot be read; the message begins with the path.
        ModelError: the model cannot be run.
        ProviderError: the provider cannot be had here, or has no such precision.
        ValueError: pixels of another kind, or no such provider.
    """
    segmenter = _load(model, provider, precision)
    reading = segmenter.read(photo, max_pixels)
    return segmenter.result(reading, segmenter.infer(reading.seen), max_pixels)


def _warn(photo: PhotoLike, error: ImageError) -> None:
    del photo
    # Where the loop over the results is.
    warnings.warn(str(error), stacklevel=3)


def stream(
    photos: Iterable[PhotoLike],
    model: str | Path | None = None,
    provider: str = "auto",
    precision: str = "auto",
    *,
    batch_size: int | None = None,
    workers: int | None = None,
    max_pixels: int = DEFAULT_MAX_PIXELS,
    on_error: OnError = _warn,
) -> Generator[Result, None, None]:
    """Segment any number of photos, in their order.

    While a result is looked at the next ones are made, in threads, in memory that does not depend
    on the number of photos.  The model is loaded before the first result is asked for, and shared
    with `segment`.  To end early, leave the loop, or close the generator: its threads end with it.

    A photo that cannot be read has no result and does not end the stream: `on_error` is told, which
    without one is a warning.  One that hangs or crashes its decoder does to the program what it
    does there; petseg-batch, which reads in processes, is for files from anywhere.

    Args:
        photos: what `segment` takes; it may be a generator, of which no more is taken than is
            needed to keep the network busy.  Pixels must not change before their result is there.
        model, provider, precision, max_pixels: as for `segment`.
        batch_size: photos at once through the network; found by trying unless told.
        workers: threads that read photos and make results; one a core unless told.
        on_error: is given a photo that cannot be read, as it stood in `photos`, and the ImageError;
            what it raises ends the stream.

    Returns:
        A generator of results.

    Raises:
        ModelError, ProviderError, ValueError: as for `segment`, at once.
        TypeError: one path in place of several.
    """
    if isinstance(photos, str | os.PathLike):
        raise TypeError(
            f"expected several photos, found the path {os.fspath(photos)!r}: give a list, of a "
            "folder's photos, say: sorted(Path(folder).glob('*.jpg'))"
        )
    for name, value in (("batch_size", batch_size), ("workers", workers)):
        if value is not None and value < 1:
            raise ValueError(f"{name} must be at least 1, not {value}")
    segmenter = _load(model, provider, precision, batch_size)
    ahead = Ahead(segmenter, workers or machine.usable_cores(), max_pixels)
    return ahead.results(photos, on_error)


def _load(
    model: str | Path | None, provider: str, precision: str, batch_size: int | None = None
) -> Segmenter:
    path = find_model(model, precision)[0].absolute()
    try:
        status = path.stat()
        state = (status.st_size, status.st_mtime_ns)
    except OSError:
        state = None  # reading it will say why
    # Of two threads that ask for the same model, the second waits for the first to load it.
    with _loading:
        return _loaded(path, state, provider, precision, batch_size)


@functools.lru_cache(maxsize=_KEPT)
def _loaded(
    path: Path,
    state: tuple[int, int] | None,
    provider: str,
    precision: str,
    batch_size: int | None,
) -> Segmenter:
    """The model; another one where the file is another now, which `state` tells."""
    del state
    return Segmenter(path, provider, precision, batch_size)
