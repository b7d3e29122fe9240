"""Which GPU every rank of a job sits on, and so which link its bytes take.

Rank r sits on GPU r, and `gpus_per_node` GPUs in a row share a node, which is whatever NVLink
joins: a chassis of 8 or a rack of 72. What a pair or a group of ranks sends stays on NVLink where
all of them sit on one node, and crosses NICs where they do not. Nothing here assumes that groups
fill nodes: one may lie in a part of a node or straddle two.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache

import numpy as np

from hwmodels.arrays import Ints, Mask
from workloads.mesh import Mesh


def members_by_node(first: int, count: int, gpus_per_node: int) -> tuple[int, ...]:
    """Return how many of `count` GPUs in a row, from GPU `first` on, each of their nodes holds."""
    last = first + count
    nodes = range(first // gpus_per_node, (last - 1) // gpus_per_node + 1)
    return tuple(
        min(last, (node + 1) * gpus_per_node) - max(first, node * gpus_per_node) for node in nodes
    )


@dataclass(frozen=True, slots=True, eq=False)
class GroupLayout:
    """The GPUs of a group on its nodes, numbered node by node.

    Attributes:
        members: of each node.
        node: (gpus,) each one's node.
        forwarder: (gpus, nodes) who passes its tokens on in each node: the GPU of its own number
            there, modulo how many of the group there are; itself at home.
    """

    members: tuple[int, ...]
    node: Ints
    forwarder: Ints


@lru_cache(maxsize=256)
def group_layout(members: tuple[int, ...]) -> GroupLayout:
    """Return how a group with `members` on each of its nodes lies."""
    held = np.array(members)
    node = np.repeat(np.arange(held.size), held)
    begin = np.cumsum(held) - held
    number = np.arange(node.size) - begin[node]
    forwarder = begin + number[:, None] % held
    for column in (node, forwarder):
        column.flags.writeable = False
    return GroupLayout(members, node, forwarder)


@dataclass(frozen=True)
class Placement:
    """The ranks of a job on their nodes."""

    mesh: Mesh
    gpus_per_node: int

    @cached_property
    def pipelines(self) -> Ints:
        """(pipelines, pp) ranks that pass micro-batches along."""
        return self.mesh.groups("pp")

    @cached_property
    def pipelines_of_group(self) -> Ints:
        """(groups, members) pipelines whose ranks exchange tokens, on every pipeline rank alike."""
        first = self.mesh.groups("ep")[: self.mesh.size("edp")]
        return self.mesh.group_at(["pp"], first)

    def group_of_pipeline(self, pipeline: int) -> tuple[int, int]:
        """Return the expert group of a pipeline, and which of its members it is."""
        rank = self.pipelines[pipeline, 0]
        return int(self.mesh.at("edp", rank)), int(self.mesh.at("ep", rank))

    @cached_property
    def node(self) -> Ints:
        """(pp, pipelines) node of every rank."""
        return np.asarray(self.pipelines.T // self.gpus_per_node)

    @cached_property
    def crosses(self) -> Mask:
        """(pp, pp, pipelines) whether a message from pipeline rank to pipeline rank takes NICs."""
        return np.asarray(self.node[:, None] != self.node[None, :])

    @cached_property
    def layouts(self) -> tuple[tuple[int, ...], ...]:
        """Members by node of expert groups, of each way to lie over nodes that there is."""
        return tuple(dict.fromkeys(self._members_at.values()))

    @cached_property
    def layout_of_group(self) -> Ints:
        """(pp, groups) place in `layouts` of every expert group."""
        numbers = {at: self.layouts.index(members) for at, members in self._members_at.items()}
        place = np.zeros(self.gpus_per_node, np.int64)
        place[list(numbers)] = list(numbers.values())
        return np.asarray(place[self._begins].reshape(self.mesh.size("pp"), -1))

    @cached_property
    def everyone(self) -> Ints:
        """(1, ranks) all ranks of the job."""
        return np.arange(self.mesh.ranks)[None]

    def dense_replicas(self, pipeline_ranks: Sequence[int]) -> Ints:
        """(1, members) ranks that hold the dense parameters of `pipeline_ranks`, all the same."""
        return np.sort(self.pipelines.T[list(pipeline_ranks)].reshape(1, -1))

    def expert_replicas(self, pipeline_ranks: Sequence[int]) -> Ints:
        """(ep, members) ranks that hold the same experts: those of a place in an expert group."""
        ranks = np.sort(self.pipelines.T[list(pipeline_ranks)].ravel())
        return np.ascontiguousarray(ranks.reshape(-1, self.mesh.size("ep")).T)

    def joint_replicas(self, pipeline_ranks: Sequence[int]) -> Ints:
        """(pipelines, members) one rank of each of `pipeline_ranks`, pipeline by pipeline."""
        return np.sort(self.pipelines[:, list(pipeline_ranks)])

    @cached_property
    def _begins(self) -> Ints:
        """(all groups,) where in its first node each expert group begins."""
        return self.mesh.groups("ep")[:, 0] % self.gpus_per_node

    @cached_property
    def _members_at(self) -> dict[int, tuple[int, ...]]:
        """Members by node of the expert groups that begin at a place in a node."""
        places = dict.fromkeys(self._begins.tolist())
        ep = self.mesh.size("ep")
        return {at: members_by_node(at, ep, self.gpus_per_node) for at in places}
