"""How far a training run is: a bar for each epoch in a terminal, else a line in the log."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TextIO

from tqdm import tqdm

if TYPE_CHECKING:
    from petseg.training.recipes import Stage

# Between two lines of a log; petseg-batch's, too.
LOG_SECONDS = 30.0


def accuracy(logs: Mapping[str, Any]) -> Any:
    """Pixel accuracy among Keras' logs; where there are several outputs, it bears one's name."""
    return next(value for name, value in logs.items() if name.endswith("accuracy"))


class TrainingProgress:
    """Epoch, step, loss, accuracy, images a second, and the time left of the whole run.

    Images a second are the epoch's so far.  The time left follows from all that came since this
    process' first step, validation included; an image takes as long as it has pixels.  First steps
    are left out: they compile the network.
    """

    def __init__(
        self,
        stages: Sequence[Stage],
        stream: TextIO | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Nothing is shown before the first step.

        Args:
            stages: of the whole run, those included that are done.
            stream: where it is shown; stderr unless told.
            clock: seconds.
        """
        self.stream = sys.stderr if stream is None else stream
        self.clock = clock
        # What each epoch costs, in units of its own.
        self._costs = [stage.size**2 for stage in stages for _ in range(stage.epochs)]
        self._shown = clock()
        # When this process' first step ended and this epoch's, and what was done by then.
        self._run_first: tuple[float, float] | None = None
        self._epoch_first: float | None = None
        self._epoch = self._steps = self._batch_size = 0
        self._bar: Any = None

    @contextmanager
    def epoch(self, epoch: int, steps: int, batch_size: int) -> Iterator[None]:
        """An epoch, counted from 0; leaving it closes the bar, also where it is interrupted."""
        self._epoch, self._steps, self._batch_size = epoch, steps, batch_size
        self._epoch_first = None
        if self.stream.isatty():
            self._bar = tqdm(
                total=steps * batch_size,
                desc=f"epoch {epoch + 1}/{len(self._costs)}",
                unit="image",
                leave=False,
                mininterval=1.0,
                file=self.stream,
            )
        try:
            yield
        finally:
            if self._bar is not None:
                self._bar.close()
                self._bar = None

    def step(self, step: int, logs: Mapping[str, Any] | None = None) -> None:
        """One more step has ended; Keras' `on_train_batch_end`.

        Args:
            step: counted from 0 in its epoch.
            logs: Keras' means over the epoch so far.
        """
        now = self.clock()
        before = sum(self._costs[: self._epoch])
        done = before + self._costs[self._epoch] * (step + 1) / self._steps
        if self._epoch_first is None:
            self._epoch_first = now
        if self._run_first is None:
            self._run_first = (now, done)
        began, by_then = self._run_first
        rate = _rate(step * self._batch_size, now - self._epoch_first)
        pace = _rate(done - by_then, now - began)
        left = tqdm.format_interval(round((sum(self._costs) - done) / pace)) if pace else "?"
        shown = {} if not logs else {"loss": logs["loss"], "accuracy": accuracy(logs)}
        figures = {name: f"{value:.4f}" for name, value in shown.items()}
        if self._bar is not None:
            self._bar.set_postfix({**figures, "run left": left}, refresh=False)
            self._bar.update(self._batch_size)
        elif now - self._shown >= LOG_SECONDS:
            self._shown = now
            parts = [
                f"epoch {self._epoch + 1}/{len(self._costs)}",
                f"step {step + 1} of {self._steps}",
                *(f"{name} {value}" for name, value in figures.items()),
                f"{rate:.1f} images/s" if rate else "? images/s",
                f"{left} left",
            ]
            tqdm.write(", ".join(parts), file=self.stream)


def say(line: str) -> None:
    """A line for people: not over a progress bar, and not to stdout, which is for results."""
    tqdm.write(line, file=sys.stderr)


def _rate(count: float, seconds: float) -> float:
    return count / seconds if seconds > 0 else 0.0
