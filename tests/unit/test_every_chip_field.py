"""Every field of a chip moves something of a training step, or says here why nothing reads it."""

from functools import cache

import pytest

from hwmodels.chip import CHIPS, ChipSpec, Fp8Unit
from hwmodels.errors import InfeasibleError
from simulator import Experiment, run

CHIP = "cluster.node.chip"
SMALL = {
    "model.layers": 4,
    "model.dense_layers": 1,
    "model.moe.routed_experts": 64,
    "cluster.nodes": 8,
    "plan.pp": 4,
    "plan.ep": 8,
    "plan.layout": "none",
    "batch.sequences": 160,
}
# How kernels are priced: at home, by constants of another chip, by the datasheet alone.
WAYS = {
    "profile": {"profile": "h800-deepseek"},
    "transferred": {"profile": "h200-trtllm"},
    "roofline": {"profile": "none"},
}

# More of a field, and what it needs beside it to show: a unit whose other half lets it.
MORE = {
    "sms": ({"sms": 198, "tensor.bf16": 1.5 * 989.4e12, "tensor.fp8": 1.5 * 1978.9e12}, {}),
    "peak_clock_hz": ({"peak_clock_hz": 2.2e9}, {}),
    "tensor.bf16": ({"tensor.bf16": 2e15}, {}),
    "tensor.fp8": ({"tensor.fp8": 4e15}, {}),
    "vector_flops_per_s": ({"vector_flops_per_s": 10e12}, {"vector_flops_per_s": 5e12}),
    "hbm_bytes_per_s": ({"hbm_bytes_per_s": 6e12}, {}),
    "l2_bytes": ({"l2_bytes": 200e6}, {}),
    "shared_memory_bytes_per_clock": ({"shared_memory_bytes_per_clock": 256}, {}),
    "operand_tile": ({"operand_tile": [128, 256]}, {}),
    "operand_sms": ({"operand_sms": 2}, {}),
    "nvlink_bytes_per_s": ({"nvlink_bytes_per_s": 4e11}, {}),
    "exchange_engine": ({"exchange_engine": True}, {}),
    "tdp_w": ({"tdp_w": 700}, {"tdp_w": 500}),
    "fp8_unit.accumulation_mantissa_bits": (
        {"fp8_unit.accumulation_mantissa_bits": 23},
        {"fp8_unit.block_scaling": True, "vector_flops_per_s": 5e12},
    ),
    "fp8_unit.block_scaling": (
        {"fp8_unit.block_scaling": True},
        {"fp8_unit.accumulation_mantissa_bits": 23, "vector_flops_per_s": 5e12},
    ),
    "fp8_unit.casts_in_flight": ({"fp8_unit.casts_in_flight": True}, {}),
    "fp8_unit.transposed_reads": ({"fp8_unit.transposed_reads": True}, {}),
}

# Fields that have no more or less: another choice, which may go either way.
OTHER = {
    "generation": "blackwell",  # energy of a FLOP, cycles around a tile, share of HBM
    "mma_rows": 128,  # tiles of 64 rows are none then
}

NOBODY_READS = {
    "name": "for people; whether a profile is a chip's own goes by it",
    "tensor.tf32": "no recipe multiplies in TF32",
}
ONLY_DATASHEET = "a roofline is FLOPs over the peak and bytes over HBM; the peak holds at the clock"
UNREAD = {
    "profile": {
        "generation": "constants at home are those of the chip, whatever its generation",
        "mma_rows": "no tile of 64 rows is the fastest of the one family that may choose",
    },
    "transferred": {},
    "roofline": dict.fromkeys(
        (
            "peak_clock_hz", "l2_bytes", "shared_memory_bytes_per_clock", "operand_tile",
            "operand_sms", "tdp_w", "generation", "mma_rows",
        ),
        ONLY_DATASHEET,
    ),
}  # fmt: skip


def leaves(values, prefix=""):
    for key, value in values.items():
        if isinstance(value, dict):
            yield from leaves(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}"


def test_every_field_is_turned_or_has_a_reason():
    """Fields of the spec, and of the H800 as it stands."""
    fields = set(leaves(CHIPS.load("h800").model_dump(mode="json")))
    assert fields == {*MORE, *OTHER, *NOBODY_READS, "hbm_capacity_bytes"}
    tops = {path.partition(".")[0] for path in fields}
    assert tops == set(ChipSpec.model_fields)
    units = {path.removeprefix("fp8_unit.") for path in fields if path.startswith("fp8_unit.")}
    assert units == set(Fp8Unit.model_fields)


@cache
def small(way):
    return Experiment.load("deepseek-v3-pretrain", SMALL | WAYS[way])


def step_s(way, changes):
    changed = {f"{CHIP}.{path}": value for path, value in changes.items()}
    return run(small(way).with_overrides(changed)).metrics.step_time_s


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("field", MORE)
def test_more_of_a_field_is_faster_and_never_slower(field, way):
    more, beside = MORE[field]
    before, after = step_s(way, beside), step_s(way, beside | more)
    if field in UNREAD[way]:
        assert after == before, UNREAD[way][field]
    else:
        assert after < before


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("field", OTHER)
def test_another_choice_moves_the_step_where_it_is_read(field, way):
    moved = step_s(way, {field: OTHER[field]}) != step_s(way, {})
    assert moved == (field not in UNREAD[way]), UNREAD[way].get(field)


@pytest.mark.parametrize("way", WAYS)
def test_capacity_decides_what_fits(way):
    """Nothing gets faster by it; what does not fit is refused in one line."""
    assert step_s(way, {"hbm_capacity_bytes": "200 GB"}) == step_s(way, {})
    with pytest.raises(InfeasibleError, match=r"memory of pipeline rank \d: needs .* has 8 GB"):
        step_s(way, {"hbm_capacity_bytes": "8 GB"})


@pytest.mark.parametrize("way", WAYS)
def test_what_nobody_reads_moves_nothing(way):
    assert step_s(way, {"tensor.tf32": 1e15}) == step_s(way, {})


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("family", ["bf16", "fp8"])
def test_a_faster_tensor_core_slows_no_other_format(family, way):
    """Watts for a FLOP are those of its own format."""
    rate = CHIPS.load("h800").tensor[family]
    steps = [step_s(way, {f"tensor.{family}": rate * factor}) for factor in (1, 2, 4)]
    assert steps == sorted(steps, reverse=True)
