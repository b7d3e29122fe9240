"""All-reduce as a reduce-scatter and an all-gather, each with all its messages at once."""

from simulator.network.collectives import pairwise
from simulator.network.collectives.plan import Plan
from simulator.network.links import Network
from simulator.network.placement import Group

NAME = "two-shot"
MAKES = ("all_reduce",)


def plan(network: Network, group: Group, kind: str) -> Plan:
    """Return the plan of an all-reduce in two steps."""
    return pairwise.exchange(network, group).at_once().twice()
