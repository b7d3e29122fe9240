"""Shared links in the reference engine: who moves bytes now, how fast, and who is done next."""

from collections.abc import Generator

import numpy as np
import simpy

from hwmodels.arrays import Floats
from simulator.engines.transfers import SAME_INSTANT, Transfers


class SharedLinks:
    """The links of a run and the transfers that cross them.

    One process: it divides the links, waits for the next end or for a change, and divides anew.
    """

    def __init__(self, env: simpy.Environment, transfers: Transfers) -> None:
        self.env = env
        self.transfers = transfers
        self.left_bytes = np.array(transfers.moved_bytes, dtype=np.float64)
        self.over: dict[int, simpy.Event] = {}  # of each transfer that moves now
        self.changed = env.event()
        env.process(self.run())

    def move(self, task: int) -> simpy.Event:
        """Start to move the bytes of `task`; the event happens when they are over."""
        self.over[task] = self.env.event()
        if not self.changed.triggered:
            self.changed.succeed()
        return self.over[task]

    def run(self) -> Generator[simpy.Event, None, None]:
        """Move bytes for as long as there are any."""
        while True:
            self.changed = self.env.event()
            moving, since_s = list(self.over), self.env.now
            rate = fair_rates(self.crossings(moving), self.transfers.link_bytes_per_s)
            wake = [self.changed]
            if moving:
                wake.append(self.env.timeout((self.left_bytes[moving] / rate).min()))
            yield self.env.any_of(wake)
            self.left_bytes[moving] -= rate * (self.env.now - since_s)
            over = self.left_bytes[moving] / rate <= SAME_INSTANT * self.env.now
            for task in np.array(moving, dtype=np.int64)[over].tolist():
                self.over.pop(task).succeed()

    def crossings(self, tasks: list[int]) -> Floats:
        """Return (tasks, links): the share of its bytes that a task moves over a link."""
        crosses = np.zeros((len(tasks), len(self.transfers.links)))
        for row, task in enumerate(tasks):
            crosses[row, self.transfers.links_of(task)] = self.transfers.shares_of(task)
        return crosses


def fair_rates(crosses: Floats, bytes_per_s: Floats) -> Floats:
    """Return the max-min fair rate of each transfer, by progressive filling.

    All rates rise together until a link is full; the transfers that cross it keep their rates, and
    the others rise on. No transfer could be faster unless one that is no faster became slower.

    Args:
        crosses: (transfers, links) share of its rate that each transfer takes from a link; each
            crosses one at least.
        bytes_per_s: (links,) capacities.

    Returns:
        (transfers,) bytes/s.
    """
    rate = np.zeros(len(crosses))
    free = np.array(bytes_per_s, dtype=np.float64)
    rising = np.ones(len(crosses), dtype=np.bool_)
    while rising.any():
        risers = crosses[rising].sum(axis=0)
        room = np.divide(free, risers, out=np.full(len(free), np.inf), where=risers > 0)
        full = room.argmin()
        rate[rising] += room[full]
        free -= room[full] * risers
        rising &= crosses[:, full] == 0
    return rate
