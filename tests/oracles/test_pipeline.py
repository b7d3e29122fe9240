"""The pipeline on the reference engine against the independent replay of its program."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hwmodels.errors import DeadlockError
from simulator.engines.order import order_of
from simulator.engines.reference import play
from simulator.lower.pipeline import build_pipeline, rank_times, step_links
from tests.pipelines import pipelines
from workloads.phases import PHASES
from workloads.schedules import SCHEDULES
from workloads.schedules.replay import ChunkTimes, replay
from workloads.schedules.step import Chunk, Step, needs, producers, stage_count
from workloads.steps import step_table

EQUAL = ChunkTimes(forward_s=1, backward_s=2, weight_s=1, pair_s=3)
ONE_WAY = ("1f1b", "zb1p")  # one message a chunk at most


def played(program, chunk_s, message_s=0.0, optimizer_s=None, groups=None):
    """Return pipeline and timeline; by default with an optimizer of no time, on each rank alone."""
    ranks = len(program)
    pipeline = build_pipeline(step_table(program), groups or list(range(ranks)))
    seconds = np.array([chunk_s(step) for own in program for step in own], float)
    return pipeline, play(pipeline.timed(seconds, message_s, optimizer_s or [0.0] * ranks))


def chunk_spans(pipeline, timeline):
    """Starts and ends of the chunks of every rank, in program order."""
    bounds = list(pairwise(pipeline.links.first))
    assert pipeline.steps == bounds[-1][1]
    return tuple(
        tuple(tuple(column[first:last].tolist()) for first, last in bounds)
        for column in (timeline.start_s, timeline.end_s)
    )


def labelled_spans(pipeline, timeline, stream):
    graph = pipeline.graph
    return {
        graph.labels[graph.label[task]]: (
            float(timeline.start_s[task]),
            float(timeline.end_s[task]),
        )
        for task in range(len(graph))
        if graph.streams[graph.stream[task]] == stream
    }


@st.composite
def runs(draw, names=tuple(SCHEDULES)):
    """A program, and seconds for each kind of chunk on each stage, in eighths."""
    name, *size = draw(pipelines(names, most_ranks=4))
    program = SCHEDULES[name].steps(*size)
    places = sorted({place(step) for own in program for step in own})
    eighths = draw(st.lists(st.integers(4, 64), min_size=len(places), max_size=len(places)))
    seconds = dict(zip(places, (n / 8 for n in eighths), strict=True))
    return program, lambda step: seconds[place(step)]


def place(step):
    stages = (chunk.stage if chunk else -1 for chunk in (step.forward, step.backward))
    return (step.kind, *stages)


@given(runs())
@settings(max_examples=60)
def test_without_messages_every_chunk_starts_and_ends_as_in_the_replay(run):
    """Two codes with nothing in common but the program; exact, as both add and compare alike."""
    program, chunk_s = run
    expected = replay(program, chunk_s)
    assert chunk_spans(*played(program, chunk_s)) == (expected.start_s, expected.end_s)


@given(runs(ONE_WAY), st.integers(0, 4))
@settings(max_examples=60)
def test_messages_no_longer_than_a_chunk_delay_each_hop_as_in_the_replay(run, eighths):
    """A sending port is free again before the next chunk ends, so nothing queues for it."""
    program, chunk_s = run
    expected = replay(program, chunk_s, eighths / 8)
    assert chunk_spans(*played(program, chunk_s, eighths / 8)) == (
        expected.start_s,
        expected.end_s,
    )


@given(runs(), st.integers(0, 40))
@settings(max_examples=60)
def test_messages_that_queue_for_the_port_only_delay(run, eighths):
    program, chunk_s = run
    _, timeline = played(program, chunk_s, eighths / 8)
    assert timeline.makespan_s >= replay(program, chunk_s, eighths / 8).makespan_s


def test_a_message_leaves_when_its_chunk_ends_and_the_next_rank_waits_for_it():
    """Two ranks, one micro-batch: F, hop, F, B, hop, B."""
    pipeline, timeline = played(SCHEDULES["1f1b"].steps(2, 1), EQUAL, 0.25)
    assert labelled_spans(pipeline, timeline, "rank 0/compute") == {
        "F 0": (0, 1),
        "B 0": (4.5, 6.5),
        "optimizer": (6.5, 6.5),
    }
    assert labelled_spans(pipeline, timeline, "rank 0/send") == {"F 0 to rank 1": (1, 1.25)}
    assert labelled_spans(pipeline, timeline, "rank 1/send") == {"B 0 to rank 0": (4.25, 4.5)}


def test_messages_of_a_rank_leave_one_after_another_while_it_computes():
    """Rank 0 ends F 0 at 1 and F 1 at 2; with 3 s a message the second leaves at 4."""
    pipeline, timeline = played(SCHEDULES["1f1b"].steps(2, 2), EQUAL, 3.0)
    assert labelled_spans(pipeline, timeline, "rank 0/send") == {
        "F 0 to rank 1": (1, 4),
        "F 1 to rank 1": (4, 7),
    }
    assert labelled_spans(pipeline, timeline, "rank 1/compute")["F 0"] == (4, 5)
    assert labelled_spans(pipeline, timeline, "rank 0/compute")["F 1"] == (1, 2)


@pytest.mark.parametrize("name", SCHEDULES)
def test_every_token_crosses_every_boundary_once_each_way(name):
    """`2 (stages - 1)` messages a micro-batch, but none from a rank to itself: a V-shape turns."""
    pp, microbatches = 4, 12
    schedule = SCHEDULES[name]
    pipeline, _ = played(schedule.steps(pp, microbatches), EQUAL)
    names = [pipeline.graph.streams[stream] for stream in pipeline.graph.stream]
    held = [schedule.stages_of_rank(pp, rank) for rank in range(pp)]
    turns = schedule.PARAMETER_COPIES == 1 and any(
        {s, s + 1} <= {*own} for own in held for s in own
    )
    boundaries = schedule.stages(pp) - 1 - turns
    assert sum(name.endswith("/send") for name in names) == 2 * boundaries * microbatches


def test_a_message_to_the_same_rank_takes_no_time():
    """Two ranks of ZB-V, three micro-batches: rank 1 hands each to itself, on stages 1 and 2."""
    pipeline, timeline = played(SCHEDULES["zbv"].steps(2, 3), EQUAL, 0.25)
    spans = labelled_spans(pipeline, timeline, "rank 1/compute")
    assert spans["F 0"] == (2.25, 3.25)


@pytest.mark.parametrize(("pp", "microbatches", "bubble_s"), [(8, 20, 6.0), (16, 120, 14.0)])
def test_equal_chunks_under_dualpipe_idle_as_published(pp, microbatches, bubble_s):
    """(PP/2 - 1)(F&B + B - 3W) with F = 1, B = 2, W = 1, F&B = 3 (arXiv 2412.19437v2 Table 2)."""
    times = rank_times(*played(SCHEDULES["dualpipe"].steps(pp, microbatches), EQUAL))
    assert times.phases["bubble"].tolist() == [bubble_s] * pp


def test_the_phases_of_dualpipe_are_its_chunks_by_kind():
    """PP 16, 120 micro-batches: 19.625 forwards and backwards, 11.5 put-off weight gradients and
    100.375 pairs on the mean rank (ISCA'25 Table 4 divides by these); Bi takes 1 s, B 2 s.
    """
    times = rank_times(*played(SCHEDULES["dualpipe"].steps(16, 120), EQUAL))
    mean = {name: seconds.mean() for name, seconds in times.phases.items()}
    assert mean == {
        "forward": 19.625,
        "bubble": 14,
        "backward": 2 * 8.125 + 11.5,
        "weight": 11.5,
        "forward_backward": 3 * 100.375,
        "optimizer": 0,
    }
    assert times.step_s == 19.625 + 14 + 27.75 + 11.5 + 301.125


@given(runs(), st.integers(0, 8), st.data())
@settings(max_examples=40)
def test_the_phases_of_every_rank_sum_to_the_step(run, eighths, data):
    program, chunk_s = run
    ranks = len(program)
    optimizer_s = [n / 8 for n in data.draw(st.tuples(*[st.integers(0, 16)] * ranks))]
    groups = list(data.draw(st.tuples(*[st.integers(0, 1)] * ranks)))
    pipeline, timeline = played(program, chunk_s, eighths / 8, optimizer_s, groups)
    times = rank_times(pipeline, timeline)
    assert times.step_s == timeline.makespan_s
    assert (sum(times.phases.values()) == times.step_s).all()
    assert (times.phases["bubble"] >= 0).all()
    assert times.phases["optimizer"].tolist() == optimizer_s


def test_ranks_that_hold_the_same_stages_start_the_optimizer_together():
    """Two ranks of 1F1B end at 6 s and 4 s. Alone each goes on; as one group both start at 6."""
    program = SCHEDULES["1f1b"].steps(2, 1)
    apart, together = (
        played(program, EQUAL, optimizer_s=[1.0, 2.0], groups=groups) for groups in ([0, 1], [0, 0])
    )
    starts = [
        [labelled_spans(*run, f"rank {rank}/compute")["optimizer"] for rank in (0, 1)]
        for run in (apart, together)
    ]
    assert starts == [[(6, 7), (4, 6)], [(6, 7), (6, 8)]]
    assert rank_times(*together).phases["bubble"].tolist() == [8 - 3 - 1, 8 - 3 - 2]


def test_steps_are_named_by_kind_and_micro_batches():
    assert Step("F", forward=Chunk(3, 12)).label == "F 12"
    assert Step("W", backward=Chunk(3, 4)).label == "W 4"
    assert Step("FB", forward=Chunk(3, 14), backward=Chunk(2, 9)).label == "FB 14|9"


# Links and columns


@given(runs())
@settings(max_examples=60)
def test_links_are_those_of_the_rules_written_out(run):
    """`needs` and `producers` token by token; a message for each token and rank it goes to."""
    program, _ = run
    home, stages = producers(program), stage_count(program)
    links = step_links(step_table(program))
    local, remote = [], set()
    for rank, own in enumerate(program):
        for index, step in enumerate(own):
            for token in needs(step, stages):
                source, place = home[token]
                name = f"{token.phase} {token.microbatch} to rank {rank}"
                edge = links.first[rank] + index, links.first[source] + place
                if source == rank:
                    local.append(edge)
                else:
                    remote.add((*edge, name))
    assert sorted(map(tuple, links.local.tolist())) == sorted(local)
    sends = list(zip(links.sender.tolist(), links.labels, strict=True))
    assert {(step, *sends[number]) for step, number in links.remote.tolist()} == remote
    assert len(set(sends)) == len(sends) == len({edge[1:] for edge in remote})
    assert [f"to rank {rank}" for rank in links.receiver.tolist()] == [
        label.partition(" to ")[1].strip() + " " + label.partition(" to ")[2]
        for label in links.labels
    ]
    assert links.sender.tolist() == sorted(links.sender.tolist())
    assert links.rank.tolist() == [rank for rank, own in enumerate(program) for _ in own]


@pytest.mark.parametrize("microbatch", [0, 1])
@pytest.mark.parametrize("name", ["1f1b", "zb1p"])
def test_a_program_that_leaves_out_a_forward_cannot_finish(name, microbatch):
    """Of the middle rank of three: the last rank waits for it first."""
    program = list(SCHEDULES[name].steps(3, 2))
    left_out = Chunk(1, microbatch)
    program[1] = tuple(step for step in program[1] if step.forward != left_out)
    with pytest.raises(DeadlockError, match="rank 1 waits for what no step produces"):
        step_links(step_table(tuple(program)))


def test_a_micro_batch_that_never_goes_forward_is_refused():
    """The last of two goes backward on all ranks of three and forward on none."""
    program = tuple(
        tuple(step for step in own if not step.forward or step.forward.microbatch == 0)
        for own in SCHEDULES["1f1b"].steps(3, 2)
    )
    with pytest.raises(DeadlockError, match="waits for what no step produces"):
        step_links(step_table(program))


@pytest.mark.parametrize("name", SCHEDULES)
def test_every_task_knows_its_rank_its_step_and_its_phase(name):
    """Steps come first, rank by rank, then messages, then an optimizer a rank."""
    program = SCHEDULES[name].steps(4, 12)
    pipeline, _ = played(program, EQUAL)
    steps = [(rank, index) for rank, own in enumerate(program) for index in range(len(own))]
    assert list(zip(pipeline.rank, pipeline.step, strict=True))[: pipeline.steps] == steps
    assert pipeline.rank[-4:].tolist() == [0, 1, 2, 3]
    assert (pipeline.step[pipeline.steps :] == -1).all()
    kind = {"F": "forward", "W": "weight", "FB": "forward_backward"}
    for task, (rank, index) in enumerate(steps):
        assert pipeline.table.phases[pipeline.phase[task]] == kind.get(
            program[rank][index].kind, "backward"
        )
        name = f"{program[rank][index].label}' on rank {rank}/compute"
        assert pipeline.graph.name(task).endswith(name)
    assert (pipeline.phase[pipeline.steps : -4] == -1).all()
    assert (pipeline.phase[-4:] == list(PHASES).index("optimizer")).all()
    ports = [pipeline.graph.name(task) for task in range(pipeline.steps, len(pipeline.graph) - 4)]
    ranks = pipeline.rank[pipeline.steps : -4].tolist()
    assert all(port.endswith(f"on rank {r}/send") for port, r in zip(ports, ranks, strict=True))


def test_other_seconds_need_no_other_graph():
    """The order is worked out once for a program, however often its seconds change."""
    pipeline = build_pipeline(step_table(SCHEDULES["1f1b"].steps(2, 4)), [0, 1])
    seconds = np.ones(pipeline.steps)
    graphs = [pipeline.timed(k * seconds, k * 0.5, [k, k]) for k in (1.0, 2.0)]
    assert order_of(graphs[0]) is order_of(graphs[1])
    once, twice = map(play, graphs)
    assert (2 * once.end_s).tolist() == twice.end_s.tolist()
    assert (pipeline.graph.duration_s == 0).all()
