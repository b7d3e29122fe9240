"""Block scales and short accumulators: how often partial sums are promoted, and what that costs."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hwmodels.chip import CHIPS, ChipSpec
from hwmodels.costs import GemmParameters, gemm_time_s
from hwmodels.formats import FORMATS
from hwmodels.profile import PROFILES
from simulator import Experiment, run_many
from simulator.price.kernels import KernelPricer
from workloads.ops import Gemm

H800 = CHIPS.load("h800")
UNIT = "cluster.node.chip.fp8_unit"
NATIVE = {"block_scaling": True, "accumulation_mantissa_bits": 23}
WAVES = GemmParameters(tile=(128, 128), overlap_exponent=12.0)
PROFILED = {name: PROFILES.load(name).parameters("fp8_block")
            for name in ("h800-deepseek", "h200-trtllm", "h20-deepgemm")}  # fmt: skip
LIBRARIES = PROFILED | {
    "promoting": WAVES.model_copy(update={"promotion_cycles": 0.9}),
    "containing": WAVES.model_copy(update={"contained_promotion_cycles": 0.9}),
    "plain": WAVES,
}


def with_unit(chip: ChipSpec = H800, **changes: object) -> ChipSpec:
    unit = chip.fp8_unit.model_copy(update=changes)
    return chip.model_copy(update={"fp8_unit": unit})


def fp8_s(chip: ChipSpec, parameters: GemmParameters, *shape: float) -> np.ndarray:
    return gemm_time_s(
        chip, parameters, *shape, tensor_family="fp8", element_bytes=1.0, output_bytes=2.0
    ).time_s


@pytest.mark.parametrize(
    ("bits", "block_scaling", "promotions"),
    [
        (13, False, 1),  # Hopper: 128 elements hold, and their scales are applied then
        (13, True, 1),  # scales need none, sums still do
        (14, True, 1 / 2),
        (20, True, 1 / 128),
        (23, True, 0),  # Blackwell: FP32 throughout
        (52, True, 0),
        (23, False, 1),  # scales on CUDA cores ask for it whatever the accumulator holds
        (12, False, 2),
        (12, True, 2),
        (1, False, 4),  # once an instruction at most
    ],
)
def test_sums_are_promoted_as_often_as_scales_and_bits_ask_for(bits, block_scaling, promotions):
    chip = with_unit(block_scaling=block_scaling, accumulation_mantissa_bits=bits)
    assert chip.promotions == promotions


def test_a_chip_without_an_fp8_unit_promotes_as_hopper_does():
    assert CHIPS.load("a100").promotions == 1


@pytest.mark.parametrize("name", ["promotion_cycles", "contained_promotion_cycles"])
def test_native_block_scaling_spares_the_cycles_of_promotion(name):
    """One wave of 128 x 128 tiles: 0.9 cycles for 128 sums, 128 times a step, 56 steps; what memory
    adds to that is the 12th power of its share.
    """
    no_memory = {"sm_hbm_bytes_per_clock": 120.0}
    parameters = WAVES.model_copy(update=no_memory | {name: 0.9, "tensor_efficiency": 0.6})
    shape = (11 * 128, 12 * 128, 7168)
    spared_s = fp8_s(H800, parameters, *shape) - fp8_s(with_unit(**NATIVE), parameters, *shape)
    assert spared_s == pytest.approx(0.9 * 128 * 56 / H800.peak_clock_hz, rel=1e-5)


def test_no_step_gets_faster_than_the_peak_of_the_tensor_core():
    """A fit at 95 % of the peak contains no four cycles for 128 sums: 5 % are all there is."""
    parameters = WAVES.model_copy(
        update={"contained_promotion_cycles": 4.0, "tensor_efficiency": 0.95}
    )
    at_peak = WAVES.model_copy(update={"tensor_efficiency": 1.0})
    shape = (11 * 128, 12 * 128, 7168)
    native = with_unit(**NATIVE)
    assert fp8_s(native, parameters, *shape) == pytest.approx(fp8_s(native, at_peak, *shape))


@given(
    st.sampled_from(sorted(LIBRARIES)),
    st.tuples(*[st.integers(1, 30_000)] * 3),
    st.lists(st.integers(8, 30), min_size=2, max_size=2).map(sorted),
    st.booleans(),
    st.floats(1e12, 2e14),
)
def test_more_of_an_fp8_unit_is_never_slower(library, shape, bits, block_scaling, vector):
    """More bits, block scaling and a faster vector unit, each by itself, at every shape."""
    fewer, more = bits
    chip = H800.model_copy(update={"vector_flops_per_s": vector})
    plain = {"accumulation_mantissa_bits": fewer, "block_scaling": block_scaling}
    at = fp8_s(with_unit(chip, **plain), LIBRARIES[library], *shape)
    faster = with_unit(chip, **plain).model_copy(update={"vector_flops_per_s": 2 * vector})
    for other in (
        with_unit(chip, **(plain | {"accumulation_mantissa_bits": more})),
        with_unit(chip, **(plain | {"block_scaling": True})),
        faster,
    ):
        assert fp8_s(other, LIBRARIES[library], *shape) <= at * (1 + 1e-12)


def test_a_product_without_block_scales_knows_no_promotion():
    """As BF16, or FP8 with a scale a tensor: not with any vector rate or accumulator."""
    slow = with_unit(accumulation_mantissa_bits=1).model_copy(update={"vector_flops_per_s": 1e6})
    assert fp8_s(slow, WAVES, 4096, 4096, 4096) == fp8_s(H800, WAVES, 4096, 4096, 4096)


@pytest.mark.parametrize("priced_by", ["roofline", "h800-deepseek", "h200-trtllm"])
def test_promotion_takes_no_less_than_cuda_cores_need_to_add(priced_by):
    """A multiply-add for 128 products: at a hundredth of H800's vector rate there is no more."""
    op = Gemm("x", 4096, 7168, 16384, FORMATS["fp8_1x128"])
    chip = H800.model_copy(update={"vector_flops_per_s": 0.669e12})
    profile = None if priced_by == "roofline" else PROFILES.load(priced_by)
    time_s = KernelPricer(chip, profile, 132).price([op]).duration_s[0, 0]
    adding_s = 2 * 4096 * 7168 * 16384 / 128 / 0.669e12
    assert adding_s <= time_s
    assert time_s == pytest.approx(adding_s, rel=1e-12 if profile is None else 0.1)
    part_s = KernelPricer(chip, profile, 66).price([op]).duration_s[0, 0]
    assert part_s == pytest.approx(2 * time_s, rel=1e-12 if profile is None else 0.05)


def test_a_roofline_hides_promotion_behind_products():
    """23 % of the time of a product at both peaks; two WGMMA in flight hide it."""
    op = Gemm("x", 4096, 7168, 16384, FORMATS["fp8_1x128"])
    for chip in (H800, with_unit(**NATIVE)):
        time_s = KernelPricer(chip, None, 132).price([op]).duration_s[0, 0]
        assert time_s == op.flops / H800.tensor_flops_per_s("fp8")


def steps_s(profile: str, *units: dict[str, object]) -> list[float]:
    base = Experiment.load("deepseek-v3-pretrain").with_overrides(
        {"batch.sequences": 4096, "profile": profile}
    )
    points = [base.with_overrides({f"{UNIT}.{k}": v for k, v in unit.items()}) for unit in units]
    return [result.metrics.step_time_s for result in run_many(points)]


@pytest.mark.parametrize("profile", ["h800-deepseek", "h200-trtllm"])
def test_a_step_is_shorter_on_a_unit_that_scales_blocks_and_sums_in_fp32(profile):
    plain, scaling, summing, native = steps_s(
        profile, {}, {"block_scaling": True}, {"accumulation_mantissa_bits": 23}, NATIVE
    )
    assert native < 0.97 * plain
    assert scaling == summing == plain


def test_what_spares_nothing_says_so():
    base = Experiment.load("deepseek-v3-pretrain")
    assert base.notes == ()
    scaling = base.with_overrides({f"{UNIT}.block_scaling": True})
    assert scaling.notes == (
        "cluster.node.chip.fp8_unit: block_scaling spares nothing with accumulators of 13 bits, "
        "whose sums are promoted every 128 elements all the same; 23 bits need no promotion",
    )
    assert scaling.with_overrides({f"{UNIT}.accumulation_mantissa_bits": 23}).notes == ()
    summing = base.with_overrides({f"{UNIT}.accumulation_mantissa_bits": 23})
    assert summing.notes == (
        "cluster.node.chip.fp8_unit: accumulators of 23 bits spare nothing where CUDA cores apply "
        "the scales of blocks, every 128 elements; block_scaling = true lets them",
    )
