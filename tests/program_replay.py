"""Replay of every rank of one expert group of pipelines, straight from its program.

No task graph, no engine, no order worked out beforehand: a step of a pipeline rank is replayed as
soon as all it needs has arrived, for all pipelines of the group at once, segment by segment. What
engines and expansion would both get wrong shows against it.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from workloads.schedules.step import needs, produces, stage_count


@dataclass
class GroupReplay:
    """Times of all that was replayed; each is an array over the pipelines of the group.

    Attributes:
        begin_s, end_s: by (pipeline rank, place in its program).
        wait_s: by pipeline rank, seconds waited in exchanges.
        blame_s: by pipeline rank, seconds that others waited for each.
    """

    begin_s: dict = field(default_factory=dict)
    end_s: dict = field(default_factory=dict)
    wait_s: dict = field(default_factory=dict)
    blame_s: dict = field(default_factory=dict)


def replay_group(
    program,
    segments_of: Callable,
    seconds: Callable,
    message_s: Callable,
    pipelines: int,
) -> GroupReplay:
    """Replay `program` on `pipelines` pipelines whose exchanges join them.

    Args:
        segments_of: (step) -> its segments.
        seconds: (pipeline rank, place of the step, place of the segment) -> array of seconds.
        message_s: (sending pipeline rank, receiving one) -> array of seconds.
    """
    found, stages = GroupReplay(), stage_count(program)
    consumers = _consumers(program, stages)
    arrived: dict = {}  # by (token, pipeline rank)
    port_free = {rank: np.zeros(pipelines) for rank in range(len(program))}
    done = dict.fromkeys(range(len(program)), 0)
    moved = True
    while moved:
        moved = False
        for rank, own in enumerate(program):
            while done[rank] < len(own):
                place, step = done[rank], own[done[rank]]
                wanted = [(token, rank) for token in needs(step, stages)]
                if any(each not in arrived for each in wanted):
                    break
                begin_s = np.zeros(pipelines)
                if place:
                    begin_s = found.end_s[rank, place - 1]
                for each in wanted:
                    begin_s = np.maximum(begin_s, arrived[each])
                end_s = _replay_step(found, rank, place, begin_s, segments_of(step), seconds)
                found.begin_s[rank, place], found.end_s[rank, place] = begin_s, end_s
                for token in produces(step):
                    arrived[token, rank] = end_s
                    for target in consumers.get(token, ()):
                        if target != rank:
                            sent_s = np.maximum(port_free[rank], end_s) + message_s(rank, target)
                            port_free[rank] = arrived[token, target] = sent_s
                done[rank], moved = place + 1, True
    assert all(done[rank] == len(own) for rank, own in enumerate(program)), "it cannot finish"
    return found


def _replay_step(found, rank, place, begin_s, segments, seconds):
    """Return when each pipeline has ended both streams of one step."""
    free = {"compute": begin_s, "comm": begin_s}
    ends = []
    for number, segment in enumerate(segments):
        ready_s = free[segment.stream]
        for other in segment.after:
            ready_s = np.maximum(ready_s, ends[other])
        if segment.comm is not None:
            wait_s = ready_s.max() - ready_s
            found.wait_s[rank] = found.wait_s.get(rank, 0.0) + wait_s
            last = wait_s == 0  # those who come last together share the blame
            found.blame_s[rank] = found.blame_s.get(rank, 0.0) + wait_s.sum() * last / last.sum()
            ready_s = ready_s + wait_s
        ends.append(ready_s + seconds(rank, place, number))
        free[segment.stream] = ends[-1]
    return np.maximum(free["compute"], free["comm"])


def _consumers(program, stages):
    """Pipeline ranks that need each token, in their order."""
    found: dict = {}
    for rank, own in enumerate(program):
        for step in own:
            for token in needs(step, stages):
                found.setdefault(token, set()).add(rank)
    return {token: sorted(ranks) for token, ranks in found.items()}
