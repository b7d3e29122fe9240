"""All messages of a collective at once: the ways of `pairwise`, none waiting for another.

All-reduce has each rank send its whole buffer to each other: `p` times the bytes of an all-gather,
and nothing to wait for.
"""

from simulator.network.collectives import pairwise
from simulator.network.collectives.plan import KINDS, Plan
from simulator.network.links import Network
from simulator.network.placement import Group

NAME = "one-shot"
MAKES = KINDS


def plan(network: Network, group: Group, kind: str) -> Plan:
    """Return the plan of any kind."""
    if kind == "all_reduce":
        return pairwise.exchange(network, group).times(len(group)).at_once()
    return pairwise.plan(network, group, kind).at_once()
