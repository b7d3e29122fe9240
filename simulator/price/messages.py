"""Seconds of what pipeline ranks pass each other."""

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
    gpus = program.placement.pipelines.T
    hops = np.unique(np.sort(pairs, axis=1), axis=0)
    parts = np.zeros((3, len(gpus), *gpus.shape))
    if len(hops):
        times = comm_s(program.message, gpus[hops].swapaxes(1, 2), machine, slow=slow)
        for part, column in zip(parts, (times.latency_s, times.nic_s, times.nvlink_s), strict=True):
            part[hops[:, 0], hops[:, 1]] = part[hops[:, 1], hops[:, 0]] = column
    return MessageTimes(*parts)
