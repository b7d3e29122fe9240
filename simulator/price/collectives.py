"""Seconds of collectives inside a part: what ranks along axes of the mesh gather, reduce or trade.

All groups of all pipeline ranks start at once and are as slow as the slowest; expert exchanges are
priced by `simulator.network.exchange_pricer`.
"""

from dataclasses import dataclass, field, replace

import numpy as np

from hwmodels.arrays import Floats
from simulator.network.comm_times import CommTimes, Slow
from simulator.network.machine import Machine
from simulator.network.price import comm_s
from workloads.ops import Comm
from workloads.placement import Placement


@dataclass(frozen=True, slots=True, eq=False)
class CollectivePricer:
    """Prices collectives and messages along axes of a mesh.

    Attributes:
        known: those that were asked for.
    """

    machine: Machine
    placement: Placement
    known: dict[Comm, CommTimes] = field(default_factory=dict)

    def times(self, comm: Comm, load: Floats, slow: Slow) -> CommTimes:
        """Return (...) times of all its repeats in the slowest group.

        Args:
            load: (..., ranks) expert loads of ranks that start it together; the fullest says how
                long bytes move where these follow it.
            slow: links of these ranks; the slowest binds.
        """
        one = self._one(comm)
        factor = load.max(axis=-1) if comm.follows_load else np.ones(load.shape[:-1])
        nic, nvlink = (np.max(link, axis=-1) if np.ndim(link) else link for link in slow)
        return CommTimes(
            comm.repeats * one.latency_s * np.ones_like(factor),
            comm.repeats * one.nic_s * factor * nic,
            comm.repeats * one.nvlink_s * factor * nvlink,
            comm.repeats * one.in_turn_s * factor,
        )

    def _one(self, comm: Comm) -> CommTimes:
        """Return the times of one repeat in its slowest group, on links as priced."""
        key = replace(comm, name=comm.kind, beside="", repeats=1)
        if key not in self.known:
            groups = self.placement.mesh.groups(*comm.axes)
            of_groups = comm_s(comm, groups, self.machine)
            slowest = int(of_groups.seconds.argmax())
            columns = of_groups.latency_s, of_groups.nic_s, of_groups.nvlink_s, of_groups.in_turn_s
            shape = of_groups.seconds.shape
            self.known[key] = CommTimes(
                *(np.broadcast_to(np.asarray(each), shape)[slowest] for each in columns)
            )
        return self.known[key]
