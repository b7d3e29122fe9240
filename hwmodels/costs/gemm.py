"""Cost of a matrix product: tiles over SMs in waves, a memory term, a sustained-rate cap.

A product is `groups` independent ones, each `C (m / groups, n) = A (m / groups, k) @ B (k, n)`.
One tile of C is bm x bn; a is its side on the tensor core's rows (bm, or bn where the library may
swap A and B) and b the other one. The k axis is walked in steps of 128 bytes of one row (128 FP8
values, 64 BF16 values). In cycles:

    c_mma  = 2 a b step / (R eta)                    tensor core; R FLOPs of one SM in one clock
    c_smem = (a / 64) (64 + b) 128 / smem            operand reads
    c_l2   = (a + b) 128 / l2b                       refill of the tile
    c_iter = (c_mma^4 + c_smem^4 + c_l2^4 + it0^4)^(1/4) + prom a b / 128
    c_tile = ceil(k / (s step)) c_iter + ot + output_bytes a b / l2b
    T      = groups ceil(m / groups / bm) ceil(n / bn) s;   w = T / SMs
    t_comp = (lam ceil(w) + (1 - lam) max(1, w)) c_tile / f
    t_mem  = max(bytes / (eh B), bytes / (min(T, SMs) bws f))
    t      = (t_comp^pn + t_mem^pn)^(1/pn) + [s > 1] (ts + 8 s m n / (l2b SMs f))
    time   = t0 + max(min over candidates t, FLOPs / (pc peak SMs / S)) + quantise

Bytes are both operands and the output once; when the smaller operand of a group does not fit
phi L2, operands are read again in every wave (footprint of a square wave of tiles). On chips whose
tensor cores apply block scales themselves there is no promotion (`prom`).

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

from typing import Annotated, NamedTuple

import numpy as np
import numpy.typing as npt
from pydantic import Field

from hwmodels.arrays import Floats, Ints, Mask
from hwmodels.chip import ChipSpec
from hwmodels.costs.kernel_time import KernelTime, smooth_maximum
from hwmodels.spec import Spec
from hwmodels.units import Seconds

STEP_BYTES = 128.0
"""Bytes of one row of A or B that one step along k consumes."""

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
        quantise_bytes: qsm, quantise traffic per element of A, in bytes at `QUANTISE_RATE`.
    """

    tile: tuple[Annotated[int, Field(ge=8, le=256)], Annotated[int, Field(ge=8, le=256)]] | None = (
        None
    )
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
    quantise_bytes: Annotated[float, Field(ge=0, le=20)] = 0.0


class _Work(NamedTuple):
    """What to compute, arrays of one shape; `step` elements of k are one step along it."""

    rows: Floats
    cols: Floats
    depth: Floats
    groups: Floats
    sms: Floats
    tensor_family: str
    element_bytes: float
    output_bytes: float

    @property
    def step(self) -> float:
        return STEP_BYTES / self.element_bytes


class _Tiles(NamedTuple):
    """Candidate tiles along a first axis that `_Work` does not have.

    `mma` is the side on the tensor core's rows, `other` the one on its columns.
    """

    rows: Floats
    cols: Floats
    mma: Floats
    other: Floats
    splits: Floats


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
        output_bytes: bytes moved per element of C: 2 written in BF16, 8 read and written in FP32.
        sms: SMs the op may use, all of the chip by default.

    Raises:
        SpecError: the chip has no such tensor rate.
    """
    sizes = (m, n, k, groups, chip.sms if sms is None else sms)
    rows, cols, depth, count, used = np.broadcast_arrays(
        *(np.asarray(size, np.float64) for size in sizes)
    )
    work = _Work(rows, cols, depth, count, used, tensor_family, element_bytes, output_bytes)
    work_s, index = _fastest(chip, parameters, work)

    peak = chip.tensor_flops_per_s(tensor_family) * work.sms / chip.sms
    cap_s = 2 * work.rows * work.cols * work.depth / (parameters.sustained_fraction * peak)
    time_s = parameters.launch_s + np.maximum(work_s, cap_s) + _quantise_s(chip, parameters, work)
    index = np.where(cap_s > work_s, 3, index)
    index = np.where(2 * parameters.launch_s > time_s, 2, index)
    return KernelTime(np.asarray(time_s), index)


def _fastest(chip: ChipSpec, parameters: GemmParameters, work: _Work) -> tuple[Floats, Ints]:
    """Return the time with the fastest candidate tile, and the place in `BOUNDS` of its bound."""
    tiles = _candidates(chip, parameters, work.rows.ndim)
    cycles, is_latency = _tile_cycles(chip, parameters, work, tiles)
    count = work.groups * np.ceil(work.rows / work.groups / tiles.rows)
    count = count * np.ceil(work.cols / tiles.cols) * tiles.splits
    lam, waves = parameters.wave_quantisation, count / work.sms
    waves = lam * np.ceil(waves) + (1 - lam) * np.maximum(1.0, waves)
    compute_s = waves * cycles / chip.peak_clock_hz
    memory_s = _memory_s(chip, parameters, work, tiles, count)
    l2_rate = parameters.l2_bytes_per_clock * work.sms * chip.peak_clock_hz
    fixup_s = parameters.split_fixup_s + 8 * tiles.splits * work.rows * work.cols / l2_rate
    total_s = smooth_maximum(parameters.overlap_exponent, compute_s, memory_s)
    total_s = total_s + np.where(tiles.splits > 1, fixup_s, 0.0)
    index = np.where(memory_s > compute_s, 1, np.where(is_latency, 2, 0))
    best = np.argmin(total_s, axis=0)[None]
    chosen = np.take_along_axis(np.broadcast_to(index, total_s.shape), best, axis=0)[0]
    return np.take_along_axis(total_s, best, axis=0)[0], chosen


def _candidates(chip: ChipSpec, parameters: GemmParameters, ndim: int) -> _Tiles:
    """Return every tile and split the library may choose, on an axis before `ndim` others."""
    if parameters.tile is not None:
        pairs = [parameters.tile]
    else:
        long_sides = [a for a in (64, 128, 256) if a >= chip.mma_rows]
        short_sides = [8, 16, 32, 64, 128, 256]
        if parameters.fine_tiles:
            short_sides = [8, *range(16, 257, 16)]
        pairs = [(a, b) for a in long_sides for b in short_sides if a * b <= 32768]
    shapes = [(a, b, a, b) for a, b in pairs]
    if parameters.swap_ab:
        shapes += [(b, a, a, b) for a, b in pairs]
    splits = (1, 2, 4, 8, 16, 32, 64) if parameters.split_k else (1,)
    table = np.array([(*shape, s) for shape in shapes for s in splits], np.float64)
    return _Tiles(*(column.reshape(-1, *(1,) * ndim) for column in table.T))


def _tile_cycles(
    chip: ChipSpec, parameters: GemmParameters, work: _Work, tiles: _Tiles
) -> tuple[Floats, Mask]:
    """Return cycles of one tile, and whether fixed times, not arithmetic, are most of them."""
    a, b = tiles.mma, tiles.other
    rate = chip.flops_per_clock_per_sm(work.tensor_family) * parameters.tensor_efficiency
    c_mma = 2 * a * b * work.step / rate
    c_smem = _shared_memory_cycles(chip, a, b)
    c_l2 = (a + b) * STEP_BYTES / parameters.l2_bytes_per_clock
    floor = np.asarray(parameters.iteration_floor_cycles, np.float64)
    iteration = smooth_maximum(4.0, c_mma, c_smem, c_l2, floor)
    scales_itself = chip.fp8_unit is not None and chip.fp8_unit.block_scaling
    if not scales_itself:
        iteration = iteration + parameters.promotion_cycles * a * b / 128
    steps = np.ceil(work.depth / (tiles.splits * work.step))
    written = work.output_bytes * a * b / parameters.l2_bytes_per_clock
    outside = parameters.tile_overhead_cycles + written
    is_floor = floor > np.maximum(c_mma, np.maximum(c_smem, c_l2))
    return steps * iteration + outside, is_floor | (outside > steps * iteration)


def _shared_memory_cycles(chip: ChipSpec, a: Floats, b: Floats) -> Floats:
    """Operand reads of one step: Ampere reads both operands per warp tile, Hopper A per 64 rows;
    on Blackwell two SMs share B and the accumulator lives in tensor memory, half the reads.
    """
    if chip.generation == "ampere":
        read = (a / 64) * np.maximum(1.0, b / 64) * 128 * STEP_BYTES
    else:
        read = (a / 64) * (64 + b) * STEP_BYTES
    halved = 0.5 if chip.generation == "blackwell" else 1.0
    return np.asarray(halved * read / chip.shared_memory_bytes_per_clock)


def _memory_s(
    chip: ChipSpec, parameters: GemmParameters, work: _Work, tiles: _Tiles, count: Floats
) -> Floats:
    """Return the memory time of every candidate; `count` is its tiles."""
    operand_a = work.rows * work.depth * work.element_bytes
    operand_b = work.groups * work.cols * work.depth * work.element_bytes
    smaller = np.minimum(operand_a, operand_b) / work.groups
    wave = np.minimum(count, work.sms)
    # A square wave of `wave` tiles reads 2 sqrt(wave bm bn) rows and columns of its operands.
    sides = 2 * np.sqrt(wave * tiles.rows * tiles.cols)
    again = count / tiles.splits / wave * sides * work.depth * work.element_bytes
    once = operand_a + operand_b
    fits = smaller <= parameters.l2_usable * chip.l2_bytes
    moved = np.where(fits, once, np.maximum(once, again))
    moved = moved + work.rows * work.cols * work.output_bytes
    per_sm = parameters.sm_hbm_bytes_per_clock * chip.peak_clock_hz
    hbm = parameters.hbm_efficiency * chip.hbm_bytes_per_s
    return np.asarray(np.maximum(moved / hbm, moved / (wave * per_sm)))


def _quantise_s(chip: ChipSpec, parameters: GemmParameters, work: _Work) -> Floats:
    """Return the time of quantising A; it follows SMs and clock, not HBM (cost_model.md §2)."""
    if not parameters.contains_quantise:
        return np.zeros_like(work.rows)
    rate = QUANTISE_RATE * work.sms * chip.peak_clock_hz
    return np.asarray(parameters.quantise_bytes * work.rows * work.depth / rate)
