"""Prices of segments: the kernels each holds, their sums at every load, and their slowdowns."""

from dataclasses import fields, replace

import numpy as np
import pytest

from simulator.network.exchange_pricer import ExchangePricer
from simulator.network.group_ports import GroupPorts
from simulator.price.segments import (
    LOAD_STEP,
    LoadGrid,
    SegmentPricer,
    SegmentPrices,
    collect_ops,
    load_index,
    segment_prices,
    table_rows,
)
from tests.prices import CAST, DENSE, FITTED, PRICER, PROFILE, RATES, ROOFLINE
from workloads.ops import COMPUTE
from workloads.scenarios.training_parts import step_segments
from workloads.segments import Label, Segment
from workloads.weave import Weaver


def collected(layers):
    """Kernels of an overlapped pair of some layers, its segments, and the row of each."""
    program = step_segments("FB", layers, layers, Weaver())
    segments, (rows,) = collect_ops([program])
    return segments, program, rows


@pytest.fixture(scope="module")
def pricer(v3_step):
    return SegmentPricer(
        FITTED, ExchangePricer(RATES, tuple(map(GroupPorts.of, v3_step.routing))), None
    )


def ends(v3_step):
    """Layers of the first stage, the last and the first again: dense, MoE, MTP and heads."""
    return [*v3_step.stages[0], *v3_step.stages[15], *v3_step.stages[0]]


def test_the_mean_slowdown_weighs_kernels_by_their_time():
    costs = FITTED.price([DENSE, CAST])
    (dense_s, cast_s), factors = (
        costs.duration_s[:, 0],
        [
            PROFILE.interference_factor("fp8_block"),
            PROFILE.interference_factor("cast"),
        ],
    )
    assert costs.beside_factor.tolist() == factors
    expected = (dense_s * factors[0] + cast_s * factors[1]) / (dense_s + cast_s)
    run = Segment(COMPUTE, (DENSE, CAST), (), Label("mlp", "F", 0))
    segments, _ = collect_ops([[run]])
    priced = (
        SegmentPricer(kernels, PRICER, None).prices(segments) for kernels in (FITTED, ROOFLINE)
    )
    assert next(priced).factor == pytest.approx([expected], rel=1e-12)
    assert next(priced).factor == [1]


def test_a_segment_costs_the_sum_of_its_kernels_at_every_load(pricer, v3_step):
    """Column by column, up to the load asked for: 0.9 and 1.1 as priced by themselves. Gaps are
    paid; what stands for a load of none still launches.
    """
    segments, program, rows = collected([v3_step.stages[3][0]])
    prices = pricer.prices(segments, LoadGrid.over(0.0, 1.1))
    assert prices.seconds.shape == (2 * len(segments.first), round(1.1 / LOAD_STEP) + 1)
    columns = np.array([round(load / LOAD_STEP) for load in (0.9, 1.0, 1.1)])
    for segment, row in zip(program, rows.tolist(), strict=True):
        assert (row < 0) == (segment.comm is not None)
        if row < 0:
            continue
        found = prices.seconds[row]
        expected = FITTED.price(segment.work, columns * LOAD_STEP)
        assert found[columns] == pytest.approx(expected.total_s, rel=1e-12)
        assert found[0] >= expected.gap_s.sum() > 0
        assert (np.diff(found) >= 0).all()
        routed = any(op.routed for op in segment.work)
        assert routed or set(found) == {found[0]}
        assert (found[-1] > 1.01 * found[0]) == routed


def test_a_table_spans_the_loads_asked_for_and_holds_the_balanced_one(pricer, v3_step):
    """Columns do not depend on how many there are."""
    segments, *_ = collected(v3_step.stages[3])
    grids = LoadGrid.over(0.5, 0.75), LoadGrid.over(0.0, 2.0)
    short, long = (pricer.prices(segments, grid) for grid in grids)
    steps = round(1 / LOAD_STEP)
    assert [grid.balanced for grid in grids] == [steps // 2, steps]
    assert (short.seconds.shape[1], long.seconds.shape[1]) == (steps // 2 + 1, 2 * steps + 1)
    assert (long.within(grids[0]).seconds == short.seconds).all()


def test_a_load_is_looked_up_in_the_nearest_column():
    loads = np.array([0.0, 0.2 * LOAD_STEP, 1.0, 1 + 0.6 * LOAD_STEP, 2 - 0.4 * LOAD_STEP])
    steps, grid = round(1 / LOAD_STEP), LoadGrid.over(0.0, 2.0)
    assert load_index(loads).tolist() == [0, 0, steps, steps + 1, 2 * steps]
    assert load_index(loads[:4].reshape(2, 2)).tolist() == [[0, 0], [steps, steps + 1]]
    assert grid.loads[grid.column(loads[2:])] == pytest.approx(loads[2:], abs=LOAD_STEP / 2)
    half = LoadGrid.over(0.5, 1.5)
    assert half.column(loads[2:4]).tolist() == [steps // 2, steps // 2 + 1]
    assert [half.holds(load) for load in (loads, loads[2:4], np.zeros(0))] == [False, True, True]


def test_several_machines_are_priced_together_to_the_bits_of_each(pricer, v3_step):
    """Other SMs, another clock, a roofline, other constants of one family, other loads' range."""
    segments, *_ = collected(ends(v3_step))
    fast = FITTED.chip.model_copy(update={"peak_clock_hz": 1.9e9, "hbm_bytes_per_s": 4e12})
    gemm = PROFILE.gemm | {
        "fp8_block": PROFILE.gemm["fp8_block"].model_copy(update={"tensor_efficiency": 0.7})
    }
    changed = PROFILE.model_copy(update={"gemm": gemm, "launch_gap_s": 2e-6})
    kernels = [
        FITTED, replace(FITTED, sms=132), replace(FITTED, chip=fast), ROOFLINE,
        replace(ROOFLINE, chip=fast, sms=100), replace(FITTED, profile=changed),
        replace(FITTED, profile=changed, chip=fast, sms=90),
    ]  # fmt: skip
    pricers = [
        replace(pricer, kernels=each, exposed_factor=1 + n) for n, each in enumerate(kernels)
    ]
    grid = LoadGrid.over(0.7, 1.3)
    together = segment_prices(pricers, segments, LoadGrid.over(0.5, 1.5)).within(grid)
    for number, alone in enumerate(pricers):
        expected, found = alone.prices(segments, grid), together.of(number)
        for field in fields(SegmentPrices):
            one, other = (getattr(prices, field.name) for prices in (expected, found))
            assert np.array_equal(one, other), field.name


def test_segments_priced_together_cost_what_each_costs_alone(pricer, v3_step):
    segments, program, rows = collected(ends(v3_step))
    together = pricer.prices(segments, LoadGrid.over(0.0, 1.2))
    seen = set()
    for segment, row in zip(program, rows.tolist(), strict=True):
        if row >= 0 and row not in seen:
            own, _ = collect_ops([[segment]])
            alone = pricer.prices(own, LoadGrid.over(0.0, 1.2))
            assert together.seconds[row] == pytest.approx(alone.seconds[0], rel=1e-12)
            assert together.factor[row] == pytest.approx(alone.factor[0], rel=1e-12)
            seen.add(row)
    assert seen == set(range(len(segments.first)))


def kernels_of(segments):
    """Kernels by row, in launch order."""
    return [
        [segments.ops[place] for place in own]
        for own in np.split(segments.launched, segments.first[1:])
    ]


def test_segments_hold_their_kernels_in_launch_order(v3_step):
    """And each distinct kernel once for all of them."""
    segments, program, rows = collected(ends(v3_step))
    assert len(set(segments.ops)) == len(segments.ops)
    held = kernels_of(segments)
    assert len(held) == len(segments.first)
    for segment, row in zip(program, rows.tolist(), strict=True):
        if row >= 0:
            assert tuple(held[row]) == segments.of_row(row) == segment.work


def test_equal_runs_of_kernels_are_one_row(v3_step):
    """Four MoE layers alike, forward and backward, are as many rows as one of them."""
    one, _, _ = collected(v3_step.stages[3][:1])
    four, _, rows = collected(v3_step.stages[3])
    assert len(four.first) == len(one.first) == len(set(rows[rows >= 0].tolist()))


def test_sums_and_launches_of_segments_are_those_of_their_kernels(v3_step):
    segments, *_ = collected(v3_step.stages[0])
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
    _, _, rows = collected([v3_step.stages[0][1]])
    assert (rows >= 0).all()


def test_exchanges_slow_down_by_the_kernels_that_carry_them(pricer, v3_step):
    """A backward combine by 1.5, as a dispatch; a backward dispatch by 1.2."""
    segments, program, rows = collected([v3_step.stages[3][0]])
    prices = pricer.prices(segments)
    found = {}
    for segment, row, factor in zip(program, rows, prices.factors_of(program, rows), strict=True):
        if segment.comm is None:
            assert factor == prices.factor[row]
        else:
            found[segment.label.block, segment.label.pass_] = factor
    assert found == {
        ("dispatch", "F"): 1.5,
        ("combine", "F"): 1.2,
        ("combine", "B"): 1.5,
        ("dispatch", "B"): 1.2,
    }


def test_op_seconds_are_those_of_the_balanced_layer(pricer, v3_step):
    segments, *_ = collected(v3_step.stages[3])
    prices = pricer.prices(segments)
    assert {prices.basis_of(op) for op in segments.ops} == {"profile h800-deepseek"}
    assert prices.op_s.shape == (2, len(segments.ops))
    balanced = prices.seconds[:, prices.grid.balanced]
    for own, found in zip(prices.op_s, np.split(balanced, 2), strict=True):
        assert segments.sums(own) == pytest.approx(found, rel=1e-12)


def test_parts_alone_are_priced_on_their_own_sms(pricer, v3_step):
    """The second half of the table; overlapped parts are looked up in the first."""
    segments, *_ = collected(v3_step.stages[3])
    on_112, on_132 = pricer, replace(pricer, alone=replace(FITTED, sms=132))
    few, many = (each.prices(segments) for each in (on_112, on_132))
    whole = replace(on_112, kernels=replace(FITTED, sms=132)).prices(segments)
    rows = np.array([0, 2, -1])
    count = len(segments.first)
    assert table_rows(rows, count, overlapped=False).tolist() == [count, count + 2, -1]
    assert table_rows(rows, count, overlapped=True).tolist() == rows.tolist()
    beside, alone = np.split(many.seconds, 2)
    assert (beside == np.split(few.seconds, 2)[0]).all()
    assert (alone == np.split(whole.seconds, 2)[0]).all()
    assert (alone <= beside).all()
    assert alone.sum() < 0.95 * beside.sum()
