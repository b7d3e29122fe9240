"""The inner loop of the array engine over replicas: one walk along the order plays all of a tile.

Plain Python that Numba compiles, as in `loops.py`. Everything is written element by element: Numba
compiles assignments of slices for seconds.
"""

from typing import NamedTuple

from hwmodels.arrays import Floats, Ints, Mask


class Places(NamedTuple):
    """The order of a graph, by place.

    Attributes:
        event_start: (events + 1,) first place of each event.
        joined: (events,) whether it is a collective, which the replicas of a group share.
        sequence, stream, row: (tasks,) task, its stream, and the row for its end.
        before_start, before_row: CSR; rows of the tasks it waits for.
        kept: (tasks,) row of `kept_s` for its end, -1 for none.
    """

    event_start: Ints
    joined: Mask
    sequence: Ints
    stream: Ints
    row: Ints
    before_start: Ints
    before_row: Ints
    kept: Ints


class Totals(NamedTuple):
    """What a play fills.

    Attributes:
        end_s: (rows, replicas) ends that are still needed.
        kept_s: (kept tasks, replicas) ends that are recorded.
        busy_s, wait_s, blame_s: (streams, replicas), added to.
        makespan_s: (replicas,).
    """

    end_s: Floats
    kept_s: Floats
    busy_s: Floats
    wait_s: Floats
    blame_s: Floats
    makespan_s: Floats


def play_tile(
    places: Places,
    duration_s: Floats,
    group: int,
    first_replica: int,
    last_replica: int,
    totals: Totals,
) -> None:
    """Play replicas [first_replica, last_replica), a whole number of groups.

    Args:
        duration_s: (tasks, replicas).
    """
    replicas = last_replica - first_replica
    makespan = totals.makespan_s[first_replica:last_replica]
    for event in range(places.event_start.size - 1):
        first, last = places.event_start[event], places.event_start[event + 1]
        for place in range(first, last):  # until all it waits for has ended
            ready_s = totals.end_s[places.row[place], first_replica:last_replica]
            for b in range(replicas):
                ready_s[b] = 0.0
            for e in range(places.before_start[place], places.before_start[place + 1]):
                other = totals.end_s[places.before_row[e], first_replica:last_replica]
                for b in range(replicas):
                    ready_s[b] = max(ready_s[b], other[b])
        if places.joined[event]:
            for low in range(first_replica, last_replica, group):
                gather(places, first, last, low, low + group, totals)
        for place in range(first, last):
            end_s = totals.end_s[places.row[place], first_replica:last_replica]
            seconds = duration_s[places.sequence[place], first_replica:last_replica]
            busy = totals.busy_s[places.stream[place], first_replica:last_replica]
            for b in range(replicas):
                end_s[b] += seconds[b]
                busy[b] += seconds[b]
                makespan[b] = max(makespan[b], end_s[b])
            if places.kept[place] >= 0:
                copy = totals.kept_s[places.kept[place], first_replica:last_replica]
                for b in range(replicas):
                    copy[b] = end_s[b]


def gather(places: Places, first: int, last: int, low: int, high: int, totals: Totals) -> None:
    """Let the members of a collective wait for the last to be ready, who share the blame.

    Args:
        first, last: places of its tasks; low, high: replicas of the group.
    """
    latest = 0.0
    for place in range(first, last):
        ready_s = totals.end_s[places.row[place]]
        for b in range(low, high):
            latest = max(latest, ready_s[b])
    waited, blamed = 0.0, 0
    for place in range(first, last):
        ready_s = totals.end_s[places.row[place]]
        wait = totals.wait_s[places.stream[place]]
        for b in range(low, high):
            waited += latest - ready_s[b]
            wait[b] += latest - ready_s[b]
            blamed += ready_s[b] == latest
    for place in range(first, last):
        ready_s = totals.end_s[places.row[place]]
        blame = totals.blame_s[places.stream[place]]
        for b in range(low, high):
            if ready_s[b] == latest:
                blame[b] += waited / blamed
            ready_s[b] = latest


HELPERS = (gather,)
"""Functions that the loop calls, in the order in which they are compiled."""
