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
    def expert_groups(self) -> Ints:
        """(pp, groups, members) ranks that exchange tokens, numbered alike on every pipeline
        rank.
        """
        groups = self.mesh.groups("ep")
        order = np.argsort(self.mesh.at("pp", groups[:, 0]), kind="stable")
        return groups[order].reshape(self.mesh.size("pp"), -1, groups.shape[1])

    @cached_property
    def pipelines_of_group(self) -> Ints:
        """(groups, members) pipelines whose ranks exchange tokens, on every pipeline rank alike."""
        return self.mesh.group_at(["pp"], self.expert_groups[0])

    def group_of_pipeline(self, pipeline: int) -> tuple[int, int]:
        """Return the expert group of a pipeline, and which of its members it is."""
        group, member = np.argwhere(self.pipelines_of_group == pipeline)[0]
        return int(group), int(member)

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
        return self._layouts[0]

    @cached_property
    def layout_of_group(self) -> Ints:
        """(pp, groups) place in `layouts` of every expert group."""
        return self._layouts[1]

    @cached_property
    def everyone(self) -> Ints:
        """(1, ranks) all ranks of the job."""
        return np.arange(self.mesh.ranks)[None]

    def dense_replicas(self, pipeline_ranks: Sequence[int]) -> Ints:
        """(tp, members) ranks that hold the same dense parameters of `pipeline_ranks`."""
        return self._replicas("tp", pipeline_ranks)

    def expert_replicas(self, pipeline_ranks: Sequence[int]) -> Ints:
        """(ep etp, members) ranks that hold the same part of the same experts."""
        return self._replicas("ep etp", pipeline_ranks)

    def joint_replicas(self, pipeline_ranks: Sequence[int]) -> Ints:
        """(pipelines, members) one rank of each of `pipeline_ranks`, pipeline by pipeline."""
        return np.sort(self.pipelines[:, list(pipeline_ranks)])

    def _replicas(self, split: str, pipeline_ranks: Sequence[int]) -> Ints:
        """Return (shards, members) ranks of `pipeline_ranks` that lie alike on the `split` axes."""
        ranks = np.sort(self.pipelines.T[list(pipeline_ranks)].ravel())
        shard = np.zeros_like(ranks)
        for axis in split.split():
            shard = shard * self.mesh.size(axis) + self.mesh.at(axis, ranks)
        shards = self.mesh.size(*split.split())
        return np.ascontiguousarray(ranks[np.argsort(shard, kind="stable")].reshape(shards, -1))

    @cached_property
    def _layouts(self) -> tuple[tuple[tuple[int, ...], ...], Ints]:
        """Return `layouts` and `layout_of_group`."""
        nodes = self.expert_groups // self.gpus_per_node
        shape = nodes.shape[:2]
        rows = (nodes - nodes[..., :1]).reshape(-1, nodes.shape[2])
        distinct, first, number = np.unique(rows, axis=0, return_index=True, return_inverse=True)
        found: dict[tuple[int, ...], int] = {}
        place = np.zeros(len(distinct), np.int64)
        for row in np.argsort(first).tolist():
            members = tuple(np.unique(distinct[row], return_counts=True)[1].tolist())
            place[row] = found.setdefault(members, len(found))
        return tuple(found), place[number.ravel()].reshape(shape)
