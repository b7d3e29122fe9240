"""The expansion of a pipeline: every segment of every step once, between its begin and end."""

from itertools import pairwise

import numpy as np
import pytest

from simulator.driver.program import program_of
from simulator.engines import array
from simulator.lower.expansion import STREAMS, expand
from simulator.lower.lowered import lower
from workloads.schedules import SCHEDULES


@pytest.fixture(scope="module", params=SCHEDULES)
def built(request, small_experiment):
    return lower(program_of(small_experiment(("plan.schedule", request.param))))


@pytest.fixture(scope="module")
def expansion(built):
    return expand(built)


def steps(built, expansion):
    """Number, step, chunk and tasks of each step's program."""
    for number, step in enumerate(built.steps):
        chunk = built.parts[built.keys[built.part_of_step[number]]]
        yield number, step, chunk, range(expansion.begin[number] + 1, expansion.end[number])


def name_of(graph, task):
    return graph.labels[graph.label[task]], graph.streams[graph.stream[task]]


def test_each_segment_of_each_step_is_there_once_between_its_begin_and_end(built, expansion):
    """On its rank's stream, in the order of its chunk's program."""
    graph = expansion.graph
    seen = []
    for number, step, chunk, tasks in steps(built, expansion):
        rank = built.pipeline.rank[number]
        assert len(tasks) == len(chunk.graph.segments)
        for place, (task, segment) in enumerate(zip(tasks, chunk.graph.segments, strict=True)):
            key, found = expansion.parts[expansion.part[task]]
            assert (key, found) == (built.part_of_step[number], place)
            assert (expansion.rank[task], expansion.step[task]) == (rank, number)
            label, stream = name_of(graph, task)
            assert label == f"{segment.label} of {step.kind}"
            assert stream == f"rank {rank}/{segment.stream}"
        for task in (expansion.begin[number], expansion.end[number]):
            assert name_of(graph, task)[1] == f"rank {rank}/compute"
            assert (expansion.rank[task], expansion.step[task]) == (rank, number)
            assert expansion.part[task] == -1
        seen += [expansion.begin[number], *tasks, expansion.end[number]]
    assert seen == list(range(len(graph) - len(expansion.message)))
    assert len({tuple(part) for part in expansion.parts.tolist()}) == len(expansion.parts)


def test_there_are_as_many_tasks_as_segments_begins_ends_and_messages(built, expansion):
    links = built.pipeline.links
    program = sum(len(chunk.graph.segments) for _, _, chunk, _ in steps(built, expansion))
    assert len(expansion.begin) == len(expansion.end) == len(built.steps)
    assert len(expansion.graph) == program + 2 * len(built.steps) + len(links.sender)
    for column in (expansion.rank, expansion.step, expansion.part, expansion.slot):
        assert len(column) == len(expansion.graph)
    assert (np.bincount(expansion.part[expansion.part >= 0]) > 0).all()


def test_messages_leave_from_the_sending_port_of_their_rank(built, expansion):
    links = built.pipeline.links
    for number, task in enumerate(expansion.message):
        rank = links.rank[links.sender[number]]
        assert name_of(expansion.graph, task) == ("message", f"rank {rank}/send")
        assert expansion.step[task] == links.sender[number]
        assert expansion.part[task] == -1
        assert expansion.rank[task] == rank


def test_exchanges_and_nothing_else_are_collectives_each_of_its_own(built, expansion):
    graph = expansion.graph
    joined = np.flatnonzero(graph.collective >= 0)
    assert len(set(graph.collective[joined].tolist())) == len(joined)
    exchanges = [
        task
        for _, _, chunk, tasks in steps(built, expansion)
        for task, segment in zip(tasks, chunk.graph.segments, strict=True)
        if segment.comm is not None
    ]
    assert joined.tolist() == exchanges


def test_streams_are_three_a_rank(built, expansion):
    ranks = len(built.program.table.steps)
    assert expansion.graph.streams == tuple(f"rank {r}/{s}" for r in range(ranks) for s in STREAMS)
    assert STREAMS == ("compute", "comm", "send")


# Loads


def test_forward_and_backward_of_a_layer_and_micro_batch_meet_one_load(built, expansion):
    """On the rank that runs both, and weight gradients put off too; no two share one."""
    slot_of = {}
    for number, step, chunk, tasks in steps(built, expansion):
        for task, segment in zip(tasks, chunk.graph.segments, strict=True):
            own = step.forward if segment.label.pass_ == "F" else step.backward
            layer = built.program.stages[own.stage][segment.label.layer]
            slot = expansion.slot[task]
            if not layer.routed:
                assert slot == expansion.slots
                continue
            assert slot < expansion.slots
            assert slot_of.setdefault((*own, segment.label.layer), slot) == slot
            assert expansion.slot_rank[slot] == built.pipeline.rank[number]
            before = [
                each
                for stage, layers in enumerate(built.program.stages[: own.stage + 1])
                for place, each in enumerate(layers)
                if stage < own.stage or place < segment.label.layer
            ]
            assert expansion.slot_layer[slot] == sum(each.routed for each in before)
    assert sorted(slot_of.values()) == list(range(expansion.slots))


def test_a_pipeline_meets_a_load_for_each_routed_layer_and_micro_batch(built, expansion):
    """59 of them, 58 MoE layers and the MTP module."""
    assert expansion.slots == 59 * built.program.microbatches
    assert len(expansion.slot_rank) == len(expansion.slot_layer) == expansion.slots
    counts = np.bincount(expansion.slot_layer)
    assert counts.tolist() == [built.program.microbatches] * 59


def test_begin_end_and_messages_meet_no_load(expansion):
    others = np.concatenate([expansion.begin, expansion.end, expansion.message])
    assert (expansion.slot[others] == expansion.slots).all()


# Times


@pytest.fixture(scope="module")
def played(expansion):
    """Begins and ends take no time; all else what is drawn, in 64ths so that sums are exact."""
    seconds = np.random.default_rng(0).integers(1, 128, len(expansion.graph)) / 64
    seconds[expansion.begin] = seconds[expansion.end] = 0
    return array.play(expansion.graph.with_durations(seconds))


def test_a_step_begins_when_its_rank_is_free_and_all_it_needs_has_arrived(built, expansion, played):
    """The end of the step before it on its rank, on both streams; chunks of its own rank; and
    messages from others. It begins at the latest of them, to the bit.
    """
    links = built.pipeline.links
    waits = [[0.0] for _ in built.steps]
    for first, last in pairwise(links.first):
        for number in range(first + 1, last):
            waits[number].append(played.end_s[expansion.end[number - 1]])
    for number, source in links.local:
        waits[number].append(played.end_s[expansion.end[source]])
    for number, message in links.remote:
        waits[number].append(played.end_s[expansion.message[message]])
    assert played.end_s[expansion.begin].tolist() == [max(each) for each in waits]


def test_a_step_ends_with_the_last_task_of_both_its_streams(built, expansion, played):
    both = set()
    for number, _, chunk, tasks in steps(built, expansion):
        ends_s = played.end_s[tasks.start : tasks.stop]
        assert played.end_s[expansion.end[number]] == ends_s.max()
        assert (played.start_s[tasks.start : tasks.stop] >= played.end_s[tasks.start - 1]).all()
        both.add(bool(chunk.graph.on_comm[ends_s.argmax()]))
    assert both == {False, True} or not any("FB" in key for key in built.keys)


def test_a_chunk_takes_as_long_as_by_itself(built, expansion, played):
    """Its own graph from time zero, with the seconds of the step's tasks."""
    for number, _, chunk, tasks in steps(built, expansion):
        own = slice(tasks.start, tasks.stop)
        seconds = played.graph.duration_s[own]
        alone = array.play(chunk.graph.graph.with_durations(seconds))
        begin_s = played.end_s[expansion.begin[number]]
        assert (played.end_s[own] - begin_s).tolist() == alone.end_s.tolist()


def test_messages_leave_when_their_step_ends_one_after_another(built, expansion, played):
    links = built.pipeline.links
    free_s = dict.fromkeys(range(len(links.first) - 1), 0.0)
    for number, task in enumerate(expansion.message):
        rank = links.rank[links.sender[number]]
        sent_s = max(free_s[rank], played.end_s[expansion.end[links.sender[number]]])
        assert played.start_s[task] == sent_s
        free_s[rank] = played.end_s[task]


def test_one_rank_of_each_group_plays_as_the_pipeline_of_its_chunks(built, expansion, played):
    """The same steps at the detail of chunks: every begin, end and message, to the bit."""
    chunk_s = played.end_s[expansion.end] - played.end_s[expansion.begin]
    ranks = len(built.program.table.steps)
    seconds = built.pipeline.seconds(chunk_s, 0.0, [0.0] * ranks)
    own = slice(built.pipeline.steps, built.pipeline.steps + len(expansion.message))
    seconds[own] = played.graph.duration_s[expansion.message]
    whole = array.play(built.pipeline.graph.with_durations(seconds))
    assert whole.start_s[: own.start].tolist() == played.end_s[expansion.begin].tolist()
    assert whole.end_s[: own.start].tolist() == played.end_s[expansion.end].tolist()
    assert whole.end_s[own].tolist() == played.end_s[expansion.message].tolist()


def test_a_lowered_program_is_expanded_once(built):
    assert expand(built) is expand(built)


def test_a_model_without_experts_meets_no_loads_and_has_no_exchanges(dense_experiment):
    expansion = expand(lower(program_of(dense_experiment())))
    assert expansion.slots == 0
    assert (expansion.slot == 0).all()  # which stands for none
    assert (expansion.graph.collective == -1).all()
    assert not any("comm" in name_of(expansion.graph, task)[1] for task in range(500))
