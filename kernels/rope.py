"""Rotary position embedding of the 64 rotary channels of each head, in place or not.

    (a, b) -> (a cos - b sin, b cos + a sin)    for neighbours a = X[t, h, 2j], b = X[t, h, 2j + 1]

X (tokens, heads, dim) bf16, a view whose last dimension is contiguous: DeepSeek-V3 rotates the last
64 of a query head's 192 channels and one shared key of 64. cos, sin (tokens, dim/2) fp32.
`inverse` turns the other way: the gradient.

The 64 channels of a head are 128 bytes in a row of 384: strided access that no kernel escapes.

Reference: Su et al., "RoFormer", arXiv 2104.09864; DeepSeek-V3 §2.1.1.
"""

from dataclasses import dataclass

import torch
import triton
import triton.language as tl
from torch import Tensor

from kernels._device import ceil_div, check, check_rank, interpreting, measured, next_power_of_2
from kernels._numerics import normal, to_bf16

FORMAT = "bf16"

# Queries (the last 64 of 192 channels), the shared key (the last 64 of 576), ragged.
SHAPES = (
    {"tokens": 4096, "heads": 128, "dim": 64, "row": 192},
    {"tokens": 4096, "heads": 1, "dim": 64, "row": 576},
    {"tokens": 32768, "heads": 1, "dim": 64, "row": 576},
    {"tokens": 1037, "heads": 7, "dim": 64, "row": 192},
)
TINY = {"tokens": 3, "heads": 2, "dim": 64, "row": 192}


@dataclass(frozen=True, slots=True)
class Config:
    """Heads (or, with one head, tokens) per program, and its warps."""

    rows: int = 32
    warps: int = 4


CONFIGS = (Config(), Config(rows=64), Config(rows=128, warps=8))
CLASSES = {"heads": (1,)}


@measured(Config, CLASSES)
def choose(heads: int) -> Config:
    """Return the default for every shape, where `choices.csv` has no row. By reasoning."""
    return Config()


@triton.jit
def _rope_kernel(
    x_ptr, cos_ptr, sin_ptr, y_ptr, rows_end, heads, half,
    x_stride_t, x_stride_h, y_stride_t, y_stride_h, cos_stride, sin_stride, turn,
    ROWS: tl.constexpr, HALF: tl.constexpr, UPCAST: tl.constexpr,
):  # fmt: skip
    rows = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    token, head = (rows // heads).to(tl.int64), rows % heads
    pairs = tl.arange(0, HALF)
    live = rows < rows_end
    mask = live[:, None] & (pairs < half)[None, :]
    both = tl.arange(0, 2 * HALF)
    wide = live[:, None] & (both < 2 * half)[None, :]
    at = (token * x_stride_t + head * x_stride_h)[:, None]
    x = tl.load(x_ptr + at + both[None, :], mask=wide, other=0.0).to(tl.float32)
    a, b = tl.split(x.reshape([ROWS, HALF, 2]))
    at_angle = pairs[None, :]
    cos = tl.load(cos_ptr + token[:, None] * cos_stride + at_angle, mask=mask, other=0.0)
    sin = tl.load(sin_ptr + token[:, None] * sin_stride + at_angle, mask=mask, other=0.0) * turn
    y = tl.join(a * cos - b * sin, b * cos + a * sin).reshape([ROWS, 2 * HALF])
    at = (token * y_stride_t + head * y_stride_h)[:, None]
    tl.store(y_ptr + at + both[None, :], to_bf16(y, UPCAST), mask=wide)


def launch(
    x: Tensor,
    cos: Tensor,
    sin: Tensor,
    *,
    inverse: bool = False,
    out: Tensor | None = None,
    config: Config | None = None,
) -> Tensor:
    """Return X turned by the angles of each token; `out=x` turns it in place.

    Raises:
        ValueError: shapes or formats do not fit, or channels are not contiguous.
    """
    check_rank("x", x, 3)
    tokens, heads, dim = x.shape
    check("x", x, (tokens, heads, dim - dim % 2), torch.bfloat16)
    check("cos", cos, (tokens, dim // 2), torch.float32)
    check("sin", sin, (tokens, dim // 2), torch.float32)
    y = torch.empty_like(x, memory_format=torch.contiguous_format) if out is None else out
    check("out", y, (tokens, heads, dim), torch.bfloat16)
    if any(t.stride(-1) != 1 for t in (x, y, cos, sin)):
        raise ValueError("rope: channels must be contiguous")
    if tokens * heads == 0:
        return y
    cfg = config or choose(heads, device=x.device)
    _rope_kernel[(ceil_div(tokens * heads, cfg.rows),)](
        x, cos, sin, y, tokens * heads, heads, dim // 2, x.stride(0), x.stride(1), y.stride(0),
        y.stride(1), cos.stride(0), sin.stride(0), -1.0 if inverse else 1.0,
        ROWS=cfg.rows, HALF=next_power_of_2(dim // 2), UPCAST=interpreting(), num_warps=cfg.warps,
    )  # fmt: skip
    return y


def reference(x: Tensor, cos: Tensor, sin: Tensor, *, inverse: bool = False) -> Tensor:
    """Return X turned, in float64, by complex multiplication."""
    turn = torch.complex(cos.double(), -sin.double() if inverse else sin.double())
    pairs = torch.view_as_complex(x.double().reshape(*x.shape[:-1], -1, 2).contiguous())
    return torch.view_as_real(pairs * turn[:, None, :]).flatten(-2)


def inputs(shape: dict[str, int], device: torch.device | str, seed: int = 0) -> dict[str, Tensor]:
    """Return a view of the last `dim` channels of random rows, and the angles of each position."""
    tokens, heads, dim, row = (shape[name] for name in ("tokens", "heads", "dim", "row"))
    frequency = 10000.0 ** (-torch.arange(0, dim, 2, device=device) / dim)
    angle = torch.arange(tokens, device=device)[:, None] * frequency[None, :]
    return {
        "x": normal((tokens, heads, row), device, seed)[..., row - dim :],
        "cos": angle.cos(),
        "sin": angle.sin(),
    }


def work(shape: dict[str, int]) -> tuple[float, float]:
    """Return no tensor-core FLOPs, and the bytes: channels read and written, angles read once."""
    tokens, heads, dim = (float(shape[name]) for name in ("tokens", "heads", "dim"))
    return 0.0, tokens * dim * (heads * 4 + 4)


PROVIDERS = {"moesim": launch}
