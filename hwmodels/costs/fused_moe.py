"""Cost of one rank's experts in one fused module: two grouped products and what surrounds them.

Expert e of the rank has t_e tokens. A experts have any, and P = sum t_e pairs of token and expert
are computed: up, (t_e, H) @ (H, 2 I) with its gated activation, and down, (t_e, I) @ (I, H). Each
is one grouped product of n columns and depth k; its tiles of C are bm x bn, and one tile costs the
cycles c_tile of `hwmodels.costs.gemm`:

    T      = sum_e ceil(t_e / bm) ceil(n / bn);   w = T / SMs
    t_comp = (lam ceil(w) + (1 - lam) max(1, w)) c_tile / f
    bytes  = A n k element_bytes + P (k element_bytes + n output_bytes)
    t_mem  = max(bytes / (eh B), A n k element_bytes / (min(A ceil(n / bn), SMs) bws f))
    t      = min over tiles (t_comp^pn + t_mem^pn)^(1/pn)
    t_n,k  = max(t, 2 P n k / (pc peak SMs / S)) + grid E ceil(n / 128) / (SMs f)
    time   = t0 + t_2I,H + t_H,I + (row P H + act P I + tok tokens H) / (rate SMs f)

Weights are read of experts with tokens only, so experts without any cost nothing; where a library
launches blocks for every expert it has (`grid_cycles`), these cost. What surrounds the
products - expanding tokens to pairs, quantising, the activation, summing pairs to tokens - follows
SMs and clock, not HBM (cost_model.md §4), and is counted in bytes at `QUANTISE_RATE`.

More tokens of any expert are never faster: memory parallelism comes from the experts at work, of
whom every expert has ceil(n / bn) tiles at least, and not from the row tiles.
"""

from typing import Annotated, Any, NamedTuple

import numpy as np
import numpy.typing as npt
from pydantic import Field

from hwmodels.arrays import Floats, Ints
from hwmodels.chip import ChipSpec
from hwmodels.costs.gemm import QUANTISE_RATE
from hwmodels.costs.gemm_cycles import operand_rows
from hwmodels.costs.gemm_loops import STEP_BYTES
from hwmodels.costs.kernel_time import KernelTime, smooth_maximum
from hwmodels.spec import Spec
from hwmodels.units import Seconds

TILE_ROWS = (64, 128, 256)
"""Rows of the tiles a library may choose: those of one to four tensor-core instructions."""

OUTPUT_BYTES = 2.0
"""Both products write BF16."""

_TILE_COLUMNS = (16, 32, 64, 128, 256)
_LARGEST_TILE = 32768
_GRID_COLUMNS = 128
_FEW = 1e-3
"""Experts, rows or waves below which features tell no difference."""


class FusedMoeParameters(Spec):
    """Constants of one module; the symbol in the equation follows.

    Those it shares with `GemmParameters` mean the same. Defaults are the fit to TensorRT-LLM BF16
    on H200.

    Attributes:
        launch_s: t0, routing and all that is launched once.
        tensor_efficiency: eta, issue efficiency against the peak.
        hbm_efficiency: eh, achieved share of HBM.
        l2_bytes_per_clock: l2b, L2 to one SM.
        iteration_floor_cycles: it0, latency of one step along k.
        tile_overhead_cycles: ot, prologue and epilogue of a tile.
        sm_hbm_bytes_per_clock: bws, memory-level parallelism of one SM.
        overlap_exponent: pn, how well compute and memory overlap.
        sustained_fraction: pc, tensor rate under sustained load / peak.
        wave_quantisation: lam, 1 when whole waves are paid.
        promotion_cycles: prom, cycles per 128 accumulators per step for block scales.
        row_bytes: row, traffic per pair and element of H, in bytes at `QUANTISE_RATE`.
        activation_bytes: act, the same per pair and element of I.
        token_bytes: tok, the same per token and element of H.
        grid_cycles: grid, cycles of a block that is launched for every expert and 128 columns.
    """

    launch_s: Annotated[Seconds, Field(le=500e-6)] = 19e-6
    tensor_efficiency: Annotated[float, Field(ge=0.2, le=1.09)] = 0.93
    hbm_efficiency: Annotated[float, Field(ge=0.4, le=0.97)] = 0.9
    l2_bytes_per_clock: Annotated[float, Field(ge=15, le=128)] = 62.0
    iteration_floor_cycles: Annotated[float, Field(ge=0, le=900)] = 100.0
    tile_overhead_cycles: Annotated[float, Field(ge=0, le=12000)] = 3700.0
    sm_hbm_bytes_per_clock: Annotated[float, Field(ge=4, le=120)] = 19.0
    overlap_exponent: Annotated[float, Field(ge=1.2, le=12)] = 1.9
    sustained_fraction: Annotated[float, Field(ge=0.3, le=1)] = 0.86
    wave_quantisation: Annotated[float, Field(ge=0, le=1)] = 0.5
    promotion_cycles: Annotated[float, Field(ge=0, le=6)] = 0.0
    row_bytes: Annotated[float, Field(ge=0, le=100)] = 11.0
    activation_bytes: Annotated[float, Field(ge=0, le=100)] = 2.0
    token_bytes: Annotated[float, Field(ge=0, le=100)] = 7.0
    grid_cycles: Annotated[float, Field(ge=0, le=5000)] = 0.0


class _Load(NamedTuple):
    """The columns of `expert_load`, and the rank's experts and SMs; arrays that broadcast."""

    pairs: Floats
    active: Floats
    tiles: tuple[Floats, ...]
    experts: Floats
    sms: Floats


class _Product(NamedTuple):
    """Columns and depth of one grouped product, and its formats."""

    columns: Floats
    depth: Floats
    tensor_family: str
    element_bytes: float


def expert_load(tokens_per_expert: npt.ArrayLike) -> Floats:
    """Return (..., 5) what a price needs of (..., experts) tokens: pairs, experts with any, and
    tiles of `TILE_ROWS` rows. The mean over several routings of a step is priced as one.
    """
    tokens = np.asarray(tokens_per_expert, np.float64)
    tiles = [np.ceil(tokens / rows).sum(axis=-1) for rows in TILE_ROWS]
    return np.stack([tokens.sum(axis=-1), np.count_nonzero(tokens, axis=-1), *tiles], axis=-1)


def fused_moe_time_s(
    chip: ChipSpec,
    parameters: FusedMoeParameters,
    load: npt.ArrayLike,
    hidden: npt.ArrayLike,
    intermediate: npt.ArrayLike,
    tokens: npt.ArrayLike,
    experts: npt.ArrayLike,
    *,
    tensor_family: str,
    element_bytes: float,
    sms: npt.ArrayLike | None = None,
) -> KernelTime:
    """Return the time of the experts of one rank; arguments broadcast but for the axis of `load`.

    Args:
        chip: where they run.
        parameters: of the module.
        load: (..., 5) by `expert_load`.
        hidden: H, width of a token.
        intermediate: I, width of an expert on this rank.
        tokens: that enter the module and leave it.
        experts: E, of the rank, with tokens or without.
        tensor_family: key of `ChipSpec.tensor`.
        element_bytes: bytes of an element of weights and of what they are multiplied with.
        sms: SMs the module may use, all of the chip by default.

    Raises:
        SpecError: the chip has no such tensor rate.
    """
    work = _load(load, experts, chip.sms if sms is None else sms)
    width, inner = np.asarray(hidden, np.float64), np.asarray(intermediate, np.float64)
    up = _Product(2 * inner, width, tensor_family, element_bytes)
    down = _Product(width, inner, tensor_family, element_bytes)
    (up_s, up_bound), (down_s, down_bound) = (
        _product_s(chip, parameters, work, product) for product in (up, down)
    )
    rate = QUANTISE_RATE * work.sms * chip.peak_clock_hz
    moved = parameters.row_bytes * work.pairs * width
    moved = moved + parameters.activation_bytes * work.pairs * inner
    moved = moved + parameters.token_bytes * np.asarray(tokens, np.float64) * width
    time_s = parameters.launch_s + up_s + down_s + moved / rate
    index = np.where(up_s >= down_s, up_bound, down_bound)
    index = np.where(2 * parameters.launch_s > time_s, 2, index)
    return KernelTime(np.asarray(time_s), np.broadcast_to(index, time_s.shape))


def features(
    chip: ChipSpec,
    parameters: FusedMoeParameters,
    load: npt.ArrayLike,
    hidden: npt.ArrayLike,
    intermediate: npt.ArrayLike,
    tokens: npt.ArrayLike,
    experts: npt.ArrayLike,
    **formats: Any,
) -> Floats:
    """Return (rows, 9) where modules lie for a `Residual`; see `fused_moe_time_s`.

    In octaves: rows of an expert, experts with tokens, all by those, H, I, tokens, waves of the up
    product in tiles of 64 x 128, price; and how far tiles of 64 rows are filled.
    """
    price = fused_moe_time_s(
        chip, parameters, load, hidden, intermediate, tokens, experts, **formats
    )
    work = _load(load, experts, chip.sms)
    inner, moved = np.asarray(intermediate, np.float64), np.asarray(tokens, np.float64)
    active, tiles = np.maximum(work.active, _FEW), work.tiles[0]
    columns = (
        work.pairs / active,
        work.active,
        work.experts / active,
        np.asarray(hidden, np.float64),
        inner,
        moved,
        tiles * np.ceil(2 * inner / _GRID_COLUMNS) / work.sms,
        1e6 * price.time_s,
        work.pairs / np.maximum(TILE_ROWS[0] * tiles, _FEW),
    )
    octaves = np.log2(np.maximum(np.stack(np.broadcast_arrays(*columns), axis=-1), _FEW))
    return np.asarray(octaves)


def _load(load: npt.ArrayLike, experts: npt.ArrayLike, sms: npt.ArrayLike) -> _Load:
    columns = np.moveaxis(np.asarray(load, np.float64), -1, 0)
    pairs, active, *tiles = columns
    owned, used = np.asarray(experts, np.float64), np.asarray(sms, np.float64)
    return _Load(pairs, active, tuple(tiles), owned, used)


def _product_s(
    chip: ChipSpec, parameters: FusedMoeParameters, load: _Load, product: _Product
) -> tuple[Floats, Ints]:
    """Return seconds of one grouped product, and the place in `BOUNDS` of what holds it."""
    least_s, index = np.asarray(np.inf), np.asarray(0)
    for row_tiles, rows in zip(load.tiles, TILE_ROWS, strict=True):
        for columns in _TILE_COLUMNS:
            if rows * columns > _LARGEST_TILE:
                continue
            across = np.ceil(product.columns / columns)
            waves = _waves(parameters, row_tiles * across / load.sms)
            cycles = waves * _tile_cycles(chip, parameters, product, rows, columns)
            compute_s = cycles / chip.peak_clock_hz
            memory_s = _memory_s(chip, parameters, load, product, across)
            total_s = smooth_maximum(parameters.overlap_exponent, compute_s, memory_s)
            index = np.where(total_s < least_s, memory_s > compute_s, index)
            least_s = np.minimum(least_s, total_s)
    peak = chip.tensor_flops_per_s(product.tensor_family) * load.sms / chip.sms
    flops = 2 * load.pairs * product.columns * product.depth
    cap_s = flops / (parameters.sustained_fraction * peak)
    grid = load.experts * np.ceil(product.columns / _GRID_COLUMNS)
    grid_s = parameters.grid_cycles * grid / (load.sms * chip.peak_clock_hz)
    return np.maximum(least_s, cap_s) + grid_s, np.where(cap_s > least_s, 3, index)


def _waves(parameters: FusedMoeParameters, waves: Floats) -> Floats:
    lam, begun = parameters.wave_quantisation, np.minimum(np.ceil(waves), 1.0)
    return np.asarray(lam * np.ceil(waves) + (1 - lam) * np.maximum(begun, waves))


def _tile_cycles(
    chip: ChipSpec, parameters: FusedMoeParameters, product: _Product, rows: int, columns: int
) -> Floats:
    """Return cycles of one tile, whose rows are those of the tensor core's instructions."""
    step = STEP_BYTES / product.element_bytes
    rate = chip.flops_per_clock_per_sm(product.tensor_family) * parameters.tensor_efficiency
    c_mma = np.asarray(2 * rows * columns * step / rate)
    read = operand_rows(chip, np.asarray(rows, np.float64), np.asarray(columns, np.float64))
    c_smem = read * STEP_BYTES / chip.shared_memory_bytes_per_clock
    c_l2 = np.asarray((rows + columns) * STEP_BYTES / parameters.l2_bytes_per_clock)
    floor = np.asarray(parameters.iteration_floor_cycles, np.float64)
    iteration = smooth_maximum(4.0, c_mma, c_smem, c_l2, floor)
    promotion = chip.promotions * parameters.promotion_cycles
    iteration = iteration + promotion * rows * columns / 128
    written = OUTPUT_BYTES * rows * columns / parameters.l2_bytes_per_clock
    steps = np.ceil(product.depth / step)
    return np.asarray(steps * iteration + parameters.tile_overhead_cycles + written)


def _memory_s(
    chip: ChipSpec,
    parameters: FusedMoeParameters,
    load: _Load,
    product: _Product,
    across: Floats,
) -> Floats:
    """Return seconds of the bytes of one product, `across` tiles to a row of them."""
    weights = load.active * product.columns * product.depth * product.element_bytes
    row_bytes = product.depth * product.element_bytes + product.columns * OUTPUT_BYTES
    hbm = parameters.hbm_efficiency * chip.hbm_bytes_per_s
    streams = np.minimum(np.maximum(load.active, 1.0) * across, load.sms)
    per_sm = parameters.sm_hbm_bytes_per_clock * chip.peak_clock_hz
    moved = weights + load.pairs * row_bytes
    return np.asarray(np.maximum(moved / hbm, weights / (streams * per_sm)))
