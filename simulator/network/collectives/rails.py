"""What algorithms share that reduce and gather over NVLink and join nodes over rails.

The size is split over `channels`, as many as the fullest node has members. Channel `c` of a node is
in the hands of its member `c`, modulo how many it has, so that all NICs of members are used.
"""

import numpy as np
import numpy.typing as npt

from hwmodels.arrays import Floats, Ints, Mask
from simulator.network.lanes import Forward
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


def add_hops(
    traffic: Traffic, group: Group, source: Ints, target: Ints, moved_bytes: npt.ArrayLike
) -> None:
    """Add messages from member to member of `channels` that run side by side.

    Between nodes the one with fewer members forwards: a lone GPU sends and receives by all NICs
    that its neighbour's members have, so that a hop and the one back are alike.
    """
    moved = np.broadcast_to(np.asarray(moved_bytes, np.float64), source.shape)
    ends = (np.searchsorted(group.nodes, end // group.gpus_per_node) for end in (source, target))
    sends, receives = (group.counts[place] for place in ends)
    # Of two alike the one whose GPU comes first, there and back.
    fewer = (receives < sends) | ((receives == sends) & (target < source))
    forwards: tuple[tuple[Mask, Forward], ...] = ((~fewer, "sender"), (fewer, "receiver"))
    for chosen, forward in forwards:
        if chosen.any():
            traffic.message(source[chosen], target[chosen], moved[chosen], forward)


def in_node_pairs(group: Group) -> tuple[Ints, Ints]:
    """Return (pairs,) numbers in `group.members` of all ordered pairs that share a node."""
    count = group.counts[group.place]
    source, turn = (axis.ravel() for axis in np.indices((len(group), group.channels)))
    real = (turn > 0) & (turn < count[source])
    source, turn = source[real], turn[real]
    first, number = source - group.number[source], group.number[source]
    return source, first + (number + turn) % count[source]
