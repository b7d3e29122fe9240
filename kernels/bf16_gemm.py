"""Matrix product in BF16: router gate, language-model head, and what FP8 is measured against.

    C[i, j] = sum_k A[i, k] B[j, k]

A (m, k) bf16, B (n, k) bf16, both row-major; C (m, n) bf16, or fp32 (router logits). FP32
accumulation. Persistent grid, operands and result by TMA; one warpgroup may load for two that
multiply 64 rows each.
"""

from dataclasses import dataclass

import torch
import triton
import triton.language as tl
from torch import Tensor
from triton.tools.tensor_descriptor import TensorDescriptor

from kernels._device import (
    ceil_div,
    check,
    check_rank,
    check_rows,
    interpreting,
    measured,
    programs,
    with_scratch,
)
from kernels._numerics import normal, operand, to_bf16
from kernels.fp8_gemm import check_specialized, tile_of

FORMAT = "bf16"

# Router gate, a slice of the head, the square that shows the sustained rate, decode, ragged.
SHAPES = (
    {"m": 4096, "n": 256, "k": 7168},
    {"m": 4096, "n": 32320, "k": 7168},
    {"m": 8192, "n": 8192, "k": 8192},
    {"m": 256, "n": 7168, "k": 4096},
    {"m": 128, "n": 256, "k": 7168},
    {"m": 64, "n": 7168, "k": 2048},
    {"m": 32, "n": 256, "k": 7168},
    {"m": 1037, "n": 1528, "k": 2000},
)
TINY = {"m": 9, "n": 16, "k": 24}


@dataclass(frozen=True, slots=True)
class Config:
    """Tile, k-steps in flight, warps, programs per SM, rows of tiles walked together, one loop.

    `specialize`: a warpgroup loads for two that multiply, as in `fp8_gemm.Config`.

    Raises:
        ValueError: `specialize` with other than 128 rows, 4 warps and two loops.
    """

    block_m: int = 128
    block_n: int = 256
    block_k: int = 64
    stages: int = 3
    warps: int = 8
    per_sm: int = 1
    group_m: int = 8
    flatten: bool = True
    specialize: bool = False

    def __post_init__(self) -> None:
        if self.specialize:
            check_specialized(self.block_m, self.warps, flatten=self.flatten)


# The candidates of a sweep on a GPU; `choose` picks among them. The last two are by what compiles:
# a k-step takes 57 and 46 instructions of a warpgroup, of 88 where each warpgroup does all.
CONFIGS = (
    Config(),
    Config(block_n=128, stages=4),
    Config(64, 128, 64, 4, 4, 2),
    Config(warps=4, flatten=False, specialize=True),
    Config(block_n=128, stages=4, warps=4, flatten=False, specialize=True),
)

CLASSES = {"m": (64, 512), "n": (512,)}


@measured(Config, CLASSES)
def choose(m: int, n: int, sms: int) -> Config:
    """Return the largest tile of which there are enough. By reasoning, not yet by measurement."""
    if m > 64 and ceil_div(m, 128) * ceil_div(n, 256) >= sms:
        return Config()
    if m > 64 and ceil_div(m, 128) * ceil_div(n, 128) * 2 >= sms:
        return Config(block_n=128, stages=4)
    return Config(64, 64 if n < 64 * sms else 128, 128, 4, 4)


@triton.jit
def _bf16_gemm_kernel(
    a_desc, b_desc, c_desc, m, n, k, a_stride, b_stride, c_stride,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_K: tl.constexpr, GROUP_M: tl.constexpr,
    STAGES: tl.constexpr, FLATTEN: tl.constexpr, SPECIALIZE: tl.constexpr, FP32_OUT: tl.constexpr,
    UPCAST: tl.constexpr,
):  # fmt: skip
    if SPECIALIZE:  # what is given are pointers
        a_desc = tl.make_tensor_descriptor(a_desc, [m, k], [a_stride, 1], [BLOCK_M, BLOCK_K])
        b_desc = tl.make_tensor_descriptor(b_desc, [n, k], [b_stride, 1], [BLOCK_N, BLOCK_K])
        c_desc = tl.make_tensor_descriptor(c_desc, [m, n], [c_stride, 1], [BLOCK_M, BLOCK_N])
    tiles_m, tiles_n = tl.cdiv(m, BLOCK_M), tl.cdiv(n, BLOCK_N)
    for index in tl.range(tl.program_id(0), tiles_m * tiles_n, tl.num_programs(0), flatten=FLATTEN):
        tile_m, tile_n = tile_of(index, tiles_m, tiles_n, GROUP_M)
        row, col = tile_m * BLOCK_M, tile_n * BLOCK_N
        total = tl.zeros((BLOCK_M, BLOCK_N), tl.float32)
        for step in tl.range(0, tl.cdiv(k, BLOCK_K), num_stages=STAGES, warp_specialize=SPECIALIZE):
            a = operand(a_desc.load([row, step * BLOCK_K]), UPCAST)
            b = operand(b_desc.load([col, step * BLOCK_K]), UPCAST)
            total = tl.dot(a, b.T, total)
        if FP32_OUT:
            c_desc.store([row, col], total)
        else:
            c_desc.store([row, col], to_bf16(total, UPCAST))


def launch(
    a: Tensor,
    b: Tensor,
    *,
    out: Tensor | None = None,
    config: Config | None = None,
    sms: int | None = None,
) -> Tensor:
    """Return C = A B^T on at most `sms` SMs, in bf16 or in the format of `out`.

    Raises:
        ValueError: shapes or formats do not fit, or rows are not on 16-byte steps.
    """
    check_rank("a", a, 2)
    check_rank("b", b, 2)
    (m, k), n = a.shape, b.shape[0]
    check("a", a, (m, k), torch.bfloat16)
    check("b", b, (n, k), torch.bfloat16)
    c = torch.empty(m, n, dtype=torch.bfloat16, device=a.device) if out is None else out
    check("out", c, (m, n), torch.bfloat16, torch.float32)
    if 0 in (m, n):
        return c
    for name, tensor in (("a", a), ("b", b), ("out", c)):
        check_rows(name, tensor)
    cfg = config or choose(m, n, programs(1 << 30, a.device, sms), device=a.device)
    tiles = ceil_div(m, cfg.block_m) * ceil_div(n, cfg.block_n)
    operands = (
        TensorDescriptor.from_tensor(a, [cfg.block_m, cfg.block_k]),
        TensorDescriptor.from_tensor(b, [cfg.block_n, cfg.block_k]),
        TensorDescriptor.from_tensor(c, [cfg.block_m, cfg.block_n]),
    )
    with_scratch(
        _bf16_gemm_kernel[(programs(tiles, a.device, sms, cfg.per_sm),)],
        *((a, b, c) if cfg.specialize else operands),
        m, n, k, a.stride(0), b.stride(0), c.stride(0),
        BLOCK_M=cfg.block_m, BLOCK_N=cfg.block_n, BLOCK_K=cfg.block_k, GROUP_M=cfg.group_m,
        STAGES=cfg.stages, FLATTEN=cfg.flatten, SPECIALIZE=cfg.specialize,
        FP32_OUT=c.dtype == torch.float32, UPCAST=interpreting(), num_warps=cfg.warps,
    )  # fmt: skip
    return c


def reference(a: Tensor, b: Tensor) -> Tensor:
    """Return C in float64."""
    return a.double() @ b.double().T


def inputs(shape: dict[str, int], device: torch.device | str, seed: int = 0) -> dict[str, Tensor]:
    """Return fresh random operands for `launch`."""
    return {
        "a": normal((shape["m"], shape["k"]), device, seed),
        "b": normal((shape["n"], shape["k"]), device, seed + 1),
    }


def work(shape: dict[str, int]) -> tuple[float, float]:
    """Return FLOPs and least bytes: operands read once, C written once."""
    m, n, k = float(shape["m"]), float(shape["n"]), float(shape["k"])
    return 2 * m * n * k, 2 * (m * k + n * k + m * n)


def launch_torch(a: Tensor, b: Tensor) -> Tensor:
    """Return C by cuBLAS."""
    return a @ b.T


PROVIDERS = {"moesim": launch, "torch": launch_torch}
