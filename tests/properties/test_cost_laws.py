"""Laws every kernel cost obeys, whatever the shape and the family."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from hwmodels.chip import CHIPS, ChipSpec
from hwmodels.costs import (
    BOUNDS,
    AttentionParameters,
    GemmParameters,
    KernelTime,
    MemoryParameters,
    attention_time_s,
    gemm_time_s,
    memory_op_time_s,
)

CHIP = CHIPS.load("h800")
FAMILIES = {
    "waves": GemmParameters(tile=(128, 128), overlap_exponent=12.0),
    "tuned": GemmParameters(split_k=True, swap_ab=True, wave_quantisation=0.1),
    "plain": GemmParameters(launch_s=2e-6, sustained_fraction=0.7),
    "quantising": GemmParameters(
        contains_quantise=True, quantise_bytes=8.0, promotion_cycles=0.9, fine_tiles=True
    ),
    "deepgemm": GemmParameters(dispatch="deepgemm", ragged_cycles=4.0, promotion_cycles=1.0),
    "swapped": GemmParameters(dispatch="deepgemm-swapped", ragged_cycles=11.0),
    "rows": GemmParameters(dispatch="cutlass-rows", wave_quantisation=0.9),
}
SLACK = 1 + 1e-9  # rounding of sums in another order
SIZE = st.integers(1, 40_000)
SHAPES = st.tuples(SIZE, SIZE, SIZE, st.sampled_from([1, 2, 8]))
GEMMS = st.sampled_from(sorted(FAMILIES))
SMS = st.integers(1, 131)
MEMORY = MemoryParameters(hbm_efficiency=0.7, launch_s=4e-6, sm_bytes_per_clock=20.0)
ATTENTION = AttentionParameters(
    tensor_efficiency=0.7, block_overhead_cycles=50.0, unit_overhead_cycles=900.0, launch_s=2e-6
)
ATTENTIONS = st.tuples(
    st.integers(1, 8), st.integers(1, 9000), st.integers(1, 128), st.booleans(), st.booleans()
)


def with_clock(chip: ChipSpec, factor: float) -> ChipSpec:
    """The same SMs at another clock: peaks move with it."""
    tensor = {family: rate * factor for family, rate in chip.tensor.items()}
    return chip.model_copy(update={"peak_clock_hz": chip.peak_clock_hz * factor, "tensor": tensor})


def with_bandwidth(chip: ChipSpec, factor: float) -> ChipSpec:
    return chip.model_copy(update={"hbm_bytes_per_s": chip.hbm_bytes_per_s * factor})


def gemm(
    family: str, shape: tuple[int, int, int, int], chip: ChipSpec = CHIP, sms: int = 132
) -> KernelTime:
    m, n, k, groups = shape
    return gemm_time_s(
        chip,
        FAMILIES[family],
        m * groups,
        n,
        k,
        groups,
        tensor_family="bf16",
        element_bytes=2.0,
        output_bytes=2.0,
        sms=sms,
    )


def attention(
    case: tuple[int, int, int, bool, bool], chip: ChipSpec = CHIP, sms: int = 132
) -> KernelTime:
    sequences, length, heads, causal, backward = case
    return attention_time_s(
        chip,
        ATTENTION,
        sequences,
        length,
        heads,
        heads,
        192,
        128,
        causal=causal,
        backward=backward,
        sms=sms,
    )


@given(GEMMS, SHAPES, SMS)
def test_a_gemm_is_never_slower_with_more_bandwidth_sms_or_clock(
    family: str, shape: tuple[int, int, int, int], sms: int
) -> None:
    base = gemm(family, shape, sms=sms).time_s
    assert gemm(family, shape, with_bandwidth(CHIP, 1.5), sms).time_s <= base * SLACK
    assert gemm(family, shape, with_clock(CHIP, 1.1), sms).time_s <= base * SLACK
    assert gemm(family, shape, sms=sms + 1).time_s <= base * SLACK


@given(GEMMS, SHAPES, st.integers(1, 5000))
def test_a_deeper_gemm_is_never_faster(
    family: str, shape: tuple[int, int, int, int], more: int
) -> None:
    m, n, k, groups = shape
    base = gemm(family, shape).time_s
    assert base <= gemm(family, (m, n, k + more, groups)).time_s * SLACK


@given(
    GEMMS,
    st.tuples(st.integers(2200, 20_000), st.integers(4400, 20_000), SIZE),
    st.integers(0, 5000),
    st.integers(0, 5000),
)
def test_a_wider_gemm_that_fills_the_sms_is_never_faster(
    family: str, shape: tuple[int, int, int], more_rows: int, more_columns: int
) -> None:
    """2,200 x 4,400 is at least 9 x 18 = 162 tiles of the largest kind, above 132 SMs."""
    m, n, k = shape
    base = gemm(family, (m, n, k, 1)).time_s
    wider = gemm(family, (m + more_rows, n + more_columns, k, 1)).time_s
    assert base <= wider * SLACK


@given(GEMMS, SHAPES, SMS)
def test_a_gemm_beats_neither_the_tensor_peak_nor_the_memory(
    family: str, shape: tuple[int, int, int, int], sms: int
) -> None:
    m, n, k, groups = (float(size) for size in shape)
    time_s = float(gemm(family, shape, sms=sms).time_s)
    flops = 2 * m * groups * n * k
    moved = 2 * groups * (m * k + n * k + m * n)
    assert time_s >= flops / CHIP.tensor_flops_per_s("bf16", sms) / SLACK
    assert time_s >= moved / CHIP.hbm_bytes_per_s / SLACK


@given(GEMMS, SHAPES)
def test_twice_every_rate_and_half_every_fixed_time_halves_a_gemm(
    family: str, shape: tuple[int, int, int, int]
) -> None:
    parameters = FAMILIES[family]
    halved = parameters.model_copy(
        update={
            "launch_s": parameters.launch_s / 2,
            "split_fixup_s": parameters.split_fixup_s / 2,
        }
    )
    doubled = with_bandwidth(with_clock(CHIP, 2.0), 2.0)
    m, n, k, groups = shape
    fast_s = gemm_time_s(
        doubled,
        halved,
        m * groups,
        n,
        k,
        groups,
        tensor_family="bf16",
        element_bytes=2.0,
        output_bytes=2.0,
    ).time_s
    np.testing.assert_allclose(fast_s * 2, gemm(family, shape).time_s, rtol=1e-12)


@given(ATTENTIONS, SMS)
def test_attention_is_never_slower_with_more_bandwidth_sms_or_clock(
    case: tuple[int, int, int, bool, bool], sms: int
) -> None:
    base = attention(case, sms=sms).time_s
    assert attention(case, with_bandwidth(CHIP, 1.5), sms).time_s <= base * SLACK
    assert attention(case, with_clock(CHIP, 1.1), sms).time_s <= base * SLACK
    assert attention(case, sms=sms + 1).time_s <= base * SLACK


@given(ATTENTIONS, st.integers(1, 3000))
def test_longer_or_unmasked_attention_is_never_faster(
    case: tuple[int, int, int, bool, bool], more: int
) -> None:
    sequences, length, heads, _, backward = case
    causal = attention((sequences, length, heads, True, backward)).time_s
    full = attention((sequences, length, heads, False, backward)).time_s
    longer = attention((sequences, length + more, heads, True, backward)).time_s
    assert causal <= full * SLACK
    assert causal <= longer * SLACK


@given(st.floats(0, 1e10), st.integers(1, 50), SMS)
def test_a_memory_op_obeys_the_same_laws(moved: float, launches: int, sms: int) -> None:
    def time_s(chip: ChipSpec = CHIP, more: float = 0.0, used: int = sms) -> float:
        return float(memory_op_time_s(chip, MEMORY, moved + more, launches, sms=used).time_s)

    assert time_s(with_bandwidth(CHIP, 1.5)) <= time_s() * SLACK
    assert time_s(with_clock(CHIP, 1.1)) <= time_s() * SLACK
    assert time_s(used=sms + 1) <= time_s() * SLACK
    assert time_s() <= time_s(more=1e6) * SLACK
    assert time_s() >= moved / CHIP.hbm_bytes_per_s


@given(st.lists(SHAPES, min_size=1, max_size=6), GEMMS)
def test_many_shapes_at_once_cost_what_each_costs_alone(
    shapes: list[tuple[int, int, int, int]], family: str
) -> None:
    m, n, k, groups = (np.array(column) for column in zip(*shapes, strict=True))
    together = gemm_time_s(
        CHIP,
        FAMILIES[family],
        m * groups,
        n,
        k,
        groups,
        tensor_family="bf16",
        element_bytes=2.0,
        output_bytes=2.0,
        sms=132,
    )
    alone = [gemm(family, shape) for shape in shapes]
    np.testing.assert_array_equal(together.time_s, [float(one.time_s) for one in alone])
    assert list(together.bound) == [str(one.bound) for one in alone]
    assert set(together.bound) <= set(BOUNDS)
