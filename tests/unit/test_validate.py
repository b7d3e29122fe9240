"""A measured layer read, joined with the workload's, and judged; on rows written by hand."""

import json
from dataclasses import replace

import numpy as np
import pytest

from calibration.gpu_day.files import BLOCKING, EAGER, GRAPH, RECORD, STACK
from calibration.judge.folder import read_kept
from calibration.measure.measurement import DRY_DEVICE
from calibration.stack.dimensions import DEEPSEEK_V3
from calibration.stack.names import DEPTH
from calibration.validate.comparison import (
    FAMILY_BAR,
    family_lines,
    issue_s,
    layer_ops,
    op_lines,
    total_lines,
)
from calibration.validate.ops import op_of
from calibration.validate.own_profile import FAMILIES, own_op, own_profile
from calibration.validate.rows import read_stack
from calibration.validate.workload import listed_ops
from hwmodels.chip import CHIPS
from hwmodels.errors import CalibrationError
from hwmodels.formats import FORMATS
from simulator.price.kernels import KernelPricer
from tests.layer_work import v3_layers
from tests.unit.days import DEVICE, timed, write_day
from tests.unit.stacks import (
    BACKWARD,
    DECODE,
    FORWARD,
    OPS,
    Ran,
    op_row,
    stack_row,
    stack_rows,
    total_row,
    write_stack,
)
from workloads.joins import compute_ops, shape_of
from workloads.ops import DecodeAttention, Gemm, MemoryOp


@pytest.fixture
def stack(tmp_path):
    """Write rows and read them again; those of `OPS` unless others are given."""

    def make(rows=None):
        return read_stack(write_stack(tmp_path / STACK, rows or stack_rows()))

    return make


# Reading.


def test_rows_are_layers_of_ops_in_order_and_totals_by_mode(stack) -> None:
    found = stack()
    assert [layer.name for layer in found.layers] == [FORWARD, BACKWARD, DECODE]
    for layer in found.layers:
        assert [op.op for op in layer.ops] == [ran.op for ran in OPS[layer.name]]
        assert layer.dimensions == DEEPSEEK_V3
        assert {mode: total.time_s for mode, total in layer.totals.items()} == {
            EAGER: 3e-3, BLOCKING: 3e-3, GRAPH: 3e-3,
        }  # fmt: skip
    assert (found.device, found.sms, found.other_rows) == (DEVICE, None, 0)
    assert [(deep.name, deep.layers, deep.depth) for deep in found.stacks] == [
        ("train_stack", (FORWARD, BACKWARD), DEPTH),
        ("decode_stack", (DECODE,), DEPTH),
    ]
    assert all(deep.totals[GRAPH].time_s == 3e-3 for deep in found.stacks)


def test_an_op_has_the_time_of_its_graph_and_of_its_launch_beside_its_own(stack) -> None:
    ran = OPS[FORWARD][0]
    rows = [op_row(FORWARD, ran), op_row(FORWARD, ran._replace(time_s=2e-3), GRAPH)]
    (layer,) = stack([*rows, total_row(FORWARD, EAGER, 3e-3)]).layers
    (op,) = layer.ops
    assert (op.time_s, op.graph_s, op.host_s, op.bytes) == (1e-3, 2e-3, 10e-6, None)


def test_what_failed_or_was_left_out_is_named(stack) -> None:
    failed = op_row(FORWARD, OPS[FORWARD][1], p50_s="", error="RuntimeError: no")
    total = total_row(FORWARD, EAGER, 3e-3, without="q_a; other")
    (layer,) = stack([op_row(FORWARD, OPS[FORWARD][0]), failed, total]).layers
    assert [(each.op, each.error) for each in layer.failed] == [("q_a", "RuntimeError: no")]
    assert [op.op for op in layer.ops] == ["norm"]
    assert layer.totals[EAGER].without == ("q_a", "other")


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([], "rows must be of one device, got none"),
        ([op_row(FORWARD, OPS[FORWARD][0], device=name) for name in "ab"], "one device, got a, b"),
        ([op_row(FORWARD, OPS[FORWARD][0], device=DRY_DEVICE)], "a dry run"),
        ([total_row(FORWARD, EAGER, 1.0)], "has no time of a layer"),
        ([op_row("train_sideways", OPS[FORWARD][0])], "layer must be one of train_forward, "),
        (
            [op_row(FORWARD, OPS[FORWARD][0]), total_row("train_stack", EAGER, 1.0)],
            "layers must be from 1 to 1000, got None",
        ),
        (
            [op_row(FORWARD, OPS[FORWARD][0]), stack_row("train_stack", EAGER, 1.0, shape="{}")],
            "layers must be from 1 to 1000, got None",
        ),
        ([op_row(FORWARD, OPS[FORWARD][0], p50_s="")], "either a time or an error"),
        ([op_row(FORWARD, OPS[FORWARD][0], p50_s="-1")], "p50_s must be a number of 0 or more"),
        ([op_row(FORWARD, OPS[FORWARD][0], shape="[")], "shape must be a JSON object"),
        (
            [op_row(FORWARD, OPS[FORWARD][0]), total_row(FORWARD, EAGER, 1.0, shape='{"m":1}')],
            "must be the dimensions of a layer",
        ),
        (
            [
                op_row(FORWARD, OPS[FORWARD][0]),
                total_row(FORWARD, EAGER, 1.0, replace(DEEPSEEK_V3, heads=0)),
            ],
            "must be the dimensions of a layer",
        ),
    ],
)
def test_rows_that_are_none_are_refused_in_one_line(tmp_path, rows, message) -> None:
    path = write_stack(tmp_path / STACK, rows)
    with pytest.raises(CalibrationError, match=message) as refused:
        read_stack(path)
    assert str(path) in str(refused.value)
    assert "\n" not in str(refused.value)


def test_the_folder_of_a_day_knows_its_device_and_leaves_out_others(tmp_path) -> None:
    day = write_day(tmp_path / "day", [])
    write_stack(day / STACK, [*stack_rows(), op_row(FORWARD, OPS[FORWARD][0], device="other")])
    found = read_stack(day)
    assert (found.sms, found.other_rows) == (132, 1)
    record = json.loads((day / RECORD).read_text())
    record["device"]["capability"] = None
    (day / RECORD).write_text(json.dumps(record))
    with pytest.raises(CalibrationError, match="a dry run"):
        read_stack(day)


@pytest.mark.parametrize("there", ["nothing", "a folder that is no day"])
def test_what_is_not_there_is_refused(tmp_path, there: str) -> None:
    path = tmp_path if there.startswith("a folder") else tmp_path / STACK
    with pytest.raises(CalibrationError, match=r"has no day.json|got nothing there"):
        read_stack(path)


# Ops.


def test_what_a_kernel_is_not_is_refused() -> None:
    with pytest.raises(CalibrationError, match="x: no kernel 'fp9_gemm'; did you mean 'fp8_gemm'"):
        op_of("x", "fp9_gemm", {}, DEEPSEEK_V3)
    with pytest.raises(CalibrationError, match="x: is no shape of fp8_gemm: KeyError"):
        op_of("x", "fp8_gemm", {"m": 1}, DEEPSEEK_V3)


def test_attention_of_a_decoding_layer_by_hand() -> None:
    """One head over one latent of 576 channels, 512 of them values: 2 (576 + 512) FLOPs."""
    shape = {"batch": 1, "length": 1, "heads": 1, "ragged": 0}
    op = op_of("x", "mla_decode", shape, DEEPSEEK_V3)
    assert isinstance(op, DecodeAttention)
    assert (op.flops, op.bytes, shape_of(op)) == (2 * 1088, 2 * (576 + 576 + 512), (1, 1, 1))


def test_products_of_heads_with_their_own_matrices_are_a_grouped_one() -> None:
    op = op_of("x", "torch.bmm", {"batch": 128, "m": 4, "n": 512, "k": 128}, DEEPSEEK_V3)
    assert isinstance(op, Gemm)
    assert (op.m, op.groups, op.family) == (512, 128, "bf16_grouped")
    assert op.flops == 2 * 128 * 4 * 512 * 128


def test_the_workload_lists_a_layer_as_a_model_has_it() -> None:
    """The same kernels as of DeepSeek-V3's preset, but for how many GPUs a token reaches."""
    layer = next(layer for layer in v3_layers() if layer.kind == "moe")
    mine = listed_ops(replace(DEEPSEEK_V3, arrived=30720))
    for where, ops in compute_ops(layer).items():
        assert list(mine[where]) == ops, where
    assert len(mine[DECODE]) == 14


# The join.


def test_ops_of_the_workload_are_found_and_others_are_what_they_are(stack) -> None:
    forward, backward, decode = (layer_ops(layer) for layer in stack().layers)
    assert forward.is_listed == (True, True, True, False, True)
    assert backward.is_listed == decode.is_listed == (True, True)
    (more,) = (op for op in forward.ops if op.name == "more")
    assert isinstance(more, MemoryOp)
    assert (more.family, more.bytes) == ("copy", 4096 * 128 * 256 * 4)
    assert "attn(F): rotary q" in forward.unmeasured
    assert not any("(B)" in name or "decode" in name for name in forward.unmeasured)
    assert "attn(F): q_a" not in forward.unmeasured


def test_a_layer_without_a_total_has_no_dimensions_to_be_joined_by(stack) -> None:
    (layer,) = stack([op_row(FORWARD, OPS[FORWARD][0])]).layers
    assert layer.dimensions is None
    joined = layer_ops(layer)
    assert joined.ops == joined.layer.ops == ()


# Comparison.


def lines_of(layer, simulated_s):
    joined = layer_ops(layer)
    return op_lines(joined, np.asarray(simulated_s), ["by hand"] * len(joined.ops))


def test_families_are_sums_over_their_ops(stack) -> None:
    layer = stack([
        op_row(FORWARD, OPS[FORWARD][1]),
        op_row(FORWARD, Ran("kv_a", "attn(F)", "fp8_gemm", {"m": 4096, "n": 576, "k": 7168}, 3e-3)),
        op_row(FORWARD, OPS[FORWARD][0]),
        total_row(FORWARD, EAGER, 3e-3),
    ]).layers[0]  # fmt: skip
    fp8, norm = family_lines(lines_of(layer, [2e-3, 2.8e-3, 0.5e-3]))
    assert (fp8.family, fp8.ops, norm.family) == ("fp8_block", 2, "add_norm")
    assert fp8.measured_s == pytest.approx(4e-3)
    assert fp8.error == pytest.approx(4.8 / 4 - 1)
    assert (fp8.within, norm.within, norm.error) == (False, False, pytest.approx(-0.5))


@pytest.mark.parametrize(("error", "within"), [(0.999, True), (1.001, False)])
@pytest.mark.parametrize("sign", [-1, 1])
def test_what_keeps_its_bar_is_within_and_nothing_else(stack, error, within, sign) -> None:
    layer = stack().layers[1]
    family, _ = family_lines(lines_of(layer, [1e-3 * (1 + sign * error * FAMILY_BAR)] * 2))
    assert family.within is within
    bars = {EAGER: 0.08, GRAPH: 0.05, BLOCKING: 1.0}
    simulated_s = {mode: 3e-3 * (1 + sign * error * bar) for mode, bar in bars.items()}
    totals = {line.mode: line for line in total_lines(layer, simulated_s, "")}
    assert totals[EAGER].within is totals[GRAPH].within is within
    assert totals[BLOCKING].within is totals[BLOCKING].bar is None
    assert totals[BLOCKING].error == pytest.approx(sign * error)


def test_a_total_that_cannot_be_told_says_why(stack) -> None:
    rows = [
        op_row(FORWARD, OPS[FORWARD][0]),
        total_row(FORWARD, EAGER, 3e-3, without="q_a"),
        total_row(FORWARD, GRAPH, 3e-3, p50_s="", error="RuntimeError: no graph"),
        total_row(FORWARD, BLOCKING, 3e-3),
    ]
    totals = total_lines(stack(rows).layers[0], {EAGER: 3e-3, GRAPH: 3e-3}, "no host")
    assert [(line.mode, line.within, line.why) for line in totals] == [
        (EAGER, True, "without q_a"),
        (GRAPH, None, "RuntimeError: no graph"),
        (BLOCKING, None, "no host"),
    ]


def test_a_launch_takes_the_median_over_the_ops_of_its_kernel_or_what_is_given(stack) -> None:
    hosts = (1e-6, 2e-6, 9e-6)
    ops = {FORWARD: [OPS[FORWARD][1]._replace(op=str(s), host_s=s) for s in hosts],
           BACKWARD: [OPS[FORWARD][0]._replace(host_s="")]}  # fmt: skip
    layers = stack(stack_rows(ops)).layers
    assert issue_s(layers, None) == {"fp8_gemm": pytest.approx(2e-6)}
    assert issue_s(layers, 5e-6) == {"fp8_gemm": 5e-6, "rmsnorm": 5e-6}


# Constants of the kernels themselves.

CHIP = CHIPS.load("h100")


def casts(share: float, launch_s: float) -> list:
    """Return casts of several sizes at a share of the HBM's bandwidth."""
    rate = share * CHIP.hbm_bytes_per_s
    shapes = [{"m": m, "k": k} for m in (1024, 4096, 16384, 32768) for k in (2048, 7168)]
    sizes = [shape["m"] * shape["k"] * 3.03 for shape in shapes]
    return [
        timed("quantize", shape, size / rate + launch_s, bytes=size)
        for shape, size in zip(shapes, sizes, strict=True)
    ]


def day_of(folder, rows):
    return read_kept(write_day(folder, rows))


def test_a_kernel_gives_its_constants_to_itself_and_to_families_of_the_workload(tmp_path) -> None:
    profile = own_profile(day_of(tmp_path / "day", casts(0.8, 4e-6)), CHIP)
    assert set(profile.memory_op) == {"quantize", *FAMILIES["quantize"]}
    found = profile.memory_op["quantize"]
    assert found.hbm_efficiency == pytest.approx(0.8, rel=0.05)
    assert found.launch_s == pytest.approx(4e-6, rel=0.3)
    assert (profile.chip, profile.launch_gap_s) == ("h100", 0.0)
    cast = MemoryOp("cast", "cast", 4096 * 7168 * 3)
    size = 4096 * 7168 * 3.03
    op = own_op(cast, "quantize", size, profile)
    assert (op.family, op.bytes, op.launches) == ("quantize", size, 1)
    price_s = KernelPricer(CHIP, profile, CHIP.sms).price([op]).total_s[0]
    assert price_s == pytest.approx(size / (0.8 * CHIP.hbm_bytes_per_s) + 4e-6, rel=0.03)


def test_where_shapes_are_few_the_efficiency_alone_is_told(tmp_path) -> None:
    """One copy at half the bandwidth, after the 2 us that a launch is taken to be."""
    copy = timed("probe_copy", {"bytes": 1 << 30}, 2.0**32 / CHIP.hbm_bytes_per_s + 2e-6,
                 bytes=2.0**31)  # fmt: skip
    profile = own_profile(day_of(tmp_path / "day", [copy]), CHIP)
    assert set(profile.memory_op) == {"probe_copy", "copy", "elementwise"}
    assert profile.memory_op["copy"].hbm_efficiency == pytest.approx(0.5, rel=1e-6)
    assert profile.memory_op["copy"].launch_s == 2e-6


def test_a_launch_takes_what_it_takes_the_kernels_with_more_shapes(tmp_path) -> None:
    small = timed("rope", {"tokens": 64}, 8e-6, bytes=4e-6 * CHIP.hbm_bytes_per_s / 2)
    profile = own_profile(day_of(tmp_path / "day", [*casts(0.8, 4e-6), small]), CHIP)
    cast, rope = profile.memory_op["quantize"], profile.memory_op["rope"]
    assert rope.launch_s == cast.launch_s
    assert rope.hbm_efficiency == pytest.approx(2e-6 / (8e-6 - rope.launch_s), rel=1e-6)


@pytest.mark.parametrize(("time_s", "efficiency"), [(1e-6, 1.0), (10.0, 0.01)])
def test_what_no_efficiency_reaches_has_the_end_of_its_range(tmp_path, time_s, efficiency) -> None:
    copy = timed("probe_copy", {"bytes": 1 << 20}, time_s, bytes=2.0**21)
    profile = own_profile(day_of(tmp_path / "day", [copy]), CHIP)
    assert profile.memory_op["copy"].hbm_efficiency == efficiency


def test_what_has_no_constants_of_its_own_stays_what_it_is(tmp_path) -> None:
    profile = own_profile(day_of(tmp_path / "day", casts(0.8, 4e-6)), CHIP)
    product, copy = Gemm("x", 1, 1, 1, FORMATS["fp8_1x128"]), MemoryOp("x", "copy", 8)
    assert own_op(product, "fp8_gemm", 4.0, profile) is product
    assert own_op(copy, "torch.copy", None, profile) is copy
    assert own_op(copy, "rope", 4.0, profile) is copy


def test_a_day_that_fits_nothing_has_no_profile_of_its_own(tmp_path) -> None:
    assert own_profile(day_of(tmp_path / "day", []), CHIP) is None
