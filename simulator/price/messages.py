"""Seconds of what pipeline ranks pass each other."""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from hwmodels.arrays import Floats, Ints
from simulator.network.comm_times import CommTimes
from simulator.network.machine import Machine
from simulator.network.price import comm_s
from workloads.program import Program


@dataclass(frozen=True, slots=True, eq=False)
class MessageTimes:
    """What messages from pipeline rank to pipeline rank take, in each pipeline.

    Both ways take the same, and nothing is taken where none is sent.

    Attributes:
        hop: (pp, pp) row of `times` of each pair of pipeline ranks; one past the last for none.
        times: (hops, pipelines); of machines side by side with their axis first.
    """

    hop: Ints
    times: CommTimes

    def between(self, seconds: Floats) -> Floats:
        """Return (pp, pp, pipelines) seconds, given (hops, pipelines) of `times`."""
        return np.append(seconds, np.zeros((1, seconds.shape[1])), axis=0)[self.hop]

    def slowest(self, seconds: Floats) -> Floats:
        """Return (..., pp, pp) seconds of the slowest pipeline, each.

        Args:
            seconds: (..., hops, pipelines), as of `between`.
        """
        slowest_s = seconds.max(axis=-1)
        nothing = np.zeros((*slowest_s.shape[:-1], 1))
        return np.asarray(np.append(slowest_s, nothing, axis=-1)[..., self.hop])


def message_times(program: Program, pairs: Ints, machine: Machine) -> MessageTimes:
    """Return the times of messages between pipeline ranks.

    All pipelines send at once, both ways; messages of other pairs of pipeline ranks are not met.

    Args:
        pairs: (pairs, 2) pipeline ranks that send a message, and those that get it.
    """
    hop, groups = _hops(program, pairs.tobytes())
    if not len(groups):
        return MessageTimes(hop, CommTimes(*np.zeros((3, *machine.beside, *groups.shape[:2]))))
    return MessageTimes(hop, comm_s(program.message, groups, machine))


@lru_cache(maxsize=32)
def _hops(program: Program, pairs: bytes) -> tuple[Ints, Ints]:
    """Return the row of each pair of pipeline ranks, as in `MessageTimes`, and (hops, pipelines, 2)
    GPUs of those that pass messages.
    """
    ends = np.sort(np.frombuffer(pairs, np.int64).reshape(-1, 2), axis=1)
    low, high = np.unique(ends, axis=0).T
    gpus = program.placement.pipelines.T
    groups = np.stack([gpus[low], gpus[high]], axis=2)
    groups.flags.writeable = False
    hop = np.full((len(gpus), len(gpus)), len(low))
    hop[low, high] = hop[high, low] = np.arange(len(low))
    return hop, groups
