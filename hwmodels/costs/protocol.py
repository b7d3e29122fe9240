"""Time of a collective inside one switched node, as a library's protocols move it.

    t = launch_s + steps step_s + wire_bytes / (nvlink_efficiency B) + own_bytes / own_bytes_per_s

B is the NVLink of one GPU, one direction; a library is as fast as its fastest protocol. Sizes are
those of nccl-tests: the larger of the send and the receive buffer of one rank. With p ranks and S
bytes the busiest port carries, one direction, in so many steps:

                    ring               pairwise, one-shot  two-shot           in-network
    all_gather      S(p-1)/p   p-1     S(p-1)/p   p-1                         S          1
    reduce_scatter  S(p-1)/p   p-1     S(p-1)/p   p-1                         S          1
    all_reduce      2S(p-1)/p  2(p-1)  S(p-1)     p-1      2S(p-1)/p  2(p-1)  S(p+1)/p   2
    all_to_all                         S(p-1)/p   p-1
    broadcast       S          p-1     S(p-1)     p-1                         S          1
    send_recv                          S          1

In the network the switch fetches S bytes of every rank, hands each its share S/p of the sum, and
multicasts what the ranks write back (NVLink SHARP, NVLS in NCCL); it sums floats, not bytes (PTX
ISA, multimem.ld_reduce). A tree is NCCL's double binary one: 2 ceil(log2 p) steps up and down, 2S
through a rank that is inner in one half. A one-shot reads its peers one after another, a two-shot
twice. What a rank keeps is S/p, and that is also what it sends to one peer: `own_bytes_per_s` is
the rate of a copy that overlaps nothing, or of the one block that serves a peer (LL).
"""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Literal

import numpy as np
import numpy.typing as npt

from hwmodels.arrays import Floats
from hwmodels.errors import OutOfRangeError, SpecError, suggestion
from hwmodels.protocols import Protocol

if TYPE_CHECKING:
    from hwmodels.library import LibrarySpec  # which holds parameters of costs

CollectiveKind = Literal[
    "all_gather", "reduce_scatter", "all_reduce", "all_to_all", "broadcast", "send_recv"
]

_Of = Callable[[Floats], Floats]


def _one(p: Floats) -> Floats:
    return np.ones_like(p)


def _others(p: Floats) -> Floats:
    return p - 1


def _shares(p: Floats) -> Floats:
    return (p - 1) / p


def _levels(p: Floats) -> Floats:
    return np.ceil(np.log2(p))


# (algorithm, kind) -> steps, and wire bytes as multiples of S, of p ranks
_PLANS: dict[tuple[str, str], tuple[_Of, _Of]] = {
    ("ring", "all_gather"): (_others, _shares),
    ("ring", "reduce_scatter"): (_others, _shares),
    ("ring", "all_reduce"): (lambda p: 2 * (p - 1), lambda p: 2 * (p - 1) / p),
    ("ring", "broadcast"): (_others, _one),
    ("tree", "all_reduce"): (lambda p: 2 * _levels(p), lambda p: 2 * _one(p)),
    ("tree", "broadcast"): (_levels, _one),
    ("pairwise", "all_gather"): (_others, _shares),
    ("pairwise", "reduce_scatter"): (_others, _shares),
    ("pairwise", "all_to_all"): (_others, _shares),
    ("pairwise", "broadcast"): (_others, _others),
    ("pairwise", "send_recv"): (_one, _one),
    ("one-shot", "all_gather"): (_others, _shares),
    ("one-shot", "reduce_scatter"): (_others, _shares),
    ("one-shot", "all_to_all"): (_others, _shares),
    ("one-shot", "all_reduce"): (_others, _others),
    ("one-shot", "broadcast"): (_others, _others),
    ("one-shot", "send_recv"): (_one, _one),
    ("two-shot", "all_reduce"): (lambda p: 2 * (p - 1), lambda p: 2 * (p - 1) / p),
    ("in-network", "all_gather"): (_one, _one),
    ("in-network", "reduce_scatter"): (_one, _one),
    ("in-network", "all_reduce"): (lambda p: 2 * _one(p), lambda p: (p + 1) / p),
    ("in-network", "broadcast"): (_one, _one),
}


def steps(algorithm: str, kind: str, ranks: npt.ArrayLike) -> Floats:
    """Return steps, one after the other, of a collective of `ranks`; the module has the table.

    Raises:
        SpecError: no collective of that kind has that algorithm.
    """
    return _plan(algorithm, kind)[0](np.asarray(ranks, np.float64))


def wire_bytes(
    algorithm: str, kind: str, ranks: npt.ArrayLike, size_bytes: npt.ArrayLike
) -> Floats:
    """Return bytes through a rank's port in the busier direction; arguments broadcast.

    Raises:
        SpecError: no collective of that kind has that algorithm.
    """
    share = _plan(algorithm, kind)[1](np.asarray(ranks, np.float64))
    return share * np.asarray(size_bytes, np.float64)


def own_bytes(kind: str, ranks: npt.ArrayLike, size_bytes: npt.ArrayLike) -> Floats:
    """Return the share of the buffer that a rank keeps: S/p; none where it sends all or nothing."""
    share = 0.0 if kind in ("broadcast", "send_recv") else 1.0 / np.asarray(ranks, np.float64)
    return np.asarray(share * np.asarray(size_bytes, np.float64))


def protocol_fixed_s(
    protocol: Protocol, steps: npt.ArrayLike, own_bytes: npt.ArrayLike = 0.0
) -> Floats:
    """Return what a protocol takes besides its time on the wire: launch, steps, own share."""
    fixed_s = protocol.launch_s + np.asarray(steps, np.float64) * protocol.step_s
    if protocol.own_bytes_per_s is not None:
        fixed_s = fixed_s + np.asarray(own_bytes, np.float64) / protocol.own_bytes_per_s
    return np.asarray(fixed_s)


def protocol_s(
    protocol: Protocol,
    steps: npt.ArrayLike,
    wire_bytes: npt.ArrayLike,
    bytes_per_s: npt.ArrayLike,
    own_bytes: npt.ArrayLike = 0.0,
) -> Floats:
    """Return seconds of one protocol over NVLink; arguments broadcast.

    Args:
        bytes_per_s: datasheet rate of a GPU's NVLink, one direction.
        own_bytes: of the buffer, what the rank keeps.
    """
    wire_s = np.asarray(wire_bytes, np.float64) / (
        protocol.nvlink_efficiency * np.asarray(bytes_per_s, np.float64)
    )
    return protocol_fixed_s(protocol, steps, own_bytes) + wire_s


def protocols_s(
    protocols: Sequence[Protocol],
    kind: str,
    ranks: npt.ArrayLike,
    size_bytes: npt.ArrayLike,
    nvlink_bytes_per_s: npt.ArrayLike,
    in_network: npt.ArrayLike = True,
) -> Floats:
    """Return (protocols, ...) seconds of each protocol; one rank has nothing to send, and takes 0.

    Args:
        in_network: where the switch may do the work; infinite where it must not.

    Raises:
        SpecError: a protocol's algorithm does not make that kind.
    """
    p, size, rate, switch = np.broadcast_arrays(
        *(np.asarray(a, np.float64) for a in (ranks, size_bytes, nvlink_bytes_per_s, in_network))
    )
    kept_bytes = own_bytes(kind, p, size)
    rows = []
    for protocol in protocols:
        count = steps(protocol.algorithm, kind, p)
        wire = wire_bytes(protocol.algorithm, kind, p, size)
        time_s = protocol_s(protocol, count, wire, rate, kept_bytes)
        barred = (switch == 0) & (protocol.algorithm == "in-network")
        rows.append(np.where(barred, np.inf, time_s))
    return np.where(p > 1, np.stack(rows), 0.0)


def library_collective_s(
    library: "LibrarySpec",
    kind: str,
    ranks: npt.ArrayLike,
    size_bytes: npt.ArrayLike,
    nvlink_bytes_per_s: npt.ArrayLike,
    in_network: npt.ArrayLike = True,
) -> Floats:
    """Return seconds of a collective of ranks that one switch joins; arguments broadcast.

    Args:
        kind: `all_gather`, `reduce_scatter`, `all_reduce`, `all_to_all`, `broadcast`, `send_recv`.
        size_bytes: by nccl-tests' conventions.
        nvlink_bytes_per_s: of one GPU, one direction.
        in_network: False where the switch cannot help: it sums no 8-bit integers.

    Raises:
        OutOfRangeError: the library has no such collective.
    """
    if kind not in library.protocols:
        raise OutOfRangeError(
            f"library {library.name}: no collective {kind!r}{suggestion(kind, library.protocols)}"
        )
    times = protocols_s(
        library.protocols[kind], kind, ranks, size_bytes, nvlink_bytes_per_s, in_network
    )
    return np.asarray(times.min(axis=0))


def _plan(algorithm: str, kind: str) -> tuple[_Of, _Of]:
    try:
        return _PLANS[algorithm, kind]
    except KeyError:
        known = ", ".join(sorted(a for a, k in _PLANS if k == kind)) or "nothing"
        raise SpecError(f"{kind}: algorithm must be one of {known}, got {algorithm!r}") from None
