"""Seconds of every communication: of a step, of the command `collective`, of whoever asks.

All groups of a moment start at once. What depends on ranks and wires alone is worked out once and
kept (`simulator.network.alike`); seconds at other rates and sizes are divisions.

A step asks on the network of its experiment where something behind the NICs may bind, and else on
a machine of ports (`Machine.of_ports`), which gives the same. Of dispatch and combine a machine
knows ports and NVLink: faults and links between switches reach them by `slow`, which a step takes
from `simulator.price.fabric_slowdowns`, and the command from flows that are played
(`simulator.network.moe_exchange`). Both price ports by `simulator.network.slowest_port.port_times`;
`ExchangePricer` does so for many loads at once, here and in every segment of a step.
"""

from dataclasses import replace

import numpy as np

from hwmodels.arrays import Floats, Ints
from hwmodels.errors import InputError, suggestion
from simulator.network.alike import check_gpus, moments_of
from simulator.network.collectives import algorithms_of
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
    """Return (..., groups) seconds of a communication of each group. No fault makes it faster.

    Collectives on `Machine.side_by_side` have an axis of machines before all others.

    Args:
        groups: (..., groups, ranks) GPUs of the ranks of groups that start at once, of several
            moments that have nothing to do with one another; of a collective
            `simulator.network.alike.ABSENT` after the last rank of a smaller group.
        load: (...) by which the size at each moment is multiplied; of dispatch and combine
            (..., groups, ranks) tokens that each rank gets, relative to balanced.
        slow: links that are slower than the machine's.
        algorithm: of a collective; `auto` takes that with which the last group ends first.

    Raises:
        InputError: there is no such GPU, it has two ranks of a group, a size or load is below zero
            or not finite, or there is no such algorithm.
        InfeasibleError: ranks are not reached.
        OutOfRangeError: the library says nothing about such a collective.
    """
    gpus = np.asarray(groups)
    if gpus.ndim < 2:
        raise InputError(f"groups: must be (..., groups, ranks), got shape {gpus.shape}")
    shape = gpus.shape if comm.routed else gpus.shape[:-2]
    factors = np.ones(shape) if load is None else _checked(load, shape)
    if not 0 <= comm.size_bytes < np.inf:
        raise InputError(f"bytes: must be 0 or more and finite, got {comm.size_bytes:g}")
    if not comm.routed:
        _check_algorithm(kind_of(comm), algorithm)
        return _collective(comm, gpus, machine, factors, slow, algorithm)
    if algorithm != "auto":
        raise InputError(f"algorithm: must be auto for {comm.kind}, got {algorithm!r}")
    return _exchange(comm, gpus, machine, factors, slow)


def kind_of(comm: Comm) -> str:
    """Return what collectives call a communication."""
    return "send_recv" if comm.kind == "send" else comm.kind


def _checked(load: Floats, shape: tuple[int, ...]) -> Floats:
    """Return (shape) loads, as given where they have that shape."""
    given = np.asarray(load)
    if not ((given >= 0) & (given < np.inf)).all():
        raise InputError("load: must be 0 or more and finite everywhere")
    try:
        return given if given.shape == shape else np.broadcast_to(given, shape)
    except ValueError:
        raise InputError(f"load: must be of shape {shape}, got {given.shape}") from None


def _check_algorithm(kind: str, algorithm: str) -> None:
    known = ("auto", *algorithms_of(kind))
    if algorithm not in known:
        near = suggestion(algorithm, known)
        raise InputError(f"algorithm: {kind} has no {algorithm!r}{near}")


def _collective(
    comm: Comm,
    groups: Ints,
    machine: Machine,
    factors: Floats,
    slow: Slow,
    algorithm: str,
) -> CommTimes:
    """Return the seconds of a collective, or of messages from each rank to the next.

    A fault may by chance part messages that meet at one port. A library would part them without a
    fault if it knew how, so what a fault forces on it is not taken for an improvement: under faults
    all takes at least as long as on the whole machine.
    """
    shape = groups.shape[:-1]
    if groups.shape[-1] == 1:
        check_gpus(groups, machine.cluster)
        return CommTimes(*np.zeros((4, *machine.beside, *shape)))
    gpus = groups if groups.ndim == 3 else groups.reshape(-1, *groups.shape[-2:])
    moments = moments_of(kind_of(comm), gpus, machine.wires, machine.only_ports_bind)
    sizes, column = moments.sizes(comm.size_bytes * factors.ravel())
    where = machine.cluster, machine.speeds, machine.library, algorithm
    found = [
        groups.seconds(each, *where).reshape(4, *machine.beside, -1)
        for groups, each in zip(moments.kinds, sizes, strict=True)
    ]
    parts = np.concatenate(found, axis=-1)[..., column]
    if not factors.all():
        parts[..., factors.ravel() == 0, :] = 0.0  # no bytes, no message
    latency_s, nic_s, nvlink_s, in_turn_s = parts.reshape(4, *machine.beside, *shape)
    times = CommTimes(latency_s, nic_s, nvlink_s, in_turn_s)
    if machine.whole is not None:
        before = _collective(comm, groups, machine.whole, factors, AS_PRICED, algorithm)
        late_s = np.maximum(before.seconds - times.seconds, 0.0)
        times = replace(times, in_turn_s=times.in_turn_s + late_s)
    return times if slow is AS_PRICED else times.slowed(slow)


def _exchange(comm: Comm, gpus: Ints, machine: Machine, load: Floats, slow: Slow) -> CommTimes:
    """Return the seconds of a dispatch or a combine; the order of ranks means nothing.

    Args:
        load: (..., groups, ranks) of each rank, as `gpus`.

    Raises:
        InputError: groups lie in a way that the machine's routing does not know.
    """
    check_gpus(gpus, machine.cluster)
    order = np.argsort(gpus, axis=-1)
    ranks = np.take_along_axis(gpus, order, axis=-1)
    if (twice := ranks[..., 1:][np.diff(ranks, axis=-1) == 0]).size:
        raise InputError(f"group: a GPU may hold one rank, got GPU {twice[0]} twice")
    known = [routing.members for routing in machine.routing]
    rows, in_node = ranks.reshape(-1, ranks.shape[-1]), machine.cluster.node.gpus
    members = [tuple(np.unique(row // in_node, return_counts=True)[1].tolist()) for row in rows]
    for lies in members:
        if lies not in known:
            ways = "; ".join(str(each) for each in known) or "none"
            raise InputError(f"routing: must say what tokens cost on nodes {ways}, got {lies}")
    layout = np.array([known.index(lies) for lies in members]).reshape(gpus.shape[:-1])
    loads = np.take_along_axis(load, order, axis=-1)
    return ExchangePricer.of(machine).times(comm, loads, _of_ranks(slow, order), layout)


def _of_ranks(slow: Slow, order: Ints) -> Slow:
    """Return slow links in the order of GPUs, of arrays that name each rank's."""
    return Slow(
        *(
            np.take_along_axis(np.broadcast_to(each, order.shape), order, axis=-1)
            if isinstance(each, np.ndarray) and each.ndim
            else each
            for each in slow
        )
    )
