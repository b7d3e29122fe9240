"""An expert exchange is as slow as its slowest port: one pass over the routing matrix.

    t = latency + max over ports of bytes / rate

In normal mode the GPU that forwards the tokens of source GPU (node n, index i) on node m is
(m, i); on its own node that is the source itself. So with copies C[n, i, m, j] of tokens from
(n, i) for (m, j), and one copy N[n, i, m] a node, both without those already there:

    NIC out of (n, i)     sum over m of N      NVLink out of (m, i)  sum over n and j of C
    NIC into (m, i)       sum over n of N      NVLink into (m, j)    sum over n and i of C

Where node m holds fewer GPUs of the group, the one of index i modulo their number forwards. Combine
carries the same the other way. In low-latency mode every copy goes straight from (n, i) to (m, j),
over NVLink inside a node and by the two GPUs' NICs between nodes.
"""

from dataclasses import dataclass

import numpy as np

from hwmodels.arrays import Floats
from hwmodels.costs.exchange import Direction
from simulator.network.comm_times import CommTimes
from simulator.network.port_rates import PortRates
from workloads.routing_matrix import RoutingMatrix

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


def normal_ports(matrix: RoutingMatrix, once: bool = False) -> PortCopies:
    """Return the copies through ports of a dispatch in normal mode.

    Args:
        once: switches copy tokens, so that a NIC sends none twice: all of its tokens at most.
    """
    layout, gpus = matrix.layout, matrix.gpus
    gpu, node = np.arange(gpus)[:, None], np.arange(matrix.nodes)
    across = np.where(layout.node[:, None] == node, 0.0, matrix.node_copies)
    by_way = layout.forwarder[:, layout.node]  # (source, target) -> who passes it on
    passed = np.where(by_way == gpu.T, 0.0, matrix.gpu_copies)
    copies = np.empty((4, gpus))
    copies[0] = across.sum(axis=1)
    if once:
        copies[0] = np.minimum(copies[0], matrix.tokens)
    copies[1] = np.bincount(layout.forwarder.ravel(), across.ravel(), gpus)
    copies[2] = np.bincount(by_way.ravel(), passed.ravel(), gpus)
    copies[3] = passed.sum(axis=0)
    return PortCopies(copies)


def direct_ports(matrix: RoutingMatrix, over_nvlink: bool = True) -> PortCopies:
    """Return the copies through ports of a dispatch in low-latency mode.

    Args:
        over_nvlink: whether copies inside a node take NVLink; else they take NICs too.
    """
    node, moved = matrix.layout.node, matrix.expert_copies.copy()
    np.fill_diagonal(moved, 0.0)
    inside = node[:, None] == node if over_nvlink else np.zeros_like(moved, np.bool_)
    near, far = np.where(inside, moved, 0.0), np.where(inside, 0.0, moved)
    return PortCopies(np.array([side.sum(axis=axis) for side in (far, near) for axis in (1, 0)]))


def port_times(
    nic_copies: Floats | float,
    nvlink_copies: Floats | float,
    token_bytes: float,
    rates: PortRates,
    nvlink_token_bytes: float | None = None,
) -> CommTimes:
    """Return (...) seconds until the slowest port is done, and of NICs and NVLink by themselves.

    Args:
        nic_copies, nvlink_copies: (...) through the fullest port of each kind, one direction.
        token_bytes: of one copy; nvlink_token_bytes: on NVLink, where it is another.
    """
    nic_s = np.zeros(np.shape(nic_copies))
    if np.any(nic_copies):  # else no rate of a NIC is asked for
        nic_s = np.asarray(nic_copies * (token_bytes / rates.nic_bytes_per_s))
    inside = token_bytes if nvlink_token_bytes is None else nvlink_token_bytes
    nvlink_s = np.asarray(nvlink_copies * (inside / rates.nvlink_bytes_per_s))
    return CommTimes(np.full(nic_s.shape, rates.latency_s), nic_s, nvlink_s)
