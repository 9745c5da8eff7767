"""How far a run of petseg-batch is: a bar in a terminal, else a line in the log now and then."""

from __future__ import annotations

import sys
import time
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TextIO

from tqdm import tqdm

from petseg.system.text import printable
from petseg.training.progress import LOG_SECONDS

if TYPE_CHECKING:
    from petseg.engines.outcome import Outcome

_DRAW_SECONDS = 0.2
# "Now" is this long: a batch comes back at once, and a few seconds would jump with each.
_WINDOW_SECONDS = 30.0


class BatchProgress:
    """One line: done, skipped, failed, images a second now and overall, time left, provider.

    Counts are the summary's, those of before the work began included; rates and time left are of
    the work alone, and count every image that is settled, whatever became of it.
    """

    def __init__(
        self,
        quiet: bool = False,
        stream: TextIO | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Nothing is shown before `begin`.

        Args:
            quiet: nothing is shown at all.
            stream: where it is shown; stderr unless told.
            clock: seconds.
        """
        self.quiet = quiet
        self.stream = sys.stderr if stream is None else stream
        self.clock = clock
        self.total = self.settled = self.skipped = self.failed = 0
        self.provider = ""
        self._before = 0
        self._began = self._shown = 0.0
        self._samples: deque[tuple[float, int]] = deque()
        self._bar: Any = None

    def say(self, line: str) -> None:
        """Show a line for people, above the bar."""
        if not self.quiet:
            tqdm.write(printable(line), file=self.stream)

    def begin(self, todo: int, provider: str, skipped: int, failed: int) -> None:
        self.total, self.provider = skipped + failed + todo, provider
        self.skipped, self.failed = skipped, failed
        self._before = skipped + failed
        self._began = self._shown = self.clock()
        self._samples.append((self._began, 0))
        if not self.quiet and self.stream.isatty():
            self._bar = tqdm(
                total=self.total,
                # The text first: where a terminal is narrow, the bar gives way.
                bar_format="{desc} |{bar}| {percentage:3.0f}%",
                file=self.stream,
                dynamic_ncols=True,
            )

    def count(self, outcome: Outcome) -> None:
        self.settled += 1
        if outcome.status == "failed":
            self.failed += 1
            self.say(f"failed: {outcome.work.name}: {outcome.problem}")
        elif outcome.status != "done":
            self.skipped += 1

    def tick(self) -> None:
        now = self.clock()
        every = LOG_SECONDS if self._bar is None else _DRAW_SECONDS
        if now - self._samples[-1][0] >= 1:
            self._samples.append((now, self.settled))
        # One sample older than the window stays, so that there is always something to compare.
        while len(self._samples) > 1 and now - self._samples[1][0] >= _WINDOW_SECONDS:
            self._samples.popleft()
        if now - self._shown >= every:
            self._shown = now
            self._show()

    def close(self) -> None:
        """Leave the bar as it is at the end."""
        if self._bar is not None:
            self._show()
            self._bar.close()
            self._bar = None

    def line(self) -> str:
        """How far it is, in words."""
        now = self.clock()
        since, before = self._samples[0]
        recent = _rate(self.settled - before, now - since)
        overall = _rate(self.settled, now - self._began)
        settled = self._before + self.settled
        left = tqdm.format_interval((self.total - settled) / recent) if recent else "?"
        skipped = f"{self.skipped} skipped, " if self.skipped else ""
        parts = [
            f"{settled - self.skipped - self.failed} done, {skipped}{self.failed} failed "
            f"of {self.total}",
            f"{recent:.1f} images/s now, {overall:.1f} overall",
            f"{left} left",
        ]
        return ", ".join([*parts, self.provider] if self.provider else parts)

    def _show(self) -> None:
        if self._bar is not None:
            self._bar.n = self._before + self.settled
            self._bar.set_description_str(self.line())
        elif not self.quiet:
            self.say(self.line())


def _rate(count: int, seconds: float) -> float:
    return count / seconds if seconds > 0 else 0.0
