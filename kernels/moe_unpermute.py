"""Combine un-permute: add up the experts' results of each token, weighted or not.

    X[t, :] = sum_{j: R[t, j] >= 0} W[t, j] Y[R[t, j], :]

Y (rows, hidden) bf16, R (tokens, k) int32 from `moe_map`, W (tokens, k) fp32 or none (1)
-> X (tokens, hidden) bf16, summed in fp32 in the order of j. A token without copies becomes zeros.
Without weights this is also the gradient of the dispatch permute.
"""

from dataclasses import dataclass

import torch
import triton
import triton.language as tl
from torch import Tensor

from kernels import moe_map
from kernels._device import ceil_div, check, check_rank, interpreting, measured
from kernels._numerics import normal, to_bf16
from kernels.moe_permute import capacity_of

FORMAT = "bf16"

SHAPES = (
    {"tokens": 30720, "rows": 32768, "top_k": 8, "experts": 4, "hidden": 7168, "weighted": 1},
    {"tokens": 4096, "rows": 32768, "top_k": 8, "experts": 256, "hidden": 7168, "weighted": 1},
    {"tokens": 30720, "rows": 32768, "top_k": 8, "experts": 4, "hidden": 7168, "weighted": 0},
    {"tokens": 1037, "rows": 1500, "top_k": 6, "experts": 20, "hidden": 1999, "weighted": 1},
)
TINY = {"tokens": 9, "rows": 12, "top_k": 2, "experts": 3, "hidden": 40, "weighted": 1}


@dataclass(frozen=True, slots=True)
class Config:
    """Columns summed by one program, and its warps."""

    cols: int = 1024
    warps: int = 4


CONFIGS = (Config(), Config(cols=2048, warps=8), Config(cols=512, warps=2))
CLASSES = {"tokens": (512,)}


@measured(Config, CLASSES)
def choose(tokens: int) -> Config:
    """Return the default for every shape, where `choices.csv` has no row. By reasoning."""
    return Config()


@triton.jit
def _unpermute_kernel(
    y_ptr, rows_ptr, weights_ptr, x_ptr, hidden, y_stride, x_stride,
    WEIGHTED: tl.constexpr, TOP_K: tl.constexpr, COLS: tl.constexpr, UPCAST: tl.constexpr,
):  # fmt: skip
    token = tl.program_id(0).to(tl.int64)
    cols = tl.program_id(1) * COLS + tl.arange(0, COLS)
    inside = cols < hidden
    total = tl.zeros((COLS,), tl.float32)
    # Unrolled and masked instead of branched: all copies are in flight together.
    for j in tl.static_range(TOP_K):
        row = tl.load(rows_ptr + token * TOP_K + j).to(tl.int64)
        y = tl.load(y_ptr + row * y_stride + cols, mask=inside & (row >= 0), other=0.0)
        y = y.to(tl.float32)
        if WEIGHTED:
            y *= tl.load(weights_ptr + token * TOP_K + j)
        total += y
    tl.store(x_ptr + token * x_stride + cols, to_bf16(total, UPCAST), mask=inside)


def launch(
    y: Tensor,
    rows: Tensor,
    weights: Tensor | None = None,
    *,
    out: Tensor | None = None,
    config: Config | None = None,
) -> Tensor:
    """Return X.

    Raises:
        ValueError: shapes or formats do not fit, or rows are not contiguous.
    """
    check_rank("y", y, 2)
    check_rank("rows", rows, 2)
    (tokens, top_k), hidden = rows.shape, y.shape[1]
    check("y", y, (y.shape[0], hidden), torch.bfloat16)
    check("rows", rows, (tokens, top_k), torch.int32)
    if weights is not None:
        check("weights", weights, (tokens, top_k), torch.float32)
    x = torch.empty(tokens, hidden, dtype=torch.bfloat16, device=y.device) if out is None else out
    check("out", x, (tokens, hidden), torch.bfloat16)
    if tokens == 0:
        return x
    w = rows if weights is None else weights  # not touched unless given
    if y.stride(1) != 1 or x.stride(1) != 1 or not rows.is_contiguous() or not w.is_contiguous():
        raise ValueError("moe_unpermute: rows of y and out, and all of rows, weights: contiguous")
    cfg = config or choose(tokens, device=y.device)
    _unpermute_kernel[(tokens, ceil_div(hidden, cfg.cols))](
        y, rows, w, x, hidden, y.stride(0), x.stride(0), WEIGHTED=weights is not None,
        TOP_K=top_k, COLS=cfg.cols, UPCAST=interpreting(), num_warps=cfg.warps,
    )  # fmt: skip
    return x


def reference(y: Tensor, rows: Tensor, weights: Tensor | None = None) -> Tensor:
    """Return X in float64."""
    live = (rows >= 0).double()
    if weights is not None:
        live = live * weights.double()
    total = torch.zeros(rows.shape[0], y.shape[1], dtype=torch.float64, device=y.device)
    for j in range(rows.shape[1]):
        here = rows[:, j] >= 0
        total[here] += live[here, j, None] * y[rows[here, j].long()].double()
    return total


def inputs(shape: dict[str, int], device: torch.device | str, seed: int = 0) -> dict:
    """Return random results of experts, routing and weights."""
    rows, _, _ = moe_map.reference(moe_map.draw_experts(shape, seed), shape["experts"])
    args = {
        "y": normal((capacity_of(shape), shape["hidden"]), device, seed + 1),
        "rows": rows.to(device),
    }
    if shape["weighted"]:
        args["weights"] = normal(tuple(rows.shape), device, seed + 2, torch.float32).abs()
    return args


def work(shape: dict[str, int]) -> tuple[float, float]:
    """Return no tensor-core FLOPs, and the bytes: copies read, tokens written, R and W read."""
    slots = float(shape["tokens"]) * shape["top_k"] * 4 * (1 + shape["weighted"])
    return 0.0, (shape["tokens"] + shape["rows"]) * float(shape["hidden"]) * 2 + slots


PROVIDERS = {"moesim": launch}
