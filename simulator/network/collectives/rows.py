"""How many rows of flows a plan has, before it is made: what each rank sends each other grows with
ranks times nodes, rings and trees with ranks alone.
"""

from simulator.network.links import Network
from simulator.network.placement import Group

ROWS_TRIED = 1 << 15
"""Rows up to which a plan is made only to see whether it is the fastest: some 15 ms. In nodes of
eight GPUs messages from each rank to each other have as many at 480 ranks; above, they are left out
where there is any other way, also if they would save it the steps from node to node."""

ROWS_MAX = 40_000_000
"""Rows of the largest plan that is made at all: some 260 bytes each while it is, so 10 GB. In nodes
of eight GPUs an all-to-all has as many at 17,900 ranks."""


def rows_at_most(network: Network, group: Group, kind: str, algorithm: str) -> int:
    """Return rows of flows that a plan has at most, as long as nothing is down."""
    ranks, nodes, channels = len(group), len(group.nodes), group.channels
    ports, inside = int(network.own_ports.shape[1]), ranks * (channels - 1)
    all_pairs = kind == "all_to_all" or algorithm in ("pairwise", "one-shot", "two-shot")
    if all_pairs and kind not in ("broadcast", "send_recv"):
        return inside + (nodes - 1) * ranks * ports
    # At most two trees both ways over each rail, or one message a rank and NVLink before and after.
    return inside + 4 * channels * nodes * ports + 2 * ranks
