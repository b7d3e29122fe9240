"""Laws of fused modules of experts, whatever the load and the library."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from hwmodels.chip import CHIPS, ChipSpec
from hwmodels.columns import stacked
from hwmodels.costs import FusedMoeParameters, expert_load, fused_moe_time_s
from hwmodels.costs.fused_moe import features

CHIP = CHIPS.load("h200")
MODULES = {
    "default": FusedMoeParameters(),
    "waves": FusedMoeParameters(wave_quantisation=1.0, overlap_exponent=12.0, launch_s=0.0),
    "scaled": FusedMoeParameters(
        wave_quantisation=0.0, promotion_cycles=0.9, grid_cycles=800.0, row_bytes=30.0
    ),
}
SLACK = 1 + 1e-9  # rounding of sums in another order
COUNTS = st.lists(st.integers(0, 3000), min_size=1, max_size=12)
WIDTHS = st.tuples(st.integers(1, 9000), st.integers(1, 5000))
NAMES = st.sampled_from(sorted(MODULES))


def time_s(
    module: str,
    counts: list[int],
    widths: tuple[int, int],
    chip: ChipSpec = CHIP,
    sms: int = 132,
    parameters: FusedMoeParameters | None = None,
) -> float:
    times = fused_moe_time_s(
        chip,
        parameters or MODULES[module],
        expert_load(counts),
        *widths,
        max(counts),
        len(counts),
        tensor_family="fp8",
        element_bytes=1.0,
        sms=sms,
    )
    return float(times.time_s)


def faster(chip: ChipSpec, clock: float, bandwidth: float) -> ChipSpec:
    tensor = {family: rate * clock for family, rate in chip.tensor.items()}
    return chip.model_copy(
        update={
            "peak_clock_hz": chip.peak_clock_hz * clock,
            "hbm_bytes_per_s": chip.hbm_bytes_per_s * bandwidth,
            "tensor": tensor,
        }
    )


@given(NAMES, COUNTS, WIDTHS, st.integers(0, 11), st.integers(1, 300))
def test_more_tokens_of_an_expert_are_never_faster(
    module: str, counts: list[int], widths: tuple[int, int], place: int, more: int
) -> None:
    place %= len(counts)
    fuller = [*counts[:place], counts[place] + more, *counts[place + 1 :]]
    assert time_s(module, counts, widths) <= time_s(module, fuller, widths) * SLACK


@given(NAMES, COUNTS, WIDTHS, st.integers(1, 131))
def test_more_bandwidth_sms_or_clock_are_never_slower(
    module: str, counts: list[int], widths: tuple[int, int], sms: int
) -> None:
    base_s = time_s(module, counts, widths, sms=sms)
    assert time_s(module, counts, widths, faster(CHIP, 1.0, 1.5), sms) <= base_s * SLACK
    assert time_s(module, counts, widths, faster(CHIP, 1.1, 1.0), sms) <= base_s * SLACK
    assert time_s(module, counts, widths, sms=sms + 1) <= base_s * SLACK


@given(NAMES, COUNTS, WIDTHS)
def test_no_module_beats_the_tensor_peak_or_the_memory(
    module: str, counts: list[int], widths: tuple[int, int]
) -> None:
    hidden, inner = (float(width) for width in widths)
    elapsed_s = time_s(module, counts, widths)
    weights = np.count_nonzero(counts) * 3 * hidden * inner
    assert elapsed_s >= 6 * sum(counts) * hidden * inner / CHIP.tensor["fp8"] / SLACK
    assert elapsed_s >= weights / CHIP.hbm_bytes_per_s / SLACK


@given(NAMES, COUNTS, WIDTHS)
def test_twice_every_rate_and_half_the_launch_halves_the_time(
    module: str, counts: list[int], widths: tuple[int, int]
) -> None:
    parameters = MODULES[module]
    halved = parameters.model_copy(update={"launch_s": parameters.launch_s / 2})
    doubled = time_s(module, counts, widths, faster(CHIP, 2.0, 2.0), parameters=halved)
    np.testing.assert_allclose(2 * doubled, time_s(module, counts, widths), rtol=1e-12)


@given(st.lists(st.tuples(COUNTS, WIDTHS), min_size=1, max_size=5), NAMES)
def test_many_modules_at_once_cost_what_each_costs_alone(
    shapes: list[tuple[list[int], tuple[int, int]]], module: str
) -> None:
    alone = [time_s(module, counts, widths) for counts, widths in shapes]
    together = fused_moe_time_s(
        CHIP,
        MODULES[module],
        np.stack([expert_load(counts) for counts, _ in shapes]),
        np.array([hidden for _, (hidden, _) in shapes]),
        np.array([inner for _, (_, inner) in shapes]),
        np.array([max(counts) for counts, _ in shapes]),
        np.array([len(counts) for counts, _ in shapes]),
        tensor_family="fp8",
        element_bytes=1.0,
    )
    np.testing.assert_allclose(together.time_s, alone, rtol=1e-12)


def test_machines_stacked_as_columns_cost_what_each_costs() -> None:
    chips = [CHIPS.load("h200"), CHIPS.load("h100")]
    modules = [MODULES["default"], MODULES["default"].model_copy(update={"row_bytes": 20.0})]
    counts, widths = [40, 0, 800], (4096, 1536)
    together = fused_moe_time_s(
        stacked(chips, 2), stacked(modules, 2), expert_load(counts)[None, None], *widths, 800, 3,
        tensor_family="fp8", element_bytes=1.0,
    )  # fmt: skip
    alone = [
        time_s("default", counts, widths, chip, parameters=module)
        for chip, module in zip(chips, modules, strict=True)
    ]
    np.testing.assert_allclose(together.time_s.ravel(), alone, rtol=1e-12)


def test_features_are_finite_and_tell_loads_and_widths_apart() -> None:
    loads = np.stack([expert_load(counts) for counts in ([0, 0], [1, 0], [64, 64], [64, 64])])
    found = features(
        CHIP, MODULES["default"], loads, np.array([2048.0, 2048, 2048, 7168]),
        np.full(4, 768.0), np.full(4, 64.0), np.full(4, 2.0),
        tensor_family="fp8", element_bytes=1.0,
    )  # fmt: skip
    assert found.shape == (4, 9)
    assert np.isfinite(found).all()
    assert len(np.unique(found, axis=0)) == 4
