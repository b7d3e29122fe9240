"""Bytes that tasks move over links they share: what both engines play.

A task with a transfer first occupies its stream for its duration, in which nothing moves yet
(latency, setting up the message), and then until its bytes are over. It moves them at its max-min
fair rate: the rates of all transfers that move at this moment rise together, and a transfer stops
rising when one of its links is full. Rates are divided anew whenever a transfer starts or ends. So
a lone transfer takes `duration_s + moved_bytes / (capacity of its slowest link)`, and `n` equal
ones on one link take `n` times as long to move. Transfers have no weights or priorities. A link
may carry a share of the bytes only; at a rate r a transfer then takes that share of r from it.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from hwmodels.arrays import Floats, Ints, Mask
from hwmodels.errors import InputError

SAME_INSTANT = 1e-12
"""Transfers that end within this fraction of the time since the start end together: sums that are
equal on paper differ by rounding, and what is left of the bytes then is no transfer of its own."""

LEAST, MOST = 1e-30, 1e30
"""What bytes and bytes/s that are not 0 lie between, so that no share or time leaves the floats."""


@dataclass(frozen=True, slots=True, eq=False)
class Transfers:
    """What the tasks of a graph move over shared links; row `i` of a column is task `i`.

    A task that moves no bytes or crosses no links is an ordinary one.

    Attributes:
        moved_bytes: (tasks,) bytes that each task moves over each of its links.
        link_start, link: CSR; task `i` crosses `link[link_start[i]:link_start[i + 1]]`.
        link_bytes_per_s: (links,) capacity, shared by all transfers that cross a link.
        links: names, for people.
        share: (crossings,) of its bytes that a task moves over each of its links, in the order of
            `link`; all of them where it is left out.

    Raises:
        InputError: a column has the wrong length or points outside, bytes or a capacity is no
            quantity, a task crosses a link twice, or bytes cross a link of 0 bytes/s.
    """

    moved_bytes: Floats
    link_start: Ints
    link: Ints
    link_bytes_per_s: Floats
    links: Sequence[str]
    share: Floats | None = None

    def __post_init__(self) -> None:
        self._check_columns()
        self._check_quantities()
        self._check_crossings()

    @property
    def moves(self) -> Mask:
        """(tasks,) The task moves bytes over links: it is no ordinary one."""
        return (self.moved_bytes > 0) & (np.diff(self.link_start) > 0)

    @property
    def shares(self) -> Floats:
        """(crossings,) of the bytes of its task that each link carries."""
        return np.ones(len(self.link)) if self.share is None else self.share

    def links_of(self, task: int) -> Ints:
        """Return the links that `task` crosses."""
        return self.link[self.link_start[task] : self.link_start[task + 1]]

    def shares_of(self, task: int) -> Floats:
        """Return the share of its bytes that each link of `task` carries."""
        first, last = self.link_start[task], self.link_start[task + 1]
        return np.ones(last - first) if self.share is None else self.share[first:last]

    def _check_columns(self) -> None:
        start, links = self.link_start, len(self.links)
        if len(start) != len(self.moved_bytes) + 1 or len(self.link_bytes_per_s) != links:
            raise InputError(
                f"transfers: {len(self.moved_bytes)} tasks have {len(start) - 1} rows of links, "
                f"{links} links have {len(self.link_bytes_per_s)} capacities"
            )
        if start[0] != 0 or start[-1] != len(self.link) or (np.diff(start) < 0).any():
            raise InputError(
                f"transfers: link_start must rise from 0 to {len(self.link)}, the links crossed"
            )
        if len(self.link) and (self.link.min() < 0 or self.link.max() >= links):
            raise InputError(
                f"transfers: link must lie in 0 to {links - 1}, "
                f"got {self.link.min()} to {self.link.max()}"
            )

    def _check_quantities(self) -> None:
        if self.share is not None:
            if self.share.shape != self.link.shape:
                raise InputError(
                    f"transfers: share must have one number for each of {len(self.link)} links "
                    f"crossed, got {len(self.share)}"
                )
            for crossing in np.flatnonzero(~((self.share >= LEAST) & (self.share <= 1)))[:1]:
                raise InputError(
                    f"transfers: share must lie in {LEAST:g} to 1, got {self.share[crossing]}"
                )
        for task in np.flatnonzero(~_is_quantity(self.moved_bytes))[:1]:
            raise InputError(
                f"transfers: moved_bytes must be 0 or lie in {LEAST:g} to {MOST:g}, "
                f"got {self.moved_bytes[task]} for task {task}"
            )
        for link in np.flatnonzero(~_is_quantity(self.link_bytes_per_s))[:1]:
            raise InputError(
                f"link {self.links[link]!r}: bytes/s must be 0 or lie in {LEAST:g} to {MOST:g}, "
                f"got {self.link_bytes_per_s[link]}"
            )

    def _check_crossings(self) -> None:
        task = np.repeat(np.arange(len(self.moved_bytes)), np.diff(self.link_start))
        order = np.lexsort((self.link, task))
        again = (np.diff(task[order]) == 0) & (np.diff(self.link[order]) == 0)
        for crossing in order[:-1][again][:1]:
            raise InputError(
                f"transfers: task {task[crossing]} crosses link "
                f"{self.links[self.link[crossing]]!r} twice"
            )
        stuck = (self.moved_bytes[task] > 0) & (self.link_bytes_per_s[self.link] == 0)
        for crossing in np.flatnonzero(stuck)[:1]:
            moved_bytes, name = self.moved_bytes[task[crossing]], self.links[self.link[crossing]]
            raise InputError(
                f"transfers: task {task[crossing]} moves {moved_bytes:g} bytes "
                f"over link {name!r} of 0 bytes/s"
            )


def _is_quantity(values: Floats) -> Mask:
    zero: Mask = values == 0
    return zero | ((values >= LEAST) & (values <= MOST))
