"""Experts on the ranks of an expert group: where each lies, what ranks get of them, what is kept.

A rank has equally many slots as any other. Without redundancy there is one for each expert, in
order; a redundant one holds another replica of a loaded expert (`workloads.eplb`), and its tokens
are shared evenly between them.

The router may have a capacity (GShard, arXiv 2006.16668 §2.2; Megatron-LM's
`moe_expert_capacity_factor`): no expert takes more than that multiple of the balanced load, what is
more is dropped, and where it pads every expert takes as many rows. Which of its tokens an expert
drops, the last or the least likely ones, changes no load.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np

from hwmodels.arrays import Floats, Ints


@dataclass(frozen=True, slots=True)
class Table:
    """A two-dimensional array as a key: equal to another of the same numbers."""

    shape: tuple[int, int]
    kind: str
    data: bytes

    @classmethod
    def of(cls, values: Floats | Ints) -> "Table":
        """Keep the numbers of an array."""
        rows, columns = values.shape
        return cls((rows, columns), values.dtype.str, values.tobytes())

    @property
    def values(self) -> np.ndarray:
        """The array, read only."""
        return np.frombuffer(self.data, self.kind).reshape(self.shape)


class Capacity(NamedTuple):
    """Most that an expert takes.

    Attributes:
        factor: of the balanced load.
        padded: whether every expert takes as much, rows of zeros where tokens lack.
    """

    factor: float
    padded: bool = False

    def kept(self, loads: Floats) -> Floats:
        """Return what experts take of (..., experts) loads of mean 1, rows of padding included."""
        if self.padded:
            return np.full(loads.shape, self.factor)
        return np.minimum(loads, self.factor)

    def dropped(self, loads: Floats) -> float:
        """Return the share of all rows that is dropped."""
        return float(np.maximum(loads - self.factor, 0.0).mean())


class Replicas(NamedTuple):
    """Experts of which each lies on equally many ranks of a group.

    Attributes:
        ranks: (sets, holders) places in the group that hold one together: sets that share no rank,
            as reduce their gradients at one moment.
        most: such experts on the rank that has most.
    """

    ranks: Ints
    most: int


@dataclass(frozen=True)
class ExpertGroup:
    """The experts of every routed layer on the ranks of an expert group.

    Attributes:
        ranks, experts: of the group, of a layer.
        slots: (layers, slots) expert in each slot, rank by rank; in order where it is left out.
        capacity: of experts; None takes all.
        lasting: (layers, ranks) loads of ranks that stay from micro-batch to micro-batch, what is
            dropped left out; balanced where it is left out.
        dropped: share of all rows.
    """

    ranks: int
    experts: int
    slots: Table | None = None
    capacity: Capacity | None = None
    lasting: Table | None = None
    dropped: float = 0.0

    @property
    def local_experts(self) -> int:
        """Slots of a rank."""
        return (self.slots.shape[1] if self.slots else self.experts) // self.ranks

    @property
    def is_plain(self) -> bool:
        """Whether experts lie in order and take all that comes."""
        return self.slots is None and self.capacity is None

    @property
    def routed(self) -> float:
        """Rows that experts take of all that are routed to them, rows of padding included."""
        return 1.0 if self.lasting is None else float(self.lasting.values.mean())

    @property
    def distinct_slots(self) -> Ints:
        """(rows, slots) experts of each slot, of each way in which layers have them."""
        if self.slots is None:
            return np.arange(self.experts)[None]
        return np.unique(self.slots.values, axis=0)

    def slots_of(self, layer: int) -> Ints:
        """Return (ranks, slots of one) experts of a routed layer; one row stands for all layers."""
        if self.slots is None:
            return np.arange(self.experts).reshape(self.ranks, -1)
        return np.asarray(_row(self.slots, layer).reshape(self.ranks, -1))

    def lasting_of(self, layer: int) -> Floats:
        """Return (ranks,) loads of a routed layer."""
        return np.ones(self.ranks) if self.lasting is None else _row(self.lasting, layer)

    def rank_loads(self, loads: Floats, layers: Ints) -> Floats:
        """Return (..., places, ranks) loads of ranks, as multiples of the mean that is routed.

        Args:
            loads: (..., places, experts) of experts, of mean 1.
            layers: (places,) number of the routed layer of each.
        """
        kept = loads if self.capacity is None else self.capacity.kept(loads)
        if self.slots is None:
            return np.asarray(kept.reshape(*kept.shape[:-1], self.ranks, -1).mean(axis=-1))
        found = np.empty((*kept.shape[:-1], self.ranks))
        row = np.minimum(layers, self.slots.shape[0] - 1)
        for number in np.unique(row).tolist():
            here = row == number
            found[..., here, :] = kept[..., here, :] @ self._shares[number]
        return found

    @cached_property
    def _shares(self) -> Floats:
        """(layers, experts, ranks) of each expert's load on each rank, times ranks an expert."""
        assert self.slots is not None, "asked for where experts do not lie in order"
        layers, slots = self.slots.shape
        shares = np.zeros((layers, self.experts, self.ranks))
        rank = np.arange(slots) // self.local_experts
        for layer, experts in zip(shares, self.slots.values, strict=True):
            np.add.at(layer, (experts, rank), 1 / np.bincount(experts)[experts])
        return shares * (self.ranks / self.experts)

    def held(self, layers: Sequence[int]) -> dict[int, Replicas]:
        """Return experts of some routed layers, by how many ranks of a group hold each."""
        holders: dict[int, list[tuple[int, ...]]] = {}
        for layer in layers:
            ranks_of: list[list[int]] = [[] for _ in range(self.experts)]
            for rank, experts in enumerate(self.slots_of(layer).tolist()):
                for expert in dict.fromkeys(experts):  # two replicas of one rank are added there
                    ranks_of[expert].append(rank)
            for ranks in ranks_of:
                holders.setdefault(len(ranks), []).append(tuple(ranks))
        found = {}
        for count, sets in sorted(holders.items()):
            most = int(np.bincount(np.array(sets).ravel()).max())
            found[count] = Replicas(_side_by_side(sets), most)
        return found


def _side_by_side(sets: Sequence[tuple[int, ...]]) -> Ints:
    """Return (chosen, members) sets that share nothing, the first that do not."""
    taken: set[int] = set()
    chosen = []
    for each in sorted(set(sets)):
        if taken.isdisjoint(each):
            taken.update(each)
            chosen.append(each)
    return np.array(chosen, np.int64)


def _row(table: Table, layer: int) -> np.ndarray:
    row: np.ndarray = table.values[min(layer, table.shape[0] - 1)]
    return row
