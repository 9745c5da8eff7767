"""What Ray's start costs: a cluster of one node on this machine, a second node, and a run on it."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import Any

# Of each node; a run needs a core beside its session's.
_CORES = 2
_STORE_BYTES = 200_000_000


def measure(run: Callable[[str], float]) -> dict[str, float]:
    """Seconds.

    Args:
        run: makes a run on the cluster at an address, and says how long it took.

    Returns:
        "head": until a node that begins a cluster is up; "node": until one that joins it is;
        "run": of the run.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    from ray.cluster_utils import Cluster

    node = {"num_cpus": _CORES, "object_store_memory": _STORE_BYTES}
    began = time.perf_counter()
    cluster: Any = Cluster(
        initialize_head=True, head_node_args={**node, "include_dashboard": False}
    )
    try:
        head = time.perf_counter() - began
        began = time.perf_counter()
        cluster.add_node(**node)
        cluster.wait_for_nodes()
        joined = time.perf_counter() - began
        return {"head": head, "node": joined, "run": run(cluster.address)}
    finally:
        cluster.shutdown()
