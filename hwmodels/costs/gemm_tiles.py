"""Tiles of C that a library may use for a product, by how it chooses among them.

    tuned             whatever is fastest: cuBLASLt and other autotuned libraries
    deepgemm          64 rows up to m = 64, then 64 or 128, with any multiple of 8 columns up to 128
                      (deepseek-ai/DeepGEMM, jit_kernels/gemm.py get_best_configs)
    deepgemm-swapped  the same with 128 rows beyond m = 64, and with A and B swapped below m = 32
                      (NVIDIA/TensorRT-LLM, fp8_blockscale_gemm_kernel.cuh gemm_dispatch and
                      deep_gemm/compiler.cuh get_best_gemm_config)
    cutlass-rows      64x64 up to m = 256, then 128x128
                      (sgl-project/sglang, sgl-kernel fp8_gemm_kernel.cu sm90_fp8_dispatch_shape)

Of the columns that it allows DeepGEMM takes those with the fewest waves. Here the fastest tile is
priced of those that a rule allows: nearer to what was measured, and never slower with more SMs.
"""

from collections.abc import Iterable
from itertools import product
from typing import Literal, NamedTuple

import numpy as np

from hwmodels.arrays import Floats

Dispatch = Literal["tuned", "deepgemm", "deepgemm-swapped", "cutlass-rows"]

ELEMENTS_MAX = 32768
"""Largest tile: FP32 accumulators of this many fill half of an SM's registers."""
SPLITS = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0)
"""Parts that k may be cut into."""


class Tiles(NamedTuple):
    """Candidates, as columns of one length.

    Attributes:
        rows, cols: of C.
        mma, other: side on the tensor core's rows, and on its columns.
        above_m, upto_m: rows of the product that it is used for, without and with the end.
    """

    rows: Floats
    cols: Floats
    mma: Floats
    other: Floats
    above_m: Floats
    upto_m: Floats


class _Kernel(NamedTuple):
    """Tiles `mma` x `other` that are used above some rows of a product, up to some."""

    mma: Iterable[int]
    other: Iterable[int]
    above_m: float = -np.inf
    upto_m: float = np.inf
    swapped: bool = False


_DEEPGEMM_COLUMNS = range(16, 129, 8)
_KERNELS: dict[str, tuple[_Kernel, ...]] = {
    "deepgemm": (
        _Kernel((64,), _DEEPGEMM_COLUMNS, upto_m=64),
        _Kernel((64, 128), _DEEPGEMM_COLUMNS, above_m=64),
    ),
    "deepgemm-swapped": (
        _Kernel((64, 128), _DEEPGEMM_COLUMNS, upto_m=31, swapped=True),
        _Kernel((64,), _DEEPGEMM_COLUMNS, above_m=31, upto_m=64),
        _Kernel((128,), _DEEPGEMM_COLUMNS, above_m=64),
    ),
    "cutlass-rows": (_Kernel((64,), (64,), upto_m=256), _Kernel((128,), (128,), above_m=256)),
}


def candidates(
    dispatch: Dispatch,
    tile: tuple[int, int] | None,
    mma_rows: int,
    *,
    fine_tiles: bool,
    swap_ab: bool,
) -> Tiles:
    """Return every tile the library may choose; arguments as in `GemmParameters`.

    Args:
        mma_rows: least rows of a tuned tile.
    """
    if tile is not None:
        kernels: tuple[_Kernel, ...] = (_Kernel((tile[0],), (tile[1],)),)
    elif dispatch == "tuned":
        rows = [side for side in (64, 128, 256) if side >= mma_rows]
        cols = [8, *range(16, 257, 16)] if fine_tiles else [8, 16, 32, 64, 128, 256]
        kernels = (_Kernel(rows, cols),)
        kernels += (_Kernel(rows, cols, swapped=True),) if swap_ab else ()
    else:
        kernels = _KERNELS[dispatch]
    table = [
        (*((b, a) if kernel.swapped else (a, b)), a, b, kernel.above_m, kernel.upto_m)
        for kernel in kernels
        for a, b in product(kernel.mma, kernel.other)
        if a * b <= ELEMENTS_MAX or tile is not None
    ]
    return Tiles(*np.array(table, np.float64).T)
