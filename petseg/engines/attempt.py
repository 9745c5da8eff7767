"""A step on one image, and what its errors mean: for this image, or for the whole run."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple, TypeVar

from petseg.errors import ImageError
from petseg.steps import MaskKeptError
from petseg.system.files import BAD_NAME

T = TypeVar("T")


class Verdict(NamedTuple):
    """How a step went wrong; nothing is set where it went well.

    Attributes:
        problem: why the image failed.
        kept: the mask was left alone, because somebody's lies there.
        stop: the run cannot go on (a full disk, say), and why.
    """

    problem: str | None = None
    kept: bool = False
    stop: str | None = None


def attempt(step: Callable[[], T], masks: Path, mask: str | None) -> tuple[T | None, Verdict]:
    """Take a step.

    Args:
        step: reads an image, or writes its mask.
        masks: the folder of masks, for messages.
        mask: the name of the mask that it writes; None where it only reads.

    Returns:
        What the step returns, or None where the verdict says why there is nothing.
    """
    try:
        return step(), Verdict()
    except ImageError as error:
        return None, Verdict(problem=str(error))
    except MaskKeptError:
        return None, Verdict(kept=True)
    except MemoryError:
        return None, Verdict(problem="out of memory; lower --max-pixels or --workers")
    except OSError as error:
        # Reading turns its own into ImageError: this one is the masks' file system.
        if error.errno in BAD_NAME and mask is not None:
            problem = f"no mask can have this name there ({error.strerror}): {mask}"
            return None, Verdict(problem=problem)
        return None, Verdict(stop=f"cannot write {error.filename or masks}: {error.strerror}")
