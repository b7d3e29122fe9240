"""One chunk on an expert group: order, dependencies, lock-step, slowdown beside the exchange."""

import numpy as np
import pytest

from simulator.play.chunk import play_chunk
from simulator.play.reference import play
from simulator.price.layers import ExchangeCost, PricedLayer, SegmentCost

NOTHING = SegmentCost(np.zeros(1))


def cost(seconds, factor=1.0):
    """A segment of these seconds, on one rank or one for each of several."""
    return SegmentCost(np.atleast_1d(np.asarray(seconds, float)), factor)


def layer(attn=(2, 5, 1), mlp=(4, 3, 1), dispatch=1.0, combine=2.0, glue=NOTHING):
    """A layer with F, B, W seconds of its halves; `dispatch` None is a layer without experts."""

    def phases(seconds):
        return dict(zip("FBW", map(cost, seconds), strict=True))

    exchange = None
    if dispatch is not None:
        exchange = ExchangeCost(cost(dispatch), glue, cost(combine))
    return PricedLayer("moe", phases(attn), phases(mlp), exchange, exchange)


def dense():
    return layer(dispatch=None)


def spans(chunk, rank=0):
    """Start and end of each task of one rank, by label."""
    graph, timeline = chunk.timeline.graph, chunk.timeline
    tasks = len(graph) // chunk.ranks
    return {
        graph.labels[graph.label[task]]: (
            float(timeline.start_s[task]),
            float(timeline.end_s[task]),
        )
        for task in range(rank * tasks, (rank + 1) * tasks)
    }


def order(chunk, stream):
    """Labels of one stream of rank 0, in its order."""
    graph = chunk.timeline.graph
    return [
        graph.labels[graph.label[task]]
        for task in range(len(graph) // chunk.ranks)
        if graph.streams[graph.stream[task]] == f"rank 0/{stream}"
    ]


def test_a_pair_runs_in_the_order_of_the_trace():
    """deepseek-ai/profile-data @4496024: forward layers up, backward layers down, six blocks of
    compute and four exchanges a layer pair.
    """
    chunk = play_chunk("FB", [layer(), layer()], [layer(), layer()], play)
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
    chunk = play_chunk("FB", [layer()], [layer()], play)
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
    assert chunk.duration_s == 16


def test_slow_exchanges_hold_up_what_waits_for_them():
    """Exchanges of 10 s: mlp(B) starts after combine(B) at 10, mlp(F) after dispatch(F) at 20,
    attn(B) after dispatch(B) at 30; the pair ends with combine(F), 40.
    """
    chunk = play_chunk(
        "FB", [layer(dispatch=10, combine=10)], [layer(dispatch=10, combine=10)], play
    )
    times = spans(chunk)
    assert times["mlp(B) 0"][0] == 10
    assert times["mlp(F) 0"][0] == 20
    assert times["attn(B) 0"][0] == 30
    assert chunk.duration_s == 40


def test_the_next_layers_of_a_pair_wait_for_the_exchanges_of_the_last():
    """attn(F) 1 waits for combine(F) 0 and combine(B) 0 for attn(B) 1."""
    chunk = play_chunk("FB", [layer(combine=10), layer()], [layer(), layer()], play)
    times = spans(chunk)
    assert times["attn(F) 1"][0] == times["combine(F) 0"][1]
    assert times["combine(B) 0"][0] >= times["attn(B) 1"][1]


def test_forward_alone_exposes_every_exchange():
    """attn 2 + dispatch 1 + mlp 4 + combine 2, layer after layer."""
    chunk = play_chunk("F", [layer(), layer()], [], play)
    assert spans(chunk)["combine(F) 0"] == (7, 9)
    assert chunk.duration_s == 2 * (2 + 1 + 4 + 2)


def test_backward_of_inputs_alone_goes_down_the_layers():
    """combine(B) 1 + mlp 3 + dispatch(B) 2 + attn 5."""
    chunk = play_chunk("Bi", [], [layer(), layer()], play)
    assert order(chunk, "compute") == ["mlp(B) 1", "attn(B) 1", "mlp(B) 0", "attn(B) 0"]
    assert chunk.duration_s == 2 * (1 + 3 + 2 + 5)


def test_a_full_backward_runs_weight_gradients_before_the_next_exchange_starts():
    """As autograd launches them: dispatch(B) waits for mlp(W) and combine(B) of the layer below for
    attn(W), so nothing is hidden.
    """
    chunk = play_chunk("B", [], [layer(), layer()], play)
    times = spans(chunk)
    assert times["dispatch(B) 1"][0] == times["mlp(W) 1"][1] == 5
    assert times["combine(B) 0"][0] == times["attn(W) 1"][1] == 13
    assert chunk.duration_s == 2 * (1 + 3 + 1 + 2 + 5 + 1)


def test_put_off_weight_gradients_run_without_exchanges():
    chunk = play_chunk("W", [], [layer(), layer()], play)
    assert order(chunk, "compute") == ["mlp(W) 1", "attn(W) 1", "mlp(W) 0", "attn(W) 0"]
    assert order(chunk, "comm") == []
    assert chunk.duration_s == 4
    assert chunk.mean_wait_s == 0


@pytest.mark.parametrize(("kind", "seconds"), [("F", 6), ("Bi", 8), ("B", 10), ("W", 2)])
def test_a_chunk_without_exchanges_is_the_sum_of_its_segments(kind, seconds):
    ahead, back = ([dense()] * 3, []) if kind == "F" else ([], [dense()] * 3)
    assert play_chunk(kind, ahead, back, play).duration_s == 3 * seconds


def test_a_pair_without_exchanges_is_the_sum_of_both():
    assert play_chunk("FB", [dense()] * 2, [dense()] * 2, play).duration_s == 2 * (6 + 10)


def test_the_longer_chunk_of_a_pair_goes_on_alone():
    """Two layers forward beside one backward, and the other way round."""
    ahead = play_chunk("FB", [layer(), layer()], [layer()], play)
    assert order(ahead, "compute")[-2:] == ["attn(F) 1", "mlp(F) 1"]
    assert order(ahead, "compute")[1] == "mlp(B) 0"
    back = play_chunk("FB", [layer()], [layer(), layer()], play)
    assert order(back, "compute")[-4:] == ["mlp(B) 0", "mlp(W) 0", "attn(B) 0", "attn(W) 0"]
    assert order(back, "compute")[1] == "mlp(B) 1"


def test_what_is_empty_leaves_no_task_and_passes_its_dependency_on():
    """A head has no attention half: the exchange of the layer before is what its mlp waits for."""
    head = layer(attn=(0, 0, 0), dispatch=None)
    chunk = play_chunk("F", [layer(), head], [], play)
    assert "attn(F) 1" not in spans(chunk)
    assert spans(chunk)["mlp(F) 1"] == (9, 13)


def test_kernels_of_the_communication_stream_run_before_their_exchange():
    chunk = play_chunk("F", [layer(glue=cost(0.5))], [], play)
    assert order(chunk, "comm") == ["dispatch(F) 0 layout", "dispatch(F) 0", "combine(F) 0"]
    assert spans(chunk)["dispatch(F) 0"] == (2.5, 3.5)


# Lock-step


def test_ranks_meet_at_each_exchange_and_the_slowest_decides():
    """Attention of 1, 2 and 6 s, then an exchange of 1 s: waits of 5, 4 and 0, then mlp 3 s."""
    ranks = PricedLayer(
        "moe",
        attn={"F": cost([1, 2, 6])},
        mlp={"F": cost([3, 3, 3])},
        forward_exchange=ExchangeCost(cost([1, 1, 1]), cost([0, 0, 0]), cost([1, 1, 1])),
        backward_exchange=None,
    )
    chunk = play_chunk("F", [ranks], [], play)
    assert chunk.ranks == 3
    assert chunk.duration_s == 6 + 1 + 3 + 1
    assert chunk.mean_wait_s == (5 + 4 + 0 + 0 + 0 + 0) / 6
    assert chunk.busy_s("compute") == (1 + 2 + 6) / 3 + 3
    assert chunk.busy_s("comm") == 2
    assert [spans(chunk, rank)["dispatch(F) 0"] for rank in range(3)] == [(6, 7)] * 3


# Interference


def beside(mlp_b, dispatch_s, compute_factor, comm_factor):
    """A pair of which only dispatch(F) and mlp(B) take time: both start at once."""
    exchange = ExchangeCost(cost(dispatch_s, comm_factor), NOTHING, cost(0.0))
    nothing = dict.fromkeys("FBW", NOTHING)
    ahead = PricedLayer("moe", nothing, nothing, exchange, None)
    back = PricedLayer("dense", nothing, nothing | {"B": cost(mlp_b, compute_factor)}, None, None)
    return play_chunk("FB", [ahead], [back], play)


def test_factors_of_one_leave_durations_alone_and_settle_at_once():
    """Two rounds: the first finds the overlap, the second that it changes nothing."""
    chunk = play_chunk("FB", [layer()], [layer()], play)
    assert chunk.rounds == 2
    assert beside(3.0, 2.0, 1.0, 1.0).duration_s == 3


@pytest.mark.parametrize("factor", [1.05, 1.6, 3.0])
def test_what_runs_wholly_beside_the_other_stream_takes_its_factor_as_long(factor):
    chunk = beside(2.0, 2.0, factor, factor)
    assert spans(chunk) == {
        "dispatch(F) 0": (0, 2 * factor),
        "mlp(B) 0": (0, 2 * factor),
        "combine(F) 0": (2 * factor, 2 * factor),
    }


def test_only_the_work_done_beside_the_exchange_slows_down():
    """Compute of 2 s at half speed during 1 s of exchange: half a second of work is done by then,
    the other 1.5 s alone, so it ends at 2.5 s. Settled to 1e-5.
    """
    assert beside(2.0, 1.0, 2.0, 1.0).duration_s == pytest.approx(2.5, rel=1e-4)


def test_the_exchange_slows_down_beside_compute():
    """An exchange of 2 s at half speed during 1 s of compute ends at 2.5 s."""
    assert beside(1.0, 2.0, 1.0, 2.0).duration_s == pytest.approx(2.5, rel=1e-4)


def test_waiting_for_other_ranks_slows_nothing_down():
    """While rank 0 waits in its exchange for rank 1, its other stream works alone: rank 1's glue
    takes 4 s, so the exchange of 1 s starts at 4, when rank 0's compute of 2 s is long done.
    """
    exchange = ExchangeCost(cost([1, 1]), cost([0, 4]), cost([0, 0]))
    nothing = dict.fromkeys("FBW", cost([0, 0]))
    ahead = PricedLayer("moe", nothing, nothing, exchange, None)
    slow = SegmentCost(np.array([2.0, 2.0]), 3.0)
    back = PricedLayer("dense", nothing, nothing | {"B": slow}, None, None)
    chunk = play_chunk("FB", [ahead], [back], play)
    assert spans(chunk, rank=0)["mlp(B) 0"] == (0, 2)
    assert spans(chunk, rank=1)["mlp(B) 0"][1] > 2
