"""Prices of segments: the kernels each holds, their sums at every load, and their slowdowns."""

from dataclasses import replace

import numpy as np
import pytest

from simulator.price.collectives import ExchangePricer
from simulator.price.group_ports import GroupPorts
from simulator.price.segments import (
    BALANCED_COLUMN,
    LOAD_STEP,
    SegmentPricer,
    collect_ops,
    load_index,
)
from tests.prices import CAST, DENSE, FITTED, PRICER, PROFILE, RATES, ROOFLINE
from workloads.chunks import chunk_program, segment_ops
from workloads.layers import Layer, PhaseOps

HALVES = ("attn", "mlp")


@pytest.fixture(scope="module")
def pricer(v3_step):
    return SegmentPricer(FITTED, ExchangePricer(RATES, tuple(map(GroupPorts.of, v3_step.routing))))


def ends(v3_step):
    """Layers of the first stage, the last and the first again: dense, MoE, MTP and heads."""
    return [*v3_step.stages[0], *v3_step.stages[15], *v3_step.stages[0]]


def test_the_mean_slowdown_weighs_kernels_by_their_time():
    costs = FITTED.price([DENSE, CAST])
    (dense_s, cast_s), factors = (
        costs.duration_s[:, 0],
        [
            PROFILE.interference_factor("fp8"),
            PROFILE.interference_factor("cast"),
        ],
    )
    assert costs.beside_factor.tolist() == factors
    expected = (dense_s * factors[0] + cast_s * factors[1]) / (dense_s + cast_s)
    segments = collect_ops([Layer("moe", mlp=PhaseOps(forward=(DENSE, CAST)))])
    priced = (SegmentPricer(kernels, PRICER).prices(segments) for kernels in (FITTED, ROOFLINE))
    assert next(priced).factor == pytest.approx([expected], rel=1e-12)
    assert next(priced).factor == [1]


def test_a_segment_costs_the_sum_of_its_kernels_at_every_load(pricer, v3_step):
    """Column by column, up to the load asked for: 0.9 and 1.1 as priced by themselves. Gaps are
    paid; what stands for a load of none still launches.
    """
    layer = v3_step.stages[3][0]
    segments = collect_ops([layer])
    prices = pricer.prices(segments, 1.1)
    assert prices.seconds.shape == (2 * len(segments.row), round(1.1 / LOAD_STEP) + 1)
    columns = np.array([round(load / LOAD_STEP) for load in (0.9, 1.0, 1.1)])
    for half in HALVES:
        for phase in "FBW":
            ops = getattr(layer, half).of(phase)
            found = prices.seconds[segments.row[0, half, phase]]
            expected = FITTED.price(ops, columns * LOAD_STEP)
            assert found[columns] == pytest.approx(expected.total_s, rel=1e-12)
            assert found[0] >= expected.gap_s.sum() > 0
            assert (np.diff(found) >= 0).all()
            routed = any(op.routed for op in ops)
            assert routed or set(found) == {found[0]}
            assert (found[-1] > 1.01 * found[0]) == routed
    for phase, glue in (
        ("F", layer.exchange.dispatch_glue),
        ("B", layer.exchange.combine_backward_glue),
    ):
        found = prices.seconds[segments.row[0, "layout", phase], columns]
        assert found == pytest.approx(FITTED.price(glue, columns * LOAD_STEP).total_s, rel=1e-12)


def test_a_table_ends_at_the_highest_load_and_holds_the_balanced_one(pricer, v3_step):
    """Loads below 1 shorten nothing; columns do not depend on how many there are."""
    segments = collect_ops(v3_step.stages[3])
    short, long = (pricer.prices(segments, load).seconds for load in (0.5, 2.0))
    assert BALANCED_COLUMN == load_index(np.ones(1))[0] == short.shape[1] - 1
    assert long.shape[1] == 2 * BALANCED_COLUMN + 1
    assert long[:, : BALANCED_COLUMN + 1] == pytest.approx(short, rel=1e-12)


def test_a_load_is_looked_up_in_the_nearest_column():
    loads = np.array([0.0, 0.2 * LOAD_STEP, 1.0, 1 + 0.6 * LOAD_STEP, 2 - 0.4 * LOAD_STEP])
    steps = BALANCED_COLUMN
    assert load_index(loads).tolist() == [0, 0, steps, steps + 1, 2 * steps]
    assert load_index(loads[:4].reshape(2, 2)).tolist() == [[0, 0], [steps, steps + 1]]


def test_segments_priced_together_cost_what_each_costs_alone(pricer, v3_step):
    layers = ends(v3_step)
    segments = collect_ops(layers)
    together = pricer.prices(segments, 1.2)
    seen = 0
    for kind, layer in enumerate(layers):
        own = collect_ops([layer])
        alone = pricer.prices(own, 1.2)
        for (_, part, phase), row in own.row.items():
            found = segments.row[kind, part, phase]
            assert together.seconds[found] == pytest.approx(alone.seconds[row], rel=1e-12)
            assert together.factor[found] == pytest.approx(alone.factor[row], rel=1e-12)
            seen += 1
    assert seen == len(segments.row)


def kernels_of(segments):
    """Kernels by row, in launch order."""
    return [
        [segments.ops[place] for place in own]
        for own in np.split(segments.launched, segments.first[1:])
    ]


def test_segments_hold_their_kernels_in_launch_order(v3_step):
    """And each distinct kernel once for all of them."""
    layers = ends(v3_step)
    segments = collect_ops(layers)
    assert len(set(segments.ops)) == len(segments.ops)
    held = kernels_of(segments)
    assert len(held) == len(segments.row)
    for (kind, part, phase), row in segments.row.items():
        assert held[row] == list(segment_ops(layers[kind], part, phase))
    for kind, layer in enumerate(layers):
        for half in HALVES:
            for phase in "FBW":
                assert ((kind, half, phase) in segments.row) == bool(getattr(layer, half).of(phase))


def test_sums_and_launches_of_segments_are_those_of_their_kernels(v3_step):
    segments = collect_ops(v3_step.stages[0])
    rng = np.random.default_rng(0)
    place = {op: index for index, op in enumerate(segments.ops)}
    values = rng.integers(0, 9, (len(segments.ops), 2)).astype(float)
    held = kernels_of(segments)
    by_hand = [np.sum([values[place[op]] for op in own], axis=0).tolist() for own in held]
    assert segments.sums(values).tolist() == by_hand
    times = rng.integers(0, 9, len(held)).astype(float)
    counted = segments.launches(times)
    for op, count in zip(segments.ops, counted, strict=True):
        assert count == sum(n * own.count(op) for n, own in zip(times, held, strict=True))


def test_a_dense_layer_has_no_exchange(v3_step):
    """Neither kernels for one nor a segment."""
    layer = v3_step.stages[0][1]
    segments = collect_ops([layer])
    assert {part for _, part, _ in segments.row} == set(HALVES)
    program = chunk_program("FB", [layer], [layer])
    assert (segments.rows_of(program, [0] * len(program)) >= 0).all()


def test_exchanges_slow_down_by_the_kernels_that_carry_them(pricer, v3_step):
    """A backward combine by 1.5, as a dispatch; a backward dispatch by 1.2."""
    layer = v3_step.stages[3][0]
    segments = collect_ops([layer])
    prices = pricer.prices(segments)
    program = chunk_program("FB", [layer], [layer])
    rows = segments.rows_of(program, [0] * len(program))
    factors = prices.factors_of(program, rows)
    found = {}
    for segment, row, factor in zip(program, rows, factors, strict=True):
        assert (row < 0) == segment.is_exchange
        if segment.is_exchange:
            found[segment.part, segment.phase] = factor
        else:
            assert row == segments.row[0, segment.part, segment.phase]
            assert factor == prices.factor[row]
    assert found == {
        ("dispatch", "F"): 1.5,
        ("combine", "F"): 1.2,
        ("combine", "B"): 1.5,
        ("dispatch", "B"): 1.2,
    }


def test_op_seconds_are_those_of_the_balanced_layer(pricer, v3_step):
    segments = collect_ops(v3_step.stages[3])
    prices = pricer.prices(segments)
    assert set(prices.basis) == {"profile h800-deepseek"}
    assert len(prices.basis) == len(segments.ops)
    assert prices.op_s.shape == (2, len(segments.ops))
    balanced = prices.seconds[:, BALANCED_COLUMN]
    for own, found in zip(prices.op_s, np.split(balanced, 2), strict=True):
        assert segments.sums(own) == pytest.approx(found, rel=1e-12)


def test_chunks_alone_are_priced_on_their_own_sms(pricer, v3_step):
    """The second half of the table; overlapped chunks are looked up in the first."""
    segments = collect_ops(v3_step.stages[3])
    on_112, on_132 = pricer, replace(pricer, alone=replace(FITTED, sms=132))
    few, many = (each.prices(segments) for each in (on_112, on_132))
    whole = replace(on_112, kernels=replace(FITTED, sms=132)).prices(segments)
    rows = np.array([0, 2, -1])
    for kind in ("F", "B", "Bi", "W"):
        assert many.table_rows(kind, rows).tolist() == [
            len(segments.row),
            len(segments.row) + 2,
            -1,
        ]
    assert many.table_rows("FB", rows).tolist() == rows.tolist()
    beside, alone = np.split(many.seconds, 2)
    assert (beside == np.split(few.seconds, 2)[0]).all()
    assert (alone == np.split(whole.seconds, 2)[0]).all()
    assert (alone <= beside).all()
    assert alone.sum() < 0.95 * beside.sum()
