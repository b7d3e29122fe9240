"""Seconds of what pipeline ranks pass each other."""

from functools import lru_cache

import numpy as np

from hwmodels.arrays import Ints
from simulator.network.comm_times import AS_PRICED, CommTimes, Slow
from simulator.network.machine import Machine
from simulator.network.price import comm_s
from workloads.program import Program

MessageTimes = CommTimes


def message_times(
    program: Program, pairs: Ints, machine: Machine, slow: Slow = AS_PRICED
) -> MessageTimes:
    """Return (pp, pp, pipelines) seconds of messages from pipeline rank to pipeline rank.

    All pipelines send at once; messages of other pairs of pipeline ranks are not met. Both ways
    take the same, and nothing is taken where none is sent.

    Args:
        pairs: (pairs, 2) pipeline ranks that send a message, and those that get it.
        slow: links slower than the machine's.
    """
    low, high, groups = _hops(program, pairs.tobytes())
    pipelines, pp = program.placement.pipelines.shape
    parts = np.zeros((3, pp, pp, pipelines))
    if len(low):
        times = comm_s(program.message, groups, machine, slow=slow)
        for part, column in zip(parts, (times.latency_s, times.nic_s, times.nvlink_s), strict=True):
            part[low, high] = part[high, low] = column
    return MessageTimes(*parts)


@lru_cache(maxsize=32)
def _hops(program: Program, pairs: bytes) -> tuple[Ints, Ints, Ints]:
    """Return pipeline ranks below and above that pass messages, (hops,) each, and their GPUs:
    (hops, pipelines, 2).
    """
    ends = np.sort(np.frombuffer(pairs, np.int64).reshape(-1, 2), axis=1)
    low, high = np.unique(ends, axis=0).T
    gpus = program.placement.pipelines.T
    groups = np.stack([gpus[low], gpus[high]], axis=2)
    groups.flags.writeable = False
    return low, high, groups
