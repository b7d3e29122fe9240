"""Laws of every pipeline schedule, over random sizes and durations."""

from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from workloads.schedules import SCHEDULES
from workloads.schedules.replay import ChunkTimes, replay
from workloads.schedules.step import needs, produces

SECONDS = st.floats(0.125, 8)


@st.composite
def runs(draw):
    """A schedule with a number of ranks and of micro-batches it can run."""
    name = draw(st.sampled_from(sorted(SCHEDULES)))
    plan = SCHEDULES[name]
    unit = 2 if name == "dualpipe" else 1
    pp = draw(st.integers(1, 5)) * unit
    extra = draw(st.integers(0, 6)) * unit
    return plan, pp, plan.minimum_microbatches(pp) + extra


@st.composite
def times(draw):
    weight = draw(SECONDS)
    return ChunkTimes(
        forward_s=draw(SECONDS),
        backward_s=weight + draw(SECONDS),
        weight_s=weight,
        pair_s=draw(SECONDS),
    )


@given(runs())
def test_every_chunk_goes_forward_backward_and_has_its_weights_added_once(run):
    plan, pp, microbatches = run
    tokens = Counter(
        t for steps in plan.steps(pp, microbatches) for s in steps for t in produces(s)
    )
    wanted = {(p, s, m) for p in "FBW" for s in range(pp) for m in range(microbatches)}
    assert set(tokens) == wanted
    assert set(tokens.values()) == {1}


@given(runs())
def test_a_rank_works_only_on_stages_it_holds(run):
    plan, pp, microbatches = run
    for rank, steps in enumerate(plan.steps(pp, microbatches)):
        stages = {chunk.stage for s in steps for chunk in (s.forward, s.backward) if chunk}
        assert stages <= set(plan.stages_of_rank(pp, rank))


@given(runs())
def test_forward_backward_and_weight_of_a_chunk_stay_on_one_rank(run):
    """Activations never travel back: who ran the forward runs the backward."""
    plan, pp, microbatches = run
    homes = {}
    for rank, steps in enumerate(plan.steps(pp, microbatches)):
        for step in steps:
            for token in produces(step):
                assert homes.setdefault(token[1:], rank) == rank


@given(runs(), times(), st.floats(0, 1))
@settings(deadline=None)
def test_the_program_finishes_and_starts_nothing_before_what_it_needs(run, chunk, message_s):
    plan, pp, microbatches = run
    program = plan.steps(pp, microbatches)
    played = replay(program, chunk, message_s)
    ended = {}
    for rank, steps in enumerate(program):
        for step, end_s in zip(steps, played.end_s[rank], strict=True):
            ended |= dict.fromkeys(produces(step), end_s)
    for rank, steps in enumerate(program):
        for step, start_s in zip(steps, played.start_s[rank], strict=True):
            assert all(ended[token] <= start_s for token in needs(step, pp))


@given(runs(), times())
@settings(deadline=None)
def test_the_makespan_is_at_least_the_busiest_rank(run, chunk):
    plan, pp, microbatches = run
    played = replay(plan.steps(pp, microbatches), chunk)
    assert played.makespan_s >= max(played.busy_s) * (1 - 1e-12)
    assert min(played.bubble_s) >= -1e-9 * played.makespan_s


@given(runs(), times())
@settings(deadline=None)
def test_twice_the_durations_are_twice_the_makespan(run, chunk):
    """Exact: doubling is exact in floating point."""
    plan, pp, microbatches = run
    program = plan.steps(pp, microbatches)
    assert replay(program, lambda s: 2 * chunk(s), 0.5).makespan_s == (
        2 * replay(program, chunk, 0.25).makespan_s
    )


@given(runs())
def test_no_rank_holds_more_chunks_than_the_closed_form(run):
    plan, pp, microbatches = run
    one = ChunkTimes(1, 2, 1, 3)
    held = replay(plan.steps(pp, microbatches), one).chunks_in_flight
    assert max(held) <= plan.chunks_in_flight(pp, microbatches)


@given(st.integers(1, 6), st.integers(0, 8), times())
@settings(deadline=None)
def test_1f1b_idles_as_its_closed_form_for_any_durations(pp, extra, chunk):
    plan = SCHEDULES["1f1b"]
    played = replay(plan.steps(pp, 1 + extra), chunk)
    form = plan.bubble_s(pp, chunk.forward_s, chunk.backward_s, chunk.weight_s, chunk.pair_s)
    assert played.bubble_s == pytest.approx([form] * pp, rel=1e-9, abs=1e-9)
