"""The cluster engine: Ray Data moves images between the three steps, on as many nodes as it has.

Decoding and writing are tasks, the network is an actor that keeps its session.  Ray Data holds back
what would fill the memory, and does again what a node took with it when it died.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import queue
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from petseg.engines import nodes, ray_cluster
from petseg.engines.bell import Bell
from petseg.engines.carrying import Carriage
from petseg.engines.engine import Cluster, Usage
from petseg.engines.nodes import Ledger, Network
from petseg.engines.outcome import Batch, Outcome, Work
from petseg.engines.rows import Ran, Row, pack, unpack
from petseg.engines.streak import Streaks
from petseg.errors import GOES_ON, PetsegError
from petseg.steps import Job

# Photos that one task decodes or writes: many, since Ray has work with each task.
_ROWS = 32
# A process that reads and writes is replaced after so many tasks, with what a photo on a dead
# network share left behind in it.
_TASKS = 1000
_POLL_SECONDS = 0.1


class RayEngine:
    """Runs images through read, infer and write on a cluster; see `local.LocalEngine`.

    Attributes:
        room: what the cluster has for it.
    """

    def __init__(
        self,
        model: Path,
        job: Job,
        cluster: Cluster,
        provider: str,
        precision: str,
        batch_size: int | None,
        read_timeout: float,
        carriage: Carriage | None = None,
    ) -> None:
        """Connect to the cluster, or start one on this machine.

        Args:
            model: a petseg ONNX file; its bytes go to the nodes.
            job: what is the same for every image; `masks` and the photos lie where every node
                finds them.
            cluster: where to run.
            provider, precision, batch_size: of the sessions.
            read_timeout: seconds after which a photo that is still being read has failed.
            carriage: what carries photos or masks; None where they are files for every node.

        Raises:
            PetsegError: Ray is not installed, or there is no cluster at this address.
        """
        self.ray = ray_cluster.package()
        # A node's processes are in another folder than this one.
        masks, temporary = Path.cwd() / job.masks, Path.cwd() / job.temporary
        self.job = dataclasses.replace(job, masks=masks, temporary=temporary)
        self.cluster, self.read_timeout = cluster, read_timeout
        self.carriage, self.streaks = carriage, Streaks()
        self.options = (provider, precision, batch_size)
        self.ours = not self.ray.is_initialized()
        # Threads of Ray's print what becomes of nodes and workers at any time until it is left, and
        # stdout is for results.
        self.hushed = contextlib.ExitStack()
        self.hushed.enter_context(contextlib.redirect_stdout(sys.stderr))
        try:
            if self.ours:
                ray_cluster.connect(self.ray, cluster.address)
            self.room = ray_cluster.room(self.ray, cluster, provider)
            self.model = self.ray.put(model.read_bytes())
            ledger = self.ray.remote(num_cpus=0)(Ledger)
            self.ledger = ledger.options(**ray_cluster.ledger_options(self.ray)).remote()
        except BaseException:
            self.close()
            raise
        self.ran: list[Ran] = []
        self.usage = Usage(workers=self.room.sessions)

    def run(
        self,
        todo: Iterator[Work | None],
        on_outcome: Callable[[Outcome], None],
        on_batch: Callable[[Batch], None],
        stopping: Callable[[], bool],
        bell: Bell | None = None,
    ) -> None:
        """Do all of `todo`, or what is done until `stopping` says so.

        An image that ends its process each time is found by doing those that were given up with it
        once more, each in a task of its own; then it has failed.

        Raises:
            PetsegError: masks cannot be written, or the model cannot be run there.
        """
        del bell  # nobody has images that are not there yet: a carrier asks on the nodes
        left = {work.mask: work for work in todo if work is not None}
        for rows in (_ROWS, 1):
            if left and not stopping():
                self._round([*left.values()], rows, left, on_outcome, on_batch, stopping)
        if not stopping():
            for work in left.values():
                on_outcome(Outcome(work, "failed", "a worker process died each time it was at it"))
        self.usage.retries = self.ray.get(self.ledger.retries.remote())

    @property
    def streams(self) -> int:
        """One batch for each session: it shares that out among its own streams."""
        return self.room.sessions

    def used(self) -> Usage:
        """What it took."""
        return self.usage

    def close(self) -> None:
        """Leave the cluster; one that was started here ends."""
        with self.hushed:
            if self.ours:
                self.ray.shutdown()

    def _round(
        self,
        works: list[Work],
        rows: int,
        left: dict[str, Work],
        on_outcome: Callable[[Outcome], None],
        on_batch: Callable[[Batch], None],
        stopping: Callable[[], bool],
    ) -> None:
        found: queue.SimpleQueue[list[Row] | BaseException | None] = queue.SimpleQueue()
        batches = iter(self._pipeline(works, rows).iter_batches(batch_size=None))
        # Ray's iterator waits, and signals and the progress bar do not.
        threading.Thread(target=_drain, args=(batches, found), daemon=True).start()
        while not stopping():
            try:
                result = found.get(timeout=_POLL_SECONDS)
            except queue.Empty:
                continue
            if result is None:
                return
            if isinstance(result, BaseException):
                raise _cause(result) from result
            for row in result:
                if row.verdict.stop is not None:
                    raise PetsegError(f"{row.verdict.stop}; {GOES_ON}")
                self._note(row.ran)
                self.usage.store_retries += row.store_retries
                for kind, problem in row.carried:
                    if problem is None:
                        self.streaks.end(kind)
                    else:
                        self.streaks.add(kind, problem)
                if row.batch is not None:
                    self.usage.batch_size = max(self.usage.batch_size, row.at_once)
                    on_batch(row.batch)
                    self.usage.infer_seconds += row.busy_seconds
                if row.outcome is not None and left.pop(row.work.mask, None) is not None:
                    on_outcome(row.outcome)

    def _pipeline(self, works: list[Work], rows: int) -> Any:
        import ray.data

        context = ray.data.DataContext.get_current()
        context.enable_progress_bars = False
        context.print_on_execution_start = False
        batch = 1 if rows == 1 else self.options[2] or rows
        # Every core gets several tasks, so that none waits long for the last one.
        rows = max(1, min(rows, len(works) // (4 * self.room.cores)))
        carrier = None if self.carriage is None else self.carriage.carrier
        begun = self._begun(works)
        items = [{"rows": row} for row in pack(begun)]
        provider, precision, batch_size = self.options
        cores = max(1, int(self.cluster.actor_cpus))
        model = (self.model, provider, precision, batch_size, cores)
        # Its annotations know no function with arguments of its own.
        dataset: Any = ray.data.from_items(items, override_num_blocks=-(-len(items) // rows))
        dataset = dataset.map_batches(
            nodes.read,
            fn_args=(self.job, self.read_timeout, self.ledger, carrier),
            batch_size=None,
            num_cpus=1,
            max_calls=_TASKS,
        )
        # Formats of masks that are there need no network.
        if not all(work.derive for work in works):
            dataset = dataset.map_batches(
                Network,
                fn_constructor_args=(*model, self.ledger),
                batch_size=batch,
                compute=ray.data.ActorPoolStrategy(
                    min_size=self.cluster.actors or 1, max_size=self.room.sessions
                ),
                num_cpus=self.cluster.actor_cpus,
                num_gpus=self.room.gpus,
            )
        return dataset.map_batches(
            nodes.write,
            fn_args=(self.job, self.read_timeout, self.ledger, carrier),
            batch_size=None,
            num_cpus=1,
            max_calls=_TASKS,
        )

    def _begun(self, works: list[Work]) -> list[Row]:
        """Each image with all that nodes need for it."""
        carriage = self.carriage
        if carriage is not None and carriage.carrier.brings:
            return [Row(work, luggage=carriage.luggage(work)) for work in works]
        here = os.getcwd()  # noqa: PTH109 - a Path for each of millions is slow
        return [
            Row(
                dataclasses.replace(work, path=os.path.join(here, work.path)),  # noqa: PTH118 - as above
                luggage=None if carriage is None else carriage.luggage(work),
            )
            for work in works
        ]

    def _note(self, ran: Ran | None) -> None:
        """What the sessions run on; several kinds are named one behind the other."""
        if ran is None or ran in self.ran:
            return
        self.ran.append(ran)
        used = self.usage
        used.provider = _names(one.provider for one in self.ran)
        used.precision = _names(one.precision for one in self.ran)
        used.device = _names(one.device for one in self.ran)
        used.notes = [*dict.fromkeys(note for one in self.ran for note in one.notes)]


def _names(found: Iterable[str]) -> str:
    return ", ".join(sorted(set(found)))


def _drain(batches: Iterator[Any], found: queue.SimpleQueue[Any]) -> None:
    try:
        for batch in batches:
            found.put(unpack(batch["rows"]))
    except BaseException as error:  # raised again in the main thread
        found.put(error)
    else:
        found.put(None)


def _cause(error: BaseException) -> BaseException:
    """What went wrong in an actor, under the errors that Ray wraps around it."""
    seen: BaseException | None = error
    while seen is not None:
        if isinstance(seen, PetsegError):
            return seen
        seen = getattr(seen, "cause", None) or seen.__cause__
    return error
