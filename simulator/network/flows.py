"""Bytes on their way over directed links: all flows of a collective, many alike in one row."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from hwmodels.arrays import Floats, Ints, Mask
from hwmodels.errors import InputError

LEAST, MOST = 1e-30, 1e30
"""What bytes, weights and bytes/s that are not 0 lie between: shares and times stay floats."""

PART_ROWS = 8192
"""Rows that are looked at together; a column of them takes 64 KiB."""


@dataclass(frozen=True, slots=True, eq=False)
class Flows:
    """Flows over links that are known by number; `of` builds them from anything array-like.

    Attributes:
        route: (flows, hops_max) int32, links that each crosses in any order, -1 where there is
            none. A flow that crosses no link is local and takes no time.
        moved_bytes: (flows,) bytes that one flow moves over each of its links.
        weight: (flows,) how many identical flows the row stands for.

    Raises:
        InputError: the shapes do not agree, a link is below -1, a flow crosses a link twice, or
            bytes or a weight is no quantity.
    """

    route: npt.NDArray[np.int32]
    moved_bytes: Floats
    weight: Floats

    @classmethod
    def of(
        cls,
        route: npt.ArrayLike | Sequence[Sequence[int]],
        moved_bytes: npt.ArrayLike,
        weight: npt.ArrayLike = 1.0,
    ) -> "Flows":
        """Return flows of `moved_bytes` and `weight` each, where one number may stand for all."""
        links = np.asarray(route)
        if links.ndim != 2:
            raise InputError(f"flows: route must have shape (flows, hops), got {links.shape}")
        if links.size and not np.issubdtype(links.dtype, np.integer):
            raise InputError(f"flows: route must hold link numbers, got {links.dtype}")
        if links.size and links.max() > np.iinfo(np.int32).max:
            raise InputError(f"flows: links must be below 2**31, got {links.max()}")
        columns = []
        for name, values in (("moved_bytes", moved_bytes), ("weight", weight)):
            column = np.asarray(values, dtype=np.float64)
            if column.shape not in {(), (len(links),)}:
                raise InputError(
                    f"flows: {name} has shape {column.shape}, there are {len(links)} flows"
                )
            columns.append(np.ascontiguousarray(np.broadcast_to(column, len(links))))
        return cls(links.astype(np.int32, copy=False), *columns)

    def __post_init__(self) -> None:
        if self.route.ndim != 2 or not self.moved_bytes.shape == self.weight.shape == (len(self),):
            raise InputError(
                f"flows: route {self.route.shape}, moved_bytes {self.moved_bytes.shape} and weight "
                f"{self.weight.shape} must be (flows, hops), (flows,) and (flows,)"
            )
        self._check_quantities()
        self._check_routes()

    def __len__(self) -> int:
        return len(self.route)

    def _check_quantities(self) -> None:
        wrong = ~_within_bounds(self.moved_bytes) & (self.moved_bytes != 0)
        for row in np.flatnonzero(wrong)[:1]:
            raise InputError(
                f"flows: moved_bytes must be 0 or lie in {LEAST:g} to {MOST:g}, "
                f"got {self.moved_bytes[row]} for flow {row}"
            )
        for row in np.flatnonzero(~_within_bounds(self.weight))[:1]:
            raise InputError(
                f"flows: weight must lie in {LEAST:g} to {MOST:g}, "
                f"got {self.weight[row]} for flow {row}"
            )

    def _check_routes(self) -> None:
        if self.route.size and self.route.min() < -1:
            raise InputError(f"flows: a link is 0 or more, or -1 for none, got {self.route.min()}")
        hops = np.ascontiguousarray(self.route.T)
        for hop, links in enumerate(hops):
            for earlier in hops[:hop]:
                for row in np.flatnonzero((links == earlier) & (links >= 0))[:1]:
                    raise InputError(f"flows: flow {row} crosses link {links[row]} twice")


def check_links(flows: Flows, links: int) -> None:
    """Raise InputError unless all routes lie in a network of so many `links`."""
    if flows.route.size and flows.route.max() >= links:
        raise InputError(
            f"flows: route must lie in 0 to {links - 1}, the last link, got {flows.route.max()}"
        )


def link_bytes(flows: Flows, links: int) -> Floats:
    """Return (links,) the bytes that cross each link, of all flows that rows stand for.

    Raises:
        InputError: a route leaves the network.
    """
    check_links(flows, links)
    crossing_bytes = np.zeros(links + 1)  # the first is of no link
    for rows, hops in parts(flows):
        moved_bytes = flows.moved_bytes[rows] * flows.weight[rows]
        for hop in hops:
            np.add.at(crossing_bytes, hop, moved_bytes)
    return crossing_bytes[1:]


def parts(flows: Flows) -> Iterator[tuple[slice, Ints]]:
    """Yield all rows, few at a time, so that what is worked out of them stays in the cache.

    Yields:
        The rows, and (hops_max, rows) the links they cross, counted from 1; 0 for none.
    """
    for first in range(0, len(flows), PART_ROWS):
        rows = slice(first, first + PART_ROWS)
        yield rows, np.add(flows.route[rows].T, 1, dtype=np.int64, order="C")


def _within_bounds(quantity: Floats) -> Mask:
    return (quantity >= LEAST) & (quantity <= MOST)
