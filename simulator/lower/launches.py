"""What a host launches on one device, as a task graph of two streams.

The host queues kernels one after another, each for the time that queueing it takes, and may wait
until the device has done all that was queued. The device runs kernels in their order: each starts
when it was queued and the device is free.
"""

from collections.abc import Iterable
from typing import NamedTuple

from simulator.engines.graph import GraphBuilder, TaskGraph
from workloads.ops import COMPUTE, HOST


class Launch(NamedTuple):
    """What the host does at once.

    Attributes:
        label: for people.
        issue_s: seconds of the host until all its kernels are queued.
        kernels_s: seconds of each of them on the device, in order; several where the host queues
            them as one, such as a CUDA graph.
        waits: whether the host then waits for the device.
    """

    label: str
    issue_s: float
    kernels_s: tuple[float, ...]
    waits: bool = False


def launch_graph(launches: Iterable[Launch]) -> TaskGraph:
    """Return the launches of a host that begins while the device has nothing to do."""
    graph = GraphBuilder()
    last: int | None = None
    for launch in launches:
        queued = graph.add(HOST, f"launch {launch.label}", launch.issue_s)
        for kernel_s in launch.kernels_s:
            last = graph.add(COMPUTE, launch.label, kernel_s, after=[queued])
        if launch.waits:
            graph.add(HOST, f"wait for {launch.label}", after=[last])
    return graph.build()
