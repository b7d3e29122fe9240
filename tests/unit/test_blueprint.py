"""Blueprints: every distinct chunk once, and which kernels, layers and loads its tasks have."""

from collections import Counter

import numpy as np
import pytest

from hwmodels.errors import InfeasibleError
from simulator.lower.blueprint import blueprint
from workloads.chunks import COMPUTE, chunk_program, segment_ops
from workloads.schedules import SCHEDULES


@pytest.fixture(scope="module", params=SCHEDULES)
def built(request, small_experiment):
    return blueprint(small_experiment(("plan.schedule", request.param)))


def stages_of(step):
    return [chunk.stage if chunk else -1 for chunk in (step.forward, step.backward)]


def layers_of(built, stage):
    return list(built.workload.stages[stage]) if stage >= 0 else []


def test_every_layer_is_there_once(built):
    for one, layer in enumerate(built.layers):
        assert all(layer != other for other in built.layers[one + 1 :])
    for own, stage in zip(built.kinds, built.workload.stages, strict=True):
        assert [built.layers[kind] for kind in own] == list(stage)


def test_steps_share_a_chunk_if_and_only_if_they_run_the_same_kind_of_layers(built):
    """A key names the first stages that are alike; stages 1 and 2 are."""
    program = built.workload.program
    assert built.steps == tuple(step for own in program for step in own)
    assert len(built.key_of_step) == len(built.steps) == built.pipeline.steps
    assert len(set(built.keys)) == len(built.keys)
    assert set(built.chunks) == set(built.keys)
    alike = {-1: -1, 0: 0, 1: 1, 2: 1, 3: 3}
    for step, number in zip(built.steps, built.key_of_step, strict=True):
        forward, backward = stages_of(step)
        assert built.keys[number] == (step.kind, alike[forward], alike[backward])
        for stage, first in ((forward, alike[forward]), (backward, alike[backward])):
            assert layers_of(built, stage) == layers_of(built, first)


def test_each_chunk_runs_the_program_of_its_layers(built):
    for (kind, forward, backward), chunk in built.chunks.items():
        layers = [layers_of(built, stage) for stage in (forward, backward)]
        assert chunk.graph.kind == kind
        assert chunk.graph.program == chunk_program(kind, *layers)
        for task, segment in enumerate(chunk.graph.program):
            stage = forward if segment.phase == "F" else backward
            assert built.layers[chunk.kind_of[task]] == layers_of(built, stage)[segment.layer]


def test_a_task_has_the_kernels_of_its_segment_and_an_exchange_has_none(built):
    held = np.split(built.segments.launched, built.segments.first[1:])
    for chunk in built.chunks.values():
        for task, segment in enumerate(chunk.graph.program):
            row = chunk.row[task]
            assert chunk.is_exchange[task] == segment.is_exchange == (row < 0)
            if not segment.is_exchange:
                kind = chunk.kind_of[task]
                assert built.segments.row[kind, segment.part, segment.phase] == row
                ops = segment_ops(built.layers[kind], segment.part, segment.phase)
                assert tuple(built.segments.ops[place] for place in held[row]) == ops != ()


def test_a_chunk_meets_one_load_for_each_layer_it_routes_through(built):
    """Forward ones first, in model order, whatever runs first; all parts of a layer meet its own,
    and layers that route nothing none.
    """
    for (_, forward, backward), chunk in built.chunks.items():
        slots = {}
        for is_forward, stage in ((True, forward), (False, backward)):
            if not is_forward:
                assert chunk.forward_slots == len(slots)
            for place, layer in enumerate(layers_of(built, stage)):
                if layer.exchange is not None:
                    slots[is_forward, place] = len(slots)
        assert chunk.slots == len(slots)
        for task, segment in enumerate(chunk.graph.program):
            expected = slots.get((segment.phase == "F", segment.layer), -1)
            assert chunk.slot[task] == expected
            assert expected >= 0 or not segment.is_exchange


def test_routed_layers_are_those_with_an_exchange(built):
    """58 MoE layers and the MTP module."""
    for places, stage in zip(built.routed, built.workload.stages, strict=True):
        kinds = [layer.kind for layer in stage]
        assert list(places) == [p for p, kind in enumerate(kinds) if kind in ("moe", "mtp")]
    assert sum(map(len, built.routed)) == 59


def test_kernels_of_compute_streams_are_counted_over_all_steps(built):
    """Op by op along the program, in overlapped chunks and in others; what exchanges launch on
    their own stream is not among them.
    """
    beside, alone = Counter(), Counter()
    for step in built.steps:
        forward, backward = (layers_of(built, stage) for stage in stages_of(step))
        for segment in chunk_program(step.kind, forward, backward):
            if segment.stream == COMPUTE:
                layer = (forward if segment.phase == "F" else backward)[segment.layer]
                times = beside if step.kind == "FB" else alone
                times.update(segment_ops(layer, segment.part, segment.phase))
    for times, runs in zip((beside, alone), built.compute_runs.tolist(), strict=True):
        counted = dict(zip(built.segments.ops, runs, strict=True))
        assert {op: count for op, count in counted.items() if count} == times
    keys = Counter(built.key_of_step.tolist())
    assert built.steps_by_key.tolist() == [keys[number] for number in range(len(built.keys))]


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
        pipeline = blueprint(small_experiment(*changes)).pipeline
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
def test_other_prices_and_loads_need_no_other_blueprint(small_experiment, change):
    assert blueprint(small_experiment(change)) is blueprint(small_experiment())


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
    other, one = blueprint(small_experiment(*changes)), blueprint(small_experiment())
    assert other is not one
    if change[0] in ("batch.sequence_length", "model.moe.top_k"):
        assert set(other.segments.ops) != set(one.segments.ops)


def test_a_plan_that_cannot_work_is_refused(small_experiment):
    with pytest.raises(InfeasibleError, match="dualpipe needs at least 2 pp = 8 micro-batches"):
        blueprint(small_experiment(("batch.sequences", 64)))


def test_chunk_graphs_have_no_seconds_yet(built):
    for chunk in built.chunks.values():
        assert not chunk.graph.graph.duration_s.any()
        assert np.array_equal(chunk.graph.graph.collective >= 0, chunk.is_exchange)
