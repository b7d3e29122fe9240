"""Cycles of a tile of a product: what one step along k takes, and what is around the steps."""

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from hwmodels.arrays import Floats, Mask
from hwmodels.chip import ChipSpec
from hwmodels.costs.gemm_loops import STEP_BYTES, ElementBytes
from hwmodels.costs.gemm_tiles import Tiles
from hwmodels.costs.kernel_time import smooth_maximum

if TYPE_CHECKING:
    from hwmodels.costs.gemm import GemmParameters


class TileCycles(NamedTuple):
    """Cycles of tiles, whatever the product: of one step along k without and with promotion of
    block scales, outside the steps; and whether a step takes its least time.
    """

    step: Floats
    promotion: Floats
    outside: Floats
    is_floor: Mask


def tile_cycles(
    chip: ChipSpec,
    parameters: "GemmParameters",
    tensor_family: str,
    bytes_of: ElementBytes,
    tiles: Tiles,
) -> TileCycles:
    """Return the cycles of tiles; equations and symbols as in `hwmodels.costs.gemm`.

    Raises:
        SpecError: the chip has no such tensor rate.
    """
    a, b = tiles.mma, tiles.other
    rate = chip.flops_per_clock_per_sm(tensor_family) * parameters.tensor_efficiency
    c_mma = 2 * a * b * (STEP_BYTES / bytes_of.tile) / rate
    c_smem = operand_rows(chip, a, b) * STEP_BYTES / chip.shared_memory_bytes_per_clock
    c_l2 = _refilled_rows(chip, bytes_of, tiles) * STEP_BYTES / parameters.l2_bytes_per_clock
    floor = np.asarray(parameters.iteration_floor_cycles, np.float64)
    step = smooth_maximum(4.0, c_mma, c_smem, c_l2, floor)
    promotion = chip.promotions * parameters.promotion_cycles * a * b / 128
    if parameters.contained_promotion_cycles is not None:
        at_peak = smooth_maximum(4.0, c_mma * parameters.tensor_efficiency, c_smem, c_l2, floor)
        contained = (chip.promotions - 1) * parameters.contained_promotion_cycles * a * b / 128
        promotion = np.maximum(promotion + contained, np.minimum(at_peak - step, 0.0))
    promotion = np.maximum(promotion, _adding_cycles(chip, parameters, a * b) - step)
    written = bytes_of.result * a * b / parameters.l2_bytes_per_clock
    is_floor = floor > np.maximum(c_mma, np.maximum(c_smem, c_l2))
    return TileCycles(step, promotion, parameters.tile_overhead_cycles + written, is_floor)


def _adding_cycles(chip: ChipSpec, parameters: "GemmParameters", accumulators: Floats) -> Floats:
    """Return the cycles in which CUDA cores add the sums of a step up, a multiply-add each; 0 of
    products without block scales, which need neither `promotion_cycles` nor what contains them.
    """
    contained = parameters.contained_promotion_cycles
    scaled = (np.asarray(parameters.promotion_cycles) > 0) | (contained is not None)
    vector = chip.vector_flops_per_s / (chip.sms * chip.peak_clock_hz)
    return np.where(scaled, chip.promotions * 2 * accumulators / vector, 0.0)


def _refilled_rows(chip: ChipSpec, bytes_of: ElementBytes, tiles: Tiles) -> Floats:
    """Return the rows of both operands that L2 hands on for one step of a tile, a row of what is
    wider in memory than in the tile counting for more.
    """
    wide_a, wide_b = bytes_of.a / bytes_of.tile, bytes_of.b / bytes_of.tile
    swapped = tiles.mma != tiles.rows
    of_mma = tiles.mma * np.where(swapped, wide_b, wide_a)
    of_other = tiles.other * np.where(swapped, wide_a, wide_b)
    return np.asarray(of_mma + of_other / chip.operand_sms)


def operand_rows(chip: ChipSpec, a: Floats, b: Floats) -> Floats:
    """Return the rows of both operands that one step of a tile reads from shared memory."""
    rows, cols = chip.operand_tile
    width = np.minimum(b, cols)
    return np.asarray((a / rows) * np.maximum(1.0, b / cols) * (rows + width / chip.operand_sms))
