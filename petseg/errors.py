"""The errors petseg raises on purpose.  Each message says what was expected, what was found,
where, and what to do; `cli.common` turns them into one line and an exit code.
"""

from __future__ import annotations

# What a run that stops early has to say, whatever stopped it.
GOES_ON = "what is done stays valid, and the same command goes on from there"

# Lines shown of a list that may be long.
_SHOWN = 10


def some(lines: list[str], total: int | None = None) -> str:
    """The first of these lines, and how many more there are, for a message.

    Args:
        lines: all of them, or the first.
        total: how many there are, where these are the first alone.
    """
    shown = lines[:_SHOWN]
    more = (len(lines) if total is None else total) - len(shown)
    return "; ".join([*shown, f"and {more} more"] if more > 0 else shown)


def first_line(error: BaseException) -> str:
    """What an error of a library says, for a message: its first line, or its name."""
    return (str(error).splitlines() or [type(error).__name__])[0]


class PetsegError(Exception):
    """The command cannot run, or must stop early (exit code 1)."""


class ImageError(PetsegError):
    """One image cannot be read; the others are not concerned."""


class StoreError(PetsegError):
    """A store does not answer, or refuses, and asking again did not help."""


class ModelError(PetsegError):
    """A model file is missing, damaged, or not one that petseg can run."""


class DatasetError(PetsegError):
    """Training or evaluation data is missing, damaged or does not fit together."""


class ProviderError(PetsegError):
    """The execution provider that was asked for cannot be had on this machine."""


class DeviceLostError(ProviderError):
    """One of several devices failed; the batch it was at is for another one to do."""


class MissingPackageError(PetsegError):
    """An optional package is not installed; the message names the command that installs it."""

    def __init__(self, package: str, extra: str, purpose: str) -> None:
        super().__init__(
            f"{purpose} needs the package {package}, which is not installed: "
            f"pip install 'petseg[{extra}]'"
        )
