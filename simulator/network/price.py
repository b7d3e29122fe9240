"""Seconds of every communication: of a step, of the command `collective`, of whoever asks.

All groups of a moment start at once. What depends on ranks and wires alone is worked out once and
kept (`simulator.network.alike`); seconds at other rates and sizes are divisions.
"""

from dataclasses import replace

import numpy as np

from hwmodels.arrays import Floats, Ints
from hwmodels.errors import InputError
from simulator.network.alike import moments_of
from simulator.network.comm_times import AS_PRICED, CommTimes, Slow
from simulator.network.exchange_pricer import ExchangePricer
from simulator.network.machine import Machine
from workloads.ops import Comm


def comm_s(
    comm: Comm,
    groups: Ints,
    machine: Machine,
    load: Floats | None = None,
    slow: Slow = AS_PRICED,
    *,
    algorithm: str = "auto",
) -> CommTimes:
    """Return (..., groups) seconds of a communication of each group.

    Args:
        groups: (..., groups, ranks) GPUs of the ranks of groups that start at once, of several
            moments that have nothing to do with one another.
        load: (...) by which the size at each moment is multiplied; of dispatch and combine
            (..., groups, ranks) tokens that each rank gets, relative to balanced.
        slow: links that are slower than the machine's.
        algorithm: of a collective; `auto` takes that with which the last group ends first.

    Raises:
        InputError: a GPU has two ranks of a group.
        InfeasibleError: ranks are not reached.
        OutOfRangeError: the library says nothing about such a collective.
    """
    if comm.routed:
        return _exchange(comm, np.asarray(groups), machine, load, slow)
    return _collective(comm, np.asarray(groups), machine, load, slow, algorithm)


def _collective(
    comm: Comm,
    groups: Ints,
    machine: Machine,
    load: Floats | None,
    slow: Slow,
    algorithm: str,
) -> CommTimes:
    """Return the seconds of a collective, or of messages from each rank to the next."""
    shape = groups.shape[:-1]
    if groups.shape[-1] == 1:
        return CommTimes(*np.zeros((3, *shape)))
    gpus = groups if groups.ndim == 3 else groups.reshape(-1, *groups.shape[-2:])
    factors = np.ones(len(gpus)) if load is None else np.broadcast_to(load, shape[:-1]).ravel()
    kind = "send_recv" if comm.kind == "send" else comm.kind
    moments = moments_of(kind, gpus, machine.wires, machine.only_ports_bind)
    sizes, column = moments.sizes(comm.size_bytes * factors)
    where = machine.cluster, machine.speeds, machine.library, algorithm
    found = [
        groups.seconds(each, *where).reshape(4, -1)
        for groups, each in zip(moments.kinds, sizes, strict=True)
    ]
    parts = np.concatenate(found, axis=1)[:, column]
    if not factors.all():
        parts[:, factors == 0] = 0.0  # no bytes, no message
    latency_s, nic_s, nvlink_s, in_turn_s = parts.reshape(4, *shape)
    times = CommTimes(latency_s, nic_s, nvlink_s, in_turn_s)
    if machine.whole is not None:  # see `simulator.network.run`
        before = _collective(comm, groups, machine.whole, load, AS_PRICED, algorithm)
        late_s = np.maximum(before.seconds - times.seconds, 0.0)
        times = replace(times, in_turn_s=times.in_turn_s + late_s)
    return times if slow is AS_PRICED else times.slowed(slow)


def _exchange(
    comm: Comm, gpus: Ints, machine: Machine, load: Floats | None, slow: Slow
) -> CommTimes:
    """Return the seconds of a dispatch or a combine.

    Raises:
        InputError: groups lie in a way that the machine's routing does not know.
    """
    known = [routing.members for routing in machine.routing]
    rows, in_node = np.sort(gpus, axis=-1).reshape(-1, gpus.shape[-1]), machine.cluster.node.gpus
    members = [tuple(np.unique(row // in_node, return_counts=True)[1].tolist()) for row in rows]
    for lies in members:
        if lies not in known:
            ways = "; ".join(str(each) for each in known) or "none"
            raise InputError(f"routing: must say what tokens cost on nodes {ways}, got {lies}")
    layout = np.array([known.index(lies) for lies in members]).reshape(gpus.shape[:-1])
    balanced = np.ones(gpus.shape)
    return ExchangePricer.of(machine).times(comm, balanced if load is None else load, slow, layout)
