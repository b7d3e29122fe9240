"""What can flow between two halves of the nodes of a folded Clos: the narrowest cut.

By max-flow min-cut (L. R. Ford and D. R. Fulkerson 1956) the flow from the ports of some nodes to
those of the others is the cheapest way to put every switch on one side. Switches of one layer and
place are alike, so the cheapest way is a sum over leaves, not a search.
"""

import numpy as np

from hwmodels.arrays import Floats
from hwmodels.fabrics.clos import Clos


def narrowest_cut_bytes_per_s(
    clos: Clos,
    senders: Floats,
    receivers: Floats,
    endpoint_bytes_per_s: float,
    link_bytes_per_s: float,
) -> float:
    """Return the largest flow, one direction, from some ports to others.

    A leaf with `a` behind it to send and `b` to receive costs `min(b, a + U)` under spines on the
    senders' side, for `b` of its cables down or `a` and its uplinks `U` are cut; `min(a, b + U)`
    under spines on the other. Spines of a pod on the other side than the cores cut their uplinks.

    Args:
        senders, receivers: (planes, pods, leaves of a pod) ports on a leaf that send, that receive;
            0 where a pod has fewer leaves.
        endpoint_bytes_per_s, link_bytes_per_s: one direction of a port's cable, of one between
            switches.
    """
    sent, received = senders * endpoint_bytes_per_s, receivers * endpoint_bytes_per_s
    up = clos.leaf.count * link_bytes_per_s
    pod_up = clos.leaf.uppers * clos.pod.count * link_bytes_per_s
    with_senders = np.minimum(received, sent + up).sum(axis=-1)
    with_receivers = np.minimum(sent, received + up).sum(axis=-1)
    cores_with_senders = np.minimum(with_senders, with_receivers + pod_up).sum(axis=-1)
    cores_with_receivers = np.minimum(with_receivers, with_senders + pod_up).sum(axis=-1)
    return float(np.minimum(cores_with_senders, cores_with_receivers).sum())
