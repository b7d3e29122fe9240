"""Ranks of a job on named axes: who is where, and who forms a group.

A folding lays axes over all ranks in row-major order, the slowest axis first; several foldings lie
over the same ranks, so that layers of one kind may be split otherwise than those of another:

    dense   (pp, dp, cp, tp)    rank = ((pp_at * dp + dp_at) * cp + cp_at) * tp + tp_at
    expert  (pp, edp, ep, etp)  rank = ((pp_at * edp + edp_at) * ep + ep_at) * etp + etp_at

The last axes are thus consecutive ranks, which share a node as long as it has room
(`workloads.placement`). An axis that stands in two foldings lies alike in both.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod

import numpy as np

from hwmodels.arrays import Ints
from hwmodels.errors import InfeasibleError

Axes = tuple[tuple[str, int], ...]
"""Name and size of axes, the slowest first."""


@dataclass(frozen=True, slots=True)
class Mesh:
    """All index arithmetic over the ranks of a job.

    Attributes:
        foldings: by name, the axes of each.
    """

    foldings: tuple[tuple[str, Axes], ...]

    @classmethod
    def of(cls, **foldings: Mapping[str, int]) -> "Mesh":
        """Return the mesh of foldings by name, axes in order.

        Raises:
            InfeasibleError: they do not lie over equally many ranks, or an axis of two foldings
                lies differently in them.
        """
        mesh = cls(tuple((name, tuple(axes.items())) for name, axes in foldings.items()))
        sizes = {name: prod(size for _, size in axes) for name, axes in mesh.foldings}
        if len(set(sizes.values())) != 1:
            extents = ", ".join(f"{name} over {size}" for name, size in sizes.items())
            raise InfeasibleError(f"mesh: foldings must lie over the same ranks, got {extents}")
        for axis in dict.fromkeys(axis for _, axes in mesh.foldings for axis, _ in axes):
            places = {mesh._place(axes, axis) for _, axes in mesh.foldings if axis in dict(axes)}
            if len(places) > 1:
                raise InfeasibleError(f"mesh: axis {axis!r} must lie alike in all foldings")
        return mesh

    @property
    def ranks(self) -> int:
        """All of them."""
        return prod(size for _, size in self.foldings[0][1])

    def size(self, *axes: str) -> int:
        """Return how many ranks differ in these axes only; 1 without axes.

        Raises:
            InfeasibleError: the axes do not stand in one folding, each once.
        """
        return prod(size for axis, size in self._folding(axes) if axis in axes)

    def at(self, axis: str, ranks: Ints | int | None = None) -> Ints:
        """Return the coordinate of each of `ranks`, of all by default.

        Raises:
            InfeasibleError: there is no such rank.
        """
        size, stride = self._axis(axis)
        return np.asarray(self._checked(ranks) // stride % size)

    def groups(self, *axes: str) -> Ints:
        """Return (groups, members) ranks that differ in these axes only, in ascending order, the
        group of the lowest rank first.

        Raises:
            InfeasibleError: the axes do not stand in one folding, each once.
        """
        folding = self._folding(axes)
        order = [number for number, (axis, _) in enumerate(folding) if axis not in axes]
        within = [number for number, (axis, _) in enumerate(folding) if axis in axes]
        ranks = np.arange(self.ranks).reshape([size for _, size in folding])
        return np.ascontiguousarray(ranks.transpose(order + within).reshape(-1, self.size(*axes)))

    def group_at(self, axes: Sequence[str], ranks: Ints | int | None = None) -> Ints:
        """Return the row of `groups(*axes)` that each of `ranks` is in, of all by default."""
        number = np.zeros_like(self._checked(ranks))
        for axis, size in self._folding(axes):
            if axis not in axes:
                number = number * size + self.at(axis, ranks)
        return number

    def alike(self, played: Sequence[str]) -> tuple[Ints, Ints]:
        """Return the ranks that are played where only `played` axes are, and how many ranks each
        of them stands for.
        """
        ranks = self.groups(*played)[0]
        return ranks, np.full(len(ranks), self.ranks // len(ranks))

    def _checked(self, ranks: Ints | int | None) -> Ints:
        numbers = np.arange(self.ranks) if ranks is None else np.asarray(ranks)
        beyond = numbers[(numbers < 0) | (numbers >= self.ranks)]
        if beyond.size:
            raise InfeasibleError(f"rank: from 0 to {self.ranks - 1}, got {beyond.flat[0]}")
        return numbers

    def _axis(self, axis: str) -> tuple[int, int]:
        """Return size and stride of an axis."""
        return self._place(self._folding((axis,)), axis)

    @staticmethod
    def _place(axes: Axes, axis: str) -> tuple[int, int]:
        names = [name for name, _ in axes]
        later = axes[names.index(axis) + 1 :]
        return dict(axes)[axis], prod(size for _, size in later)

    def _folding(self, axes: Sequence[str]) -> Axes:
        """Return the first folding that has all of `axes`."""
        for _, folding in self.foldings:
            if {name for name, _ in folding} >= set(axes) and len(set(axes)) == len(axes):
                return folding
        known = "; ".join(f"{name}: {' '.join(dict(axes))}" for name, axes in self.foldings)
        raise InfeasibleError(
            f"mesh: axes must stand in one folding ({known}), each once, got {' '.join(axes)}"
        )
