"""Protocol: one way a communication library moves the bytes of one collective.

NCCL has three ways to pass a chunk on (LL, LL128, Simple: flags in every 8 or 128 bytes, or a
fence at the end) and several algorithms (ring, in-switch reduction, pairwise); kernels of serving
frameworks have one-shot and two-shot all-reduces. Each is a straight line in the bytes, and a
library takes the one that is fastest for a message:

    t = launch_s + steps step_s + wire_bytes / (nvlink_efficiency B) + own_bytes / own_bytes_per_s

B is the NVLink of one GPU, one direction; steps and bytes follow from the algorithm
(`hwmodels.costs.protocol`). Where a collective leaves the node, steps between nodes take `hop_s`,
and NICs reach `nic_efficiency` of their rate.
"""

from typing import Literal

from hwmodels.spec import Spec
from hwmodels.units import BytesPerSecond, Seconds, Share

Algorithm = Literal[
    "ring", "tree", "hierarchical", "in-network", "pairwise", "one-shot", "two-shot"
]
"""`in-network`: the NVLink switch reduces and multicasts (NVLS)."""


class Protocol(Spec):
    """Constants of one protocol with one algorithm.

    Attributes:
        name: the library's word: `LL`, `LL128`, `Simple`, `one-shot` ...
        algorithm: who sends what to whom.
        launch_s: of an empty message, steps apart: kernel start and end as the caller sees them.
        step_s: each step of the algorithm inside a node.
        hop_s: each step between nodes; None where never measured.
        nvlink_efficiency: bytes on the wire / NVLink's datasheet rate.
        nic_efficiency: the same of a NIC; None where never measured.
        own_bytes_per_s: rate of one rank's share of the buffer outside the links, which nothing
            overlaps: its copy, or the one block that serves a peer; None where it takes no time.
    """

    name: str
    algorithm: Algorithm
    launch_s: Seconds
    step_s: Seconds
    hop_s: Seconds | None = None
    nvlink_efficiency: Share
    nic_efficiency: Share | None = None
    own_bytes_per_s: BytesPerSecond | None = None
