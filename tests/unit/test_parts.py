"""One chunk on an expert group: times, dependencies, lock-step, slowdown beside the exchange."""

from typing import NamedTuple

import numpy as np
import pytest

from simulator.engines import array, reference
from simulator.engines.settle import settle
from simulator.lower.parts import PartPlay, part_graph
from workloads.layers import Block, Layer
from workloads.ops import COMM, Comm, MemoryOp
from workloads.recipes import Passes
from workloads.scenarios.training_parts import step_segments
from workloads.segments import Part
from workloads.weave import Weaver

KERNEL = (MemoryOp("kernel", "cast", 1.0),)  # what it costs is said beside it
NOTHING = (0, 0, 0)
KINDS = ("dispatch", "combine")


class Timed(NamedTuple):
    """A layer, and of its segments by (part, phase): seconds of a rank or of each, and factor."""

    layer: Layer
    seconds: dict
    factor: dict


def layer(attn=(2, 5, 1), mlp=(4, 3, 1), dispatch=1.0, combine=2.0, glue=0.0, factor=None):
    """A layer with F, B, W seconds of its halves, which have no kernels where they are 0.

    `dispatch` None is a layer without experts. Backward, the exchanges swap: the gradient of a
    combine is a dispatch and takes as long, and the other way round.
    """
    halves = {"attn": attn, "mlp": mlp}
    seconds = {(half, p): s for half in halves for p, s in zip("FBW", halves[half], strict=True)}
    ops = {half: Passes(*[KERNEL if np.any(s) else () for s in halves[half]]) for half in halves}
    if dispatch is not None:
        layout = (MemoryOp("layout", "cast", 1.0, stream=COMM),) if np.any(glue) else ()
        out, home = (lambda name, kind=kind: (Comm(name, kind, ("ep",), 1.0),) for kind in KINDS)
        ops["attn"] += Passes(layout + out("dispatch"), home("dispatch"))
        ops["mlp"] += Passes(home("combine"), layout + out("combine"))
        seconds |= dict.fromkeys([("dispatch", "F"), ("combine", "B")], dispatch)
        seconds |= dict.fromkeys([("combine", "F"), ("dispatch", "B")], combine)
        seconds |= dict.fromkeys([("layout", "F"), ("layout", "B")], glue)
    blocks = tuple(Block(name, own) for name, own in ops.items())
    return Timed(Layer("moe", blocks), seconds, factor or {})


def played(kind, forward, backward, groups=1, engine=reference):
    """Play a chunk on as many ranks as some segment has seconds for, `groups` of them in all."""
    layers = ([each.layer for each in half] for half in (forward, backward))
    program = step_segments(kind, *layers, Weaver())
    labels = [each.label for each in program]
    owner = [(forward if label.pass_ == "F" else backward)[label.layer] for label in labels]
    names = [(label.note or label.block, label.pass_) for label in labels]
    rows = [np.atleast_1d(own.seconds[name]) for own, name in zip(owner, names, strict=True)]
    columns = max(map(len, rows))
    alone = np.array([np.broadcast_to(row, columns) for row in rows], float)
    factor = np.array([own.factor.get(name, 1.0) for own, name in zip(owner, names, strict=True)])
    part = Part(kind, kind, kind, kind, program, loads=0, overlapped=kind == "FB")
    graph, ranks = part_graph(part), columns // groups
    settled = settle(engine, graph.graph, graph.pairs, alone, factor, ranks)
    return PartPlay.of(graph, ranks, alone, settled)


def dense():
    return layer(dispatch=None)


def spans(chunk, rank=0, draw=0):
    """Start and end of each task of one rank, by label."""
    timeline = chunk.timeline(draw, rank)
    graph, columns = timeline.graph, (timeline.start_s.tolist(), timeline.end_s.tolist())
    return {
        graph.labels[graph.label[task]]: times
        for task, times in enumerate(zip(*columns, strict=True))
    }


def order(chunk, stream):
    """Labels of one stream of rank 0, in its order."""
    graph = chunk.timeline(0).graph
    return [
        graph.labels[graph.label[task]]
        for task in range(len(graph))
        if graph.streams[graph.stream[task]] == stream
    ]


def test_a_pair_runs_in_the_order_of_the_trace():
    """deepseek-ai/profile-data @4496024: forward layers up, backward layers down, six blocks of
    compute and four exchanges a layer pair.
    """
    chunk = played("FB", [layer(), layer()], [layer(), layer()])
    assert order(chunk, "compute") == [
        "attn(F) 0", "mlp(B) 1", "mlp(W) 1", "mlp(F) 0", "attn(B) 1", "attn(W) 1",
        "attn(F) 1", "mlp(B) 0", "mlp(W) 0", "mlp(F) 1", "attn(B) 0", "attn(W) 0",
    ]  # fmt: skip
    assert order(chunk, "comm") == [
        "combine(B) 1", "dispatch(F) 0", "dispatch(B) 1", "combine(F) 0",
        "combine(B) 0", "dispatch(F) 1", "dispatch(B) 0", "combine(F) 1",
    ]  # fmt: skip


def test_a_pair_of_one_layer_done_by_hand():
    """Weight gradients fill the compute stream while exchanges run; every wait is one of those of
    the trace: mlp(B) for combine(B), mlp(F) for dispatch(F), attn(B) for dispatch(B).
    """
    chunk = played("FB", [layer()], [layer()])
    assert spans(chunk) == {
        "attn(F) 0": (0, 2),
        "combine(B) 0": (0, 1),
        "dispatch(F) 0": (2, 3),
        "mlp(B) 0": (2, 5),
        "mlp(W) 0": (5, 6),
        "dispatch(B) 0": (5, 7),
        "mlp(F) 0": (6, 10),
        "combine(F) 0": (10, 12),
        "attn(B) 0": (10, 15),
        "attn(W) 0": (15, 16),
    }
    assert chunk.duration_s == [16]


def test_slow_exchanges_hold_up_what_waits_for_them():
    """Exchanges of 10 s: mlp(B) starts after combine(B) at 10, mlp(F) after dispatch(F) at 20,
    attn(B) after dispatch(B) at 30; the pair ends with combine(F), 40.
    """
    chunk = played("FB", [layer(dispatch=10, combine=10)], [layer(dispatch=10, combine=10)])
    times = spans(chunk)
    assert times["mlp(B) 0"][0] == 10
    assert times["mlp(F) 0"][0] == 20
    assert times["attn(B) 0"][0] == 30
    assert chunk.duration_s == [40]


def test_the_next_layers_of_a_pair_wait_for_the_exchanges_of_the_last():
    """attn(F) 1 waits for combine(F) 0 and combine(B) 0 for attn(B) 1."""
    chunk = played("FB", [layer(combine=10), layer()], [layer(), layer()])
    times = spans(chunk)
    assert times["attn(F) 1"][0] == times["combine(F) 0"][1]
    assert times["combine(B) 0"][0] >= times["attn(B) 1"][1]


def test_forward_alone_exposes_every_exchange():
    """attn 2 + dispatch 1 + mlp 4 + combine 2, layer after layer."""
    chunk = played("F", [layer(), layer()], [])
    assert spans(chunk)["combine(F) 0"] == (7, 9)
    assert chunk.duration_s == [2 * (2 + 1 + 4 + 2)]


def test_backward_of_inputs_alone_goes_down_the_layers():
    """combine(B) 1 + mlp 3 + dispatch(B) 2 + attn 5."""
    chunk = played("Bi", [], [layer(), layer()])
    assert order(chunk, "compute") == ["mlp(B) 1", "attn(B) 1", "mlp(B) 0", "attn(B) 0"]
    assert chunk.duration_s == [2 * (1 + 3 + 2 + 5)]


def test_a_full_backward_runs_weight_gradients_before_the_next_exchange_starts():
    """As autograd launches them: dispatch(B) waits for mlp(W) and combine(B) of the layer below for
    attn(W), so nothing is hidden.
    """
    chunk = played("B", [], [layer(), layer()])
    times = spans(chunk)
    assert times["dispatch(B) 1"][0] == times["mlp(W) 1"][1] == 5
    assert times["combine(B) 0"][0] == times["attn(W) 1"][1] == 13
    assert chunk.duration_s == [2 * (1 + 3 + 1 + 2 + 5 + 1)]


def test_put_off_weight_gradients_run_without_exchanges():
    chunk = played("W", [], [layer(), layer()])
    assert order(chunk, "compute") == ["mlp(W) 1", "attn(W) 1", "mlp(W) 0", "attn(W) 0"]
    assert order(chunk, "comm") == []
    assert chunk.duration_s == [4]
    assert chunk.mean_wait_s == 0


@pytest.mark.parametrize(("kind", "seconds"), [("F", 6), ("Bi", 8), ("B", 10), ("W", 2)])
def test_a_chunk_without_exchanges_is_the_sum_of_its_segments(kind, seconds):
    ahead, back = ([dense()] * 3, []) if kind == "F" else ([], [dense()] * 3)
    assert played(kind, ahead, back).duration_s == [3 * seconds]


def test_a_pair_without_exchanges_is_the_sum_of_both():
    assert played("FB", [dense()] * 2, [dense()] * 2).duration_s == [2 * (6 + 10)]


def test_the_longer_chunk_of_a_pair_goes_on_alone():
    """Two layers forward beside one backward, and the other way round."""
    ahead = played("FB", [layer(), layer()], [layer()])
    assert order(ahead, "compute")[-2:] == ["attn(F) 1", "mlp(F) 1"]
    assert order(ahead, "compute")[1] == "mlp(B) 0"
    back = played("FB", [layer()], [layer(), layer()])
    assert order(back, "compute")[-4:] == ["mlp(B) 0", "mlp(W) 0", "attn(B) 0", "attn(W) 0"]
    assert order(back, "compute")[1] == "mlp(B) 1"


def test_what_is_empty_leaves_no_task_and_passes_its_dependency_on():
    """A head has no attention half: the exchange of the layer before is what its mlp waits for."""
    head = layer(attn=NOTHING, dispatch=None)
    chunk = played("F", [layer(), head], [])
    assert "attn(F) 1" not in spans(chunk)
    assert spans(chunk)["mlp(F) 1"] == (9, 13)


def test_kernels_of_the_communication_stream_run_before_their_exchange():
    chunk = played("F", [layer(glue=0.5)], [])
    assert order(chunk, "comm") == ["dispatch(F) 0 layout", "dispatch(F) 0", "combine(F) 0"]
    assert spans(chunk)["dispatch(F) 0"] == (2.5, 3.5)


# Lock-step


def test_ranks_meet_at_each_exchange_and_the_slowest_decides():
    """Attention of 1, 2 and 6 s, then an exchange of 1 s: waits of 5, 4 and 0, then mlp 3 s."""
    ranks = layer(attn=([1, 2, 6], 0, 0), mlp=([3, 3, 3], 0, 0), dispatch=1, combine=1)
    chunk = played("F", [ranks], [])
    assert chunk.ranks == 3
    assert chunk.duration_s == [6 + 1 + 3 + 1]
    assert chunk.mean_wait_s == (5 + 4 + 0 + 0 + 0 + 0) / 6
    assert chunk.played.wait_s.sum(axis=0).tolist() == [5, 4, 0]
    assert chunk.played.blame_s.sum(axis=0).tolist() == [0, 0, 9]
    assert chunk.busy_s("compute") == (1 + 2 + 6) / 3 + 3
    assert chunk.busy_s("comm") == 2
    assert [spans(chunk, rank)["dispatch(F) 0"] for rank in range(3)] == [(6, 7)] * 3


# Interference


def beside(mlp_b, dispatch_s, compute_factor, comm_factor, glue=0.0):
    """A pair of which only dispatch(F), after its glue, and mlp(B) take time; both start at 0."""
    ahead = layer(NOTHING, NOTHING, dispatch_s, 0.0, glue, {("dispatch", "F"): comm_factor})
    back = layer(NOTHING, (0, mlp_b, 0), None, factor={("mlp", "B"): compute_factor})
    return played("FB", [ahead], [back])


def test_a_chunk_without_exchanges_holds_nobody():
    """Ranks of 3 and 5 s in one group, 1 and 9 s in the other: each goes on when it has ended, so
    that it lasts what they take on average. With an exchange it is the slowest's time.
    """
    alone = played("W", (), [layer(attn=(1, 1, [1, 1, 0, 4]), mlp=(1, 1, [2, 4, 1, 5]))], groups=2)
    assert alone.by_rank_s.tolist() == [[3, 5], [1, 9]]
    assert alone.duration_s.tolist() == [4, 5]
    joined = played("F", [layer(attn=([1, 3], 1, 1), mlp=(1, 1, 1))], ())
    assert joined.duration_s.tolist() == [joined.by_rank_s.max()]
    assert (alone.is_joined, joined.is_joined) == (False, True)


def test_a_chunk_without_exchanges_is_drawn_as_its_mean_rank():
    alone = played("W", (), [layer(attn=(1, 1, [1, 3]), mlp=(1, 1, [2, 6]))])
    timeline = alone.timeline(draw=0)
    assert timeline.end_s.tolist() == [4, 6]


def test_factors_of_one_leave_durations_alone_and_settle_at_once():
    """Two rounds: the first finds the overlap, the second that it changes nothing."""
    chunk = played("FB", [layer()], [layer()])
    assert chunk.rounds == 2
    assert beside(3.0, 2.0, 1.0, 1.0).duration_s == [3]


@pytest.mark.parametrize("factor", [1.05, 1.6, 3.0])
def test_what_runs_wholly_beside_the_other_stream_takes_its_factor_as_long(factor):
    chunk = beside(2.0, 2.0, factor, factor)
    assert spans(chunk) == {
        "dispatch(F) 0": (0, 2 * factor),
        "mlp(B) 0": (0, 2 * factor),
        "combine(F) 0": (2 * factor, 2 * factor),
    }
    slowdown = dict(
        zip(map(str, (each.label for each in chunk.graph.segments)), chunk.slowdown, strict=True)
    )
    assert slowdown == {
        "dispatch(F) 0": pytest.approx(factor, rel=1e-12),
        "mlp(B) 0": pytest.approx(factor, rel=1e-12),
        "combine(F) 0": 1,
    }


def test_only_the_work_done_beside_the_exchange_slows_down():
    """Compute of 2 s at half speed during 1 s of exchange: half a second of work is done by then,
    the other 1.5 s alone, so it ends at 2.5 s. Settled to 1e-5.
    """
    assert beside(2.0, 1.0, 2.0, 1.0).duration_s == pytest.approx([2.5], rel=1e-4)


def test_the_exchange_slows_down_beside_compute():
    """An exchange of 2 s at half speed during 1 s of compute ends at 2.5 s."""
    assert beside(1.0, 2.0, 1.0, 2.0).duration_s == pytest.approx([2.5], rel=1e-4)


def test_waiting_for_other_ranks_slows_nothing_down():
    """While rank 0 waits in its exchange for rank 1, its other stream works alone: rank 1's glue
    takes 4 s, so the exchange of 1 s starts at 4, when rank 0's compute of 2 s is long done.
    """
    chunk = beside([2.0, 2.0], [1, 1], 3.0, 1.0, glue=[0, 4])
    assert spans(chunk, rank=0)["mlp(B) 0"] == (0, 2)
    assert spans(chunk, rank=1)["mlp(B) 0"][1] > 2
    slowed_s = spans(chunk, rank=1)["mlp(B) 0"][1]
    place = [str(segment.label) for segment in chunk.graph.segments].index("mlp(B) 0")
    assert chunk.slowdown[place] == pytest.approx((2 + slowed_s) / 4, rel=1e-12)


def random_pair(seed, groups):
    """A pair of two layers each on `groups` groups of 3 ranks, all seconds drawn."""
    rng = np.random.default_rng(seed)
    factor = dict.fromkeys([("mlp", "B"), ("mlp", "F"), ("dispatch", "F"), ("combine", "B")], 1.4)

    def drawn():
        seconds = rng.uniform(0.5, 2, (6, 3 * groups))
        exchanges = rng.uniform(0.5, 2, (2, groups)).repeat(3, axis=1)
        return layer(tuple(seconds[:3]), tuple(seconds[3:]), *exchanges, factor=factor)

    return [drawn(), drawn()], [drawn(), drawn()]


def columns_of(each, own):
    """The same layer on some of its ranks."""
    return each._replace(
        seconds={name: np.asarray(s)[own] for name, s in each.seconds.items() if np.size(s) > 1}
    )


def test_groups_played_together_are_those_played_alone():
    """To the last bit: each settles by itself, however long the others take."""
    ahead, back = random_pair(0, groups=4)
    together = played("FB", ahead, back, groups=4)
    assert (together.ranks, together.draws) == (3, 4)
    rounds = set()
    for draw in range(4):
        own = slice(3 * draw, 3 * draw + 3)
        halves = ([columns_of(each, own) for each in half] for half in (ahead, back))
        alone = played("FB", *halves)
        rounds.add(alone.rounds)
        assert alone.seconds.tobytes() == together.seconds[:, own].tobytes()
        assert together.duration_s[draw] == alone.duration_s
        for rank in range(3):
            assert spans(together, rank, draw) == spans(alone, rank)
    assert together.rounds == max(rounds)
    assert len(set(together.duration_s.tolist())) == 4


def test_both_engines_play_a_chunk_alike():
    ahead, back = random_pair(1, groups=2)
    expected, found = (played("FB", ahead, back, 2, engine) for engine in (reference, array))
    assert found.rounds == expected.rounds
    assert found.seconds == pytest.approx(expected.seconds, rel=1e-12)
    assert found.duration_s == pytest.approx(expected.duration_s, rel=1e-12)
    assert found.slowdown == pytest.approx(expected.slowdown, rel=1e-12)
    assert found.mean_wait_s == pytest.approx(expected.mean_wait_s, rel=1e-12)


def test_means_of_a_chunk_are_over_all_ranks_of_all_its_groups():
    """Against the timelines of its ranks, one by one."""
    chunk = played("FB", *random_pair(2, groups=2), groups=2)
    ranks = [[chunk.timeline(draw, rank) for rank in range(3)] for draw in range(2)]
    timelines = [*ranks[0], *ranks[1]]
    for stream in ("compute", "comm"):
        own = timelines[0].graph.streams.index(stream)
        busy_s = np.mean([timeline.busy_s()[own] for timeline in timelines])
        assert chunk.busy_s(stream) == pytest.approx(busy_s, rel=1e-12)
    wait_s = np.mean([t.wait_s[t.graph.collective >= 0] for t in timelines])
    assert chunk.mean_wait_s == pytest.approx(wait_s, rel=1e-12)
    slowest = [max(timeline.makespan_s for timeline in own) for own in ranks]
    assert chunk.duration_s.tolist() == slowest


def test_tasks_that_may_run_side_by_side_are_those_that_do_not_wait_for_each_other():
    """A pair of one layer, from the drawing of the module: what the other stream may overlap."""
    graph = played("FB", [layer()], [layer()]).graph
    names = [str(segment.label) for segment in graph.segments]
    beside = {}
    for comm, compute in zip(*map(np.ndarray.tolist, graph.pairs), strict=True):
        beside.setdefault(names[comm], set()).add(names[compute])
    assert beside == {
        "combine(B) 0": {"attn(F) 0"},
        "dispatch(F) 0": {"mlp(B) 0", "mlp(W) 0"},
        "dispatch(B) 0": {"mlp(W) 0", "mlp(F) 0"},
        "combine(F) 0": {"attn(B) 0", "attn(W) 0"},
    }
