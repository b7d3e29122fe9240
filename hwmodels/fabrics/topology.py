"""A fabric wired to nodes: vertices, directed links, and routes by index arithmetic.

Vertices are endpoints (NIC ports, `node * ports + port`), then switches: all leaves plane by
plane, all spines (aggregation switches), all cores. Links are directed: endpoint `e` up is link
`e`, down to it `endpoints + e`; then all leaf uplinks, the same links down, then those to cores.
A route is a shortest path; nothing here knows what flows or which link is down.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from hwmodels.arrays import Floats, Ints, Mask
from hwmodels.errors import InfeasibleError
from hwmodels.fabrics.bisection import narrowest_cut_bytes_per_s
from hwmodels.fabrics.clos import Clos

if TYPE_CHECKING:
    import networkx

Routes = npt.NDArray[np.int32]
Ports = int | Sequence[int] | npt.NDArray[np.integer[Any]]


@dataclass(frozen=True, eq=False)
class Topology:
    """A folded Clos fabric and the NIC ports on it.

    Attributes:
        nodes, ports: what is wired, `ports` NIC ports a node.
        clos: how switches are wired to each other.
        leaf_of: (endpoints,) the leaf of a port, `plane * clos.leaves + leaf`.
        endpoint_bytes_per_s, link_bytes_per_s: one direction of a cable to a port, between
            switches.
    """

    nodes: int
    ports: int
    clos: Clos
    leaf_of: Ints
    endpoint_bytes_per_s: float
    link_bytes_per_s: float

    @property
    def endpoints(self) -> int:
        """NIC ports."""
        return self.leaf_of.size

    @property
    def switches(self) -> int:
        """All switches."""
        return self.clos.switches

    @property
    def links(self) -> int:
        """Cables between switches, as a fabric counts them; the ports' own are not among them."""
        return self.clos.leaf_links + self.clos.pod_links

    @property
    def directed_links(self) -> int:
        """Length of the link arrays: every cable twice."""
        return 2 * (self.endpoints + self.links)

    @property
    def hops_max(self) -> int:
        """Links of the longest route: columns of `routes`."""
        return 2 * self.clos.layers

    @property
    def diameter(self) -> int:
        """Switches on the longest shortest path."""
        return 2 * self.clos.layers - 1 if self.endpoints else 0

    # --- places -----------------------------------------------------------------------------

    @cached_property
    def plane_of(self) -> Ints:
        """(endpoints,) the plane of a port."""
        return _frozen(self.leaf_of // max(1, self.clos.leaves))

    @cached_property
    def pod_of(self) -> Ints:
        """(endpoints,) the pod of a port, `plane * clos.pods + pod`."""
        within = self.leaf_of % max(1, self.clos.leaves) // max(1, self.clos.pod_leaves)
        return _frozen(self.plane_of * self.clos.pods + within)

    def leaf_vertex(self, plane: int, leaf: int) -> int:
        """Return the vertex of a leaf switch."""
        return self.endpoints + plane * self.clos.leaves + leaf

    def spine_vertex(self, plane: int, spine: int) -> int:
        """Return the vertex of switch `spine` above the leaves: spines pod by pod, then cores."""
        clos = self.clos
        first = self.endpoints + clos.planes * clos.leaves
        if spine < clos.spines:
            return first + plane * clos.spines + spine
        return first + clos.planes * clos.spines + plane * clos.cores + spine - clos.spines

    @cached_property
    def switch_tier(self) -> Ints:
        """(switches,) 0 for a leaf, 1 for a spine or aggregation switch, 2 for a core."""
        clos = self.clos
        counts = [clos.planes * n for n in (clos.leaves, clos.spines, clos.cores)]
        return _frozen(np.repeat(np.arange(3), counts))

    @cached_property
    def switch_plane(self) -> Ints:
        """(switches,) the plane of a switch."""
        clos = self.clos
        planes = np.arange(clos.planes)
        counts = (clos.leaves, clos.spines, clos.cores)
        return _frozen(np.concatenate([np.repeat(planes, n) for n in counts]))

    # --- links ------------------------------------------------------------------------------

    def tx(self, endpoint: npt.ArrayLike) -> Ints:
        """Return the link out of a port."""
        return np.asarray(endpoint, dtype=np.int64)

    def rx(self, endpoint: npt.ArrayLike) -> Ints:
        """Return the link into a port."""
        return self.endpoints + np.asarray(endpoint, dtype=np.int64)

    def uplink(self, leaf: npt.ArrayLike, uplink: npt.ArrayLike) -> Ints:
        """Return the link up of `leaf` (as in `leaf_of`); down it is `clos.leaf_links` further."""
        first = 2 * self.endpoints
        return np.asarray(first + np.asarray(leaf) * self.clos.leaf.count + uplink, dtype=np.int64)

    def core_uplink(self, spine: npt.ArrayLike, uplink: npt.ArrayLike) -> Ints:
        """Return the link up of an aggregation switch; down it is `clos.pod_links` further."""
        first = 2 * (self.endpoints + self.clos.leaf_links)
        return np.asarray(first + np.asarray(spine) * self.clos.pod.count + uplink, dtype=np.int64)

    @cached_property
    def _ends(self) -> tuple[Ints, Ints]:
        """(directed_links,) tail and head vertices."""
        clos = self.clos
        port = np.arange(self.endpoints)
        leaves, spines = clos.planes * clos.leaves, clos.planes * clos.spines
        first_leaf = self.endpoints
        first_spine, first_core = first_leaf + leaves, first_leaf + leaves + spines
        leaf, up = (axis.ravel() for axis in np.indices((leaves, clos.leaf.count)))
        pod = leaf // max(1, clos.leaves) * clos.pods
        pod += leaf % max(1, clos.leaves) // max(1, clos.pod_leaves)
        spine_above = first_spine + pod * clos.leaf.uppers + up // clos.leaf.parallel
        spine, core_up = (axis.ravel() for axis in np.indices((spines, clos.pod.count)))
        group = spine // max(1, clos.spines) * clos.leaf.uppers
        group += spine % max(1, clos.leaf.uppers)
        core_above = first_core + group * clos.pod.uppers + core_up // clos.pod.parallel
        low = [port, first_leaf + leaf, first_spine + spine]
        high = [first_leaf + self.leaf_of, spine_above, core_above]
        tail = [vertices for pair in zip(low, high, strict=True) for vertices in pair]
        head = [vertices for pair in zip(high, low, strict=True) for vertices in pair]
        return _frozen(np.concatenate(tail)), _frozen(np.concatenate(head))

    @property
    def tail(self) -> Ints:
        """(directed_links,) the vertex a link leaves."""
        return self._ends[0]

    @property
    def head(self) -> Ints:
        """(directed_links,) the vertex a link enters."""
        return self._ends[1]

    @cached_property
    def tier(self) -> Ints:
        """(directed_links,) 0 at a port, 1 between leaf and spine, 2 at a core."""
        counts = (self.endpoints, self.clos.leaf_links, self.clos.pod_links)
        return _frozen(np.repeat(np.arange(3), [2 * count for count in counts]))

    @cached_property
    def bytes_per_s(self) -> Floats:
        """(directed_links,) rate of each link while nothing is broken."""
        rates = np.where(self.tier == 0, self.endpoint_bytes_per_s, self.link_bytes_per_s)
        rates.flags.writeable = False
        return rates

    @cached_property
    def bundle(self) -> Ints:
        """(directed_links,) the links that adaptive routing treats as one, numbered from 0.

        All links up of a leaf, all links down to it; likewise of a pod to and from the cores. A
        port's two links stand alone.
        """
        clos = self.clos
        leaves, pods = clos.planes * clos.leaves, clos.planes * clos.pods
        leaf = np.repeat(np.arange(leaves), clos.leaf.count)
        pod = np.repeat(np.arange(pods), clos.leaf.uppers * clos.pod.count)
        parts, first = [np.arange(2 * self.endpoints)], 2 * self.endpoints
        for members, groups in ((leaf, leaves), (pod, pods)):
            if members.size:
                parts += [first + members, first + groups + members]
                first += 2 * groups
        return _frozen(np.concatenate(parts))

    @property
    def bundles(self) -> int:
        """How many bundles there are."""
        return int(self.bundle.max(initial=-1)) + 1

    def link_name(self, link: int) -> str:
        """Return a link in the words of a fault, and its direction: `link:0.3.7 up`."""
        if not 0 <= link < self.directed_links:
            raise InfeasibleError(f"link: must be 0 to {self.directed_links - 1}, got {link}")
        tier, clos = int(self.tier[link]), self.clos
        cables = (self.endpoints, clos.leaf_links, clos.pod_links)
        down, cable = divmod(link - 2 * sum(cables[:tier]), cables[tier])
        if tier == 0:
            node, port = divmod(cable, self.ports)
            return f"nic:{node}.{port} {'in' if down else 'out'}"
        kind, of_plane, ups = (
            ("link", clos.leaves, clos.leaf) if tier == 1 else ("core", clos.spines, clos.pod)
        )
        switch, uplink = divmod(cable, ups.count)
        plane, switch = divmod(switch, of_plane)
        return f"{kind}:{plane}.{switch}.{uplink} {'down' if down else 'up'}"

    def switch_name(self, switch: int) -> str:
        """Return a switch (numbered from 0) in the words of a fault: `leaf:0.3`, `spine:0.2`."""
        clos = self.clos
        leaves, spines = clos.planes * clos.leaves, clos.planes * clos.spines
        if switch < leaves:
            return "leaf:{}.{}".format(*divmod(switch, clos.leaves))
        if switch < leaves + spines:
            return "spine:{}.{}".format(*divmod(switch - leaves, clos.spines))
        plane, core = divmod(switch - leaves - spines, clos.cores)
        return f"spine:{plane}.{clos.spines + core}"

    # --- routes -----------------------------------------------------------------------------

    def connected(self, source: Ports, target: Ports) -> Mask:
        """Return whether two ports are on one plane."""
        return np.asarray(self.plane_of[source] == self.plane_of[target])

    def switches_passed(self, source: Ports, target: Ports) -> Ints:
        """Return the switches on the way between ports of one plane: 1, 3 or 5."""
        passed = np.where(self.pod_of[source] == self.pod_of[target], 3, 5)
        return np.where(self.leaf_of[source] == self.leaf_of[target], 1, passed)

    def choices(self, source: Ports, target: Ports) -> Ints:
        """Return the number of equal-cost shortest paths, every cable counted; 0 if there is none.

        Between leaves of a pod, all ways up and down again. Between pods, a way up to one of the
        aggregation switches, all ways by its cores, and the one way down that is left.
        """
        clos = self.clos
        passed = self.switches_passed(source, target)
        far = clos.leaf.count * clos.pod.paths
        ways = np.where(passed == 1, 1, np.where(passed == 3, clos.leaf.paths, far))
        return np.where(self.connected(source, target), ways, 0)

    def routes(self, source: Ports, target: Ports, choice: npt.ArrayLike = 0) -> Routes:
        """Return (flows, hops_max) link ids from port to port, -1 after the last.

        Args:
            source, target, choice: broadcast together; `choice` in [0, choices). The first
                `clos.leaf.count` choices leave by different uplinks, and arrive by different ones.

        Raises:
            InfeasibleError: two ports are not on one plane, or have no such choice.
        """
        src, dst, way = np.broadcast_arrays(np.atleast_1d(source), target, choice)
        self._check(src, dst, way)
        passed = self.switches_passed(src, dst)
        route = np.full((src.size, self.hops_max), -1, dtype=np.int32)
        if not src.size:
            return route
        route[:, 0] = src
        for switches in np.unique(passed).tolist():
            rows = np.flatnonzero(passed == switches)
            route[rows, switches] = self.endpoints + dst[rows]
            if switches > 1:
                climb = self._in_pod if switches == 3 else self._over_cores
                ends = self.leaf_of[src[rows]], self.leaf_of[dst[rows]]
                route[rows[:, None], np.arange(1, switches)] = climb(*ends, way[rows])
        return route

    def _in_pod(self, source_leaf: Ints, target_leaf: Ints, way: Ints) -> Ints:
        """(flows, 2) links over one spine."""
        up, down = self.clos.leaf.split(way)
        down_link = self.uplink(target_leaf, down) + self.clos.leaf_links
        return np.stack([self.uplink(source_leaf, up), down_link], axis=1)

    def _over_cores(self, source_leaf: Ints, target_leaf: Ints, way: Ints) -> Ints:
        """(flows, 4) links over aggregation, core, aggregation of the same number."""
        clos = self.clos
        way, spine = np.divmod(way, clos.leaf.count)  # several pods are full: one cable a spine
        up, down = clos.pod.split(way)
        low, high = (self._spine(leaf, spine) for leaf in (source_leaf, target_leaf))
        links = [
            self.uplink(source_leaf, spine),
            self.core_uplink(low, up),
            self.core_uplink(high, down) + clos.pod_links,
            self.uplink(target_leaf, spine) + clos.leaf_links,
        ]
        return np.stack(links, axis=1)

    def _spine(self, leaf: Ints, spine: Ints) -> Ints:
        """Return the number over all planes of aggregation switch `spine` of the pod of `leaf`."""
        clos = self.clos
        plane, within = np.divmod(leaf, clos.leaves)
        pod = plane * clos.pods + within // clos.pod_leaves
        return np.asarray(pod * clos.leaf.uppers + spine)

    def _check(self, source: Ints, target: Ints, choice: Ints) -> None:
        choices = self.choices(source, target)
        wrong = np.flatnonzero((choice < 0) | (choice >= choices))
        if not wrong.size:
            return
        first = wrong[0]
        ends = ["nic:{}.{}".format(*divmod(int(e[first]), self.ports)) for e in (source, target)]
        if not choices[first]:
            planes = [str(self.plane_of[e[first]]) for e in (source, target)]
            raise InfeasibleError(
                f"route: {' and '.join(ends)} must be on one plane, got {' and '.join(planes)}"
            )
        raise InfeasibleError(
            f"route: {ends[0]} to {ends[1]} has choices 0 to {choices[first] - 1}, "
            f"got {choice[first]}"
        )

    # --- the whole --------------------------------------------------------------------------

    def cut_bytes_per_s(self, senders: Mask) -> float:
        """Return what (nodes,) `senders` can send all other nodes through the fabric, one way."""
        clos = self.clos
        if not self.endpoints:
            return 0.0
        shape = clos.planes, clos.pods, clos.pod_leaves
        slot = self.plane_of * clos.pods * clos.pod_leaves + self.leaf_of % clos.leaves
        sends = np.repeat(senders, self.ports)
        sent, received = (
            np.bincount(slot[side], minlength=math.prod(shape)).reshape(shape).astype(np.float64)
            for side in (sends, ~sends)
        )
        rates = self.endpoint_bytes_per_s, self.link_bytes_per_s
        return narrowest_cut_bytes_per_s(clos, sent, received, *rates)

    @property
    def bisection_bytes_per_s(self) -> float:
        """What the lower half of the nodes can send the upper half, one way.

        Of an odd number of nodes the lower half is the smaller. Where whole leaves face whole
        leaves no other halves have less between them.
        """
        return self.cut_bytes_per_s(np.arange(self.nodes) < self.nodes // 2)

    def graph(self) -> "networkx.MultiDiGraph[int]":
        """Return the fabric as a graph: an edge keyed by its link, with `capacity` and `tier`."""
        import networkx as nx  # noqa: PLC0415 - slow to load, and only for tests and pictures

        graph: nx.MultiDiGraph[int] = nx.MultiDiGraph()
        graph.add_nodes_from(range(self.endpoints + self.switches))
        rows = zip(self.tail, self.head, self.bytes_per_s, self.tier, strict=True)
        for link, (tail, head, rate, tier) in enumerate(rows):
            graph.add_edge(int(tail), int(head), key=link, capacity=float(rate), tier=int(tier))
        return graph


def _frozen(values: Ints) -> Ints:
    values.flags.writeable = False
    return values
