"""What algorithms share that reduce and gather over NVLink and join nodes over rails.

The size is split over `channels`, as many as the fullest node has members. Channel `c` of a node is
in the hands of its member `c`, modulo how many it has, so that all NICs of members are used.
"""

import numpy as np

from simulator.network.flows import Floats, Ints
from simulator.network.placement import Group
from simulator.network.traffic import Traffic


def held(group: Group) -> Floats:
    """Return (members,) the share of the channels in the hands of each member, in their order."""
    full, rest = np.divmod(group.channels, group.counts[group.place])
    return np.asarray((full + (group.number < rest)) / group.channels)


def add_in_node(traffic: Traffic, group: Group, sent: Floats) -> None:
    """Let each member send `sent` (members,) bytes to each of the others on its node."""
    source, target = in_node_pairs(group)
    traffic.nvlink(group.members[source], group.members[target], sent[source])


def in_node_pairs(group: Group) -> tuple[Ints, Ints]:
    """Return (pairs,) numbers in `group.members` of all ordered pairs that share a node."""
    count = group.counts[group.place]
    source, turn = (axis.ravel() for axis in np.indices((len(group), group.channels)))
    real = (turn > 0) & (turn < count[source])
    source, turn = source[real], turn[real]
    first, number = source - group.number[source], group.number[source]
    return source, first + (number + turn) % count[source]
