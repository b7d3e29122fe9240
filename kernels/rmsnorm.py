"""RMS norm, optionally of a sum with the residual stream.

    S = X + R (or X);   rstd[i] = (mean_k S[i, k]^2 + eps)^(-1/2);   Y[i, k] = S[i, k] rstd[i] W[k]

X, R (m, k) bf16, W (k,) bf16 -> Y (m, k) bf16, rstd (m,) fp32, S (m, k) bf16 where R is given.
All arithmetic in fp32; with a residual, the norm is of the sum before it is rounded to bf16.

One program keeps a whole row in registers, so X is read once.

Reference: Zhang and Sennrich, "Root mean square layer normalization", arXiv 1910.07467.
"""

from dataclasses import dataclass

import torch
import triton
import triton.language as tl
from torch import Tensor

from kernels._device import check, check_rank, interpreting, measured, next_power_of_2
from kernels._numerics import normal, to_bf16

FORMAT = "bf16"
EPS = 1e-6

# Hidden state with and without residual, low-rank queries and latents of DeepSeek-V3; ragged.
SHAPES = (
    {"m": 4096, "k": 7168, "residual": 0},
    {"m": 4096, "k": 7168, "residual": 1},
    {"m": 32768, "k": 7168, "residual": 1},
    {"m": 4096, "k": 1536, "residual": 0},
    {"m": 4096, "k": 512, "residual": 0},
    {"m": 1037, "k": 1999, "residual": 1},
)
TINY = {"m": 3, "k": 40, "residual": 1}


@dataclass(frozen=True, slots=True)
class Config:
    """Warps of a program."""

    warps: int = 8


CONFIGS = (Config(4), Config(8), Config(16))

CLASSES = {"k": (1024, 4096)}


@measured(Config, CLASSES)
def choose(k: int) -> Config:
    """Return about 32 elements per thread. By reasoning, not yet by measurement."""
    return Config(min(16, max(1, next_power_of_2(k) // 1024)))


@triton.jit
def _rmsnorm_kernel(
    x_ptr, w_ptr, r_ptr, y_ptr, s_ptr, rstd_ptr, k, x_stride, r_stride, y_stride, s_stride, eps,
    RESIDUAL: tl.constexpr, WIDTH: tl.constexpr, UPCAST: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(0).to(tl.int64)
    cols = tl.arange(0, WIDTH)
    mask = cols < k
    x = tl.load(x_ptr + row * x_stride + cols, mask=mask, other=0.0).to(tl.float32)
    if RESIDUAL:
        x += tl.load(r_ptr + row * r_stride + cols, mask=mask, other=0.0).to(tl.float32)
        tl.store(s_ptr + row * s_stride + cols, to_bf16(x, UPCAST), mask=mask)
    rstd = tl.rsqrt(tl.sum(x * x, 0) / k + eps)
    w = tl.load(w_ptr + cols, mask=mask, other=0.0).to(tl.float32)
    tl.store(y_ptr + row * y_stride + cols, to_bf16(x * rstd * w, UPCAST), mask=mask)
    tl.store(rstd_ptr + row, rstd)


def launch(
    x: Tensor,
    w: Tensor,
    residual: Tensor | None = None,
    *,
    eps: float = EPS,
    out: tuple[Tensor, ...] | None = None,
    config: Config | None = None,
) -> tuple:
    """Return (Y, rstd), or (Y, rstd, S) with a residual.

    Raises:
        ValueError: shapes or formats do not fit, or rows are not contiguous.
    """
    check_rank("x", x, 2)
    m, k = x.shape
    check("x", x, (m, k), torch.bfloat16)
    check("w", w, (k,), torch.bfloat16)
    if residual is not None:
        check("residual", residual, (m, k), torch.bfloat16)
    outs = out or (
        torch.empty_like(x), torch.empty(m, dtype=torch.float32, device=x.device),
        *([] if residual is None else [torch.empty_like(x)]),
    )  # fmt: skip
    y, rstd, total = outs[0], outs[1], outs[-1] if residual is not None else outs[0]
    check("out: y", y, (m, k), torch.bfloat16)
    check("out: rstd", rstd, (m,), torch.float32)
    if m == 0:
        return outs
    r = x if residual is None else residual  # not touched unless given
    if any(t.stride(1) != 1 for t in (x, r, y, total)):
        raise ValueError("rmsnorm: rows must be contiguous")
    cfg = config or choose(k, device=x.device)
    _rmsnorm_kernel[(m,)](
        x, w, r, y, total, rstd, k, x.stride(0), r.stride(0), y.stride(0), total.stride(0), eps,
        RESIDUAL=residual is not None, WIDTH=next_power_of_2(k), UPCAST=interpreting(),
        num_warps=cfg.warps,
    )  # fmt: skip
    return outs


def reference(x: Tensor, w: Tensor, residual: Tensor | None = None, *, eps: float = EPS) -> tuple:
    """Return the same in float64."""
    total = x.double() if residual is None else x.double() + residual.double()
    rstd = (total.square().mean(1) + eps).rsqrt()
    y = total * rstd[:, None] * w.double()
    return (y, rstd) if residual is None else (y, rstd, total)


def inputs(shape: dict[str, int], device: torch.device | str, seed: int = 0) -> dict[str, Tensor]:
    """Return fresh random arguments of `launch`."""
    m, k = shape["m"], shape["k"]
    args = {"x": normal((m, k), device, seed), "w": normal((k,), device, seed + 1)}
    if shape["residual"]:
        args["residual"] = normal((m, k), device, seed + 2)
    return args


def work(shape: dict[str, int]) -> tuple[float, float]:
    """Return no tensor-core FLOPs, and the bytes: rows read and written once, W once, rstd."""
    m, k = float(shape["m"]), float(shape["k"])
    return 0.0, m * k * 4 * (1 + shape["residual"]) + m * 4 + k * 2


def launch_torch(x: Tensor, w: Tensor, residual: Tensor | None = None) -> tuple:
    """Return torch's fused norm, which keeps no rstd and adds the residual in a pass apart."""
    total = x if residual is None else x + residual
    return (torch.nn.functional.rms_norm(total, (x.shape[1],), w, EPS),)


PROVIDERS = {"moesim": launch, "torch": launch_torch}
