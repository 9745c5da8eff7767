"""Images on their way through a cluster, and how a batch carries them.

Paths need not be valid Unicode, which Arrow's strings have to be; bytes may be anything.
"""

from __future__ import annotations

import pickle
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from petseg.engines.attempt import Verdict
from petseg.engines.outcome import Batch, Outcome, Work
from petseg.steps import Photo

Rows = dict[str, NDArray[Any]]


class Row(NamedTuple):
    """One image on its way.

    Attributes:
        work: the image.
        photo: once it is read.
        verdict: what went wrong with it, or with the whole run.
        ran: what the session that saw it runs on.
        batch: of the session; the first row of each has it,
        at_once: how many of it went through the network at once,
        busy_seconds: and the processor time of the session's process.
        read_seconds: processor time.
        infer_seconds: its share of the time its batch took.
        given_up: whether what it was done with ended its process too often.
        outcome: in the end.
        begun: what the ledger holds of it.
        luggage: what a carrier needs for it; see `carrying.Carriage`.
        here: where the photo lies that a carrier has brought, on the node that reads it.
        carried: whether its store answered, to "fetch" and to "put": None, or what it did instead.
        store_retries: requests of its batch that were made again; the first row of each has it.
    """

    work: Work
    photo: Photo | None = None
    verdict: Verdict = Verdict()
    ran: Ran | None = None
    batch: Batch | None = None
    at_once: int = 0
    busy_seconds: float = 0.0
    read_seconds: float = 0.0
    infer_seconds: float = 0.0
    given_up: bool = False
    outcome: Outcome | None = None
    begun: tuple[bytes, ...] = ()
    luggage: Any = None
    here: str = ""
    carried: tuple[tuple[str, str | None], ...] = ()
    store_retries: int = 0


class Ran(NamedTuple):
    """What a session runs on; see `runtime.Session`."""

    provider: str
    precision: str
    device: str
    notes: tuple[str, ...]


def pack(rows: list[Row]) -> NDArray[Any]:
    """Rows as a column of bytes."""
    packed = np.empty(len(rows), object)
    packed[:] = [pickle.dumps(row, pickle.HIGHEST_PROTOCOL) for row in rows]
    return packed


def unpack(column: NDArray[Any]) -> list[Row]:
    """What `pack` packed."""
    return [pickle.loads(row) for row in column]
