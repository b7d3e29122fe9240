"""Expert exchange inside one scale-up domain (NVL72), where every pair of GPUs shares a switch.

    t = launch_s + (p - 1) rank_s + tokens token_s + wire_bytes / (nvlink_efficiency B)
    wire_bytes = tokens copies (p - 1) / p token_bytes

Each of p ranks sends every token once to each of the `copies` ranks that hold its experts, its own
included, and 1/p of those stay home by symmetry. B is the NVLink of one GPU, one direction. A fixed
time per peer is its flag; a fixed time per token, whatever its format, is its place in the buffers,
its sum over the experts, its change of format. Uneven ranks: give the tokens of the busiest.

Not modelled: ranks of one domain that stand in different racks.
"""

import numpy as np
import numpy.typing as npt

from hwmodels.arrays import Floats
from hwmodels.spec import Spec
from hwmodels.units import Seconds, Share


class ScaleUpExchangeParameters(Spec):
    """What one kernel of the exchange achieves: `prepare`, `dispatch`, `combine` ...

    Attributes:
        launch_s: of an empty exchange.
        rank_s: for each other rank.
        token_s: for each token of a rank.
        nvlink_efficiency: bytes on the wire / NVLink's datasheet rate, one direction; None for a
            kernel that sends next to nothing.
    """

    launch_s: Seconds
    rank_s: Seconds
    token_s: Seconds
    nvlink_efficiency: Share | None = None


def scale_up_exchange_s(
    parameters: ScaleUpExchangeParameters,
    tokens: npt.ArrayLike,
    ranks: npt.ArrayLike,
    copies: npt.ArrayLike,
    token_bytes: npt.ArrayLike,
    nvlink_bytes_per_s: npt.ArrayLike,
) -> Floats:
    """Return seconds of one kernel of the exchange; arguments broadcast. One rank takes 0.

    Args:
        tokens: of the busiest rank.
        copies: ranks that a token goes to, its own counted if chosen; `min(top_k, ranks)` where
            its experts are spread as evenly as can be, `workloads.routing` for random ones.
        token_bytes: of one copy, scales included.
    """
    t, p, c, size, rate = (
        np.asarray(a, np.float64) for a in (tokens, ranks, copies, token_bytes, nvlink_bytes_per_s)
    )
    time_s = parameters.launch_s + (p - 1) * parameters.rank_s + t * parameters.token_s
    if parameters.nvlink_efficiency is not None:
        wire_bytes = t * c * (p - 1) / p * size
        time_s = time_s + wire_bytes / (parameters.nvlink_efficiency * rate)
    return np.where(p > 1, time_s, 0.0)
