"""The compiled search for tiles against trying every tile, and each tile against a plain loop."""

import math

import numpy as np
import pytest

from hwmodels.chip import CHIPS, ChipSpec
from hwmodels.columns import stacked
from hwmodels.costs import GemmParameters, KernelTime, gemm_loops, gemm_time_s
from hwmodels.costs.gemm_tiles import SPLITS, candidates

CHIP = CHIPS.load("h200")
LIBRARIES = {
    "tuned": GemmParameters(split_k=True, swap_ab=True, wave_quantisation=0.1),
    "fine": GemmParameters(fine_tiles=True, swap_ab=True, split_k=True, promotion_cycles=0.8),
    "deepgemm": GemmParameters(dispatch="deepgemm", ragged_cycles=4.0, promotion_cycles=1.0),
    "swapped": GemmParameters(dispatch="deepgemm-swapped", ragged_cycles=11.0),
    "rows": GemmParameters(dispatch="cutlass-rows", overlap_exponent=1.6),
}


def shapes(count: int, seed: int = 0) -> tuple[np.ndarray, ...]:
    rng = np.random.default_rng(seed)
    return tuple(np.ceil(2.0 ** rng.uniform(0, 16, count)) for _ in range(3))


def fp8(chip: ChipSpec, parameters: GemmParameters, *sizes: object, **sms: object) -> KernelTime:
    return gemm_time_s(
        chip, parameters, *sizes, tensor_family="fp8", element_bytes=1.0, output_bytes=2.0, **sms
    )  # type: ignore[arg-type]


@pytest.fixture
def searching(monkeypatch):
    """Choose between trying every candidate and the search, compiled or as it stands."""

    def use(search):
        monkeypatch.setattr("hwmodels.costs.gemm.search_for", lambda candidates: search)

    return use


@pytest.mark.parametrize("library", sorted(LIBRARIES))
def test_the_search_finds_the_price_of_the_fastest_candidate_to_the_bit(library, searching):
    m, n, k = shapes(400)
    groups = np.tile([1.0, 4.0], 200)
    searching(None)
    tried = fp8(CHIP, LIBRARIES[library], m * groups, n, k, groups, sms=112)
    searching(gemm_loops.compiled())
    found = fp8(CHIP, LIBRARIES[library], m * groups, n, k, groups, sms=112)
    assert (found.time_s == tried.time_s).all()
    assert (found.bound_index == tried.bound_index).all()


@pytest.mark.parametrize("library", sorted(LIBRARIES))
def test_the_search_as_it_stands_finds_what_it_finds_compiled(library, searching):
    m, n, k = shapes(6, seed=1)
    searching(gemm_loops.choose)
    plain = fp8(CHIP, LIBRARIES[library], m, n, k)
    searching(gemm_loops.compiled())
    assert (fp8(CHIP, LIBRARIES[library], m, n, k).time_s == plain.time_s).all()


def test_machines_are_searched_with_their_own_numbers(searching):
    """Columns of chips and of constants, products in two axes."""
    searching(gemm_loops.compiled())
    m, n, k = (column.reshape(1, 4, 5) for column in shapes(20, seed=2))
    rates = np.linspace(1e12, 8e12, 3)
    chips = [CHIP.model_copy(update={"hbm_bytes_per_s": float(rate)}) for rate in rates]
    libraries = [GemmParameters(split_k=True, wave_quantisation=lam) for lam in (0.0, 0.5, 1.0)]
    sms = np.array([100.0, 132.0, 60.0]).reshape(3, 1, 1)
    many = fp8(stacked(chips, 2), stacked(libraries, 2), m, n, k, sms=sms)
    for number, (chip, library) in enumerate(zip(chips, libraries, strict=True)):
        alone = fp8(chip, library, m[0], n[0], k[0], sms=sms[number, 0, 0])
        assert (many.time_s[number] == alone.time_s).all()


def by_hand_s(
    parameters: GemmParameters, m: float, n: float, k: float, ea: float = 1, eb: float = 1
) -> float:
    """The equation of the module's docstring, one tile after another, FP8 on H200; `ea` and `eb`
    bytes of an element in memory.
    """
    tiles = candidates(
        parameters.dispatch,
        parameters.tile,
        CHIP.mma_rows,
        fine_tiles=parameters.fine_tiles,
        swap_ab=parameters.swap_ab,
    )
    p, sms, clock = parameters, CHIP.sms, CHIP.peak_clock_hz
    best = math.inf
    for bm, bn, a, b, above, upto in zip(*tiles, strict=True):
        if not above < m <= upto:
            continue
        for s in SPLITS if p.split_k else (1.0,):
            c_mma = 2 * a * b * 128 / (CHIP.flops_per_clock_per_sm("fp8") * p.tensor_efficiency)
            c_smem = (a / 64) * (64 + b) * 128 / 128
            swapped = (a, b) != (bm, bn)
            c_l2 = (a * (eb if swapped else ea) + b * (ea if swapped else eb)) * 128
            c_l2 /= p.l2_bytes_per_clock
            c_oob = p.ragged_cycles * (math.ceil(m / bm) * bm - m)
            terms = [c_mma, c_smem, c_l2, p.iteration_floor_cycles]
            plain, ragged = (sum(t**4 for t in (*terms, x)) ** 0.25 for x in (0.0, c_oob))
            share = 1 / math.ceil(m / bm)
            c_iter = (1 - share) * plain + share * ragged + p.promotion_cycles * a * b / 128
            outside = p.tile_overhead_cycles + 2 * a * b / p.l2_bytes_per_clock
            c_tile = math.ceil(k / (s * 128)) * c_iter + outside
            count = math.ceil(m / bm) * math.ceil(n / bn) * s
            lam, w = p.wave_quantisation, count / sms
            compute_s = (lam * math.ceil(w) + (1 - lam) * max(1, w)) * c_tile / clock
            moved, busy = m * k * ea + n * k * eb, min(count, sms)
            if min(m * k * ea, n * k * eb) > p.l2_usable * CHIP.l2_bytes:
                side = math.sqrt(busy * bm * bn)
                moved = max(moved, count / s / busy * (side * ea + side * eb) * k)
            moved += 2 * m * n
            memory_s = moved / min(
                p.hbm_efficiency * CHIP.hbm_bytes_per_s, busy * p.sm_hbm_bytes_per_clock * clock
            )
            pn = p.overlap_exponent
            time_s = (compute_s**pn + memory_s**pn) ** (1 / pn)
            if s > 1:
                reduced = 8 * s * m * n / (p.l2_bytes_per_clock * sms * clock)
                time_s += p.split_fixup_s + reduced
            best = min(best, time_s)
    return best


@pytest.mark.parametrize("library", sorted(LIBRARIES))
def test_prices_are_those_of_the_equation(library):
    m, n, k = shapes(25, seed=3)
    wanted = [by_hand_s(LIBRARIES[library], *shape) for shape in zip(m, n, k, strict=True)]
    times = fp8(CHIP, LIBRARIES[library], m, n, k)
    capped = 2 * m * n * k / CHIP.tensor_flops_per_s("fp8")
    np.testing.assert_allclose(times.time_s, np.maximum(wanted, capped), rtol=1e-9)


@pytest.mark.parametrize("library", sorted(LIBRARIES))
@pytest.mark.parametrize("in_memory", [(2.0, 1.0), (1.0, 2.0), (2.0, 2.0)])
def test_operands_wider_in_memory_cost_what_the_equation_says(library, in_memory, searching):
    """Found by the search and by trying every tile, to the bit; steps and tiles stay FP8's."""
    m, n, k = shapes(25, seed=4)
    wanted = [
        by_hand_s(LIBRARIES[library], *shape, *in_memory) for shape in zip(m, n, k, strict=True)
    ]
    searching(None)
    tried = fp8(CHIP, LIBRARIES[library], m, n, k, operand_bytes=in_memory).time_s
    searching(gemm_loops.compiled())
    found = fp8(CHIP, LIBRARIES[library], m, n, k, operand_bytes=in_memory).time_s
    assert (found == tried).all()
    capped = 2 * m * n * k / CHIP.tensor_flops_per_s("fp8")
    np.testing.assert_allclose(found, np.maximum(wanted, capped), rtol=1e-9)
    assert (found >= fp8(CHIP, LIBRARIES[library], m, n, k).time_s).all()


def test_operands_that_lie_in_memory_as_in_the_tile_cost_what_they_did():
    m, n, k = shapes(50, seed=5)
    same = fp8(CHIP, LIBRARIES["fine"], m, n, k, operand_bytes=(1.0, 1.0)).time_s
    assert (same == fp8(CHIP, LIBRARIES["fine"], m, n, k).time_s).all()
