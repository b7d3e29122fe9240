"""How a folded Clos network is wired: leaves, their uplinks, what lies above. Numbers only.

Every leaf is wired alike: uplink `u` goes to the `u // parallel`-th switch above, so that routes
are index arithmetic. One pod is a leaf-spine network; several pods have cores above them, core
group `a` joining aggregation switch `a` of every pod (M. Al-Fares et al., "A scalable, commodity
data center network architecture", SIGCOMM 2008).
"""

import math
from dataclasses import dataclass

import numpy as np

from hwmodels.arrays import Ints


@dataclass(frozen=True, slots=True)
class Uplinks:
    """The links of each lower switch up: runs of `parallel` to one upper switch after another.

    Attributes:
        count: uplinks of a lower switch; 0 where nothing lies above.
        parallel: links between a lower and an upper switch; the last upper may have fewer.
    """

    count: int = 0
    parallel: int = 1

    @classmethod
    def among(cls, count: int, lowers: int, ports: int) -> "Uplinks":
        """Share `count` uplinks of each of `lowers` switches over uppers of `ports` ports each."""
        return cls() if lowers == 1 else cls(count, min(count, ports // lowers))

    @property
    def uppers(self) -> int:
        """Switches above: `ceil(count / parallel)`."""
        return math.ceil(self.count / self.parallel)

    @property
    def paths(self) -> int:
        """Ways from one lower switch to another: any link up, any link down from where it ends."""
        full, rest = divmod(self.count, self.parallel)
        return full * self.parallel**2 + rest**2

    def split(self, way: Ints) -> tuple[Ints, Ints]:
        """Return the link up of the source and the link down of the target of ways [0, paths).

        The first `count` ways go down by the number they went up; the next `count` by the next
        number of the same upper switch, and so on until its links are through.
        """
        rest = self.count % self.parallel
        whole = rest * self.count  # the last, thinner upper switch takes part in `rest` rounds
        wide = (way < whole) | (rest == 0)
        width = np.where(wide, self.count, self.count - rest)
        beyond = np.where(wide, way, way - whole)
        shift = beyond // width + np.where(wide, 0, rest)
        up = beyond % width
        base = up // self.parallel * self.parallel
        size = np.minimum(self.parallel, self.count - base)
        return up, base + (up - base + shift) % size


@dataclass(frozen=True, slots=True)
class Clos:
    """`planes` equal and disjoint folded Clos networks.

    Attributes:
        leaves: leaf switches of a plane.
        pod_leaves: leaves of a pod; the last pod may have fewer.
        leaf: uplinks of a leaf to the spines (aggregation switches) of its pod.
        pod: uplinks of an aggregation switch to the cores of its group; none with one pod.
    """

    planes: int
    leaves: int
    pod_leaves: int
    leaf: Uplinks = Uplinks()
    pod: Uplinks = Uplinks()

    @property
    def pods(self) -> int:
        """Pods of a plane."""
        return math.ceil(self.leaves / self.pod_leaves)

    @property
    def spines(self) -> int:
        """Spines (aggregation switches) of a plane, pod by pod."""
        return self.pods * self.leaf.uppers

    @property
    def cores(self) -> int:
        """Core switches of a plane, group by group."""
        return self.leaf.uppers * self.pod.uppers

    @property
    def switches(self) -> int:
        """All switches of all planes."""
        return self.planes * (self.leaves + self.spines + self.cores)

    @property
    def leaf_links(self) -> int:
        """Links between leaves and spines, all planes."""
        return self.planes * self.leaves * self.leaf.count

    @property
    def pod_links(self) -> int:
        """Links between aggregation and core switches, all planes."""
        return self.planes * self.spines * self.pod.count

    @property
    def layers(self) -> int:
        """Layers of switches: 1, 2 or 3."""
        return 1 + (self.leaf.count > 0) + (self.pod.count > 0)


def leaf_ports(radix: int, oversubscription: float) -> tuple[int, int]:
    """Return the ports of a leaf (down, up) so that `down <= oversubscription * up`.

    Both are 0 where a leaf of `radix` ports cannot be so oversubscribed and keep an uplink.
    """
    up = int(radix / (1 + oversubscription))
    return min(radix - up, int(up * oversubscription)), up


def two_layers(planes: int, leaves: int, radix: int, uplinks: int) -> Clos:
    """Leaves under spines that each reach every leaf alike.

    `ceil(uplinks / floor(radix / leaves))` spines: 32 for 64 leaves of 64 ports, 4 for 8. A single
    leaf needs none.
    """
    return Clos(planes, leaves, leaves, Uplinks.among(uplinks, leaves, radix))


def three_layers(leaves: int, radix: int, uplinks: int) -> Clos:
    """Pods of `radix / 2` leaves under cores; an aggregation switch has half its ports up.

    A single pod needs no cores, and uses half of the ports of its spines.
    """
    half = radix // 2
    pod_leaves = min(half, leaves)
    pods = math.ceil(leaves / pod_leaves)
    leaf = Uplinks.among(uplinks, pod_leaves, half)
    return Clos(1, leaves, pod_leaves, leaf, Uplinks.among(half, pods, radix))
