"""Collectives as they end: of all ways to do them the fastest, and what of it people want to see.

time = launch and steps + the flows of all stages, max-min fair on the links they share

The seconds are those of `simulator.network.price.comm_s`; the way that was taken, the bytes on
links and the bound come from the plans that these seconds are of.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import numpy as np

from hwmodels.arrays import Floats, Ints
from hwmodels.errors import InputError
from hwmodels.library import LibrarySpec
from simulator.network.alike import ABSENT, moments_of
from simulator.network.bounds import bound_s_per_byte
from simulator.network.collectives import algorithms_of
from simulator.network.comm_times import CommTimes
from simulator.network.fastest import Taken
from simulator.network.links import Network
from simulator.network.machine import Machine
from simulator.network.placement import Group, group_of
from simulator.network.price import comm_s
from simulator.network.timing import crossing_bytes
from simulator.network.ways import basis
from workloads.ops import Comm, CommKind

BUS_FACTORS = {"all_reduce": 2.0, "broadcast": 0.0, "send_recv": 0.0}
"""nccl-tests: bus bandwidth is algorithm bandwidth times this times `(p - 1) / p`; 0 for itself."""


@dataclass(frozen=True, slots=True, eq=False)
class CollectiveRun:
    """One collective of one group, alone or beside others.

    Attributes:
        kind, size_bytes, ranks, nodes: what was asked; sizes as in `simulator.network.collectives`.
        algorithm, protocol: what was taken; no protocol without a library that has some.
        time_s: `fixed_s`, launch and steps, and `wire_s`, bytes on the links; under faults, which
            make nothing faster, at least as many as without.
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

    All take one algorithm: with `auto` that with which the last of them ends first. Sizes of groups
    may differ.
    """
    if not 0 < size_bytes < np.inf:
        raise InputError(f"bytes: must be above 0 and finite, got {size_bytes:g}")
    if not len(groups):
        raise InputError("groups: must be at least one, got none")
    algorithms_of(kind)  # raises where there are none
    at_once = tuple(group_of(network.cluster, gpus) for gpus in groups)
    machine, gpus = Machine.on(network, library), _side_by_side(at_once)
    carrier = cast("CommKind", "send" if kind == "send_recv" else kind)
    times = comm_s(Comm(kind, carrier, (), size_bytes), gpus, machine, algorithm=algorithm)
    moments = moments_of(kind, gpus[None], machine.wires, machine.only_ports_bind)
    taken = moments.kinds[0].fastest(
        size_bytes, network.cluster, network.speeds, library, algorithm
    )
    return _runs(kind, size_bytes, at_once, network, library, times, taken)


def _side_by_side(groups: tuple[Group, ...]) -> Ints:
    """Return (groups, ranks) GPUs, `ABSENT` after the last rank of smaller groups."""
    gpus = np.full((len(groups), max(map(len, groups))), ABSENT)
    for row, group in zip(gpus, groups, strict=True):
        row[: len(group)] = group.gpus
    return gpus


def _runs(
    kind: str,
    size_bytes: float,
    groups: tuple[Group, ...],
    network: Network,
    library: LibrarySpec | None,
    times: CommTimes,
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
        steps_s, flows_s = float(times.latency_s[number]), float(times.moving_s[number])
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
