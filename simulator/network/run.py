"""Collectives as they end: of all ways to do them the fastest.

time = launch and steps + the flows of all stages, max-min fair on the links they share
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from hwmodels.arrays import Floats, Ints
from hwmodels.errors import InputError, suggestion
from hwmodels.library import LibrarySpec
from simulator.network.bounds import bound_s_per_byte
from simulator.network.collectives import algorithms_of
from simulator.network.fastest import Concurrent, Taken
from simulator.network.links import Network
from simulator.network.placement import Group, group_of
from simulator.network.timing import crossing_bytes
from simulator.network.ways import basis

BUS_FACTORS = {"all_reduce": 2.0, "broadcast": 0.0, "send_recv": 0.0}
"""nccl-tests: bus bandwidth is algorithm bandwidth times this times `(p - 1) / p`; 0 for itself."""


@dataclass(frozen=True, slots=True, eq=False)
class CollectiveRun:
    """One collective of one group, alone or beside others.

    Attributes:
        kind, size_bytes, ranks, nodes: what was asked; sizes as in `simulator.network.collectives`.
        algorithm, protocol: what was taken; no protocol without a library that has some.
        time_s: `fixed_s`, launch and steps, and `wire_s`, bytes on the links.
        bound_s: no collective of these bytes is faster, latency included.
        basis: what rates and latencies are taken from.
        link_bytes: (links,) what crossed each link of the network, of all groups that ran.
    """

    kind: str
    size_bytes: float
    ranks: int
    nodes: int
    algorithm: str
    protocol: str | None
    time_s: float
    fixed_s: float
    wire_s: float
    bound_s: float
    basis: str
    link_bytes: Floats

    @property
    def algbw_bytes_per_s(self) -> float:
        """Size over time (nccl-tests); 0 for one rank, which takes none."""
        return self.size_bytes / self.time_s if self.time_s else 0.0

    @property
    def busbw_bytes_per_s(self) -> float:
        """Algorithm bandwidth times what a link carries of a byte (nccl-tests)."""
        factor = BUS_FACTORS.get(self.kind, 1.0) * (self.ranks - 1) / self.ranks
        return self.algbw_bytes_per_s * (factor or 1.0)


def run_collective(
    kind: str,
    size_bytes: float,
    gpus: Sequence[int] | Ints,
    network: Network,
    library: LibrarySpec | None = None,
    algorithm: str = "auto",
) -> CollectiveRun:
    """Return one collective of the ranks on `gpus`, alone on the network.

    Args:
        size_bytes: by nccl-tests' conventions, see `simulator.network.collectives`.
        algorithm: `auto` takes the fastest.

    Raises:
        InputError: no such kind or algorithm, a rank twice, or a size that is not above zero.
        InfeasibleError: ranks that are not there, down, or cut off from each other, or more flows
            than `simulator.network.collectives.rows.ROWS_MAX`.
        OutOfRangeError: the library says nothing about such a collective.
    """
    return run_groups(kind, size_bytes, [gpus], network, library, algorithm)[0]


def run_groups(
    kind: str,
    size_bytes: float,
    groups: Sequence[Sequence[int] | Ints] | Ints,
    network: Network,
    library: LibrarySpec | None = None,
    algorithm: str = "auto",
) -> list[CollectiveRun]:
    """Return the same collective of several groups that all start at once on one network.

    All take one algorithm: with `auto` that with which the last of them ends first. No fault makes
    any of them faster.
    """
    if not 0 < size_bytes < np.inf:
        raise InputError(f"bytes: must be above 0 and finite, got {size_bytes:g}")
    known = algorithms_of(kind)
    if algorithm not in ("auto", *known):
        near = suggestion(algorithm, ["auto", *known])
        raise InputError(f"algorithm: {kind} has no {algorithm!r}{near}")
    if not len(groups):
        raise InputError("groups: must be at least one, got none")
    cast = tuple(group_of(network.cluster, gpus) for gpus in groups)
    concurrent = Concurrent(kind, (cast,), network.wiring)
    taken = concurrent.fastest(size_bytes, network.cluster, network.speeds, library, algorithm)
    runs = _runs(kind, size_bytes, cast, network, library, taken)
    if network.whole is None:
        return runs
    before = run_groups(kind, size_bytes, groups, network.whole, library, algorithm)
    return [_not_faster(run, whole) for run, whole in zip(runs, before, strict=True)]


def _not_faster(run: CollectiveRun, whole: CollectiveRun) -> CollectiveRun:
    """Return a run under faults, which takes at least as long as on the whole network.

    A fault may by chance part messages that meet at one port. A library would part them without a
    fault if it knew how, so what a fault forces on it is not taken for an improvement.
    """
    late_s = max(0.0, whole.time_s - run.time_s)
    return replace(run, time_s=run.time_s + late_s, wire_s=run.wire_s + late_s)


def _runs(
    kind: str,
    size_bytes: float,
    groups: tuple[Group, ...],
    network: Network,
    library: LibrarySpec | None,
    taken: Taken,
) -> list[CollectiveRun]:
    way = taken.way
    crossing = np.zeros(len(network.bytes_per_s))
    for plan in taken.plans:
        for flows in plan.stages:
            links, moved = crossing_bytes(flows)
            crossing[links] += moved * (size_bytes * plan.factor)
    in_network = way.algorithm == "in-network"
    runs = []
    for number, group in enumerate(groups):
        least_s = bound_s_per_byte(network, group, kind, in_network) * size_bytes
        steps_s, flows_s = float(taken.fixed_s[number]), float(taken.wire.moving_s[number])
        runs.append(
            CollectiveRun(
                kind=kind,
                size_bytes=float(size_bytes),
                ranks=len(group),
                nodes=len(group.nodes),
                algorithm=way.algorithm,
                protocol=way.protocol.name if way.protocol else None,
                time_s=steps_s + flows_s,
                fixed_s=steps_s,
                wire_s=flows_s,
                bound_s=least_s + min(steps_s, _message_s(network, group)),
                basis=basis(library, way, group),
                link_bytes=crossing,
            )
        )
    return runs


def _message_s(network: Network, group: Group) -> float:
    """Return the latency of one small message between ranks, the nearest of different nodes."""
    cluster = network.cluster
    if len(group) == 1:
        return 0.0
    if len(group.nodes) == 1:
        return cluster.node.scale_up.latency_s
    return float(cluster.fabric.latency_s(1))
