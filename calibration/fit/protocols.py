"""Fit a library's protocols to timed collectives: few constants, each with a meaning.

A way is a protocol to be fitted, shared by all kinds it serves; a library takes the fastest, so a
time is a minimum of straight lines. Logs of costs are fitted to logs of times by robust least
squares from several starts, with a weak pull to the first: the minimum leaves constants of lines
that are nowhere lowest undecided, and costs that trade places (launch and step) too.

Held out: five folds over shapes (kind, ranks, bytes), each predicted by a fit without it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.optimize import least_squares

from calibration.read.collective_rows import CollectiveRows
from hwmodels.arrays import Floats, Mask
from hwmodels.costs.protocol import own_bytes, protocols_s, steps, wire_bytes
from hwmodels.protocols import Algorithm, Protocol

_RANGES = {  # of a cost: seconds; NVLink seconds / seconds on the wire, for one rank's share
    "launch_s": (0.5e-6, 200e-6),
    "step_s": (0.02e-6, 20e-6),
    "wire": (1.0, 40.0),
    "own": (0.01, 100.0),
}
_PULL, _ERROR_SCALE, _SPREAD = 0.1, 0.05, 0.5
_SHAPES = 60  # the pull counts as much as before when a table has more or fewer shapes
_SHARPNESS = 15.0  # first a smooth minimum, in which every line is felt
_FOLDS = 5

Protocols = dict[str, tuple[Protocol, ...]]


@dataclass(frozen=True, slots=True)
class Way:
    """A protocol to be fitted.

    Attributes:
        name, algorithm: as in `Protocol`.
        kinds: collectives it serves with the same constants.
        start: costs by name, `_RANGES`; one that is not there is zero.
    """

    name: str
    algorithm: Algorithm
    kinds: tuple[str, ...]
    start: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class _Lines:
    """What costs multiply, (ways, rows, 4); times nothing fitted can exceed, (rows,)."""

    features: Floats
    serves: Mask
    known_s: Floats
    place: npt.NDArray[np.intp]

    def log_s(self, position: Floats, sharpness: float | None = None) -> tuple[Floats, Floats]:
        """Return logs of times, (rows,), and how they change with logs of costs, (rows, costs).

        A smooth minimum is `(sum t^-s)^(-1/s)`, of which line i is the share `(t / t_i)^s`.
        """
        table = np.zeros(self.features.shape[0] * 4)
        table[self.place] = np.exp(position)
        parts = self.features * table.reshape(-1, 1, 4)
        lines = np.where(self.serves, parts.sum(axis=2), np.inf)
        time_s = np.minimum(lines.min(axis=0), self.known_s)
        share = (lines == time_s).astype(np.float64)
        if sharpness is not None:
            ratio = (lines / time_s) ** -sharpness
            total = ratio.sum(axis=0) + (self.known_s / time_s) ** -sharpness
            share = ratio / total
            time_s = time_s * total ** (-1 / sharpness)
        change = np.where(self.serves[..., None], parts / lines[..., None] * share[..., None], 0.0)
        flat = np.moveaxis(change, 1, 0).reshape(len(time_s), -1)
        return np.log(time_s), flat[:, self.place]


def fit_protocols(
    rows: CollectiveRows,
    ways: Sequence[Way],
    nvlink_bytes_per_s: float,
    known: Protocols | None = None,
    starts: int = 4,
) -> Protocols:
    """Return protocols by kind.

    Args:
        rows: of one library on one system.
        known: protocols that the library has besides, not to be fitted.
        starts: of the search, the first from the ways' own costs.
    """
    known = known or {}
    table, count = rows.medians()
    lines = _lines(table, ways, nvlink_bytes_per_s, known)
    names = [name for way in ways for name in way.start]
    origin = np.log([cost for way in ways for cost in way.start.values()])
    low, high = (np.log([_RANGES[name][side] for name in names]) for side in (0, 1))
    weight = np.sqrt(count / count.mean())
    pull = _PULL * np.sqrt(len(table.time_s) / _SHAPES)
    measured = np.log(table.time_s)

    def residual(position: Floats, sharpness: float | None) -> Floats:
        miss = lines.log_s(position, sharpness)[0] - measured
        return np.concatenate([weight * miss, pull * (position - origin)])

    def jacobian(position: Floats, sharpness: float | None) -> Floats:
        change = lines.log_s(position, sharpness)[1]
        return np.vstack([weight[:, None] * change, pull * np.eye(len(origin))])

    random = np.random.default_rng(0)
    found = []
    for start in range(starts):
        position = origin + (_SPREAD * random.standard_normal(len(origin)) if start else 0.0)
        position = np.clip(position, low + 1e-6, high - 1e-6)
        for sharpness in (_SHARPNESS, None):
            result = least_squares(
                residual,
                position,
                jac=jacobian,
                bounds=(low, high),
                loss="soft_l1",
                f_scale=_ERROR_SCALE,
                ftol=1e-5,
                xtol=1e-5,
                max_nfev=60,
                args=(sharpness,),
            )
            position = result.x
        found.append((float(result.cost), tuple(np.exp(position))))
    keys = [(number, name) for number, way in enumerate(ways) for name in way.start]
    costs = dict(zip(keys, min(found)[1], strict=True))
    return _protocols(ways, costs, nvlink_bytes_per_s, known)


def predict_s(protocols: Protocols, rows: CollectiveRows, nvlink_bytes_per_s: float) -> Floats:
    """Return (rows,) seconds, each the fastest protocol of the row's kind."""
    times = np.empty(len(rows.time_s))
    for kind in np.unique(rows.kind).tolist():
        of_kind = rows.take(is_kind := rows.kind == kind)
        times[is_kind] = protocols_s(
            protocols[kind],
            kind,
            of_kind.ranks,
            of_kind.size_bytes,
            nvlink_bytes_per_s,
            of_kind.in_network,
        ).min(axis=0)
    return times


def held_out_s(
    rows: CollectiveRows,
    ways: Sequence[Way],
    nvlink_bytes_per_s: float,
    known: Protocols | None = None,
) -> Floats:
    """Return (rows,) seconds, each by a fit that has not seen the row's shape."""
    shapes = rows.shapes()
    fold = np.random.default_rng(0).permutation(shapes.max() + 1) % _FOLDS
    times = np.empty(len(shapes))
    for held in np.unique(fold):
        out = fold[shapes] == held
        fitted = fit_protocols(rows.take(~out), ways, nvlink_bytes_per_s, known, starts=1)
        times[out] = predict_s(fitted, rows.take(out), nvlink_bytes_per_s)
    return times


def _lines(
    rows: CollectiveRows, ways: Sequence[Way], nvlink_bytes_per_s: float, known: Protocols
) -> _Lines:
    features = np.zeros((len(ways), len(rows.time_s), 4))
    serves = np.zeros(features.shape[:2], bool)
    known_s = np.full(len(rows.time_s), np.inf)
    for kind in np.unique(rows.kind).tolist():
        is_kind = rows.kind == kind
        p, size, switch = (
            column[is_kind] for column in (rows.ranks, rows.size_bytes, rows.in_network)
        )
        share = own_bytes(kind, p, size) / nvlink_bytes_per_s
        for number, way in enumerate(ways):
            if kind in way.kinds:
                count = steps(way.algorithm, kind, p)
                wire = wire_bytes(way.algorithm, kind, p, size) / nvlink_bytes_per_s
                features[number, is_kind] = np.stack([np.ones_like(p), count, wire, share], axis=1)
                serves[number, is_kind] = switch | (way.algorithm != "in-network")
        if known.get(kind):
            times = protocols_s(known[kind], kind, p, size, nvlink_bytes_per_s, switch)
            known_s[is_kind] = times.min(axis=0)
    order = list(_RANGES)
    place = [4 * w + order.index(name) for w, way in enumerate(ways) for name in way.start]
    return _Lines(features, serves, known_s, np.array(place, np.intp))


def _protocols(
    ways: Sequence[Way],
    costs: Mapping[tuple[int, str], float],
    nvlink_bytes_per_s: float,
    known: Protocols,
) -> Protocols:
    """Return fitted ways, then known protocols, by kind."""
    found: Protocols = {}
    for number, way in enumerate(ways):
        own = costs.get((number, "own"))
        protocol = Protocol(
            name=way.name,
            algorithm=way.algorithm,
            launch_s=costs.get((number, "launch_s"), 0.0),
            step_s=costs.get((number, "step_s"), 0.0),
            nvlink_efficiency=1 / costs[number, "wire"],
            own_bytes_per_s=None if own is None else nvlink_bytes_per_s / own,
        )
        for kind in way.kinds:
            found[kind] = (*found.get(kind, ()), protocol)
    return {kind: (*found.get(kind, ()), *known.get(kind, ())) for kind in {**found, **known}}
