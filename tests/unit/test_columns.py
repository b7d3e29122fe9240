"""Several specs as one of columns: what must agree, what becomes a column, and the same bits."""

import numpy as np
import pytest

from hwmodels.chip import CHIPS, ChipSpec
from hwmodels.columns import stacked, structure
from hwmodels.costs import (
    AttentionParameters,
    GemmParameters,
    MemoryParameters,
    attention_time_s,
    gemm_time_s,
    memory_op_time_s,
)

H800, A100 = CHIPS.load("h800"), CHIPS.load("a100")


def chips(rng, count):
    """Chips with numbers of their own."""
    for _ in range(count):
        yield H800.model_copy(
            update={
                "sms": int(rng.integers(60, 160)),
                "peak_clock_hz": float(rng.uniform(1e9, 2e9)),
                "hbm_bytes_per_s": float(rng.uniform(1e12, 8e12)),
                "l2_bytes": float(rng.uniform(2e7, 1e8)),
                "tensor": {name: rate * rng.uniform(0.5, 2) for name, rate in H800.tensor.items()},
            }
        )


def test_numbers_that_differ_become_columns_and_others_stay():
    slow = H800.model_copy(update={"hbm_bytes_per_s": 1e12, "sms": 100, "name": "slow"})
    both = stacked([H800, slow], 2)
    assert isinstance(both, ChipSpec)
    assert both.hbm_bytes_per_s.shape == (2, 1, 1)
    assert both.hbm_bytes_per_s.ravel().tolist() == [H800.hbm_bytes_per_s, 1e12]
    assert both.sms.ravel().tolist() == [H800.sms, 100]
    assert (both.peak_clock_hz, both.mma_rows) == (H800.peak_clock_hz, H800.mma_rows)
    assert both.tensor == H800.tensor
    assert stacked([H800, H800], 2) is H800


def test_tables_of_numbers_become_tables_of_columns():
    twice = H800.model_copy(update={"tensor": {k: 2 * v for k, v in H800.tensor.items()}})
    both = stacked([H800, twice], 1)
    assert both.tensor["fp8"].tolist() == [[H800.tensor["fp8"]], [2 * H800.tensor["fp8"]]]
    rate = both.tensor_flops_per_s("bf16")
    assert rate.ravel().tolist() == [c.tensor_flops_per_s("bf16") for c in (H800, twice)]


@pytest.mark.parametrize(
    "other",
    [
        A100,
        H800.model_copy(update={"fp8_unit": None}),
        H800.model_copy(update={"mma_rows": 128}),
        H800.model_copy(update={"tensor": {"bf16": 1e15}}),
    ],
    ids=["generation", "no FP8 unit", "another instruction", "fewer rates"],
)
def test_what_cost_functions_branch_on_must_agree(other):
    assert structure(H800) != structure(other)


def test_names_and_numbers_need_not_agree():
    renamed = H800.model_copy(update={"name": "another", "hbm_bytes_per_s": 1e12, "sms": 10})
    assert structure(H800) == structure(renamed)


def test_exponents_and_what_may_be_absent_must_agree():
    """A power by a column may differ from one by a number in the last bit."""
    soft, hard = (GemmParameters(overlap_exponent=pn) for pn in (2.5, 4.0))
    assert structure(soft) != structure(hard)
    tuned = GemmParameters(tile=(128, 128))
    assert structure(soft) != structure(tuned)
    some, none = (MemoryParameters(hbm_efficiency=0.8, traffic=t) for t in (1.5, None))
    assert structure(some) != structure(none)


def random_parameters(rng, family):
    if family == "gemm":
        return GemmParameters(
            tile=(128, 128),
            tensor_efficiency=rng.uniform(0.5, 1),
            hbm_efficiency=rng.uniform(0.7, 0.95),
            wave_quantisation=rng.uniform(0, 1),
            sustained_fraction=rng.uniform(0.4, 1),
            promotion_cycles=rng.uniform(0, 4),
        )
    if family == "tuned gemm":
        return GemmParameters(
            split_k=True, swap_ab=True, contains_quantise=True, quantise_bytes=rng.uniform(0, 9)
        )
    if family == "attention":
        return AttentionParameters(
            tensor_efficiency=rng.uniform(0.4, 1), block_overhead_cycles=rng.uniform(0, 999)
        )
    return MemoryParameters(
        hbm_efficiency=rng.uniform(0.2, 1), launch_s=1e-6, sm_bytes_per_clock=rng.uniform(8, 64)
    )


def seconds(family, chip, parameters, sms, lead=()):
    """Times of some shapes: (lead, 2, 5)."""
    m, n = np.array([[17.0], [4096.0]]), np.array([64.0, 640, 1000, 7168, 20000])
    m, n = (column.reshape(*lead, *column.shape) for column in (m, n))
    if "gemm" in family:
        return gemm_time_s(
            chip, parameters, m, n, 2048.0, 4.0, tensor_family="fp8", element_bytes=1.0,
            output_bytes=2.0, sms=sms,
        )  # fmt: skip
    if family == "attention":
        return attention_time_s(chip, parameters, 1.0, m, 8.0, 8.0, n, 128.0, sms=sms)
    return memory_op_time_s(chip, parameters, m * n, sms=sms)


@pytest.mark.parametrize("family", ["gemm", "tuned gemm", "attention", "memory"])
@pytest.mark.parametrize("seed", range(3))
def test_costs_of_many_chips_at_once_are_those_of_each_to_the_bit(family, seed):
    rng = np.random.default_rng(seed)
    several = list(chips(rng, 9))
    constants = [random_parameters(rng, family) for _ in several]
    sms = [int(rng.integers(1, chip.sms + 1)) for chip in several]
    column = np.array(sms, np.float64).reshape(-1, 1, 1)
    many = seconds(family, stacked(several, 2), stacked(constants, 2), column, lead=(1,))
    for number, (chip, parameters) in enumerate(zip(several, constants, strict=True)):
        alone = seconds(family, chip, parameters, sms[number])
        assert (many.time_s[number] == alone.time_s).all()
        assert (np.broadcast_to(many.bound, many.time_s.shape)[number] == alone.bound).all()
