"""An expert exchange is as slow as its slowest port: one pass over the routing matrix.

    t = latency + max over ports of bytes / rate

In normal mode the GPU that forwards the tokens of source GPU (node n, index i) on node m is
(m, i); on its own node that is the source itself. So with copies C[n, i, m, j] of tokens from
(n, i) for (m, j), and one copy N[n, i, m] a node, both without those already there:

    NIC out of (n, i)     sum over m of N      NVLink out of (m, i)  sum over n and j of C
    NIC into (m, i)       sum over n of N      NVLink into (m, j)    sum over n and i of C

Combine carries the same the other way. In low-latency mode every copy goes straight from (n, i) to
(m, j), over NVLink inside a node and by the two GPUs' NICs between nodes.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hwmodels.costs.exchange import Direction
from workloads.routing_matrix import RoutingMatrix

Floats = NDArray[np.float64]

SAME = 1e-9
"""Sums of the same bytes in another order differ by less, relatively."""


@dataclass(frozen=True, slots=True, eq=False)
class PortCopies:
    """Copies of tokens through each GPU's ports: (4, gpus), NIC out, NIC in, NVLink out, in.

    A NIC port is a GPU's even share of the NICs of its node.
    """

    copies: Floats

    @property
    def nic(self) -> float:
        """Most copies through a NIC port, one direction."""
        return float(np.maximum.reduce(self.copies[:2], axis=None))

    @property
    def nvlink(self) -> float:
        """Most copies through a GPU's NVLink, one direction."""
        return float(np.maximum.reduce(self.copies[2:], axis=None))

    def carrying(self, direction: Direction) -> "PortCopies":
        """Return what the same ports carry in a direction, of a dispatch's: combine goes back."""
        return self if direction == "dispatch" else PortCopies(self.copies[[1, 0, 3, 2]])

    def slowest(self, nic_bytes_per_s: float, nvlink_bytes_per_s: float) -> str:
        """Return the port that takes longest, in words."""
        rates = [[nic_bytes_per_s], [nic_bytes_per_s], [nvlink_bytes_per_s], [nvlink_bytes_per_s]]
        time = self.copies / np.array(rates)
        port, gpu = divmod(first_of_most(time), time.shape[1])
        name = ("nic out of", "nic into", "nvlink out of", "nvlink into")[port]
        return f"{name} gpu {gpu}"


def first_of_most(values: Floats) -> int:
    """Return the flat place of the largest value, the first of those that are the same."""
    return int(np.argmax(values >= values.max() * (1 - SAME)))


def normal_ports(matrix: RoutingMatrix) -> PortCopies:
    """Return the copies through ports of a dispatch in normal mode."""
    nodes, index = matrix.nodes, matrix.gpus_per_node
    add = np.add.reduce
    to_node = matrix.node_copies.reshape(nodes, index, nodes)
    own = to_node.diagonal(axis1=0, axis2=2).T  # (nodes, index): already on its node
    forwarded = add(matrix.gpu_copies.reshape(nodes, -1), axis=0).reshape(index, nodes, index)
    stays = forwarded.diagonal(axis1=0, axis2=2)  # (nodes, index): by the forwarder for itself
    copies = np.empty((4, nodes, index))
    np.subtract(add(to_node, axis=2), own, out=copies[0])
    np.subtract(add(to_node, axis=0).T, own, out=copies[1])
    np.subtract(add(forwarded, axis=2).T, stays, out=copies[2])
    np.subtract(add(forwarded, axis=0), stays, out=copies[3])
    return PortCopies(copies.reshape(4, -1))


def direct_ports(matrix: RoutingMatrix, over_nvlink: bool = True) -> PortCopies:
    """Return the copies through ports of a dispatch in low-latency mode.

    Args:
        over_nvlink: whether copies inside a node take NVLink; else they take NICs too.
    """
    nodes, index = matrix.nodes, matrix.gpus_per_node
    pairs = matrix.expert_copies
    blocks = pairs.reshape(nodes, index, nodes, index)
    inside = blocks.diagonal(axis1=0, axis2=2)  # (source index, target index, node)
    near_out, near_in = inside.sum(axis=1).T.ravel(), inside.sum(axis=0).T.ravel()
    kept = pairs.diagonal()
    out, into = pairs.sum(axis=1), pairs.sum(axis=0)
    if over_nvlink:
        ports = [out - near_out, into - near_in, near_out - kept, near_in - kept]
    else:
        ports = [out - kept, into - kept, np.zeros_like(out), np.zeros_like(out)]
    return PortCopies(np.maximum(np.array(ports), 0.0))  # sums of equal numbers may differ in bits


def slowest_port_s(
    ports: PortCopies,
    token_bytes: float,
    nic_bytes_per_s: float,
    nvlink_bytes_per_s: float,
    latency_s: float = 0.0,
) -> float:
    """Return seconds until the slowest port is done.

    Args:
        token_bytes: of one copy.
        nic_bytes_per_s, nvlink_bytes_per_s: of one GPU's ports, one direction.
        latency_s: of the empty exchange.
    """
    busy = max(ports.nic / nic_bytes_per_s, ports.nvlink / nvlink_bytes_per_s)
    return latency_s + token_bytes * busy
