"""What faults of the network do to training: how much longer NICs take than on a whole network.

Each kind of traffic is played as flows, each GPU the same bytes, before and after the faults, and
the ratio of the ends is its slowdown:

    exchange  every GPU to the GPU of its place in each other node of its expert group, all groups
              at once; a group is as slow as its slowest flow
    message   every GPU of a pipeline rank to that of its pipeline on another rank, at once
    ring      every GPU to that of its place in the next node that holds the same stages

What is dead is gone around, over other NICs of the node as `simulator.network.lanes` says, and
switches spread bytes over all paths that are left (adaptive routing); NVLink is not what binds
there. Nothing becomes faster by a fault. Faults of whole planes slow all ranks
alike; others are felt by those that use them, so that every rank has to be played.
"""

from dataclasses import dataclass, replace

import numpy as np

from hwmodels.cluster import ClusterSpec
from simulator.blueprint import Blueprint
from simulator.experiment import Experiment
from simulator.network.fair import finish
from simulator.network.flows import Flows
from simulator.network.lanes import lanes
from simulator.network.links import Network, check_alive
from simulator.network.routing import port_paths
from simulator.play.graph import Floats, Ints
from simulator.price.collectives import LinkRates
from workloads.parallel import RankMesh


@dataclass(frozen=True, slots=True, eq=False)
class FaultSlowdowns:
    """Time / time on the whole network; 1 or more.

    Attributes:
        exchange: (pp, groups) of each expert group.
        message: (pp, pp, pipelines) from pipeline rank to pipeline rank; 1 where none is sent.
        ring: (pp,) of the rings among the ranks that hold the stages of each.
        nvlink: (pp, pipelines) of each GPU's NVLink.
    """

    exchange: Floats
    message: Floats
    ring: Floats
    nvlink: Floats

    def slowed(self, rates: LinkRates) -> LinkRates:
        """Return what links achieve if all ranks are as slow as the slowest."""
        exchange, others = (
            float(each) for each in (self.exchange.max(), max(self.message.max(), self.ring.max()))
        )
        return replace(
            rates,
            dispatch_nic=rates.dispatch_nic / exchange,
            combine_nic=rates.combine_nic / exchange,
            message_nic=rates.message_nic / others,
        )

    def __str__(self) -> str:
        """Return what is slowed and by how much, for people."""
        slow = int((self.exchange > 1).sum())
        return (
            f"exchanges of {slow} of {self.exchange.size} expert groups up to "
            f"{self.exchange.max():.3g}x as long on NICs, messages {self.message.max():.3g}x, "
            f"gradient rings {self.ring.max():.3g}x"
        )


def fault_slowdowns(experiment: Experiment, blueprint: Blueprint) -> FaultSlowdowns | None:
    """Return what the cluster's faults slow down; None without faults.

    Raises:
        InfeasibleError: ranks are down, or cut off from others; the message names them.
    """
    cluster, pipeline = experiment.cluster, blueprint.pipeline
    if not cluster.faults:
        return None
    links = pipeline.links
    pairs = np.unique(np.stack([links.rank[links.sender], links.receiver], axis=1), axis=0)
    return _slowdowns(
        cluster,
        experiment.plan.mesh(cluster.gpus),
        tuple(map(tuple, pairs.tolist())),
        tuple(pipeline.homes.tolist()),
    )


def _slowdowns(
    cluster: ClusterSpec, mesh: RankMesh, pairs: tuple[tuple[int, int], ...], homes: tuple[int, ...]
) -> FaultSlowdowns:
    whole = Network.of(cluster.model_copy(update={"faults": ()}), routing="adaptive")
    broken = Network.of(cluster, routing="adaptive")
    check_alive(broken, np.arange(-(-mesh.ranks // cluster.node.gpus)))
    gpus, node_gpus = np.arange(mesh.ranks), cluster.node.gpus
    width = mesh.ranks_per_stage
    message = np.ones((mesh.pp, mesh.pp, width))
    for first, second in pairs:
        own = first * width + np.arange(width)
        message[first, second] = _slowdown(whole, broken, own, own + (second - first) * width)
    ring = np.ones(mesh.pp)
    for home in set(homes):
        held = np.flatnonzero(np.array(homes) == home)
        members = gpus.reshape(mesh.pp, width)[held].ravel()
        nodes = np.unique(members // node_gpus)
        following = nodes[(np.searchsorted(nodes, members // node_gpus) + 1) % len(nodes)]
        target = following * node_gpus + members % node_gpus
        ring[held] = _slowdown(whole, broken, members, target).max()
    nvlink = whole.bytes_per_s[gpus] / broken.bytes_per_s[gpus]
    return FaultSlowdowns(
        _exchanges(whole, broken, mesh), message, ring, nvlink.reshape(mesh.pp, width)
    )


def _exchanges(whole: Network, broken: Network, mesh: RankMesh) -> Floats:
    """Return (pp, groups) slowdowns of the exchanges of all expert groups, all at once."""
    in_node = whole.cluster.node.gpus
    nodes = mesh.ep // in_node
    groups = np.ones((mesh.pp, mesh.edp))
    if nodes < 2:
        return groups
    gpu = np.repeat(np.arange(mesh.ranks), nodes - 1)
    ahead = np.tile(np.arange(1, nodes), mesh.ranks)
    first = gpu // mesh.ep * mesh.ep
    target = first + (gpu - first + ahead * in_node) % mesh.ep
    ends_s = [_ends_s(network, gpu, target) for network in (whole, broken)]
    slowest_s = [each.reshape(*groups.shape, -1).max(axis=2) for each in ends_s]
    return np.asarray(np.maximum(slowest_s[1] / slowest_s[0], 1.0))


def _slowdown(whole: Network, broken: Network, source: Ints, target: Ints) -> Floats:
    """Return (flows,) slowdowns of flows that all start at once; 1 inside a node."""
    in_node = whole.cluster.node.gpus
    slowdown = np.ones(len(source))
    across = source // in_node != target // in_node
    if across.any():
        ends_s = [_ends_s(each, source[across], target[across]) for each in (whole, broken)]
        slowdown[across] = np.maximum(ends_s[1] / ends_s[0], 1.0)
    return slowdown


def _ends_s(network: Network, source: Ints, target: Ints) -> Floats:
    """Return (flows,) when a byte from GPU to GPU of another node is over."""
    across = lanes(network, source, target)
    route = port_paths(network, across.source, across.target, across.flow)
    ends_s = np.zeros(len(source))
    flows = Flows.of(route, across.share)
    np.maximum.at(ends_s, across.flow, finish(flows, network.bytes_per_s, batch=0.0).end_s)
    return ends_s
