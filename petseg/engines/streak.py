"""Images that fail one after the other because a store does not answer."""

from __future__ import annotations

from petseg.errors import GOES_ON, PetsegError

# The next will not do better.
_MOST = 16


class Streaks:
    """Counts such failures, of which reading says nothing about writing."""

    def __init__(self) -> None:
        self._lengths: dict[str, int] = {}

    def end(self, kind: str) -> None:
        """The store has answered."""
        self._lengths[kind] = 0

    def add(self, kind: str, problem: str) -> None:
        """One more has failed.

        Raises:
            PetsegError: so many that the run has to end.
        """
        length = self._lengths[kind] = self._lengths.get(kind, 0) + 1
        if length >= _MOST:
            raise PetsegError(
                f"{length} images one after the other failed, the last because: {problem}; "
                f"{GOES_ON}"
            )
