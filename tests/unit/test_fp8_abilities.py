"""What is left of DeepSeek-V3's FP8 recipe on a unit that casts in flight or reads transposed."""

import pytest

from simulator import Experiment
from tests.layer_work import v3_site
from workloads.blocks.ffn import gated
from workloads.blocks.mtp import mtp_projection
from workloads.ops import Comm, Gemm, MemoryOp
from workloads.recipes import RECIPES, Abilities, Operand

PLAIN = RECIPES["fp8-blockwise"]
CASTS, TRANSPOSES = Abilities(casts_in_flight=True), Abilities(transposed_reads=True)
BOTH = Abilities(casts_in_flight=True, transposed_reads=True)
ROWS, N, K = 4096, 7168, 16384
TRAINED = Experiment.load("deepseek-v3-pretrain").with_overrides({"batch.sequences": 4096})


def around(passes):
    """Names of what is no product, without what it is about."""
    ops = (op for name in "FBW" for op in passes.of(name) if isinstance(op, MemoryOp))
    return [op.name.split(" (")[0] for op in ops]


def operands(passes):
    """Bytes of an element of both operands of the three products."""
    found = [op for name in "FBW" for op in passes.of(name) if isinstance(op, Gemm)]
    return [op.in_memory for op in found]


@pytest.mark.parametrize("operand", [Operand.WIDE, Operand.NARROW])
def test_a_cast_in_flight_halves_the_traffic_of_a_quantised_operand(operand):
    """Read 2, write 1, read 1, against read 2: the 50 % of arXiv 2412.19437 §3.5.2."""
    weights, result = N * K, ROWS * N * 2
    passes = [PLAIN.able(unit).linear("x", ROWS, N, K, operand) for unit in (Abilities(), CASTS)]
    cast, fused = (sum(op.bytes for op in each.forward) - weights - result for each in passes)
    assert (cast, fused) == (4 * ROWS * K, 2 * ROWS * K)


def test_a_linear_keeps_what_the_unit_cannot_do():
    """Input and gradient in BF16: two casts of rows, a transposed weight, two casts of columns."""
    left = {unit: around(PLAIN.able(unit).linear("x", ROWS, N, K)) for unit in (CASTS, TRANSPOSES)}
    columns = ["cast + transpose X", "cast + transpose dY"]
    assert around(PLAIN.linear("x", ROWS, N, K)) == [
        "cast X", "cast dY", "weight transpose", *columns
    ]  # fmt: skip
    assert left[CASTS] == ["weight transpose", *columns]
    assert left[TRANSPOSES] == ["cast X", "cast dY", *columns]
    assert around(PLAIN.able(BOTH).linear("x", ROWS, N, K)) == []


def test_products_read_what_lies_in_memory():
    """BF16 where a cast was spared, FP8 where somebody wrote it; weights are FP8 always."""
    linear = ("x", ROWS, N, K, Operand.WIDE, Operand.QUANTISED)
    assert operands(PLAIN.linear(*linear)) == [None, None, None]
    assert operands(PLAIN.able(TRANSPOSES).linear(*linear)) == [None, None, None]
    assert operands(PLAIN.able(CASTS).linear(*linear)) == [(2, 1), None, None]
    assert operands(PLAIN.able(BOTH).linear(*linear)) == [(2, 1), None, (2, 1)]


def test_what_came_quantised_is_neither_unpacked_nor_cast_along_columns_on_a_unit_with_both():
    came = ("x", ROWS, N, K, Operand.QUANTISED, Operand.QUANTISED)
    columns = ["cast + transpose X", "cast + transpose dY"]
    assert around(PLAIN.linear(*came)) == ["weight transpose", "cast back X", *columns]
    assert around(PLAIN.able(TRANSPOSES).linear(*came)) == ["cast back X", *columns]
    assert around(PLAIN.able(CASTS).linear(*came)) == ["weight transpose", "cast back X", *columns]
    assert around(PLAIN.able(BOTH).linear(*came)) == []
    assert operands(PLAIN.able(BOTH).linear(*came)) == [None, None, None]


def test_routed_experts_recast_what_came_unless_the_unit_has_both():
    """Down: its input is the activation, its gradient came over the wire."""
    down = ("x", ROWS, N, K, 4, Operand.READY, Operand.QUANTISED)
    recast = ["recast + transpose dY"]
    assert around(PLAIN.routed_linear(*down)) == ["weight transpose", *recast]
    assert around(PLAIN.able(TRANSPOSES).routed_linear(*down)) == recast
    both = PLAIN.able(BOTH)
    assert around(both.routed_linear(*down)) == []
    assert operands(both.routed_linear(*down)) == [None, None, (2, 1)]
    activation = "cast + transpose activation"
    swiglu = {unit: around(PLAIN.able(unit).swiglu("x", ROWS, K, routed=True)) for unit in
              (Abilities(), CASTS, TRANSPOSES, BOTH)}  # fmt: skip
    assert [activation in names for names in swiglu.values()] == [True, True, True, False]


def test_what_waits_is_written_and_read_back_whatever_the_unit_can():
    """SwiGLU's input in FP8 and the output of attention in E5M6; weights keep their FP8 copy."""
    for unit in (CASTS, TRANSPOSES, BOTH):
        able = PLAIN.able(unit)
        assert able.swiglu("x", ROWS, K) == PLAIN.swiglu("x", ROWS, K)
        assert able.attention_output(ROWS, K) == PLAIN.attention_output(ROWS, K)
        assert able.weight_casts(1e9) == PLAIN.weight_casts(1e9)
        assert able.parameter == PLAIN.parameter


def test_a_gated_ffn_reads_in_bf16_what_is_cast_in_flight():
    """Of a dense FFN: input of up and gate, and its gradient behind the activation."""
    able = PLAIN.able(BOTH)
    passes = gated(v3_site(recipe=able)[1], "x", N)
    assert able.cast("hidden", ROWS, K) == ()
    assert operands(passes) == [(2, 1), None, None, (2, 1), None, (2, 2)]
    assert not {"cast back X", "cast dY", "weight transpose"} & set(around(passes))


def test_scales_of_what_is_cast_in_flight_are_nowhere():
    able = PLAIN.able(CASTS)
    assert around(able.scale_transposes(5, 5)) == ["FP8 scale transposes"] * 2
    assert around(able.scale_transposes(5, 5, Operand.WIDE)) == []
    assert around(PLAIN.scale_transposes(5, 5, Operand.WIDE)) == ["FP8 scale transposes"] * 2


def test_an_mtp_module_keeps_in_bf16_what_nobody_wrote_in_fp8():
    plain, able = (
        mtp_projection(v3_site(recipe=PLAIN.able(unit))[1]) for unit in (Abilities(), CASTS)
    )
    assert plain.saved_bytes == 4096 * 2 * 7168 * (1 + 4 / 128)
    assert able.saved_bytes == 4096 * 2 * 7168 * 2


def test_the_wire_is_cast_for_whatever_the_unit_can():
    model, site = v3_site(recipe=PLAIN.able(BOTH))
    entry, passes = model.moe.entry(site), model.moe.passes(site)
    assert "cast hidden for dispatch" in around(entry)
    sent = [op for op in passes.backward if op.stream == "comm" and not isinstance(op, Comm)]
    assert [op.name for op in sent] == ["cast dY for dispatch"]


@pytest.mark.parametrize("profile", ["h800-deepseek", "none"])
def test_a_step_is_shorter_with_each_ability_and_shortest_with_both(profile):
    """The chip's own fields say so; each ability spares time, and both together more than each."""
    from simulator import run_many

    unit = "cluster.node.chip.fp8_unit"
    able = [
        TRAINED.with_overrides(
            {"profile": profile} | {f"{unit}.{name}": True for name in names}
        )
        for names in (
            (), ("transposed_reads",), ("casts_in_flight",), ("casts_in_flight", "transposed_reads")
        )
    ]  # fmt: skip
    none, transposed, cast, both = (r.metrics.step_time_s for r in run_many(able))
    assert both < cast < transposed < none
    assert none - both > (none - cast) + (none - transposed)


def test_a_bf16_run_does_not_mind_what_its_chip_could_cast():
    changes = {"precision.recipe": "bf16", "communication.dispatch": "none",
               "cluster.node.chip.fp8_unit.casts_in_flight": True}  # fmt: skip
    assert TRAINED.with_overrides(changes).recipe is RECIPES["bf16"]
