"""Laws of every pipeline schedule, over random sizes and durations."""

from collections import Counter

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from tests.pipelines import pipelines
from workloads.schedules import SCHEDULES
from workloads.schedules.replay import ChunkTimes, replay
from workloads.schedules.step import needs, produces

SECONDS = st.floats(0.125, 8)


@st.composite
def runs(draw):
    """A schedule with ranks, micro-batches and chunks a rank that it can run."""
    name, *size = draw(pipelines())
    return SCHEDULES[name], *size


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
    plan, pp, microbatches, vpp = run
    tokens = Counter(
        t for steps in plan.steps(pp, microbatches, vpp) for s in steps for t in produces(s)
    )
    stages = range(plan.stages(pp, vpp))
    wanted = {(p, s, m) for p in "FBW" for s in stages for m in range(microbatches)}
    assert set(tokens) == wanted
    assert set(tokens.values()) == {1}


@given(runs())
def test_every_stage_has_as_many_homes_as_parameter_copies(run):
    plan, pp, _, vpp = run
    homes = Counter(stage for rank in range(pp) for stage in plan.stages_of_rank(pp, rank, vpp))
    assert homes == dict.fromkeys(range(plan.stages(pp, vpp)), plan.PARAMETER_COPIES)


@given(runs())
def test_a_rank_works_only_on_stages_it_holds(run):
    plan, pp, microbatches, vpp = run
    for rank, steps in enumerate(plan.steps(pp, microbatches, vpp)):
        stages = {chunk.stage for s in steps for chunk in (s.forward, s.backward) if chunk}
        assert stages <= set(plan.stages_of_rank(pp, rank, vpp))


@given(runs())
def test_forward_backward_and_weight_of_a_chunk_stay_on_one_rank(run):
    """Activations never travel back: who ran the forward runs the backward."""
    plan, pp, microbatches, vpp = run
    homes = {}
    for rank, steps in enumerate(plan.steps(pp, microbatches, vpp)):
        for step in steps:
            for token in produces(step):
                assert homes.setdefault(token[1:], rank) == rank


@given(runs(), times(), st.floats(0, 1))
@settings(deadline=None)
def test_the_program_finishes_and_starts_nothing_before_what_it_needs(run, chunk, message_s):
    plan, pp, microbatches, vpp = run
    program, stages = plan.steps(pp, microbatches, vpp), plan.stages(pp, vpp)
    played = replay(program, chunk, message_s)
    ended = {}
    for rank, steps in enumerate(program):
        for step, end_s in zip(steps, played.end_s[rank], strict=True):
            ended |= dict.fromkeys(produces(step), end_s)
    for rank, steps in enumerate(program):
        for step, start_s in zip(steps, played.start_s[rank], strict=True):
            assert all(ended[token] <= start_s for token in needs(step, stages))


@given(runs(), times())
@settings(deadline=None)
def test_the_makespan_is_at_least_the_busiest_rank(run, chunk):
    plan, pp, microbatches, vpp = run
    played = replay(plan.steps(pp, microbatches, vpp), chunk)
    assert played.makespan_s >= max(played.busy_s) * (1 - 1e-12)
    assert min(played.bubble_s) >= -1e-9 * played.makespan_s


@given(runs(), times())
@settings(deadline=None)
def test_twice_the_durations_are_twice_the_makespan(run, chunk):
    """Exact: doubling is exact in floating point."""
    plan, pp, microbatches, vpp = run
    program = plan.steps(pp, microbatches, vpp)
    assert replay(program, lambda s: 2 * chunk(s), 0.5).makespan_s == (
        2 * replay(program, chunk, 0.25).makespan_s
    )


@given(runs())
def test_no_rank_holds_more_chunks_than_the_closed_form(run):
    plan, pp, microbatches, vpp = run
    one = ChunkTimes(1, 2, 1, 3)
    held = replay(plan.steps(pp, microbatches, vpp), one).chunks_in_flight
    assert max(held) <= plan.chunks_in_flight(pp, microbatches, vpp)


@given(st.integers(1, 6), st.integers(0, 8), times())
@settings(deadline=None)
def test_1f1b_idles_as_its_closed_form_for_any_durations(pp, extra, chunk):
    plan = SCHEDULES["1f1b"]
    played = replay(plan.steps(pp, 1 + extra), chunk)
    form = plan.bubble_s(pp, chunk.forward_s, chunk.backward_s, chunk.weight_s, chunk.pair_s)
    assert played.bubble_s == pytest.approx([form] * pp, rel=1e-9, abs=1e-9)


def idles_as_its_closed_form(name, pp, microbatches, vpp, chunk):
    plan = SCHEDULES[name]
    played = replay(plan.steps(pp, microbatches, vpp), chunk)
    form = plan.bubble_s(pp, chunk.forward_s, chunk.backward_s, chunk.weight_s, chunk.pair_s)
    assert played.bubble_s == pytest.approx([form] * pp, rel=1e-9, abs=1e-9)


@given(pipelines(["interleaved"]), times())
@settings(deadline=None)
def test_interleaved_1f1b_idles_as_its_closed_form_for_any_durations(pipeline, chunk):
    idles_as_its_closed_form(*pipeline, chunk)


@given(pipelines(["zbv"]), times())
@settings(deadline=None)
def test_zbv_idles_as_its_closed_form_unless_forwards_are_long(pipeline, chunk):
    """`2 F <= 2 b + W`: one of the conditions of arXiv 2405.15362 for no bubble."""
    assume(2 * chunk.forward_s <= 2 * chunk.backward_s - chunk.weight_s)
    idles_as_its_closed_form(*pipeline, chunk)


@given(pipelines(["vhalf"]), times())
@settings(deadline=None)
def test_vhalf_idles_as_its_closed_form_unless_input_gradients_are_long_or_short(pipeline, chunk):
    """`F <= b`, `W <= b` and `2 b <= 2 F + W`."""
    input_s = chunk.backward_s - chunk.weight_s
    assume(max(chunk.forward_s, chunk.weight_s) <= input_s)
    assume(2 * input_s <= 2 * chunk.forward_s + chunk.weight_s)
    idles_as_its_closed_form(*pipeline, chunk)
