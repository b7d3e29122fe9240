"""Play a list of kernels as a host launches it: one by one, waiting for each, or as one graph."""

from collections.abc import Iterable, Sequence

from hwmodels.arrays import Floats
from simulator.engines import array
from simulator.lower.launches import Launch, launch_graph


def one_by_one_s(
    labels: Sequence[str], kernels_s: Floats, issue_s: Floats, *, waits: bool = False
) -> float:
    """Return the seconds until the device has done all ops that the host launches in turn.

    Args:
        kernels_s: (ops,) seconds of the device for each, gaps between its kernels included.
        issue_s: (ops,) seconds of the host to launch each.
        waits: whether the host waits for each before it launches the next.
    """
    ops = zip(labels, issue_s.tolist(), kernels_s.tolist(), strict=True)
    return _played_s(Launch(label, issued, (kernel,), waits) for label, issued, kernel in ops)


def as_graph_s(kernels_s: Floats) -> float:
    """Return the seconds of the device for all ops, when they have been queued as one graph."""
    return _played_s([Launch("graph", 0.0, tuple(kernels_s.tolist()))])


def _played_s(launches: Iterable[Launch]) -> float:
    return array.play(launch_graph(launches)).makespan_s
