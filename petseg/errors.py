"""The errors petseg raises on purpose.  Each message says what was expected, what was found,
where, and what to do; `cli.common` turns them into one line and an exit code.
"""

from __future__ import annotations

# Lines shown of a list that may be long.
_SHOWN = 10


def some(lines: list[str]) -> str:
    """The first of these lines, and how many more there are, for a message."""
    shown = "; ".join(lines[:_SHOWN])
    more = len(lines) - _SHOWN
    return f"{shown}; and {more} more" if more > 0 else shown


class PetsegError(Exception):
    """The command cannot run, or must stop early (exit code 1)."""


class ImageError(PetsegError):
    """One image cannot be read; the others are not concerned."""


class ModelError(PetsegError):
    """A model file is missing, damaged, or not one that petseg can run."""


class DatasetError(PetsegError):
    """Training or evaluation data is missing, damaged or does not fit together."""


class ProviderError(PetsegError):
    """The execution provider that was asked for cannot be had on this machine."""


class MissingPackageError(PetsegError):
    """An optional package is not installed; the message names the command that installs it."""

    def __init__(self, package: str, extra: str, purpose: str) -> None:
        super().__init__(
            f"{purpose} needs the package {package}, which is not installed: "
            f"pip install 'petseg[{extra}]'"
        )
