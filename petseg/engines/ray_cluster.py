"""Reaching a Ray cluster, and what it has."""

from __future__ import annotations

import logging
import math
import os
import signal
import socket
import threading
from dataclasses import dataclass
from typing import Any

from petseg.engines.engine import Cluster
from petseg.errors import PetsegError

_KNOCK_SECONDS = 10.0


def package() -> Any:
    """Ray, or a PetsegError that says how to install it."""
    # Ray's people would otherwise be told of each start.
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        import ray
        import ray.data
    except ImportError as error:
        raise PetsegError(
            "--engine ray needs Ray: pip install 'petseg[ray]', here and on every node"
        ) from error
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    return ray


def connect(ray: Any, address: str | None) -> None:
    """Join the cluster at an address, or start one here; raises PetsegError where there is none."""
    if address is not None and "://" in address:
        raise PetsegError(
            f"--address {address}: Ray Data does not run through Ray's client; run this command on "
            "a machine of the cluster, with --address auto"
        )
    options: dict[str, Any] = {} if address else {"include_dashboard": False}
    before = signal.getsignal(signal.SIGTERM)
    try:
        if address is not None:
            _knock(address)
        ray.init(
            address=address or "local", log_to_driver=False, logging_level=logging.ERROR, **options
        )
    except (OSError, ValueError, RuntimeError) as error:
        if address is None:
            raise PetsegError(f"Ray cannot start on this machine: {error}") from error
        raise PetsegError(
            f"--address {address}: there is no Ray cluster ({error}); start one with "
            "`ray start --head`, or leave --address out"
        ) from error
    finally:
        # Ray puts in one that ends the process at once, with another exit code.
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, before)


def _knock(address: str) -> None:
    """Raise OSError where nobody listens: Ray would try for minutes, and then end the process."""
    host, colon, port = address.rpartition(":")
    if colon and port.isdecimal():
        socket.create_connection((host.strip("[]"), int(port)), _KNOCK_SECONDS).close()


@dataclass(frozen=True)
class Room:
    """What a cluster has for a run.

    Attributes:
        cores: of all nodes.
        gpus: that each session takes.
        sessions: how many at the same time, so that a core is left for reading and writing.
        where: all this, for people.
    """

    cores: int
    gpus: float
    sessions: int
    where: str


def room(ray: Any, cluster: Cluster, provider: str) -> Room:
    """What there is for a run's sessions.

    Raises:
        PetsegError: no node can hold a session, or so many leave nobody to read and write: Ray
            would wait for more nodes without end.
    """
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    cores = int(sum(node.get("CPU", 0) for node in nodes))
    there = sum(node.get("GPU", 0.0) for node in nodes)
    cpus, gpus = cluster.actor_cpus, cluster.actor_gpus
    if gpus is None:
        gpus = 1.0 if there and provider in ("auto", "cuda") else 0.0
    if gpus > 1 and not float(gpus).is_integer():
        raise PetsegError(f"--actor-gpus {gpus:g}: above 1, Ray gives whole GPUs alone")
    fit = sum(
        int(min(node.get("CPU", 0) / cpus, node.get("GPU", 0) / gpus if gpus else math.inf))
        for node in nodes
    )
    where = f"{len(nodes)} nodes, {cores} cores, {there:g} GPUs"
    if not fit:
        raise PetsegError(
            f"a session is to take {cpus:g} cores and {gpus:g} GPUs, and no node has them "
            f"({where}); lower --actor-cpus or --actor-gpus, or start nodes with "
            "`ray start --num-cpus --num-gpus`"
        )
    most = min(fit, int((cores - 1) / cpus))
    wanted = cluster.actors or max(1, most)
    if wanted > most:
        raise PetsegError(
            f"{wanted} sessions of {cpus:g} cores and {gpus:g} GPUs do not fit beside a core for "
            f"reading and writing ({where}); lower --actors, --actor-cpus or --actor-gpus"
        )
    return Room(cores, gpus, wanted, where)


def ledger_options(ray: Any) -> dict[str, Any]:
    """On this node, which does not die before the run does; with a name, for those who look."""
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    context = ray.get_runtime_context()
    return {
        "name": f"petseg-{context.get_job_id()}",
        "scheduling_strategy": NodeAffinitySchedulingStrategy(context.get_node_id(), soft=False),
    }
