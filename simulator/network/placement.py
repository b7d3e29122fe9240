"""Which GPU each rank sits on. GPU `g` of a cluster is GPU `g mod n` of node `g // n`."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from hwmodels.arrays import Ints
from hwmodels.cluster import ClusterSpec
from hwmodels.errors import InfeasibleError, InputError, suggestion


@dataclass(frozen=True)
class Group:
    """Ranks that do a collective together.

    Attributes:
        gpus: the GPU of each rank, in the order of ranks; rank 0 is the root.
        gpus_per_node: of the cluster they are in.

    Raises:
        InputError: there is no rank, or a GPU appears twice.
    """

    gpus: tuple[int, ...]
    gpus_per_node: int

    def __post_init__(self) -> None:
        if not self.gpus:
            raise InputError("group: must have at least one rank, got none")
        if len(set(self.gpus)) < len(self.gpus):
            twice = next(gpu for gpu in self.gpus if self.gpus.count(gpu) > 1)
            raise InputError(f"group: a GPU may hold one rank, got GPU {twice} twice")

    def __len__(self) -> int:
        return len(self.gpus)

    @cached_property
    def members(self) -> Ints:
        """(members,) GPUs of the ranks in order, so node by node."""
        return np.sort(np.array(self.gpus, dtype=np.int64))

    @cached_property
    def nodes(self) -> Ints:
        """(nodes,) the nodes that hold members."""
        return np.unique(self.members // self.gpus_per_node)

    @cached_property
    def counts(self) -> Ints:
        """(nodes,) members on each node."""
        return np.unique(self.members // self.gpus_per_node, return_counts=True)[1]

    @cached_property
    def place(self) -> Ints:
        """(members,) the number in `nodes` of each member's node."""
        return np.repeat(np.arange(self.counts.size), self.counts)

    @cached_property
    def number(self) -> Ints:
        """(members,) the number of each member among those of its node."""
        return np.arange(len(self)) - (np.cumsum(self.counts) - self.counts)[self.place]

    @property
    def channels(self) -> int:
        """Members of the fullest node: as many rings or trees run side by side."""
        return int(self.counts.max())

    def slot(self, place: npt.ArrayLike, index: npt.ArrayLike) -> Ints:
        """Return the GPU of member `index`, modulo how many there are, of the `place`-th node."""
        place = np.asarray(place)
        first = np.cumsum(self.counts) - self.counts
        return np.asarray(self.members[first[place] + np.asarray(index) % self.counts[place]])


def packed(cluster: ClusterSpec, ranks: int, groups: int = 1, seed: int = 0) -> Ints:
    """Return (groups, ranks) GPUs one after another, so that groups fill nodes."""
    return _dealt(np.arange(cluster.gpus), ranks, groups)


def spread(cluster: ClusterSpec, ranks: int, groups: int = 1, seed: int = 0) -> Ints:
    """Return (groups, ranks) GPUs of as many nodes as possible: GPU 0 of each, then GPU 1 ..."""
    order = np.arange(cluster.gpus).reshape(cluster.nodes, cluster.node.gpus).T
    return _dealt(order.ravel(), ranks, groups)


def random(cluster: ClusterSpec, ranks: int, groups: int = 1, seed: int = 0) -> Ints:
    """Return (groups, ranks) GPUs drawn from all of the cluster, none of them twice."""
    return _dealt(np.random.default_rng(seed).permutation(cluster.gpus), ranks, groups)


PLACEMENTS: dict[str, Callable[[ClusterSpec, int, int, int], Ints]] = {
    "packed": packed,
    "random": random,
    "spread": spread,
}


def place(
    cluster: ClusterSpec, ranks: int, groups: int = 1, how: str = "packed", seed: int = 0
) -> Ints:
    """Return (groups, ranks) GPUs of `groups` disjoint groups.

    Raises:
        InputError: no such placement, or no rank.
        InfeasibleError: the cluster has fewer GPUs.
    """
    if how not in PLACEMENTS:
        raise InputError(f"placement: unknown {how!r}{suggestion(how, PLACEMENTS)}")
    for name, count in (("ranks", ranks), ("groups", groups)):
        if count < 1:
            raise InputError(f"{name}: must be at least 1, got {count}")
    if ranks * groups > cluster.gpus:
        raise InfeasibleError(
            f"ranks: {groups} x {ranks} must fit on the {cluster.gpus} GPUs of cluster "
            f"{cluster.name}, got {ranks * groups}"
        )
    return PLACEMENTS[how](cluster, ranks, groups, seed)


def group_of(cluster: ClusterSpec, gpus: Sequence[int] | Ints) -> Group:
    """Return the group of ranks on `gpus`, GPU numbers of the cluster.

    Raises:
        InputError: a GPU appears twice, or there is none.
        InfeasibleError: the cluster has no such GPU.
    """
    group = Group(tuple(int(gpu) for gpu in gpus), cluster.node.gpus)
    for gpu in group.gpus:
        if not 0 <= gpu < cluster.gpus:
            raise InfeasibleError(
                f"group: GPUs of cluster {cluster.name} are 0 to {cluster.gpus - 1}, got {gpu}"
            )
    return group


def _dealt(order: Ints, ranks: int, groups: int) -> Ints:
    return order[: ranks * groups].reshape(groups, ranks)
