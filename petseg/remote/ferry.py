"""The ferry: photos are brought from a store ahead of the engine, masks are taken there behind it.

    todo -> [fetch: many threads] -> staged photos -> engine -> staged masks -> [put: many threads]

The engine and its workers know of local files alone.  What waits for a store is a thread.
"""

from __future__ import annotations

import dataclasses
import functools
import math
import time
from collections import deque
from collections.abc import Callable, Iterator

from petseg.engines.bell import Bell
from petseg.engines.engine import Engine
from petseg.engines.outcome import Batch, Outcome, Work
from petseg.engines.streak import Streaks
from petseg.errors import GOES_ON, PetsegError
from petseg.formats.catalog import PICTURES
from petseg.photos import imageio
from petseg.remote import fetching
from petseg.remote.crew import Crew, Task
from petseg.remote.delivery import Delivery, Status, pictures_of
from petseg.remote.kinds import CONNECTIONS
from petseg.remote.listing import refusal
from petseg.remote.shelf import StoreShelf
from petseg.remote.stage import Stage
from petseg.remote.store import Entry, Photos

# Photos fetched or being fetched before the engine wants them, and masks that wait to be put.
_MOST_AHEAD = 512
_MOST_WAITING = 512
# Bytes of photos on this machine, those that the engine is at among them; but one always may be.
_MOST_BYTES = 1 << 30
# How long masks that are being put may take when the run is to stop.
_GRACE_SECONDS = 2.0
# How long a signal may have to wait to be noticed.
_POLL_SECONDS = 0.2


class Ferry:
    """Carries the images of one run; everything but `_fetch` is the main thread's."""

    def __init__(
        self,
        stage: Stage,
        photos: tuple[Photos, dict[str, Entry]] | None,
        shelf: StoreShelf | None,
        max_pixels: int,
        replace_any: bool,
        patience: float,
    ) -> None:
        """Nothing is carried yet.

        Args:
            stage: where files lie in between.
            photos: where they are, and what was listed there; None for this machine.
            shelf: where masks go; None for this machine.
            max_pixels: photos that are too large for so many are not fetched.
            replace_any: whether anybody's mask is replaced.
            patience: seconds after which a fetch or a put has failed.
        """
        self.stage, self.shelf = stage, shelf
        self.photos: Photos | None = None
        self.entries: dict[str, Entry] = {}
        if photos is not None:
            self.photos, self.entries = photos
        self.most_bytes = imageio.max_bytes(max_pixels)
        self.delivery = None if shelf is None else Delivery(stage, shelf, replace_any)
        self.bell = Bell()
        # Whether the main thread has nothing to do until a thread here is done.
        self.waits = False
        # Seconds in which the engine had room for an image, and none was here, or no room for its
        # mask; and since when that is so.
        self.waited, self._since = 0.0, math.inf
        # No more threads than a store answers at once: those that wait for it count as late.
        putters = CONNECTIONS if shelf is None else shelf.store.connections
        fetchers = putters if photos is None else min(putters, photos[0].connections)
        self.fetchers: Crew[Work, Work] = Crew(fetchers, patience, self._ring)
        self.putters: Crew[Outcome, Status] = Crew(putters, patience, self._ring)
        self.staged: deque[Work] = deque()
        # Bytes on this machine: of photos by their names, of what waits to be put by its mask's.
        self.fetched: dict[str, int] = {}
        self.waiting: dict[str, int] = {}
        self.streaks = Streaks()
        self._held: Work | None = None
        self._tell: Callable[[Outcome], None] = lambda outcome: None

    def run(
        self,
        engine: Engine,
        todo: Iterator[Work],
        on_outcome: Callable[[Outcome], None],
        on_batch: Callable[[Batch], None],
        stopping: Callable[[], bool],
    ) -> None:
        """`Engine.run`, with an outcome for each image when its mask has arrived.

        Raises:
            PetsegError: as the engine; and where a store does not answer or refuses masks.
        """
        self._tell = on_outcome

        def look() -> bool:
            self._settle()
            return stopping()

        try:
            engine.run(self._feed(todo), self._ended, on_batch, look, self.bell)
            # What is left to do is all the store's.
            self._wait()
            self._await_puts(look)
        finally:
            self._go_on()

    def _await_puts(self, look: Callable[[], bool]) -> None:
        deadline = None
        self.waits = True
        while True:
            if look() and deadline is None:
                deadline = time.monotonic() + _GRACE_SECONDS
            if not len(self.putters):
                return
            if deadline is not None and time.monotonic() > deadline:
                return
            if self.bell.pipe.poll(_POLL_SECONDS):
                self.bell.hear()

    def _wait(self) -> None:
        """Nothing goes on but what the store has to do."""
        self._since = min(self._since, time.monotonic())

    def _go_on(self) -> None:
        self.waited += max(0.0, time.monotonic() - self._since)
        self._since = math.inf

    def close(self) -> None:
        """Let the threads go."""
        self.fetchers.close()
        self.putters.close()
        self.bell.close()

    def _ring(self) -> None:
        # Each time the bell is heard costs the main thread a look at everything.
        if self.waits:
            self.bell.ring()

    def _feed(self, todo: Iterator[Work]) -> Iterator[Work | None]:
        """Photos that are here, in the order in which they came; None while there are none."""
        more = True
        while True:
            self.waits = True  # before it is looked, or what is done in between would not ring
            self._settle()
            more = more and self._fetch_ahead(todo)
            if self._has_one():
                self.waits = False
                self._go_on()
                yield self.staged.popleft()
            elif more or self.staged or len(self.fetchers):
                self._wait()
                yield None
            else:
                self._go_on()
                return

    def _has_one(self) -> bool:
        """Whether a photo is here, and room for its mask."""
        room = len(self.waiting) < _MOST_WAITING and sum(self.waiting.values()) < _MOST_BYTES
        return bool(self.staged) and (room or not self.waiting)

    def _fetch_ahead(self, todo: Iterator[Work]) -> bool:
        """Begin to fetch as many as there is room for; returns whether there are more."""
        while len(self.fetchers) + len(self.staged) < _MOST_AHEAD:
            work = self._held or next(todo, None)
            if work is None:
                return False
            size = self.entries[work.name].size if self._wants_photo(work) else 0
            if self.fetched and sum(self.fetched.values()) + size > _MOST_BYTES:
                self._held = work
                return True
            self._held = None
            if self.photos is None and not work.derive:
                self.staged.append(work)
                continue
            problem = fetching.too_large(size, self.most_bytes)
            if problem is not None:
                self._fail(work, problem)
                continue
            self.fetched[work.name] = size
            self.fetchers.do(work, functools.partial(self._fetch, work))
        return True

    def _fetch(self, work: Work) -> Work:
        """Bring here what the workers need, in a thread of its own."""
        if work.derive and self.shelf is not None:
            most = self.shelf.files[work.mask].size
            self.stage.write_mask(work.mask, self.shelf.store.read(work.mask, most + 1))
        if not self._wants_photo(work):
            return work
        assert self.photos is not None
        path = fetching.fetch(self.photos, self.stage, work.name, self.entries[work.name])
        return dataclasses.replace(work, path=path)

    def _ended(self, outcome: Outcome) -> None:
        """The engine is done with an image; the photo has no more use."""
        self._release(outcome.work)
        if self.delivery is not None and outcome.status in ("done", "derived"):
            mask = outcome.work.mask
            self.waiting[mask] = self.stage.size([mask, *pictures_of(mask)])
            self.putters.do(outcome, functools.partial(self.delivery.put, outcome))
            return
        if self.shelf is not None:
            self.stage.remove_mask(outcome.work.mask)
        if outcome.problem is not None:
            outcome = dataclasses.replace(outcome, problem=self.stage.shown(outcome.problem))
        self._tell(outcome)

    def _release(self, work: Work) -> None:
        if self.fetched.pop(work.name, None) is not None and self._wants_photo(work):
            self.stage.remove_photo(work.path)

    def _wants_photo(self, work: Work) -> bool:
        """Whether its photo has to be brought here."""
        drawn_on = any(PICTURES[chosen].needs_photo for chosen in work.derive)
        return self.photos is not None and (drawn_on or not work.derive)

    def _settle(self) -> None:
        """Take what the threads have done."""
        for fetched in self.fetchers.take():
            if fetched.result is not None:
                self.streaks.end("fetch")
                self.staged.append(fetched.result)
                continue
            self.fetched.pop(fetched.key.name, None)
            self._fail(fetched.key, self._problem(fetched, "fetch"))
        for put in self.putters.take():
            outcome = put.key
            self.waiting.pop(outcome.work.mask, None)
            if put.result is not None:
                self.streaks.end("put")
                self._tell(dataclasses.replace(outcome, status=put.result))
                continue
            assert self.shelf is not None
            if isinstance(put.error, FileNotFoundError | PermissionError):
                reason = refusal(self.shelf.store, "write to", put.error)
                raise PetsegError(f"{reason}; {GOES_ON}") from put.error
            self._fail(outcome.work, f"its mask: {self._problem(put, 'put')}")
        if self._has_one():
            # Not only once the engine asks: its workers may have turned to masks meanwhile.
            self._go_on()

    def _problem(self, task: Task[Work, Work] | Task[Outcome, Status], kind: str) -> str:
        """Why an image has failed; raises what ends the run."""
        error = task.error
        assert error is not None
        if fetching.unanswered(error):
            self.streaks.add(kind, str(error))
        return fetching.reason(error)

    def _fail(self, work: Work, problem: str) -> None:
        self._tell(Outcome(work, "failed", self.stage.shown(problem)))
