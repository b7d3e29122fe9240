"""What every rank of an expert group moves over its own NIC, segment by segment.

As in `simulator.lower.shared_nics`, but rank by rank: an exchange is as long, and keeps each NIC of
its group as busy, as the fullest port of the group does. A rank goes on when its own bytes are
over; the next exchange waits for the last of all.
"""

from typing import NamedTuple

import numpy as np

from hwmodels.arrays import Floats
from simulator.lower.nic_crossings import (
    EXCHANGE,
    MESSAGE,
    NIC_BYTES_PER_S,
    RING,
    TRAFFIC,
    NicCrossings,
    dispatches,
    lighter_share,
    nic_crossings,
)
from simulator.lower.rank_seconds import RankSeconds, loads_of
from simulator.lower.shared_nics import before_bytes_s, exchange_parts
from simulator.lower.spread import GroupDraw
from simulator.price.optimizer import OptimizerSeconds


class RankMoves(NamedTuple):
    """Tasks of all ranks of one group, and what they move; (tasks, replicas).

    Attributes:
        seconds: of each task if it meets nobody; first_s: of these, before its bytes move.
        nic_s: seconds that a NIC needs for its bytes.
        bytes_per_s: (links, replicas) of the links that tasks cross.
        share: (crossings, replicas) of a task's bytes on each link; None where it is all.
    """

    crossings: NicCrossings
    seconds: Floats
    first_s: Floats
    nic_s: Floats
    bytes_per_s: Floats
    share: Floats | None

    @property
    def moved_bytes(self) -> Floats:
        """(tasks, replicas) bytes, in seconds of a NIC."""
        return self.nic_s * NIC_BYTES_PER_S


def rank_moves(ranks: RankSeconds, draw: GroupDraw) -> RankMoves:
    """Return what the ranks of one group move."""
    seconds, expansion, work = ranks.seconds([draw]), ranks.expansion, ranks.work
    moving_s, nic_s = np.zeros_like(seconds), np.zeros_like(seconds)
    load = loads_of([draw])
    moving, needed_s, lighter_s = exchange_parts(lambda part: ranks.exchange_s([draw], load, part))
    tasks = np.flatnonzero(work.exchange >= 0)
    place = work.exchange[tasks], work.slot[tasks], np.zeros_like(tasks)
    moving_s[tasks] = moving[place][:, None] * seconds[tasks]
    nic_s[tasks] = np.minimum(needed_s[place][:, None], moving_s[tasks])
    lighter = np.ones_like(seconds)
    lighter[tasks] = lighter_share(lighter_s[place], needed_s[place])[:, None]
    messages_s = ranks.message_nic_s([draw])
    moving_s[expansion.message] = nic_s[expansion.message] = messages_s
    crossings = nic_crossings(ranks.lowered)
    return RankMoves(
        crossings,
        seconds,
        before_bytes_s(seconds, moving_s, nic_s),
        nic_s,
        crossings.bytes_per_s(moving_s, nic_s),
        crossings.shares(lighter, dispatches(ranks.lowered)),
    )


def met_on_nics(moves: RankMoves, taken_s: Floats, ranks: RankSeconds) -> Floats:
    """Return (2, kinds, pp, replicas) seconds that traffic of one group needs of its sender's NIC,
    and by which others there lengthened it; rings left out.

    Args:
        taken_s: (tasks, replicas) seconds of each task as played.
    """
    traffic, rank = moves.crossings.traffic, ranks.expansion.rank
    found = np.zeros((2, len(TRAFFIC), int(rank.max()) + 1, taken_s.shape[1]))
    for kind in (EXCHANGE, MESSAGE):
        tasks = np.flatnonzero(traffic == kind)
        np.add.at(found[0, kind], rank[tasks], moves.nic_s[tasks])
        np.add.at(found[1, kind], rank[tasks], taken_s[tasks] - moves.seconds[tasks])
    return found


def ring_busy_s(optimizer: OptimizerSeconds) -> Floats:
    """Return (kinds, pp) seconds that rings need of each rank's NIC; zeros for other traffic."""
    busy_s = np.zeros((len(TRAFFIC), len(optimizer.kernels_s)))
    busy_s[RING] = optimizer.reduce.nic_s.sum(axis=0) + optimizer.gather.nic_s.sum(axis=0)
    return busy_s
