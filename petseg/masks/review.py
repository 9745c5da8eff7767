"""The list of masks that a person should look at, least certain first.

A line is a photo's path below the input, as `petseg-batch --list` and the lists of a data set take
it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Self

from petseg.masks.reading import MaskFile
from petseg.system.temporary import write_whole


class ReviewList:
    """Grows by a mask at a time and takes its name when its `with` block ends well.

    Masks that a person made or changed are not listed: somebody has looked at them.
    """

    def __init__(self, path: Path, temporary: Path, below: float) -> None:
        """Begin the list.

        Args:
            path: where it goes.
            temporary: a folder on the same file system.
            below: masks of a lower confidence are listed, 0..1.
        """
        self.path = path
        self.temporary = temporary
        self.below = below
        self.unlistable = 0
        self._seen = 0
        self._found: list[tuple[float, str]] = []

    def add(self, mask: MaskFile) -> None:
        if mask.record is None or mask.photo is None:
            return
        self._seen += 1
        if mask.record.confidence >= self.below:
            return
        if "\n" in mask.photo or "\r" in mask.photo:
            self.unlistable += 1  # a line cannot hold it
            return
        self._found.append((mask.record.confidence, _as_line(mask.photo)))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, error: type[BaseException] | None, *_: object) -> None:
        if error is None:
            self._finish()

    def _finish(self) -> None:
        """Put the list in place, an empty one, too."""
        self._found.sort()
        head = (
            f"# confidence below {self.below:g}, least first: "
            f"{len(self._found)} of {self._seen} masks"
        )
        lines = [head, *(line for _, line in self._found)]
        text = "".join(f"{line}\n" for line in lines)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(self.path, text.encode("utf-8", "surrogateescape"), self.temporary)

    def __len__(self) -> int:
        return len(self._found)


def _as_line(name: str) -> str:
    """A name that no reader of lists takes for a comment, or strips."""
    return f"./{name}" if name[0] in "#\ufeff" or name[0].isspace() else name
