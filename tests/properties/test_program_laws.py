"""Programs of random layers, blocks and schedules: nothing is lost, and whoever plays agrees."""

import random
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from simulator.driver.program import program_of
from simulator.engines import array, reference
from simulator.lower.expansion import expand
from simulator.lower.lowered import lower
from tests.placements import job
from tests.program_replay import replay_group
from workloads.layers import Block, Layer
from workloads.ops import COMM, Comm, MemoryOp
from workloads.recipes import Passes
from workloads.scenarios.training_parts import distinct_parts, load_table, step_segments
from workloads.schedules import SCHEDULES
from workloads.weave import Weaver

NAMES = (f"op {number}" for number in range(10**9))
EXCHANGES = [("dispatch", "ep"), ("combine", "ep")]
CARRIERS = [*EXCHANGES, ("send", "pp")]


@st.composite
def works(draw, carriers, most=4):
    """Kernels and communication in any order; what a communication needs comes before one."""
    found = []
    for kind in draw(st.lists(st.sampled_from(["kernel", "comm", "glued"]), max_size=most)):
        if kind == "glued":
            found.append(MemoryOp(next(NAMES), "cast", 1.0, stream=COMM))
        if kind == "kernel":
            found.append(MemoryOp(next(NAMES), "cast", 1.0))
        else:
            carrier, axis = draw(st.sampled_from(carriers))
            found.append(Comm(next(NAMES), carrier, (axis,), 1.0))
    return tuple(found)


@st.composite
def layers(draw, carriers):
    """One to three blocks, of any work in each pass; weight gradients are kernels."""
    blocks = []
    for number in range(draw(st.integers(1, 3))):
        weight = tuple(MemoryOp(next(NAMES), "cast", 1.0) for _ in range(draw(st.integers(0, 2))))
        forward, backward = draw(works(carriers)), draw(works(carriers))
        blocks.append(Block(f"b{number}", Passes(forward, backward, weight)))
    return Layer("any", tuple(blocks))


STAGES = st.lists(layers(CARRIERS), min_size=1, max_size=3)
PLAYED_STAGES = st.lists(layers(EXCHANGES), min_size=1, max_size=3)
"""What can be played as yet: communication that has a price inside a step."""
KINDS = st.sampled_from(["F", "B", "Bi", "W", "FB"])
PASSES = {"F": "F", "B": "BW", "Bi": "B", "W": "W", "FB": "FBW"}


def listed(layer, phase):
    """All work of one pass of a layer, in the order of its blocks."""
    blocks = layer.blocks if phase == "F" else reversed(layer.blocks)
    return [work for block in blocks for work in block.ops.of(phase)]


@given(KINDS, STAGES, STAGES)
def test_every_work_of_every_pass_runs_once_and_in_its_order(kind, ahead, back):
    """Whatever blocks compute and send; a pass waits along its own list, through other segments."""
    ahead, back = (ahead if "F" in kind else [], [] if kind == "F" else back)
    program = step_segments(kind, ahead, back, Weaver())
    expected = Counter()
    for phase in PASSES[kind]:
        for layer in ahead if phase == "F" else back:
            expected.update(listed(layer, phase))
    assert Counter(work for each in program for work in each.work) == expected
    for phase, own in (("F", ahead), ("B", back[::-1])):
        run = [w for each in program if each.label.pass_ == phase for w in each.work]
        if phase in PASSES[kind]:
            assert run == [work for layer in own for work in listed(layer, phase)]


@given(KINDS, STAGES, STAGES)
def test_segments_hold_what_nothing_interrupts(kind, ahead, back):
    """One stream each; kernels, or one communication; and a pass waits for its last segment."""
    ahead, back = (ahead if "F" in kind else [], [] if kind == "F" else back)
    program = step_segments(kind, ahead, back, Weaver())
    last = {}
    for place, each in enumerate(program):
        assert {work.stream for work in each.work} == {each.stream}
        assert len(each.work) == 1 or not any(isinstance(work, Comm) for work in each.work)
        pass_ = each.label.pass_
        if pass_ in last and not (kind == "W" or (pass_ == "W" and kind == "FB")):
            assert each.after == (last[pass_],) or kind == "B"
        assert all(after < place for after in each.after)
        if pass_ != "W":
            last[pass_] = place


@st.composite
def programs(draw):
    """The steps of a random schedule, with random layers in each stage."""
    schedule = draw(st.sampled_from(sorted(SCHEDULES)))
    pp = draw(st.sampled_from([2, 4] if schedule == "dualpipe" else [1, 2, 3]))
    ep = draw(st.sampled_from([1, 2, 3]))
    changes = {
        "plan.pp": pp,
        "plan.ep": ep,
        "plan.dp": ep,
        "plan.schedule": schedule,
        "cluster.nodes": pp,
        "cluster.node.gpus": ep,
        "cluster.node.nics": ep,
        "cluster.fabric.planes": 1,
        "batch.sequences": ep * 2 * pp,
    }
    program = program_of(job(changes))
    stages = tuple(tuple(draw(PLAYED_STAGES)) for _ in program.stages)
    parts, part = distinct_parts(program.table, stages)
    loads = load_table(program.table, stages, parts, part, program.microbatches)
    return replace(program, parts=parts, part=part, loads=loads, stages=stages), ep


@given(programs(), st.integers(0, 2**32))
@settings(max_examples=25)
def test_both_engines_and_the_replay_play_a_random_program_alike(given_program, seed):
    program, ep = given_program
    lowered = lower.__wrapped__(program)
    expansion = expand.__wrapped__(lowered)
    rng = np.random.default_rng(seed)
    seconds = rng.integers(1, 64, (len(expansion.graph), ep)) / 64.0
    seconds[expansion.begin] = seconds[expansion.end] = 0.0
    links, message = lowered.pipeline.links, expansion.message
    hops = rng.integers(1, 64, (len(links.first), len(links.first), ep)) / 64.0
    seconds[message] = hops[links.rank[links.sender], links.receiver]
    played, defined = (
        engine.play_replicas(expansion.graph, seconds, ep) for engine in (array, reference)
    )
    assert played.end_s == pytest.approx(defined.end_s, rel=1e-9)
    numbers = {id(step): number for number, step in enumerate(lowered.steps)}

    def segments_of(step):
        key = lowered.keys[lowered.part_of_step[numbers[id(step)]]]
        return lowered.parts[key].graph.segments

    def taken(rank, place, number):
        return seconds[expansion.begin[links.first[rank] + place] + 1 + number]

    expected = replay_group(
        program.table.steps, segments_of, taken, lambda one, other: hops[one, other], ep
    )
    for (rank, place), end_s in expected.end_s.items():
        ends = played.end_s[expansion.end[links.first[rank] + place]]
        assert ends == pytest.approx(end_s, rel=1e-9)


@given(programs())
@settings(max_examples=25)
def test_steps_share_a_part_only_if_their_stages_are_alike(given_program):
    program, _ = given_program
    steps = [step for own in program.table.steps for step in own]
    shown = random.Random(0).sample(range(len(steps)), min(10, len(steps)))
    for number in shown:
        step, part = steps[number], program.parts[program.part[number]]
        ahead, back = (
            program.stages[chunk.stage] if chunk else () for chunk in (step.forward, step.backward)
        )
        own = step_segments(step.kind, ahead, back, Weaver())
        assert part.segments == own
        assert part.loads == sum(layer.routed for layer in (*ahead, *back))
