"""Plans: so many nodes, from their start to the end of the last one, and what breaks first."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from replay import Pace, Seconds

# Names that a store lists in one answer (Amazon S3, ListObjectsV2: "up to 1,000").
PAGE = 1000
# A node that has failed so often is not done in time, whatever the time.
MOST_STARTS = 100


@dataclass(frozen=True)
class Limits:
    """What is assumed of nodes, file servers and stores, and not measured.

    Attributes:
        hours: to be done in.
        failures: of a node in an hour.
        memory: bytes that a node has.
        folders: that photos are spread over evenly; parts are folders, too.
        in_folder: files that a folder takes.
        prefixes: that a store has spread the photos over, and the masks.
        puts, gets: a second that a store takes for each prefix.
        page_seconds: until a store answers with PAGE names.
        looking: share of a node's time that may go into looking at names.
    """

    hours: float = 24.0
    failures: float = 0.001
    memory: float = 16e9
    folders: int = 1
    in_folder: int = 10_000_000
    prefixes: int = 1
    puts: int = 3500
    gets: int = 5500
    page_seconds: float = 0.15
    looking: float = 0.1


@dataclass(frozen=True)
class Way:
    """Where photos lie and how nodes share them."""

    store: bool
    parts: bool

    def __str__(self) -> str:
        return f"{'store' if self.store else 'folders'}, {'parts' if self.parts else '--shard'}"


@dataclass(frozen=True)
class Plan:
    """What some number of images comes to; times in hours.

    Attributes:
        images: in all.
        way: how they are shared.
        nodes: that work at the same time.
        hours: until the last node ends; infinite where it never does.
        idle: share of the nodes' time that they wait for the last one, 0..1.
        looking: the slowest node's first look at names.
        lost: node hours that failures cost.
        requests: of a store: pages listed, photos got, heads of masks, masks put; 0 for folders.
        over: how many times a limit is reached, by its name, largest first.
    """

    images: int
    way: Way
    nodes: int
    hours: float
    idle: float
    looking: float
    lost: float
    requests: int
    over: dict[str, float]


def plan(measured: dict[str, Any], pace: Pace, images: int, way: Way, limits: Limits) -> Plan:
    """The fewest nodes that are done in time, or as many as still make it quicker."""

    def tried(nodes: int) -> Plan:
        return grow(measured, pace, images, nodes, way, limits)

    # With fewer, the photos alone would take too long.
    fewest = math.ceil(images / (3600 * limits.hours * pace.images_per_second))
    most, before = fewest, math.inf
    while (found := tried(most)).hours > limits.hours:
        # Twice as many nodes are hardly faster: each looks at all names, or only starts.
        if most > fewest and found.hours >= 0.9 * before:
            return found
        before = found.hours
        most *= 2
    while fewest < most:
        middle = (fewest + most) // 2
        if tried(middle).hours <= limits.hours:
            most = middle
        else:
            fewest = middle + 1
    return tried(most)


def grow(
    measured: dict[str, Any], pace: Pace, images: int, nodes: int, way: Way, limits: Limits
) -> Plan:
    """So many nodes from their start to the end of the last one."""
    random = np.random.default_rng((images, nodes))
    # A shard's photos are chosen by a hash; parts are what somebody made of them, alike as well.
    own = random.multinomial(images, np.full(nodes, 1 / nodes))
    work = np.maximum(pace.seconds(own, random), 1e-9)
    if way.store:
        # One process of the node makes all requests.
        work = np.maximum(work, own * (measured["store"]["get"] + measured["store"]["put"]))
    elif way.parts:
        # Each part is a whole run, which makes its own page.
        work = work + own * measured["page_seconds"]
    seen = own if way.parts else np.full(nodes, images)
    look = _Look(measured, own, seen, way, limits)
    clean = measured["start_seconds"] + look.seconds(np.zeros(nodes)) + work
    seconds, requests = _live(measured, look, work, limits, random)
    first = look.seconds(np.zeros(nodes))
    hours = float(seconds.max() / 3600)
    over = _over(measured, images, own, seen, way, limits, hours)
    over["looking at names"] = float((first / (first + work)).max()) / limits.looking
    return Plan(
        images,
        way,
        nodes,
        hours,
        float(1 - seconds.mean() / seconds.max()) if math.isfinite(hours) else 0.0,
        float(first.max() / 3600),
        float((seconds - clean).sum() / 3600),
        int(requests + 2 * images) if way.store else 0,
        dict(sorted(over.items(), key=lambda one: -one[1])),
    )


@dataclass(frozen=True)
class _Look:
    """What it costs nodes to look at names, before they begin; arrays are (N,).

    Attributes:
        own, seen: photos that are a node's, and that it sees the names of.
    """

    measured: dict[str, Any]
    own: NDArray[np.int64]
    seen: NDArray[np.int64]
    way: Way
    limits: Limits

    def seconds(self, done: Seconds) -> Seconds:
        """Until a node can begin, `done` (0..1) of whose photos have a mask already."""
        found: Seconds
        if self.way.store:
            store = self.measured["store"]
            # Photos, and the masks that are there: a listing each, and the heads of its own ones.
            names = self.seen * (1 + done)
            found = names * (store["list"] + self.limits.page_seconds / PAGE)
            # What a plan takes for a name, a folder's entry hardly weighing beside the hash.
            found = found + self.seen * self.measured["foreign_seconds"]
            return found + done * self.own * store["get"]
        find, resume = self.measured["find_seconds"], self.measured["resume_seconds"]
        found = self.own * (find + done * (resume - find))
        return found + (self.seen - self.own) * self.measured["foreign_seconds"]

    def requests(self, done: Seconds) -> Seconds:
        """Of a store, for that."""
        return self.seen * (1 + done) / PAGE + done * self.own


def _live(
    measured: dict[str, Any],
    look: _Look,
    work: Seconds,
    limits: Limits,
    random: np.random.Generator,
) -> tuple[Seconds, float]:
    """Seconds until each node's photos are done, failures and all, and requests for looking.

    A node that fails is started anew at once; what it had done stays.
    """
    nodes = len(work)
    seconds, done = np.zeros(nodes), np.zeros(nodes)
    at_work = np.full(nodes, True)
    requests = 0.0
    for _ in range(MOST_STARTS):
        before = measured["start_seconds"] + look.seconds(done)
        requests += float(look.requests(done)[at_work].sum())
        needed = before + (1 - done) * work
        hours = random.exponential(size=nodes) / max(limits.failures, 1e-12)
        lasted = np.minimum(3600 * hours, needed)
        seconds += np.where(at_work, lasted, 0)
        done = np.where(at_work, done + np.maximum(lasted - before, 0) / work, done)
        at_work &= lasted < needed
        if not at_work.any():
            return seconds, requests
    return np.where(at_work, math.inf, seconds), requests


def _over(
    measured: dict[str, Any],
    images: int,
    own: NDArray[np.int64],
    seen: NDArray[np.int64],
    way: Way,
    limits: Limits,
    hours: float,
) -> dict[str, float]:
    """How many times each limit is reached."""
    memory = (measured["base_bytes"] or 0) + own.max() * measured["plan_bytes"]
    # Less time than there is, is what every plan takes.
    over = {"time": hours / limits.hours} if hours > limits.hours else {}
    if way.store:
        store = measured["store"]
        # A node that failed near its end keeps the names of the masks, too.
        memory += seen.max() * (store["list_bytes"] + store["kept_bytes"])
        each = images / (3600 * hours * limits.prefixes)
        over |= {"puts a second": each / limits.puts, "gets a second": each / limits.gets}
    else:
        folders = max(limits.folders, len(own) if way.parts else 1)
        # The names of one folder at a time are put in order.
        memory += images / folders * measured["foreign_bytes"]
        over["files in a folder"] = images / folders / limits.in_folder
        if not way.parts:
            page = images * measured["page_seconds"] / 3600
            over["the page of all masks"] = page / limits.hours
    return over | {"a node's memory": float(memory) / limits.memory}
