"""Many groups at many moments, and the few that have to be priced.

Where nothing but NVLink and ports of NICs binds, groups meet only on nodes that they share, or, if
every GPU has NICs of its own and a group the same places on all its nodes, on GPUs that they share.
Groups that meet are a *part*. Parts alike take the same time: their members have the same places,
and switches lie between their ports in the same way.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from hwmodels.arrays import Floats, Ints
from hwmodels.cluster import ClusterSpec
from hwmodels.errors import InputError
from simulator.network.fastest import Concurrent
from simulator.network.kept import Kept
from simulator.network.links import Network
from simulator.network.placement import Group

MOMENTS = Kept()
"""Groups at moments, by kind of collective and network."""

ABSENT = -(2**31)
"""Stands where a group has fewer ranks than the largest of its moment."""

Part = tuple[Ints, Ints]
"""Rows of the groups of a part, and what it has in common with those alike."""


@dataclass(frozen=True, slots=True, eq=False)
class Moments:
    """Groups that do a collective at once, at several moments that have nothing to do with another.

    Attributes:
        kinds: moments of which no two are alike.
        kind: (moments,) place in `kinds` of each.
        place: (moments, groups) place of each group among those of its kind of moment.
    """

    kinds: tuple[Concurrent, ...]
    kind: Ints
    place: Ints

    def sizes(self, factors: Floats) -> tuple[list[Floats], Ints]:
        """Return the distinct sizes of each kind of moment, and where each group finds its own.

        Args:
            factors: (moments,) size at each.

        Returns:
            Of each kind (sizes,); and (moments, groups) columns of what all kinds have at all of
            their sizes, one after another.
        """
        return MOMENTS.get(
            (self, factors.tobytes()), lambda: self._sizes(factors), lambda _: self.place.size
        )

    def _sizes(self, factors: Floats) -> tuple[list[Floats], Ints]:
        sizes, column, begin = [], np.empty(self.place.shape, np.int64), 0
        for number, groups in enumerate(self.kinds):
            at = np.flatnonzero(self.kind == number)
            distinct, place = np.unique(factors[at], return_inverse=True)
            column[at] = begin + place[:, None] * len(groups.groups) + self.place[at]
            begin += distinct.size * len(groups.groups)
            sizes.append(distinct)
        return sizes, column


def moments_of(kind: str, gpus: Ints, wires: Network, only_ports_bind: bool) -> Moments:
    """Return what has to be priced of a collective; kept, for an array that is read-only as such.

    Args:
        gpus: (moments, groups, ranks) of each rank; `ABSENT` after the last of a smaller group.
        wires: a network at rates of 1.
        only_ports_bind: links between switches never do, and no part is broken.

    Raises:
        InputError: as `check_gpus`, or a GPU has two ranks of a group.
    """
    asked = kind, wires, only_ports_bind

    def found() -> Moments:
        key = (*asked, gpus.shape, np.asarray(gpus, np.int32).tobytes())
        check_gpus(gpus[gpus != ABSENT], wires.cluster)
        find = _by_parts if only_ports_bind and (gpus != ABSENT).all() else _by_moment
        return MOMENTS.get(key, lambda: find(kind, gpus, wires), lambda _: gpus.size)

    if gpus.flags.writeable:
        return found()
    _, moments = MOMENTS.get(
        (*asked, id(gpus)), lambda: (gpus, found()), lambda _: gpus.size
    )  # the array is kept too, so that no other gets its number
    return moments


def check_gpus(gpus: Ints, cluster: ClusterSpec) -> None:
    """Raise InputError unless these are numbers of GPUs of a cluster."""
    allowed = (
        f"groups: must be GPUs of cluster {cluster.name}, integers from 0 to {cluster.gpus - 1}"
    )
    if gpus.dtype.kind not in "iu":
        raise InputError(f"{allowed}, got {gpus.dtype}")
    if not gpus.size:
        raise InputError(f"{allowed}, got none")
    for gpu in (int(gpus.min()), int(gpus.max())):
        if not 0 <= gpu < cluster.gpus:
            raise InputError(f"{allowed}, got {gpu}")


def _by_moment(kind: str, gpus: Ints, wires: Network) -> Moments:
    """Return moments whose groups are all looked at together."""
    first, number = _distinct(gpus.reshape(len(gpus), -1))
    kinds = tuple(Concurrent(kind, (_groups(each, wires),), wires) for each in gpus[first])
    place = np.broadcast_to(np.arange(gpus.shape[1]), gpus.shape[:2])
    return Moments(kinds, number, np.asarray(place))


def _by_parts(kind: str, gpus: Ints, wires: Network) -> Moments:
    """Return moments as sets of parts that are alike."""
    moments, groups, ranks = gpus.shape
    rows = gpus.reshape(-1, ranks)
    part, place, alike, first = _parts(rows, np.repeat(np.arange(moments), groups), wires)
    of_moment = alike[part].reshape(moments, groups)
    counts_of = _counts(part.reshape(moments, groups), alike, len(first))
    of_set, number = _distinct(counts_of)
    sets = counts_of[of_set]
    kinds, begin = [], np.zeros((len(sets), len(first)), np.int64)
    for row, counts in enumerate(sets):
        held = np.flatnonzero(counts)
        parts = [_groups(rows[part == first[each]], wires) for each in held]
        begin[row, held] = np.cumsum([0, *map(len, parts)])[:-1]
        kinds.append(Concurrent(kind, parts, wires, counts[held].tolist()))
    within = begin[number[:, None], of_moment] + place.reshape(moments, groups)
    return Moments(tuple(kinds), number, within)


def _distinct(rows: Ints) -> tuple[Ints, Ints]:
    """Return one of each distinct row, and (rows,) which of them each is."""
    packed = np.ascontiguousarray(rows, np.int32)
    as_one = packed.view(np.dtype((np.void, packed.strides[0]))).ravel()
    _, first, number = np.unique(as_one, return_index=True, return_inverse=True)
    return first, np.asarray(number.ravel())


def _groups(rows: Ints, wires: Network) -> tuple[Group, ...]:
    in_node = wires.cluster.node.gpus
    return tuple(
        Group(tuple(gpu for gpu in row if gpu != ABSENT), in_node) for row in rows.tolist()
    )


def _counts(part: Ints, alike: Ints, kinds: int) -> Ints:
    """Return (moments, kinds) how many parts of each kind a moment has."""
    counts = np.zeros((len(part), kinds), np.int64)
    for row, parts in zip(counts, part, strict=True):
        np.add.at(row, alike[np.unique(parts)], 1)
    return counts


def _parts(rows: Ints, moment: Ints, wires: Network) -> tuple[Ints, Ints, Ints, Ints]:
    """Return the parts that groups form.

    Args:
        rows: (groups, ranks) GPUs; moment: (groups,) when.

    Returns:
        part: (groups,) the part of each; place: its place there.
        alike: (parts,) the kind of each part; first: (kinds,) the first part of each.
    """
    if _stay_on_rails(rows, moment, wires):
        part, place = np.arange(len(rows)), np.zeros(len(rows), np.int64)
        ports = wires.endpoints_of(np.sort(rows, axis=1)).reshape(len(rows), -1)
        order = np.argsort(np.argsort(rows, axis=1), axis=1)
        common = np.concatenate([order, *_between(ports, wires)], axis=1)
        first, alike = _distinct(common)
        return part, place, alike, first
    part = _meeting(rows // wires.cluster.node.gpus, moment, wires.cluster.nodes)
    place = np.zeros(len(rows), np.int64)
    kinds: dict[bytes, int] = {}
    alike = np.zeros(int(part.max()) + 1, np.int64)
    firsts = []
    for number, members in _members(part):
        place[members] = np.arange(len(members))
        shared = _common(rows[members], wires)
        if shared not in kinds:
            firsts.append(number)
        alike[number] = kinds.setdefault(shared, len(kinds))
    return part, place, alike, np.array(firsts)


def _stay_on_rails(rows: Ints, moment: Ints, wires: Network) -> bool:
    """Whether groups use nothing but their own GPUs and the NICs beside those, and share none."""
    node = wires.cluster.node
    if node.nics < node.gpus:
        return False
    ordered = np.sort(rows, axis=1)
    nodes, local = np.divmod(ordered, node.gpus)
    width = int((nodes[0] == nodes[0, 0]).sum())
    if rows.shape[1] % width:
        return False
    nodes, local = (each.reshape(len(rows), -1, width) for each in (nodes, local))
    is_even = (nodes == nodes[..., :1]).all() and (local == local[:, :1]).all()
    one_each = (np.diff(nodes[..., 0], axis=1) > 0).all()
    places = moment[:, None] * wires.gpus + rows
    return bool(is_even and one_each and np.bincount(places.ravel()).max() == 1)


def _meeting(nodes: Ints, moment: Ints, count: int) -> Ints:
    """Return (groups,) numbers of the parts of groups that share nodes, in order.

    Every node takes the least number of those that its groups have, until none changes.
    """
    place = moment[:, None] * count + nodes
    least = np.arange(int(place.max()) + 1)
    while True:
        of_group = least[place].min(axis=1)
        before = least.copy()
        np.minimum.at(least, place.ravel(), np.repeat(of_group, nodes.shape[1]))
        if (least == before).all():
            return np.unique(of_group, return_inverse=True)[1].astype(np.int64)


def _members(part: Ints) -> Iterator[tuple[int, Ints]]:
    order = np.argsort(part, kind="stable")
    ends = np.cumsum(np.bincount(part))
    yield from enumerate(np.split(order, ends[:-1]))


def _common(rows: Ints, wires: Network) -> bytes:
    """Return what a part has in common with those alike: where on their nodes all members are."""
    node = wires.cluster.node
    nodes, number = np.unique(rows // node.gpus, return_inverse=True)
    places = number.reshape(rows.shape) * node.gpus + rows % node.gpus
    ports = (nodes[:, None] * node.ports + np.arange(node.ports)).reshape(1, -1)
    columns = [np.array(rows.shape), places.ravel(), *map(np.ravel, _between(ports, wires))]
    return np.concatenate(columns).astype(np.int32).tobytes()


def _between(ports: Ints, wires: Network) -> list[Ints]:
    """Return (parts, ports) for leaves, pods and planes the first port that is on the same."""
    topology = wires.topology
    if not topology.endpoints:
        return []
    return [_firsts(on[ports]) for on in (topology.leaf_of, topology.pod_of, topology.plane_of)]


def _firsts(values: Ints) -> Ints:
    """Return (rows, columns) the first column of a row that has the same value."""
    order = np.argsort(values, axis=1, kind="stable")
    ordered = np.take_along_axis(values, order, axis=1)
    begins = np.ones(values.shape, np.bool_)
    begins[:, 1:] = ordered[:, 1:] != ordered[:, :-1]
    column = np.broadcast_to(np.arange(values.shape[1]), values.shape)
    run = np.maximum.accumulate(np.where(begins, column, 0), axis=1)
    firsts = np.empty_like(order)
    np.put_along_axis(firsts, order, np.take_along_axis(order, run, axis=1), axis=1)
    return firsts
