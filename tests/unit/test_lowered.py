"""Lowered programs: every distinct part once, and which kernels and loads its tasks have."""

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

from hwmodels.errors import InfeasibleError
from simulator.driver.program import program_of
from simulator.lower.lowered import lower
from workloads.ops import COMM, COMPUTE, SEND, Comm, MemoryOp
from workloads.scenarios.training_parts import step_segments
from workloads.schedules import SCHEDULES
from workloads.segments import Label, Segment
from workloads.weave import Weaver


@pytest.fixture(scope="module", params=SCHEDULES)
def built(request, small_experiment):
    return lower(program_of(small_experiment(("plan.schedule", request.param))))


def stages_of(step):
    return [chunk.stage if chunk else -1 for chunk in (step.forward, step.backward)]


def layers_of(built, stage):
    return list(built.program.stages[stage]) if stage >= 0 else []


def test_steps_share_a_part_if_and_only_if_they_run_the_same_kind_of_layers(built):
    """A key names the first stages that are alike; all between the first and the last are."""
    program = built.program.table.steps
    assert built.steps == tuple(step for own in program for step in own)
    assert len(built.part_of_step) == len(built.steps) == built.pipeline.steps
    assert len(set(built.keys)) == len(built.keys)
    assert set(built.parts) == set(built.keys)
    last = len(built.program.stages) - 1
    alike = {-1: -1, 0: 0, last: last} | dict.fromkeys(range(1, last), 1)
    for step, number in zip(built.steps, built.part_of_step, strict=True):
        forward, backward = stages_of(step)
        assert built.keys[number] == (step.kind, alike[forward], alike[backward])
        for stage, first in ((forward, alike[forward]), (backward, alike[backward])):
            assert layers_of(built, stage) == layers_of(built, first)


def program_of_step(kind, forward, backward):
    return step_segments(kind, forward, backward, Weaver())


def test_each_part_is_woven_of_its_layers(built):
    for (kind, forward, backward), part in built.parts.items():
        layers = [layers_of(built, stage) for stage in (forward, backward)]
        assert part.graph.part.kind == kind
        assert part.graph.part.overlapped == (kind == "FB")
        assert part.graph.segments == program_of_step(kind, *layers)


def test_a_task_has_the_kernels_of_its_segment_and_a_communication_has_none(built):
    for part in built.parts.values():
        for task, segment in enumerate(part.graph.segments):
            row = part.row[task]
            assert part.is_comm[task] == (segment.comm is not None) == (row < 0)
            if segment.comm is None:
                assert built.segments.of_row(row) == segment.work != ()


def test_communications_are_told_apart_by_what_they_are(built):
    """An exchange goes out or comes home: two, whatever layer and pass."""
    assert [comm.kind for comm in built.comms] == ["dispatch", "combine"]
    for key, part in built.parts.items():
        for place, segment in zip(built.comm_of[key].tolist(), part.graph.segments, strict=True):
            if segment.comm is None:
                assert place == -1
            else:
                assert replace(segment.comm, name=segment.comm.kind) == built.comms[place]


def test_a_part_meets_one_load_for_each_layer_it_routes_through(built):
    """Forward ones first, in model order, whatever runs first; all segments of a layer meet its
    own, and layers that route nothing none.
    """
    for (_, forward, backward), part in built.parts.items():
        loads = {}
        for is_forward, stage in ((True, forward), (False, backward)):
            for place, layer in enumerate(layers_of(built, stage)):
                if layer.routed:
                    loads[is_forward, place] = len(loads)
        assert part.loads == len(loads)
        for task, segment in enumerate(part.graph.segments):
            expected = loads.get((segment.label.pass_ == "F", segment.label.layer), -1)
            assert part.load[task] == expected
            assert expected >= 0 or segment.comm is None


def test_loads_are_those_of_the_layers_with_experts(built):
    """58 MoE layers and the MTP module; a part's are the steps' own, stage by stage."""
    loads = built.program.loads
    assert loads.layers == 59
    routed = [[layer.routed for layer in stage] for stage in built.program.stages]
    before = np.cumsum([0, *map(sum, routed)])
    for number, met in enumerate(loads.of_part):
        own = [step for step, part in zip(built.steps, built.part_of_step, strict=True)
               if part == number]  # fmt: skip
        assert len(met) == len(own)
        for step, numbers in zip(own, met, strict=True):
            stages = [stage for stage in stages_of(step) if stage >= 0]
            expected = [n for s in stages for n in range(before[s], before[s + 1])]
            assert loads.layer[numbers].tolist() == expected


def test_kernels_of_compute_streams_are_counted_over_all_steps(built):
    """Op by op along the program, in overlapped parts and in others; what exchanges need on
    their own stream is not among them.
    """
    beside, alone = Counter(), Counter()
    for step in built.steps:
        forward, backward = (layers_of(built, stage) for stage in stages_of(step))
        for segment in program_of_step(step.kind, forward, backward):
            if segment.stream == COMPUTE:
                times = beside if step.kind == "FB" else alone
                times.update(segment.work)
    for times, runs in zip((beside, alone), built.compute_runs.tolist(), strict=True):
        counted = dict(zip(built.segments.ops, runs, strict=True))
        assert {op: count for op, count in counted.items() if count} == times
    keys = Counter(built.part_of_step.tolist())
    assert built.steps_of_part.tolist() == [keys[number] for number in range(len(built.keys))]


def test_ranks_that_hold_the_same_stages_end_the_step_together(small_experiment):
    """Under DualPipe ranks r and 3 - r, else each alone; but the last one's MTP module uses the
    embedding of the first.
    """
    for schedule, mtp, homes, joined in (
        ("dualpipe", 1, [0, 1, 1, 0], [0, 1, 1, 0]),
        ("1f1b", 1, [0, 1, 2, 3], [0, 1, 2, 0]),
        ("1f1b", 0, [0, 1, 2, 3], [0, 1, 2, 3]),
    ):
        changes = ("plan.schedule", schedule), ("model.mtp_layers", mtp)
        pipeline = lower(program_of(small_experiment(*changes))).pipeline
        assert pipeline.graph.collective[-4:].tolist() == pipeline.joined.tolist() == joined
        assert pipeline.homes.tolist() == homes


@pytest.mark.parametrize(
    "change",
    [
        ("ranks.seed", 7),
        ("ranks.jitter", 0.1),
        ("ranks.expert_load.sigma", 0.2),
        ("communication.sms", 24),
        ("communication.exposed_rate", 0.5),
        ("cluster.node.chip", "h100"),
        ("cluster.fabric.link_bytes_per_s", "100 GB/s"),
    ],
    ids=lambda change: change[0],
)
def test_other_prices_and_loads_need_no_other_graphs(small_experiment, change):
    assert lower(program_of(small_experiment(change))) is lower(program_of(small_experiment()))


@pytest.mark.parametrize(
    "change",
    [
        ("batch.sequences", 192),
        ("batch.sequence_length", 2048),
        ("plan.schedule", "zb1p"),
        ("model.moe.top_k", 6),
        ("cluster.nodes", 16),
        ("communication.routed_nodes_max", 1),
    ],
    ids=lambda change: change[0],
)
def test_another_model_plan_or_batch_does(small_experiment, change):
    changes = [change]
    if change[0] == "cluster.nodes":
        changes.append(("batch.sequences", 320))
    other, one = (
        lower(program_of(small_experiment(*changes))),
        lower(program_of(small_experiment())),
    )
    assert other is not one
    if change[0] in ("batch.sequence_length", "model.moe.top_k"):
        assert set(other.segments.ops) != set(one.segments.ops)


def test_a_plan_that_cannot_work_is_refused(small_experiment):
    with pytest.raises(InfeasibleError, match="dualpipe needs at least 2 pp = 8 micro-batches"):
        program_of(small_experiment(("batch.sequences", 64)))


@pytest.mark.parametrize(
    ("stream", "work", "got"),
    [
        (SEND, Comm("away", "all_gather", ("tp",), 1.0), "all_gather along tp on send"),
        (COMM, Comm("out", "dispatch", ("ep", "tp"), 1.0), "dispatch along ep tp on comm"),
        (SEND, Comm("out", "dispatch", ("ep",), 1.0), "dispatch along ep on send"),
        ("copy", MemoryOp("load", "cast", 1.0), "kernels on copy"),
    ],
    ids=lambda value: value.replace(" ", "-") if isinstance(value, str) else None,
)
def test_what_has_no_price_inside_a_step_yet_is_refused(small_experiment, stream, work, got):
    program = program_of(small_experiment())
    first, *others = program.parts
    segment = Segment(stream, (work,), (), Label("any", "F", 0), load=0)
    with pytest.raises(InfeasibleError, match=f"any.F. 0: .* got {got}$"):
        lower(replace(program, parts=(replace(first, segments=(segment,)), *others)))


def test_an_exchange_that_meets_no_load_is_refused(small_experiment):
    program = program_of(small_experiment())
    first, *others = program.parts
    segments = tuple(segment._replace(load=-1) for segment in first.segments)
    with pytest.raises(InfeasibleError, match=r"must be .* an expert exchange .* meets a load"):
        lower(replace(program, parts=(replace(first, segments=segments), *others)))


def test_graphs_of_parts_have_no_seconds_yet(built):
    for part in built.parts.values():
        assert not part.graph.graph.duration_s.any()
        assert np.array_equal(part.graph.graph.collective >= 0, part.is_comm)
