"""Who crosses which NIC of a pipeline, and how much of its bytes goes each way.

Each rank has a NIC out and a NIC in (full duplex). Bytes are counted in seconds of a NIC: what
keeps it busy for a second alone is a second of it, whatever rate this kind of traffic reaches.
"""

from functools import lru_cache
from typing import NamedTuple

import numpy as np

from hwmodels.arrays import Floats, Ints, Mask
from simulator.engines.moving import Crossings
from simulator.engines.transfers import LEAST
from simulator.lower.expansion import expand
from simulator.lower.lowered import Lowered

TRAFFIC = ("expert exchanges", "pipeline messages", "gradient rings")
EXCHANGE, MESSAGE, RING = range(len(TRAFFIC))
NO_TRAFFIC = -1
WAYS = ("out", "in")
NIC_BYTES_PER_S = 1e9
"""Of every NIC: bytes are counted in seconds of one, so that any rate serves."""


class NicCrossings(NamedTuple):
    """Who crosses which NIC of a pipeline.

    Attributes:
        traffic: (tasks,) kind of traffic, as index into `TRAFFIC`, or `NO_TRAFFIC`.
        nics: (tasks, 2) NICs that each takes, 2r out of rank r and 2r + 1 into it; -1 for none.
        links: those, and behind them one for each task that has a rate of its own.
        own: (own rates,) these tasks: exchanges and rings.
    """

    traffic: Ints
    nics: Ints
    links: Crossings
    own: Ints

    @classmethod
    def of(cls, traffic: Ints, nics: Ints, pp: int) -> "NicCrossings":
        """Return the links of tasks of a pipeline of `pp` ranks."""
        own = np.flatnonzero((traffic == EXCHANGE) | (traffic == RING))
        rates = np.full((len(traffic), 1), -1)
        rates[own, 0] = len(WAYS) * pp + np.arange(len(own))
        crossed = np.append(nics, rates, axis=1)
        links = Crossings(
            link_start=np.concatenate(([0], np.cumsum((crossed >= 0).sum(axis=1)))),
            link=crossed[crossed >= 0],
            links=(
                *(f"rank {r}/nic {way}" for r in range(pp) for way in WAYS),
                *(f"task {task} at its own rate" for task in own.tolist()),
            ),
        )
        return cls(traffic, nics, links, own)

    def bytes_per_s(self, moving_s: Floats, nic_s: Floats) -> Floats:
        """Return (links, ...) rates of links, so that no task is faster than alone.

        Args:
            moving_s, nic_s: (tasks, ...) seconds in which bytes move if nobody is met, and that a
                NIC would need by itself.
        """
        moving_s, nic_s = moving_s[self.own], nic_s[self.own]
        share = np.divide(nic_s, moving_s, out=np.ones_like(nic_s), where=nic_s > 0)
        whole = np.ones((len(self.links.links) - len(self.own), *share.shape[1:]))
        return np.concatenate([whole, share]) * NIC_BYTES_PER_S

    def shares(self, lighter: Floats, is_dispatch: Mask) -> Floats | None:
        """Return (crossings, ...) the share of its bytes that a task moves over each link; None
        where both directions of every NIC carry all.

        Args:
            lighter: (tasks, ...) of the direction of which switches take work.
            is_dispatch: (tasks,) whether that is the one out of a NIC, or the one into it.
        """
        if (lighter == 1).all():
            return None
        task = np.repeat(np.arange(len(self.traffic)), np.diff(self.links.link_start))
        on_nic = self.links.link < len(self.links.links) - len(self.own)
        spared = on_nic & ((self.links.link % len(WAYS) == 0) == is_dispatch[task])
        share = lighter[task]
        share[~spared] = 1.0
        return share


def lighter_share(lighter_s: Floats, nic_s: Floats) -> Floats:
    """Return the share of bytes that the lighter direction of NICs carries; 1 where none is."""
    share = np.divide(lighter_s, nic_s, out=np.ones_like(nic_s), where=nic_s > 0)
    return np.asarray(share.clip(LEAST, 1.0))


@lru_cache(maxsize=4)
def nic_crossings(lowered: Lowered) -> NicCrossings:
    """Return who crosses which NIC of a pipeline, in the order of the tasks of its expansion."""
    expansion, pp = expand(lowered), len(lowered.pipeline.program)
    traffic = np.full(len(expansion.graph), NO_TRAFFIC)
    traffic[expansion.graph.collective >= 0] = EXCHANGE
    traffic[expansion.message] = MESSAGE
    target = expansion.rank.copy()
    target[expansion.message] = lowered.pipeline.links.receiver
    crossed = np.stack([2 * expansion.rank, 2 * target + 1], axis=1)
    crossed[traffic == NO_TRAFFIC] = -1
    crossed[expansion.message[~_crosses(lowered)]] = -1
    return NicCrossings.of(traffic, crossed, pp)


def dispatches(lowered: Lowered) -> Mask:
    """Return (tasks,) which tasks of the expansion of a program are dispatches."""
    kinds = np.array([comm.kind == "dispatch" for comm in lowered.comms] + [False])
    of_parts = np.append(np.concatenate(list(lowered.comm_of.values())), -1)
    return np.asarray(kinds[of_parts[expand(lowered).part]])


def _crosses(lowered: Lowered) -> Mask:
    """Return (messages,) whether each takes NICs in any pipeline."""
    hops = np.asarray(lowered.program.placement.crosses.any(axis=2))
    return lowered.pipeline.links.of_messages(hops)
