"""Schedules against their closed forms and the published chunk counts."""

from collections import Counter

import pytest

from hwmodels.errors import DeadlockError, InfeasibleError, SpecError
from workloads.schedules import SCHEDULES, schedule
from workloads.schedules.replay import ChunkTimes, peak_in_flight, replay
from workloads.schedules.step import Chunk, Step, Token, needs, producers, produces, stage_count

EQUAL = ChunkTimes(forward_s=1, backward_s=2, weight_s=1, pair_s=3)
SIZES = [(2, 4), (4, 8), (8, 20), (16, 120)]


def form(name, pp, times):
    return SCHEDULES[name].bubble_s(
        pp, times.forward_s, times.backward_s, times.weight_s, times.pair_s
    )


def test_the_three_schedules_are_found():
    assert set(SCHEDULES) >= {"1f1b", "zb1p", "dualpipe"}


@pytest.mark.parametrize(("pp", "microbatches"), SIZES)
@pytest.mark.parametrize("name", SCHEDULES)
def test_equal_chunks_idle_as_the_closed_form_says_on_every_rank(name, pp, microbatches):
    """DeepSeek-V3 report (arXiv 2412.19437v2) Table 2, F = B_in = W = 1 and F&B = 3."""
    played = replay(SCHEDULES[name].steps(pp, microbatches), EQUAL)
    assert set(played.bubble_s) == {form(name, pp, EQUAL)}


def test_bubbles_written_out():
    """(PP-1)(F+B), (PP-1)(F+B-2W), (PP/2-1)(F&B+B-3W) with F = 1, B = 2, W = 1, F&B = 3."""
    expected = {"1f1b": [21, 45], "zb1p": [7, 15], "dualpipe": [6, 14]}
    for name, bubbles in expected.items():
        assert [form(name, pp, EQUAL) for pp in (8, 16)] == bubbles


@pytest.mark.parametrize("times", [(1, 2.5, 0.5, 3), (2, 3, 1, 4), (1, 3.5, 0.75, 4)])
@pytest.mark.parametrize("name", ["1f1b", "zb1p"])
def test_the_one_way_schedules_keep_their_form_for_other_ratios(name, times):
    """Exact while W <= F and W <= B - W; DualPipe's form is not (its ranks then differ)."""
    unequal = ChunkTimes(*times)
    played = replay(SCHEDULES[name].steps(8, 20), unequal)
    assert played.bubble_s == pytest.approx([form(name, 8, unequal)] * 8, rel=1e-12)


@pytest.mark.parametrize(("pp", "microbatches"), SIZES)
def test_chunks_in_flight_are_pp_pp_and_pp_plus_one(pp, microbatches):
    """Table 2 again; DualPipe holds PP + 1 on every rank, 17 for PP 16."""
    peaks = {n: replay(s.steps(pp, microbatches), EQUAL) for n, s in SCHEDULES.items()}
    assert peaks["1f1b"].chunks_in_flight == tuple(pp - rank for rank in range(pp))
    assert peaks["zb1p"].chunks_in_flight == peaks["1f1b"].chunks_in_flight
    assert peaks["dualpipe"].chunks_in_flight == (pp + 1,) * pp
    for name, played in peaks.items():
        assert max(played.chunks_in_flight) == SCHEDULES[name].chunks_in_flight(pp, microbatches)


def test_parameter_copies_are_the_homes_of_a_stage():
    for plan in SCHEDULES.values():
        homes = Counter(stage for rank in range(16) for stage in plan.stages_of_rank(16, rank))
        assert set(homes.values()) == {plan.PARAMETER_COPIES}


@pytest.mark.parametrize("rank", range(16))
def test_dualpipe_chunk_counts_are_those_of_the_published_schedule(rank):
    """deepseek-ai/DualPipe for (16, 120), h = 0..7: F 23-h, B 23-h, W 15-h, pairs 97+h.

    The middle ranks (h = 7) run their first pair apart: one F and one B more, one pair less.
    """
    counts = Counter(step.kind for step in SCHEDULES["dualpipe"].steps(16, 120)[rank])
    h = min(rank, 15 - rank)
    apart = 1 if h == 7 else 0
    assert counts["F"] == 23 - h + apart
    assert counts["B"] + counts["Bi"] == 23 - h + apart
    assert counts["B"] == 8 + apart
    assert counts["W"] == 15 - h
    assert counts["FB"] == 97 + h - apart


def test_mean_dualpipe_chunk_counts_are_those_of_table_4():
    """Table 4 (ISCA'25) divides by 19.625 forwards and backwards, 11.5 weights, 100.375 pairs."""
    counts = Counter(s.kind for steps in SCHEDULES["dualpipe"].steps(16, 120) for s in steps)
    assert counts["F"] / 16 == 19.625
    assert (counts["B"] + counts["Bi"]) / 16 == 19.625
    assert counts["W"] / 16 == 11.5
    assert counts["FB"] / 16 == 100.375


def test_dualpipe_is_its_own_mirror():
    """Rank PP-1-r runs rank r's program with the two halves of the micro-batches exchanged."""
    program = SCHEDULES["dualpipe"].steps(8, 20)

    def mirrored(chunk):
        return chunk and Chunk(chunk.stage, (chunk.microbatch + 10) % 20)

    for rank in range(4):
        mirror = [Step(s.kind, mirrored(s.forward), mirrored(s.backward)) for s in program[rank]]
        assert list(program[7 - rank]) == mirror


def test_dualpipe_of_two_ranks_and_four_microbatches_written_out():
    """H = 1, h = 0: loop 2 F0 F1; loop 4 once (first pair apart); loop 6 B1 b0; loop 8 W."""
    text = [
        "".join(
            [s.kind]
            + [f" f{c.stage}.{c.microbatch}" for c in [s.forward] if c]
            + [f" b{c.stage}.{c.microbatch}" for c in [s.backward] if c]
        )
        for s in SCHEDULES["dualpipe"].steps(2, 4)[0]
    ]
    assert text == [
        "F f0.0",
        "F f1.2",
        "F f0.1",
        "B b1.2",
        "FB f1.3 b0.0",
        "B b1.3",
        "Bi b0.1",
        "W b0.1",
    ]


def test_messages_delay_each_hop():
    """Two ranks, one micro-batch: F, hop, F, B, hop, B."""
    played = replay(SCHEDULES["1f1b"].steps(2, 1), EQUAL, message_s=0.25)
    assert played.makespan_s == 1 + 0.25 + 1 + 2 + 0.25 + 2
    assert played.start_s == ((0, 4.5), (1.25, 2.25))
    assert played.end_s == ((1, 6.5), (2.25, 4.25))


def test_needs_and_products_of_each_kind_of_step():
    f, b = Chunk(1, 7), Chunk(2, 5)
    assert needs(Step("F", forward=f), 4) == (Token("F", 0, 7),)
    assert needs(Step("F", forward=Chunk(0, 7)), 4) == ()
    assert needs(Step("Bi", backward=b), 4) == (Token("F", 2, 5), Token("B", 3, 5))
    assert needs(Step("B", backward=b), 3) == (Token("F", 2, 5),)
    assert needs(Step("W", backward=b), 4) == (Token("B", 2, 5),)
    pair = Step("FB", forward=f, backward=b)
    assert needs(pair, 4) == (Token("F", 0, 7), Token("F", 2, 5), Token("B", 3, 5))
    assert produces(pair) == (Token("F", 1, 7), Token("B", 2, 5), Token("W", 2, 5))
    assert produces(Step("Bi", backward=b)) == (Token("B", 2, 5),)
    assert produces(Step("W", backward=b)) == (Token("W", 2, 5),)


def test_producers_name_rank_and_place():
    program = SCHEDULES["1f1b"].steps(2, 1)
    assert producers(program) == {
        Token("F", 0, 0): (0, 0),
        Token("B", 0, 0): (0, 1),
        Token("W", 0, 0): (0, 1),
        Token("F", 1, 0): (1, 0),
        Token("B", 1, 0): (1, 1),
        Token("W", 1, 0): (1, 1),
    }
    assert stage_count(program) == 2


def test_activation_bytes_follow_the_stage():
    """Rank 0 of two under DualPipe peaks at f0.0, f1.2, f0.1: two of stage 0, one of 1."""
    steps = SCHEDULES["dualpipe"].steps(2, 4)[0]
    assert peak_in_flight(steps) == 3
    assert peak_in_flight(steps, {0: 10.0, 1: 1.0}.__getitem__) == 21


def test_an_order_that_cannot_finish_says_who_waits_for_what():
    """Rank 0 wants a gradient before it has sent anything."""
    program = ((Step("B", backward=Chunk(0, 0)), Step("F", forward=Chunk(0, 0))),)
    with pytest.raises(DeadlockError, match=r"rank 0 at B waits for F\(stage 0, 0\)"):
        replay(program, EQUAL)


@pytest.mark.parametrize(
    ("name", "pp", "microbatches", "message"),
    [
        ("dualpipe", 15, 120, "needs an even number of ranks, got 15"),
        ("dualpipe", 16, 121, "needs an even number of micro-batches per pipeline, got 121"),
        ("dualpipe", 16, 30, "needs at least 2 pp = 32 micro-batches per pipeline, got 30"),
        ("1f1b", 0, 4, "plan.pp: at least 1, got 0"),
        ("1f1b", 4, 0, "needs at least 1 micro-batch"),
        ("zb1p", 0, 4, "plan.pp: at least 1, got 0"),
        ("zb1p", 4, 0, "needs at least 1 micro-batch"),
    ],
)
def test_what_a_schedule_cannot_run_is_refused(name, pp, microbatches, message):
    with pytest.raises(InfeasibleError, match=message):
        SCHEDULES[name].steps(pp, microbatches)


@pytest.mark.parametrize("name", SCHEDULES)
def test_a_rank_that_is_not_there_is_refused(name):
    with pytest.raises(InfeasibleError, match="from 0 to pp - 1 = 7, got 8"):
        SCHEDULES[name].stages_of_rank(8, 8)


def test_an_unknown_schedule_is_refused():
    with pytest.raises(SpecError, match="did you mean 'zb1p'"):
        schedule("zb2p")
