"""Loops that fill durations: what tasks take on every rank, and how what runs beside slows them.

Plain Python that Numba compiles, as in `loops.py`.
"""

from hwmodels.arrays import Floats, Ints

NO_TIME_S = 1e-300
"""Stands for no time where something is divided by it."""


def slow_beside(
    one: Ints,
    other: Ints,
    alone_s: Floats,
    factor: Floats,
    end_s: Floats,
    duration_s: Floats,
    weight: Floats,
    slowed_s: Floats,
) -> None:
    """Fill (tasks, replicas) `slowed_s`: each task as slow as what ran beside it makes it.

    Of its time `b` was shared, of its work `b / (factor - b (factor - 1))` (costs.interference);
    that share takes `factor` as long.

    Args:
        one, other: (pairs,) tasks on different streams that may run side by side.
        alone_s: (tasks, replicas) durations with nothing beside.
        factor: (tasks, groups) of each group of replicas side by side.
        end_s, duration_s: (tasks, replicas) as played.
        weight: (groups,) of what is found here against `duration_s`.
    """
    tasks, replicas = end_s.shape
    group = replicas // factor.shape[1]
    for task in range(tasks):
        for r in range(replicas):
            slowed_s[task, r] = 0.0
    for pair in range(one.size):  # rows by themselves, as only then they are taken for distinct
        a, b = one[pair], other[pair]
        end_a, end_b, took_a, took_b = end_s[a], end_s[b], duration_s[a], duration_s[b]
        beside_a, beside_b = slowed_s[a], slowed_s[b]
        for r in range(replicas):
            start = max(end_a[r] - took_a[r], end_b[r] - took_b[r])
            both = max(0.0, min(end_a[r], end_b[r]) - start)
            beside_a[r] += both
            beside_b[r] += both
    for task in range(tasks):
        for g in range(factor.shape[1]):
            slower, share = factor[task, g], weight[g]
            more = slower - 1.0
            alone = alone_s[task, g * group : (g + 1) * group]
            took = duration_s[task, g * group : (g + 1) * group]
            slowed = slowed_s[task, g * group : (g + 1) * group]
            for r in range(group):
                beside = slowed[r] / max(took[r], NO_TIME_S)  # nothing runs beside no time
                wanted = alone[r] * (1.0 + more * beside / (slower - beside * more))
                slowed[r] = took[r] + share * (wanted - took[r])


def fill_durations(
    row: Ints,
    exchange: Ints,
    slot: Ints,
    step: Ints,
    rank: Ints,
    slowdown: Floats,
    table: Floats,
    column: Ints,
    exchange_s: Floats,
    slowness: Floats,
    jitter: Floats,
    group: int,
    duration_s: Floats,
) -> None:
    """Fill (tasks, replicas) `duration_s` of every rank's tasks.

    Args:
        row, exchange: (tasks,) row of `table` and entry of `exchange_s`, -1 where there is none; a
            task that has neither takes `slowdown` seconds.
        slot, step, rank: (tasks,).
        slowdown: (tasks,) beside the other stream.
        table: (rows, loads) seconds; column: (slots, replicas) into it.
        exchange_s: (exchanges, slots, groups) seconds.
        slowness: (ranks, replicas); jitter: (steps, replicas).
    """
    replicas = duration_s.shape[1]
    for task in range(row.size):
        task_s = duration_s[task]
        factor = slowdown[task]
        if row[task] >= 0:
            seconds, place = table[row[task]], column[slot[task]]
            slow, noise = slowness[rank[task]], jitter[step[task]]
            for b in range(replicas):
                task_s[b] = seconds[place[b]] * factor * slow[b] * noise[b]
        elif exchange[task] >= 0:
            for b in range(replicas):
                task_s[b] = exchange_s[exchange[task], slot[task], b // group] * factor
        else:
            for b in range(replicas):
                task_s[b] = factor
