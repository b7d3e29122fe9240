"""Schedules against their closed forms and the published chunk counts."""

from collections import Counter
from itertools import accumulate, groupby

import pytest

from hwmodels.errors import DeadlockError, InfeasibleError, SpecError
from workloads.schedules import ALIASES, SCHEDULES, schedule
from workloads.schedules.replay import ChunkTimes, peak_in_flight, replay
from workloads.schedules.step import Chunk, Step, Token, needs, producers, produces, stage_count

EQUAL = ChunkTimes(forward_s=1, backward_s=2, weight_s=1, pair_s=3)
SIZES = [(2, 4), (4, 8), (8, 20), (16, 120)]


def form(name, pp, times):
    return SCHEDULES[name].bubble_s(
        pp, times.forward_s, times.backward_s, times.weight_s, times.pair_s
    )


def test_the_schedules_are_found():
    v_shapes = {"zbv", "vhalf", "dualpipev"}
    assert set(SCHEDULES) >= {"1f1b", "interleaved", "zb1p", "dualpipe"} | v_shapes


def test_zb_h1_is_another_name_of_zb1p():
    assert schedule("zb-h1") is schedule("zbh1") is SCHEDULES["zb1p"]
    assert not set(ALIASES) & set(SCHEDULES)


@pytest.mark.parametrize(("pp", "microbatches"), SIZES)
@pytest.mark.parametrize("name", SCHEDULES)
def test_equal_chunks_idle_as_the_closed_form_says_on_every_rank(name, pp, microbatches):
    """F = B_in = W = 1 and F&B = 3, the condition of all published forms."""
    played = replay(SCHEDULES[name].steps(pp, microbatches), EQUAL)
    assert set(played.bubble_s) == {form(name, pp, EQUAL)}


def test_bubbles_written_out():
    """(PP-1)(F+B), (PP-1)(F+B-2W), (PP/2-1)(F&B+B-3W) with F = 1, B = 2, W = 1, F&B = 3.

    Chunks of V-shapes and of interleaved 1F1B are a part of a rank's layers. DualPipeV has twice
    as many stages as ranks.
    """
    expected = {"1f1b": [21, 45], "zb1p": [7, 15], "dualpipe": [6, 14], "dualpipev": [14, 30]}
    expected |= {"interleaved": [21, 45], "zbv": [7, 15], "vhalf": [21, 45]}
    for name, bubbles in expected.items():
        assert [form(name, pp, EQUAL) for pp in (8, 16)] == bubbles


@pytest.mark.parametrize("vpp", [2, 3, 4])
def test_interleaving_divides_the_bubble_of_1f1b_by_the_chunks(vpp):
    """arXiv 2104.04473 §2.2.2: `(p - 1) (t_f + t_b) / v`."""
    part = ChunkTimes(EQUAL.forward_s / vpp, EQUAL.backward_s / vpp, 0, 0)
    played = replay(SCHEDULES["interleaved"].steps(8, 24, vpp), part)
    assert played.bubble_s == pytest.approx([form("1f1b", 8, EQUAL) / vpp] * 8, rel=1e-12)


def test_zbv_waits_for_nothing_between_its_first_and_its_last_step():
    """arXiv 2401.10241 §6: no bubble for F = B_in = W; rank r starts r chunks later."""
    played = replay(SCHEDULES["zbv"].steps(8, 20), EQUAL)
    for rank, (starts, ends) in enumerate(zip(played.start_s, played.end_s, strict=True)):
        assert (starts[0], ends[-1]) == (rank, rank + 6 * 20)
        assert starts[1:] == ends[:-1]


@pytest.mark.parametrize("times", [(1, 2.5, 0.5, 3), (2, 3, 1, 4), (1, 3.5, 0.75, 4)])
@pytest.mark.parametrize("name", ["1f1b", "zb1p"])
def test_the_one_way_schedules_keep_their_form_for_other_ratios(name, times):
    """Exact while W <= F and W <= B - W; DualPipe's form is not (its ranks then differ)."""
    unequal = ChunkTimes(*times)
    played = replay(SCHEDULES[name].steps(8, 20), unequal)
    assert played.bubble_s == pytest.approx([form(name, 8, unequal)] * 8, rel=1e-12)


@pytest.mark.parametrize(("pp", "microbatches"), SIZES)
def test_chunks_in_flight_are_as_published(pp, microbatches):
    """Table 2: PP, PP and PP + 1 (17 for PP 16); DualPipeV's PP is 2 pp (deepseek-ai/DualPipe).

    Of half the layers: ZB-V PP micro-batches (arXiv 2401.10241 §6), V-Half floor((PP + 2) / 2)
    (the authors' page on arXiv 2405.15362).
    """
    peaks = {n: replay(s.steps(pp, microbatches), EQUAL) for n, s in SCHEDULES.items()}
    held = {name: played.chunks_in_flight for name, played in peaks.items()}
    assert held["1f1b"] == tuple(pp - rank for rank in range(pp))
    assert held["zb1p"] == held["1f1b"]
    assert held["dualpipe"] == (pp + 1,) * pp
    assert held["dualpipev"] == (2 * pp + 1,) * pp
    assert held["zbv"] == (2 * pp,) * pp
    assert held["vhalf"] == (2 * ((pp + 2) // 2),) * pp
    for name, chunks in held.items():
        assert max(chunks) == SCHEDULES[name].chunks_in_flight(pp, microbatches)


@pytest.mark.parametrize("vpp", [2, 3, 4])
def test_interleaving_holds_more_than_1f1b_by_its_published_factor(vpp):
    held = replay(SCHEDULES["interleaved"].steps(8, 24, vpp), EQUAL).chunks_in_flight
    assert max(held) / vpp == pytest.approx(8 * (1 + 7 / (8 * vpp)), rel=1e-12)
    assert max(held) == SCHEDULES["interleaved"].chunks_in_flight(8, 24, vpp)
    assert held == tuple(max(held) - 2 * rank for rank in range(8))


@pytest.mark.parametrize(
    ("microbatches", "first"), [(8, 4), (9, 5), (10, 5), (11, 6), (7, 7), (13, 7)]
)
def test_groups_of_interleaving_leave_no_rest_below_pp(microbatches, first):
    """Megatron-LM refuses groups whose last one has fewer micro-batches than PP, here 4."""
    steps = SCHEDULES["interleaved"].steps(4, microbatches)[0]
    stages = [step.forward.stage for step in steps if step.forward]
    groups = [len(list(run)) for _, run in groupby(stages)]
    assert groups[:2] == [first, first]
    assert min(groups) >= 4
    assert sum(groups) == 2 * microbatches


@pytest.mark.parametrize(("pp", "microbatches"), SIZES)
@pytest.mark.parametrize("name", ["zbv", "vhalf"])
def test_v_shapes_hold_no_more_if_weight_gradients_keep_activations(name, pp, microbatches):
    """The papers count activations until the weight gradient has run."""
    most = SCHEDULES[name].chunks_in_flight(pp, microbatches)
    for steps in SCHEDULES[name].steps(pp, microbatches):
        changes = [{"F": 1, "W": -1}.get(step.kind, 0) for step in steps]
        assert max(accumulate(changes)) == most


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


@pytest.mark.parametrize(("pp", "microbatches"), [(1, 2), (4, 10), (8, 20), (16, 120)])
def test_dualpipev_is_half_of_dualpipe(pp, microbatches):
    """deepseek-ai/DualPipe: rank r runs what it runs of 2 pp ranks, with half the micro-batches."""
    half = SCHEDULES["dualpipe"].steps(2 * pp, 2 * microbatches)[:pp]

    def own(chunk):
        return chunk and Chunk(chunk.stage, chunk.microbatch % microbatches)

    expected = [[Step(s.kind, own(s.forward), own(s.backward)) for s in steps] for steps in half]
    assert [list(steps) for steps in SCHEDULES["dualpipev"].steps(pp, microbatches)] == expected


def written_out(steps):
    return " ".join(
        s.kind + "".join(f"{c.stage}.{c.microbatch}" for c in (s.forward, s.backward) if c)
        for s in steps
    )


def test_two_ranks_of_the_new_schedules_written_out():
    """Stages 0 to 3 of two ranks; the second rank turns the V round."""
    interleaved, zbv, vhalf = (
        [written_out(steps) for steps in SCHEDULES[name].steps(2, microbatches)]
        for name, microbatches in (("interleaved", 2), ("zbv", 3), ("vhalf", 2))
    )
    assert interleaved == [
        "F0.0 F0.1 F2.0 F2.1 B2.0 B2.1 B0.0 B0.1",
        "F1.0 F1.1 F3.0 B3.0 F3.1 B3.1 B1.0 B1.1",
    ]
    assert zbv == [
        "F0.0 F0.1 F0.2 F3.0 Bi3.0 W3.0 F3.1 Bi3.1 W3.1 Bi0.0 W0.0 F3.2 Bi3.2 W3.2 "
        "Bi0.1 W0.1 Bi0.2 W0.2",
        "F1.0 F2.0 F1.1 F2.1 Bi2.0 W2.0 F1.2 Bi1.0 W1.0 F2.2 Bi2.1 W2.1 "
        "Bi1.1 Bi2.2 Bi1.2 W1.1 W2.2 W1.2",
    ]
    assert vhalf == [
        "F0.0 F3.0 F0.1 Bi3.0 W3.0 F3.1 Bi0.0 Bi3.1 W0.0 W3.1 Bi0.1 W0.1",
        "F1.0 F2.0 F1.1 F2.1 Bi2.0 Bi1.0 W2.0 W1.0 Bi2.1 Bi1.1 W2.1 W1.1",
    ]


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
        ("interleaved", 0, 4, "plan.pp: at least 1, got 0"),
        ("interleaved", 8, 7, "interleaved needs at least pp = 8 micro-batches .* got 7"),
        ("zbv", 0, 4, "plan.pp: at least 1, got 0"),
        ("zbv", 8, 14, "zbv needs at least 2 pp - 1 = 15 micro-batches per pipeline, got 14"),
        ("vhalf", 8, 4, r"vhalf needs at least floor\(pp / 2\) \+ 1 = 5 micro-batches .* got 4"),
        ("dualpipev", 8, 15, "dualpipev needs at least 2 pp = 16 micro-batches .* got 15"),
    ],
)
def test_what_a_schedule_cannot_run_is_refused(name, pp, microbatches, message):
    with pytest.raises(InfeasibleError, match=message):
        SCHEDULES[name].steps(pp, microbatches)


@pytest.mark.parametrize(
    ("name", "vpp", "message"),
    [
        ("1f1b", 4, "plan.vpp: must be 1 for 1f1b, interleaved takes more, got 4"),
        ("zb1p", 2, "plan.vpp: must be 1 for zb1p, interleaved takes more, got 2"),
        ("dualpipe", 2, "plan.vpp: must be 1 for dualpipe, interleaved takes more, got 2"),
        ("interleaved", 1, "plan.vpp: must be at least 2 for interleaved, got 1"),
        ("zbv", 1, "plan.vpp: must be 2 for zbv, got 1"),
        ("vhalf", 4, "plan.vpp: must be 2 for vhalf, got 4"),
        ("dualpipev", 3, "plan.vpp: must be 2 for dualpipev, got 3"),
    ],
)
def test_chunks_a_rank_that_a_schedule_cannot_run_are_refused(name, vpp, message):
    asked = SCHEDULES[name]
    for refused in (
        lambda: asked.stages(8, vpp),
        lambda: asked.steps(8, 16, vpp),
        lambda: asked.check(8, 16, vpp),
        lambda: asked.stages_of_rank(8, 0, vpp),
    ):
        with pytest.raises(InfeasibleError, match=message):
            refused()


@pytest.mark.parametrize("name", SCHEDULES)
def test_a_rank_that_is_not_there_is_refused(name):
    with pytest.raises(InfeasibleError, match="from 0 to pp - 1 = 7, got 8"):
        SCHEDULES[name].stages_of_rank(8, 8)


def test_an_unknown_schedule_is_refused():
    with pytest.raises(SpecError, match="did you mean 'zb1p'"):
        schedule("zb2p")
