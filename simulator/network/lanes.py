"""Which NIC ports carry the bytes between two GPUs of different nodes.

A GPU's own ports are those of the NICs beside it. Bytes leave by one of the source's own ports and
arrive at one of the target's own where those reach each other by as few switches as any others;
NICs of several ports use all of them alike. Otherwise, as across planes or rails, one side hands
them over by NVLink to the GPU whose NIC has the same place in its node as the other side's:

    sender      the source's node, so that they arrive at the target's own port (NCCL's PXN)
    receiver    the target's node, so that they leave by the source's own port (DeepEP)

A writer of remote memory goes straight to the target's own port wherever it is joined to the
source's, over however many switches, and else as with `receiver`: `unless joined`.

What a dead port or path cannot carry goes by ports of the same place in both nodes that still reach
each other, or by any that do: by as many ports that nothing else between these nodes uses as died,
so that a message of one GPU never has more ports than when all were whole; where there are not as
many left, evenly over all that live. A slow port keeps its share.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from hwmodels.arrays import Floats, Ints, Mask
from hwmodels.errors import InfeasibleError
from simulator.network.links import Network
from simulator.network.routing import reachable

Forward = Literal["sender", "receiver", "unless joined"]


@dataclass(frozen=True, slots=True, eq=False)
class Lanes:
    """Pairs of ports that flows are split over.

    Attributes:
        flow: (lanes,) which flow.
        source, target: (lanes,) endpoints it leaves by and arrives at.
        share: (lanes,) of its bytes; the shares of a flow add up to 1.
    """

    flow: Ints
    source: Ints
    target: Ints
    share: Floats


def lanes(
    network: Network,
    source_gpu: npt.ArrayLike,
    target_gpu: npt.ArrayLike,
    forward: Forward = "sender",
) -> Lanes:
    """Return the ports that carry flows from GPU to GPU, of different nodes each.

    Raises:
        InfeasibleError: two nodes have no path left between them.
    """
    source, target = np.broadcast_arrays(np.atleast_1d(source_gpu), target_gpu)
    topology, node = network.topology, network.cluster.node
    source_ports, target_ports = network.endpoints_of(source), network.endpoints_of(target)
    if forward == "sender":
        first, last = _same_place(network, target_ports, source // node.gpus), target_ports
    else:
        first, last = source_ports, _same_place(network, source_ports, target // node.gpus)
    direct = topology.connected(source_ports, target_ports)
    if forward != "unless joined":
        switches = topology.switches_passed(source_ports, target_ports)
        direct = direct & (switches <= topology.switches_passed(first, last))
    straight = np.asarray(direct.all(axis=1))[:, None]
    flow = np.indices(source_ports.shape)[0]
    share = np.full(flow.size, 1 / source_ports.shape[1])
    ends = (np.where(straight, source_ports, first), np.where(straight, target_ports, last))
    return living(network, Lanes(flow.ravel(), ends[0].ravel(), ends[1].ravel(), share))


def same_place(network: Network, source_node: Ints, target_gpu: Ints) -> Lanes:
    """Return the lanes from any GPU of nodes to GPUs elsewhere, all forwarded by the sender."""
    last = network.endpoints_of(target_gpu)
    first = _same_place(network, last, source_node)
    flow = np.indices(last.shape)[0].ravel()
    share = np.full(flow.size, 1 / last.shape[1])
    return living(network, Lanes(flow, first.ravel(), last.ravel(), share))


def living(network: Network, planned: Lanes) -> Lanes:
    """Return the lanes with what is dead carried by what is not.

    Raises:
        InfeasibleError: two nodes have no path left between them.
    """
    alive = reachable(network, planned.source, planned.target)
    if alive.all():
        return planned
    ports, nodes = network.cluster.node.ports, network.cluster.nodes
    dead = np.flatnonzero(~alive)
    key = planned.source // ports * nodes + planned.target // ports
    pairs, pair = np.unique(key[dead], return_inverse=True)
    among = _living_ports(network, *np.divmod(pairs, nodes))
    busy = np.flatnonzero(alive & np.isin(key, pairs))
    used = np.zeros((2, pairs.size, ports), dtype=np.bool_)
    for side, ends in zip(used, (planned.source, planned.target), strict=True):
        side[np.searchsorted(pairs, key[busy]), ends[busy] % ports] = True
    lane, chosen, share = _instead(network, planned, dead, pair, among, used)
    source, target = _ends_kept(network, planned, dead[lane], among, chosen)
    return Lanes(
        np.concatenate([planned.flow[alive], planned.flow[dead][lane]]),
        np.concatenate([planned.source[alive], source]),
        np.concatenate([planned.target[alive], target]),
        np.concatenate([planned.share[alive], planned.share[dead][lane] * share]),
    )


def _instead(
    network: Network, planned: Lanes, dead: Ints, pair: Ints, among: Lanes, used: Mask
) -> tuple[Ints, Ints, Floats]:
    """Return who takes over: numbers in `dead` and in `among`, and the share it takes.

    Args:
        dead, pair: (dead lanes,) which of `planned`, and between which pair of nodes.
        among: the living lanes of each pair, `flow` its number.
        used: (2, pairs, ports) the ports that other lanes leave by and arrive at.
    """
    ports = network.cluster.node.ports
    source, target = planned.source[dead], planned.target[dead]
    sends = network.fabric_bytes_per_s[network.topology.tx(source)] > 0
    receives = network.fabric_bytes_per_s[network.topology.rx(target)] > 0
    by_target = sends & ~receives
    broken = np.where(by_target, target % ports + ports, source % ports)
    ways, way = np.unique(pair * 2 * ports + broken, return_inverse=True)
    of_way, place = ways // (2 * ports), ways % ports
    first = np.searchsorted(of_way, np.arange(used.shape[1]))
    turn = np.arange(ways.size) - first[of_way]
    count = np.bincount(among.flow, minlength=first.size)
    start = np.cumsum(count) - count
    # Beginning at another place for each pair of nodes, so that not all take the same.
    number = np.arange(among.flow.size) - start[among.flow]
    nodes = among.source // ports + among.target // ports
    after = (number - place[first][among.flow] - nodes) % count[among.flow]
    spare = ~(used[0, among.flow, among.source % ports] | used[1, among.flow, among.target % ports])
    free = np.flatnonzero(spare)
    free = free[np.lexsort((after[free], among.flow[free]))]
    spares = np.bincount(among.flow[free], minlength=first.size)
    first_free = np.cumsum(spares) - spares
    replaced = np.bincount(of_way, minlength=first.size) <= spares
    one, many = np.flatnonzero(replaced[pair]), np.flatnonzero(~replaced[pair])
    taken = free[(first_free[of_way] + turn)[way[one]]]
    spread = np.repeat(many, count[pair[many]])
    ends = np.cumsum(count[pair[many]])
    within = np.arange(spread.size) - np.repeat(ends - count[pair[many]], count[pair[many]])
    return (
        np.concatenate([one, spread]),
        np.concatenate([taken, start[pair[spread]] + within]),
        np.concatenate([np.ones(one.size), 1 / count[pair[spread]]]),
    )


def _ends_kept(
    network: Network, planned: Lanes, dead: Ints, among: Lanes, chosen: Ints
) -> tuple[Ints, Ints]:
    """Return the ends of lanes taken instead: a planned end that lives stays if it is as near."""
    source, target = among.source[chosen], among.target[chosen]
    planned_source, planned_target = planned.source[dead], planned.target[dead]
    source = np.where(
        _as_near(network, planned_source, target, source, target), planned_source, source
    )
    kept = _as_near(network, source, planned_target, source, target)
    return source, np.where(kept, planned_target, target)


def _as_near(network: Network, source: Ints, target: Ints, other: Ints, end: Ints) -> Mask:
    """Return whether ports reach each other, by no more switches than `other` reaches `end`."""
    passed = network.topology.switches_passed
    near = passed(source, target) <= passed(other, end)
    return np.asarray(near & reachable(network, source, target), dtype=np.bool_)


def _living_ports(network: Network, source_node: Ints, target_node: Ints) -> Lanes:
    """Return the even lanes between pairs of nodes: ports of the same place, else any."""
    ports = network.cluster.node.ports
    port = np.arange(ports)
    found = _reaching(network, source_node, target_node, port, port)
    lacking = np.setdiff1d(np.arange(source_node.size), found.flow)
    if not lacking.size:
        return found
    first, last = (axis.ravel() for axis in np.indices((ports, ports)))
    other = _reaching(network, source_node[lacking], target_node[lacking], first, last)
    cut_off = np.setdiff1d(np.arange(lacking.size), other.flow)
    if cut_off.size:
        _refuse(network, source_node[lacking[cut_off]], target_node[lacking[cut_off]])
    flow = np.concatenate([found.flow, lacking[other.flow]])
    order = np.argsort(flow, kind="stable")
    merged = (
        np.concatenate([getattr(found, name), getattr(other, name)])[order]
        for name in ("source", "target", "share")
    )
    return Lanes(flow[order], *merged)


def _reaching(
    network: Network, source_node: Ints, target_node: Ints, first: Ints, last: Ints
) -> Lanes:
    """Return the even lanes among (first, last) ports of pairs of nodes that reach each other."""
    ports = network.cluster.node.ports
    source = source_node[:, None] * ports + first
    target = target_node[:, None] * ports + last
    alive = reachable(network, source.ravel(), target.ravel()).reshape(source.shape)
    flow, lane = np.nonzero(alive)
    share = 1 / alive.sum(axis=1)[flow]
    return Lanes(flow, source[flow, lane], target[flow, lane], share)


def _refuse(network: Network, source_node: Ints, target_node: Ints) -> None:
    """Name the node that most pairs lack, the one with least left, and what it is cut off from."""
    ends, counts = np.unique(np.concatenate([source_node, target_node]), return_counts=True)
    ports = network.cluster.node.ports
    endpoints = ends[:, None] * ports + np.arange(ports)
    left = network.fabric_bytes_per_s[network.topology.tx(endpoints)].sum(axis=1)
    lonely = int(ends[np.lexsort((left, -counts))[0]])
    others = np.unique(
        np.concatenate([target_node[source_node == lonely], source_node[target_node == lonely]])
    ).tolist()
    shown = ", ".join(map(str, others[:8])) + (", ..." if len(others) > 8 else "")
    raise InfeasibleError(
        f"faults: ranks on node {lonely} are cut off from those on "
        f"node{'s' * (len(others) > 1)} {shown}: no path is left between their NIC ports"
    )


def _same_place(network: Network, endpoint: Ints, node: Ints) -> Ints:
    """Return (flows, ports) the endpoints of nodes (flows,) at the place `endpoint` has in its."""
    ports = network.cluster.node.ports
    return np.asarray(endpoint % ports + node[:, None] * ports)
