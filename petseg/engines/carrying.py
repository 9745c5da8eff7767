"""Photos that are brought to a node, and masks that are taken from it, where a store holds them.

How that is done the engine does not know: it sends a carrier to the nodes, and with each image what
the carrier needs for it, its luggage.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Literal, NamedTuple, Protocol

from petseg.engines.attempt import Verdict
from petseg.engines.outcome import Outcome, Work
from petseg.engines.rows import Row
from petseg.steps import Job
from petseg.system.deadline import within

# Requests of one process at the same time: the rows of a batch.
_THREADS = 32


class Carried(NamedTuple):
    """What came of carrying one file.

    Attributes:
        path: where a photo lies now.
        status: of the image whose mask was taken.
        problem: why the image failed.
        silent: whether that is because the store does not answer.
        stop: why the run cannot go on.
    """

    path: str = ""
    status: Literal["done", "derived", "kept"] | None = None
    problem: str | None = None
    silent: bool = False
    stop: str | None = None


class Carrier(Protocol):
    """Carries files for the processes of the nodes, to each of which it is sent.

    Attributes:
        brings: whether photos come from a store.
        takes: whether masks go to one.
        connections: how many requests there may be at once.
    """

    @property
    def brings(self) -> bool: ...

    @property
    def takes(self) -> bool: ...

    @property
    def connections(self) -> int: ...

    def job(self, job: Job) -> Job:
        """The run as this node sees it: masks are written to a folder of its own."""
        ...

    def bring(self, work: Work, luggage: Any) -> Carried:
        """A photo to this node."""
        ...

    def drop(self, path: str) -> None:
        """A photo has no more use."""

    def bring_mask(self, work: Work, luggage: Any) -> Carried:
        """A mask that formats are to be made of."""
        ...

    def take(self, outcome: Outcome, luggage: Any) -> Carried:
        """What was made to where it belongs; nothing of it stays here."""
        ...

    def shown(self, text: str) -> str:
        """A line for people, with addresses in place of what lies here for a while."""
        ...

    def retries(self) -> int:
        """Requests of this process that were made again."""
        ...


class Carriage(NamedTuple):
    """A carrier, and what says its luggage for an image."""

    carrier: Carrier
    luggage: Callable[[Work], Any]


def bring(rows: list[Row], carrier: Carrier, timeout: float) -> list[Row]:
    """All photos to this node at once; those that do not come have failed."""

    def one(row: Row) -> tuple[Row, Carried]:
        found = _in_time(lambda: carrier.bring(row.work, row.luggage), timeout)
        return row._replace(here=found.path, verdict=Verdict(found.problem, stop=found.stop)), found

    wanted = [not (row.given_up or row.work.derive) for row in rows]
    return _carry(rows, wanted, carrier, "fetch", one)


def bring_masks(rows: list[Row], carrier: Carrier, timeout: float) -> list[Row]:
    """The masks that formats are to be made of."""

    def one(row: Row) -> tuple[Row, Carried]:
        found = _in_time(lambda: carrier.bring_mask(row.work, row.luggage), timeout)
        problem = None if found.problem is None else f"its mask: {found.problem}"
        return row._replace(verdict=Verdict(problem, stop=found.stop)), found

    wanted = [bool(row.work.derive) and not row.given_up for row in rows]
    return _carry(rows, wanted, carrier, "fetch", one)


def take(rows: list[Row], carrier: Carrier, timeout: float) -> list[Row]:
    """All masks to their store at once; an image is done when its own has arrived."""

    def one(row: Row) -> tuple[Row, Carried]:
        outcome = row.outcome
        assert outcome is not None
        found = _in_time(lambda: carrier.take(outcome, row.luggage), timeout)
        if found.stop is not None:
            return row._replace(verdict=Verdict(stop=found.stop)), found
        if found.problem is not None:
            failed = Outcome(row.work, "failed", f"its mask: {found.problem}")
            return row._replace(outcome=failed), found
        assert found.status is not None
        return row._replace(outcome=dataclasses.replace(outcome, status=found.status)), found

    wanted = [
        row.outcome is not None
        and row.outcome.status in ("done", "derived")
        and row.verdict == Verdict()
        for row in rows
    ]
    return _carry(rows, wanted, carrier, "put", one)


def told(rows: list[Row], carrier: Carrier) -> list[Row]:
    """Rows whose problems people can read: nobody knows a node's folders."""
    return [_told(row, carrier) for row in rows]


def _told(row: Row, carrier: Carrier) -> Row:
    verdict, outcome = row.verdict, row.outcome
    if verdict.problem is not None:
        verdict = verdict._replace(problem=carrier.shown(verdict.problem))
    if verdict.stop is not None:
        verdict = verdict._replace(stop=carrier.shown(verdict.stop))
    if outcome is not None and outcome.problem is not None:
        outcome = dataclasses.replace(outcome, problem=carrier.shown(outcome.problem))
    return row._replace(verdict=verdict, outcome=outcome)


def _in_time(call: Callable[[], Carried], timeout: float) -> Carried:
    try:
        return within(timeout, call)
    except TimeoutError:
        problem = (
            f"the store took more than {timeout:g} seconds: it does not answer, or needs a larger "
            "--read-timeout"
        )
        return Carried(problem=problem, silent=True)


def _carry(
    rows: list[Row],
    wanted: list[bool],
    carrier: Carrier,
    kind: str,
    one: Callable[[Row], tuple[Row, Carried]],
) -> list[Row]:
    """Those rows that are wanted, as `one` returns them, with a note of how the store answered."""
    places = [place for place, want in enumerate(wanted) if want]
    if not places:
        return rows
    before, done = carrier.retries(), [*rows]
    with ThreadPoolExecutor(min(_THREADS, carrier.connections)) as pool:
        for place, (row, found) in zip(
            places, pool.map(one, [rows[place] for place in places]), strict=True
        ):
            if found.silent or (found.problem is None and found.stop is None):
                row = row._replace(carried=(*row.carried, (kind, found.problem)))
            done[place] = row
    first = done[places[0]]
    again = carrier.retries() - before
    done[places[0]] = first._replace(store_retries=first.store_retries + again)
    return done
