"""What the GPUs of a collective send each other, gathered up and turned into flows.

Bytes are those for one byte of the collective's size, so that one plan serves all sizes.
"""

from functools import cached_property

import numpy as np
import numpy.typing as npt

from hwmodels.arrays import Floats, Ints
from simulator.network.flows import Flows
from simulator.network.lanes import Forward, Lanes, lanes, same_place
from simulator.network.links import Network
from simulator.network.routing import port_paths


class Traffic:
    """Bytes by pair of GPUs inside nodes, by pair of NIC ports between them.

    It is filled first and read (`flows`, `switches_passed`) afterwards.
    """

    def __init__(self, network: Network) -> None:
        self.network = network
        self._nvlink: list[tuple[Ints, Ints, Floats]] = []
        self._ports: list[tuple[Ints, Ints, Floats]] = []
        self._other: list[tuple[Ints, Floats]] = []

    def nvlink(
        self, source: npt.ArrayLike, target: npt.ArrayLike, moved_bytes: npt.ArrayLike
    ) -> None:
        """Add bytes from GPU to GPU of the same node."""
        ends = (np.atleast_1d(source), np.asarray(target), np.asarray(moved_bytes, np.float64))
        first, last, moved = np.broadcast_arrays(*ends)
        self._nvlink.append((first.ravel(), last.ravel(), moved.ravel()))

    def links(self, route: Ints, moved_bytes: npt.ArrayLike) -> None:
        """Add bytes over links of the network as they stand: (flows, hops), -1 for none."""
        moved = np.broadcast_to(np.asarray(moved_bytes, np.float64), len(route))
        self._other.append((route, moved))

    def message(
        self,
        source: npt.ArrayLike,
        target: npt.ArrayLike,
        moved_bytes: npt.ArrayLike,
        forward: Forward = "sender",
    ) -> None:
        """Add bytes from GPU to GPU anywhere, forwarded by NVLink where ports do not meet.

        A forwarded copy is two flows that run at once, as a message is passed on piece by piece.

        Raises:
            InfeasibleError: two nodes have no path left between them.
        """
        ends = (np.atleast_1d(source), np.asarray(target), np.asarray(moved_bytes, np.float64))
        first, last, moved = np.broadcast_arrays(*ends)
        gpus = self.network.cluster.node.gpus
        inside = first // gpus == last // gpus
        self.nvlink(first[inside], last[inside], moved[inside])
        if inside.all():
            return
        first, last, moved = first[~inside], last[~inside], moved[~inside]
        across = lanes(self.network, first, last, forward)
        self._hand_over(first[across.flow], across.source, moved[across.flow] * across.share)
        self._arrive(last, moved, across)

    def joined_messages(
        self, counts: Ints, members: Ints, place: Ints, target: Ints, moved_bytes: npt.ArrayLike
    ) -> None:
        """Add bytes that all members of a node send a GPU elsewhere, in equal parts.

        They leave by the port at the place of the target's own, as with `message` forwarded by the
        sender, but in one flow for each port.

        Args:
            counts: (nodes,) members of each node; `members`, node by node, are their GPUs.
            place, target: (flows,) number of the sending node in `counts`, and the receiving GPU.
            moved_bytes: (flows,) of all members together.

        Raises:
            InfeasibleError: two nodes have no path left between them.
        """
        gpus, ports = self.network.cluster.node.gpus, self.network.cluster.node.ports
        nodes = members[np.cumsum(counts) - counts] // gpus
        moved = np.broadcast_to(np.asarray(moved_bytes, np.float64), target.shape)
        across = same_place(self.network, nodes[place], target)
        out = np.bincount(
            place[across.flow] * ports + across.source % ports,
            weights=moved[across.flow] * across.share,
            minlength=counts.size * ports,
        ).reshape(counts.size, ports)
        of = np.repeat(np.arange(counts.size), counts)
        member, port = np.repeat(members, ports), np.tile(np.arange(ports), members.size)
        shares = (out / counts[:, None])[of].ravel()
        self._hand_over(member, nodes[np.repeat(of, ports)] * ports + port, shares)
        self._arrive(target, moved, across)

    def flows(self, equal_messages: bool = False) -> Flows:
        """Return all flows, those of the same way in one row.

        Args:
            equal_messages: all are of the size of the smallest row; a row with more bytes stands
                for more of them, and gets as much more of a link that it shares. So it is where
                ranks send each other equal parts, and a row holds those of several ranks.
                Otherwise each row is one message.
        """
        parts: list[tuple[npt.NDArray[np.integer], Floats]]
        parts = [self._nvlink_flows(), self._port_flows(), *self._other]
        hops = max((route.shape[1] for route, _ in parts), default=1)
        routes = [
            np.pad(route, ((0, 0), (0, hops - route.shape[1])), constant_values=-1)
            for route, _ in parts
        ]
        moved = np.concatenate([moved for _, moved in parts])
        some = moved > 0
        route, moved = np.concatenate(routes)[some], moved[some]
        if not equal_messages:
            return Flows.of(route, moved)
        least = moved.min(initial=np.inf)
        return Flows.of(route, least if moved.size else 0.0, moved / least)

    def switches_passed(self) -> Ints:
        """Return (port pairs,) the switches on each way between nodes so far."""
        source, target, _ = self._by_ports
        return np.asarray(self.network.topology.switches_passed(source, target))

    def uses_nvlink(self) -> bool:
        """Return whether anything so far crosses NVLink."""
        return any((moved > 0).any() for _, _, moved in self._nvlink)

    def _hand_over(self, source: Ints, port: Ints, moved: Floats) -> None:
        """Bring bytes to the GPU beside the port they leave by."""
        away = ~self.network.owns(source, port) & (moved > 0)
        self.nvlink(source[away], self.network.owner(port[away]), moved[away])

    def _arrive(self, target: Ints, moved: Floats, across: Lanes) -> None:
        """Cross the fabric, and bring bytes from where they arrive to their GPU."""
        share = moved[across.flow] * across.share
        self._ports.append((across.source, across.target, share))
        final = target[across.flow]
        away = ~self.network.owns(final, across.target)
        self.nvlink(self.network.owner(across.target[away]), final[away], share[away])

    def _nvlink_flows(self) -> tuple[npt.NDArray[np.int32], Floats]:
        source, target, moved = _summed(self._nvlink, self.network.gpus)
        between = source != target  # a copy on the spot crosses nothing
        route = self.network.nvlink_route(source[between], target[between])
        return route.astype(np.int32), moved[between]

    @cached_property
    def _by_ports(self) -> tuple[Ints, Ints, Floats]:
        return _summed(self._ports, max(1, self.network.topology.endpoints))

    def _port_flows(self) -> tuple[npt.NDArray[np.int32], Floats]:
        source, target, moved = self._by_ports
        if not source.size:
            return np.zeros((0, 1), dtype=np.int32), moved
        return port_paths(self.network, source, target), moved


def _summed(parts: list[tuple[Ints, Ints, Floats]], count: int) -> tuple[Ints, Ints, Floats]:
    """Return each pair (both below `count`) once, with the sum of its bytes."""
    if not parts:
        none = np.zeros(0, dtype=np.int64)
        return none, none, np.zeros(0)
    source, target, moved = (np.concatenate(column) for column in zip(*parts, strict=True))
    pair, row = np.unique(source.astype(np.int64) * count + target, return_inverse=True)
    total = np.bincount(row, weights=moved, minlength=pair.size).astype(np.float64)
    first, last = np.divmod(pair, count)
    return first, last, total
