"""petseg: train a pet segmenter, export it to ONNX, stream folders of photos into masks.

`segment` and `stream` do the last of these for other programs.  They, and what they bring, are
loaded when first asked for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from petseg.errors import ImageError, PetsegError

if TYPE_CHECKING:
    from petseg.library.api import PhotoLike, Result, segment, stream

__all__ = ["ImageError", "PetsegError", "PhotoLike", "Result", "__version__", "segment", "stream"]

__version__ = "0.1.0"

# Hidden from type checkers, to whom it would say that there is every name.
if not TYPE_CHECKING:

    def __getattr__(name: str) -> object:
        if name in __all__:
            from petseg.library import api

            return getattr(api, name)
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

    def __dir__() -> list[str]:
        return sorted({*globals(), *__all__})
