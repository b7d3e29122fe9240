"""Cost of a matrix product: tiles over SMs in waves, a memory term, a sustained-rate cap.

A product is `groups` independent ones, each `C (m / groups, n) = A (m / groups, k) @ B (k, n)`.
One tile of C is bm x bn; a is its side on the tensor core's rows (bm, or bn where the library may
swap A and B) and b the other one. The k axis is walked in steps of 128 bytes of one row (128 FP8
values, 64 BF16 values). In cycles:

    c_mma  = 2 a b step / (R eta)                    tensor core; R FLOPs of one SM in one clock
    c_smem = operand rows * 128 / smem               operand reads, see ChipSpec.operand_tile
    c_l2   = (a ea + b eb) 128 / (e l2b)             refill of the tile
    c_oob  = oob (ceil(m / bm) bm - m)               rows of the last tile beyond the product
    c_iter = (c_mma^4 + c_smem^4 + c_l2^4 + it0^4 [+ c_oob^4])^(1/4) + c_prom
    c_prom = (N prom + (N - 1) in) a b / 128         block scales and promotion on CUDA cores
    c_tile = ceil(k / (s step)) c_iter + ot + output_bytes a b / l2b
    T      = groups ceil(m / groups / bm) ceil(n / bn) s;   w = T / SMs
    t_comp = (lam ceil(w) + (1 - lam) max(1, w)) c_tile / f
    t_mem  = max(bytes / (eh B), bytes / (min(T, SMs) bws f))
    t      = (t_comp^pn + t_mem^pn)^(1/pn) + [s > 1] (ts + 8 s m n / (l2b SMs f))
    time   = t0 + max(min over candidates t, FLOPs / (pc peak SMs / S)) + quantise

Of ceil(m / bm) tiles one is ragged, so c_iter is the mean with c_oob in one of them. (TMA fills
rows beyond the end of a tensor slowly: DeepGEMM's products take 46.8 us at m = 65 and 31.6 us at
m = 128, n = 7168, k = 10240 on H200; its sources call it a bound of "TMA L2 OOB".)

Bytes are both operands and the output once; when the smaller operand of a group does not fit
phi L2, operands are read again in every wave (footprint of a square wave of tiles). Where formats
change on the way to a tile, e are its bytes of an element and ea and eb those in memory, which L2
hands on as well; everywhere else the three are one.

N is how often the chip promotes partial sums in 128 elements of k (`Fp8Unit.promotions`), 1 on
Hopper, 0 on Blackwell; `in` are cycles of promotion that a fit could not tell from `eta`. No step
is faster than at the tensor core's peak, nor than CUDA cores add the sums up, 2 N a b FLOPs, where
promotion hides behind products (two WGMMA in flight, arXiv 2412.19437 §3.3.2).

With a fixed tile and lam = 1, and where neither memory nor the cap binds, this is

    time = t0 + ceil(T / SMs) (ceil(k / step) tau + epsilon)

with tau = c_iter / f and epsilon = (ot + output_bytes a b / l2b) / f: the two constants per family
that one trace identifies. They are fitted through `tensor_efficiency` and `tile_overhead_cycles`.

More work is never faster along k, nor along m and n once its tiles fill the SMs. Below one wave it
can be: another tile brings another SM's share of the memory parallelism.

The cap is the clock under load: a chip that runs into its power limit lowers the clock of all SMs,
so it is a rate per SM, and an op on 112 of 132 SMs has 112/132 of it. That is an assumption: with
fewer SMs at work a power-limited clock may rise, up to 132/112 here.

Equations, bounds and defaults come from a study of the public AIConfigurator GEMM tables
(ai-dynamo/aiconfigurator @095f58a5), where they hold 4.6 % median error on unseen H200 shapes
(BF16) and transfer to H100 by its datasheet.
"""

import math
from typing import Annotated, Any, NamedTuple

import numpy as np
import numpy.typing as npt
from pydantic import Field

from hwmodels.arrays import Floats, Ints
from hwmodels.chip import ChipSpec
from hwmodels.costs.gemm_cycles import tile_cycles
from hwmodels.costs.gemm_loops import (
    STEP_BYTES,
    ElementBytes,
    Machine,
    Product,
    Search,
    Tile,
    search_for,
)
from hwmodels.costs.gemm_tiles import SPLITS, Dispatch, Tiles, candidates
from hwmodels.costs.kernel_time import KernelTime, smooth_maximum
from hwmodels.spec import Spec
from hwmodels.units import Seconds

QUANTISE_RATE = 4.8e12 / (132 * 1.83e9)
"""Bytes per SM and clock that `quantise_bytes` is counted against: H200, where it was fitted."""


class GemmParameters(Spec):
    """Constants of one kernel family; the symbol in the equation and the default's source follow.

    Defaults are the fit to TensorRT-LLM BF16 on H200 (cost_model.md §2), whose H100 transfer is as
    accurate as itself, unless another reason is given.

    Attributes:
        tile: rows and columns of C one SM computes at a time; None takes the fastest candidate of
            {64, 128, 256} x {8, 16, 32 .. 256} with at most 32,768 elements. Libraries with one
            tile per kernel (DeepGEMM) fix it.
        dispatch: how the library narrows its tiles down (`gemm_tiles`).
        fine_tiles: whether the short side may also be any multiple of 16.
        split_k: whether the library may split k over SMs (s in 1, 2, 4 .. 64).
        swap_ab: whether the tensor core's rows may take either side of the tile.
        contains_quantise: whether the op quantises its activations too.
        launch_s: t0, launch and fixed kernels. 0: gaps between kernels are priced apart.
        tensor_efficiency: eta, issue efficiency against the peak at `ChipSpec.peak_clock_hz`;
            above 1 where the part clocks higher than that.
        hbm_efficiency: eh, achieved share of HBM.
        l2_bytes_per_clock: l2b, L2 to one SM.
        iteration_floor_cycles: it0, latency of one step along k.
        tile_overhead_cycles: ot, prologue and epilogue of a tile.
        sm_hbm_bytes_per_clock: bws, memory-level parallelism of one SM.
        overlap_exponent: pn, how well compute and memory overlap (12: perfectly).
        split_fixup_s: ts, fixed cost of a split.
        sustained_fraction: pc, tensor rate under sustained load / peak. 1: no cap.
        l2_usable: phi, share of L2 that holds an operand; not identified, fixed.
        wave_quantisation: lam, 1 when whole waves are paid, 0 when a tuner escapes them.
        promotion_cycles: prom, cycles per 128 accumulators per step for block scales applied on
            CUDA cores. 0: no block scales.
        contained_promotion_cycles: in, the same of promotion that `tensor_efficiency` contains; a
            chip that promotes less is faster by it.
        ragged_cycles: oob, cycles by which each row that a tile has beyond the product delays one
            step. 0: such rows cost no more than others.
        quantise_bytes: qsm, quantise traffic per element of A, in bytes at `QUANTISE_RATE`.
    """

    tile: tuple[Annotated[int, Field(ge=8, le=256)], Annotated[int, Field(ge=8, le=256)]] | None = (
        None
    )
    dispatch: Dispatch = "tuned"
    fine_tiles: bool = False
    split_k: bool = False
    swap_ab: bool = False
    contains_quantise: bool = False
    launch_s: Annotated[Seconds, Field(le=20e-6)] = 0.0
    tensor_efficiency: Annotated[float, Field(ge=0.4, le=1.09)] = 0.93
    hbm_efficiency: Annotated[float, Field(ge=0.7, le=0.95)] = 0.84
    l2_bytes_per_clock: Annotated[float, Field(ge=15, le=128)] = 112.0
    iteration_floor_cycles: Annotated[float, Field(ge=0, le=600)] = 146.0
    tile_overhead_cycles: Annotated[float, Field(ge=0, le=12000)] = 2070.0
    sm_hbm_bytes_per_clock: Annotated[float, Field(ge=8, le=120)] = 21.0
    overlap_exponent: Annotated[float, Field(ge=1.3, le=12)] = 2.5
    split_fixup_s: Annotated[Seconds, Field(le=12e-6)] = 2.7e-6
    sustained_fraction: Annotated[float, Field(ge=0.4, le=1)] = 1.0
    l2_usable: Annotated[float, Field(ge=0.2, le=1.5)] = 0.6
    wave_quantisation: Annotated[float, Field(ge=0, le=1)] = 1.0
    promotion_cycles: Annotated[float, Field(ge=0, le=4)] = 0.0
    contained_promotion_cycles: Annotated[float, Field(ge=0, le=4)] | None = None
    ragged_cycles: Annotated[float, Field(ge=0, le=40)] = 0.0
    quantise_bytes: Annotated[float, Field(ge=0, le=20)] = 0.0


class _Work(NamedTuple):
    """What to compute, arrays of one shape; `step` elements of k are one step along it."""

    rows: Floats
    cols: Floats
    depth: Floats
    groups: Floats
    sms: Floats
    tensor_family: str
    bytes_of: ElementBytes

    @property
    def step(self) -> float:
        return STEP_BYTES / self.bytes_of.tile


def gemm_time_s(
    chip: ChipSpec,
    parameters: GemmParameters,
    m: npt.ArrayLike,
    n: npt.ArrayLike,
    k: npt.ArrayLike,
    groups: npt.ArrayLike = 1,
    *,
    tensor_family: str,
    element_bytes: float,
    output_bytes: float,
    operand_bytes: tuple[float, float] | None = None,
    quantised: bool = False,
    sms: npt.ArrayLike | None = None,
) -> KernelTime:
    """Return the time of matrix products; all shape arguments broadcast.

    `m` counts the rows of all groups together and `k` is the depth of one group, so that FLOPs are
    2 m n k whatever `groups` is. A forward or dgrad product of experts passes its rows as they
    are. A weight gradient whose groups share the depth (each expert's weight is m x n, k counts
    the rows of all experts) passes `groups * m`, `n` and `k / groups`.

    Args:
        chip: where they run.
        parameters: of the kernel family.
        m, n, k, groups: shapes; m and k need not be whole (a mean over ranks).
        tensor_family: key of `ChipSpec.tensor`.
        element_bytes: bytes of an element of A and B.
        operand_bytes: of A and of B in memory, where their formats change on the way.
        output_bytes: bytes moved per element of C: 2 written in BF16, 8 read and written in FP32.
        quantised: whether activations come quantised, by an op of their own, although those that
            the constants were fitted to quantised theirs.
        sms: SMs the op may use, all of the chip by default.

    Raises:
        SpecError: the chip has no such tensor rate.
    """
    sizes = (m, n, k, groups, chip.sms if sms is None else sms)
    rows, cols, depth, count, used = np.broadcast_arrays(
        *(np.asarray(size, np.float64) for size in sizes)
    )
    in_memory = operand_bytes or (element_bytes, element_bytes)
    bytes_of = ElementBytes(element_bytes, *in_memory, output_bytes)
    work = _Work(rows, cols, depth, count, used, tensor_family, bytes_of)
    work_s, index = _fastest(chip, parameters, work)

    peak = chip.tensor_flops_per_s(tensor_family) * work.sms / chip.sms
    cap_s = 2 * work.rows * work.cols * work.depth / (parameters.sustained_fraction * peak)
    time_s = parameters.launch_s + np.maximum(work_s, cap_s)
    if parameters.contains_quantise and not quantised:
        time_s = time_s + _quantise_s(chip, parameters, work)
    index = np.where(cap_s > work_s, 3, index)
    index = np.where(2 * parameters.launch_s > time_s, 2, index)
    return KernelTime(np.asarray(time_s), index)


def features(
    chip: ChipSpec,
    parameters: GemmParameters,
    m: npt.ArrayLike,
    n: npt.ArrayLike,
    k: npt.ArrayLike,
    groups: npt.ArrayLike = 1,
    *,
    sms: npt.ArrayLike | None = None,
    **formats: Any,
) -> Floats:
    """Return (rows, 9) where products lie for a `Residual`; arguments as of `gemm_time_s`.

    In octaves: rows of a group, columns, depth, 128x128 tiles by SM, price, FLOPs and bytes by
    price; and the rows that fill the last 128 and the last 64 up, as parts of them.
    """
    sizes = (m, n, k, groups, chip.sms if sms is None else sms)
    rows, cols, depth, count, used = (
        np.ravel(column)
        for column in np.broadcast_arrays(*(np.asarray(size, np.float64) for size in sizes))
    )
    price_s = gemm_time_s(chip, parameters, rows, cols, depth, count, sms=used, **formats).time_s
    group_rows = rows / count
    tiles = count * np.ceil(group_rows / 128) * np.ceil(cols / 128)
    moved = rows * depth + count * cols * depth + rows * cols
    octaves = (
        group_rows, cols, depth, tiles / used, price_s, rows * cols * depth / price_s,
        moved / price_s,
    )  # fmt: skip
    padding = (np.ceil(group_rows / side) - group_rows / side for side in (128, 64))
    return np.stack([*map(np.log2, octaves), *padding], axis=1)


def _fastest(chip: ChipSpec, parameters: GemmParameters, work: _Work) -> tuple[Floats, Ints]:
    """Return the time with the fastest candidate, and the place in `BOUNDS` of its bound."""
    tiles = candidates(
        parameters.dispatch,
        parameters.tile,
        chip.mma_rows,
        fine_tiles=parameters.fine_tiles,
        swap_ab=parameters.swap_ab,
    )
    splits = np.array(SPLITS if parameters.split_k else SPLITS[:1])
    count = tiles.rows.size * splits.size
    search = search_for(count * work.rows.size) if count > 1 else None
    if search is None:
        index = np.arange(count).reshape(-1, *(1,) * work.rows.ndim)
    else:
        index = _searched(search, chip, parameters, work, tiles, splits)[None]
    tile, split = np.divmod(index, splits.size)
    some = Tiles(*(column[tile] for column in tiles))
    total_s, bound = _tile_s(chip, parameters, work, some, splits[split])
    best = np.argmin(total_s, axis=0)[None]
    chosen = np.take_along_axis(np.broadcast_to(bound, total_s.shape), best, axis=0)[0]
    return np.take_along_axis(total_s, best, axis=0)[0], chosen


def _tile_s(
    chip: ChipSpec, parameters: GemmParameters, work: _Work, tiles: Tiles, splits: Floats
) -> tuple[Floats, Ints]:
    """Return the time of products with tiles and splits, and the place in `BOUNDS` of its bound."""
    cycles = tile_cycles(chip, parameters, work.tensor_family, work.bytes_of, tiles)
    group_rows = work.rows / work.groups
    blocks = np.ceil(group_rows / tiles.rows)
    count = work.groups * blocks * np.ceil(work.cols / tiles.cols)
    beyond = parameters.ragged_cycles * (blocks * tiles.rows - group_rows)
    ragged = smooth_maximum(4.0, cycles.step, beyond)
    step = cycles.step + (ragged - cycles.step) / blocks + cycles.promotion
    inside = np.ceil(work.depth / (splits * work.step)) * step
    lam, waves = parameters.wave_quantisation, count * splits / work.sms
    waves = lam * np.ceil(waves) + (1 - lam) * np.maximum(1.0, waves)
    compute_s = waves * (inside + cycles.outside) / chip.peak_clock_hz
    memory_s = _memory_s(chip, parameters, work, tiles, count, splits)
    l2_rate = parameters.l2_bytes_per_clock * work.sms * chip.peak_clock_hz
    fixup_s = parameters.split_fixup_s + 8 * splits * work.rows * work.cols / l2_rate
    total_s = smooth_maximum(parameters.overlap_exponent, compute_s, memory_s)
    total_s = total_s + np.where(splits > 1, fixup_s, 0.0)
    is_used = (tiles.above_m < group_rows) & (group_rows <= tiles.upto_m)
    is_latency = cycles.is_floor | (cycles.outside > inside)
    index = np.where(memory_s > compute_s, 1, np.where(is_latency, 2, 0))
    return np.where(is_used, total_s, np.inf), index


def _searched(
    search: Search,
    chip: ChipSpec,
    parameters: GemmParameters,
    work: _Work,
    tiles: Tiles,
    splits: Floats,
) -> Ints:
    """Return the fastest candidate of every product, found by the compiled search."""
    ndim = work.rows.ndim
    shaped = Tiles(*(column.reshape(-1, *(1,) * ndim) for column in tiles))
    of_tiles = [
        np.reshape(column, (tiles.rows.size, -1)).T
        for column in tile_cycles(chip, parameters, work.tensor_family, work.bytes_of, shaped)[:3]
    ]
    of_machines = [
        np.ravel(np.asarray(number, np.float64))
        for number in (
            parameters.ragged_cycles,
            chip.peak_clock_hz,
            parameters.wave_quantisation,
            parameters.split_fixup_s,
            parameters.l2_bytes_per_clock * chip.peak_clock_hz,
            parameters.hbm_efficiency * chip.hbm_bytes_per_s,
            parameters.sm_hbm_bytes_per_clock * chip.peak_clock_hz,
            parameters.l2_usable * chip.l2_bytes,
        )
    ]
    # Numbers that differ between machines are columns along the first axis of the products.
    machines = max(len(column) for column in (*of_tiles, *of_machines))
    lead = (machines, *(1,) * (ndim - 1)) if machines > 1 else ()
    shape = np.broadcast_shapes(lead, work.rows.shape)
    products = (np.broadcast_to(column, shape).reshape(machines, -1) for column in work[:5])
    cycles = (np.tile(column, (machines // len(column), 1)) for column in of_tiles)
    numbers = (np.tile(column, machines // len(column)) for column in of_machines)
    chosen = np.zeros((machines, math.prod(shape) // machines), np.int64)
    search(
        Tile(
            tiles.rows, tiles.cols, tiles.above_m, tiles.upto_m, *map(np.ascontiguousarray, cycles)
        ),
        splits,
        Machine(*numbers),
        Product(*map(np.array, products)),  # copies: views of one number are not to be written to
        work.bytes_of,
        parameters.overlap_exponent,
        chosen,
    )
    return chosen.reshape(shape)


def _memory_s(
    chip: ChipSpec,
    parameters: GemmParameters,
    work: _Work,
    tiles: Tiles,
    count: Floats,
    splits: Floats,
) -> Floats:
    """Return the memory time of candidates; `count` is their tiles before they are split."""
    operand_a = work.rows * work.depth * work.bytes_of.a
    operand_b = work.groups * work.cols * work.depth * work.bytes_of.b
    smaller = np.minimum(operand_a, operand_b) / work.groups
    wave = np.minimum(count * splits, work.sms)
    # A square wave of `wave` tiles reads 2 sqrt(wave bm bn) rows and columns of its operands.
    sides = 2 * np.sqrt(wave * tiles.rows * tiles.cols)
    again = count / wave * sides * work.depth * ((work.bytes_of.a + work.bytes_of.b) / 2)
    once = operand_a + operand_b
    fits = smaller <= parameters.l2_usable * chip.l2_bytes
    moved = np.where(fits, once, np.maximum(once, again))
    moved = moved + work.rows * work.cols * work.bytes_of.result
    per_sm = parameters.sm_hbm_bytes_per_clock * chip.peak_clock_hz
    hbm = parameters.hbm_efficiency * chip.hbm_bytes_per_s
    return np.asarray(np.maximum(moved / hbm, moved / (wave * per_sm)))


def _quantise_s(chip: ChipSpec, parameters: GemmParameters, work: _Work) -> Floats:
    """Return the time of quantising A; it follows SMs and clock, not HBM (cost_model.md §2)."""
    rate = QUANTISE_RATE * work.sms * chip.peak_clock_hz
    return np.asarray(parameters.quantise_bytes * work.rows * work.depth / rate)
