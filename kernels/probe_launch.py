"""Probe: what a launch costs when the kernel does nothing.

    X[0] = X[0] + 1, `launches` times, each in a kernel of its own

X (1,) int32. Back to back in one stream: the time per launch is the gap between dependent kernels
(or the time Python needs to launch one, whichever is longer; a captured graph shows the gap alone).
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from kernels._device import check

FORMAT = "exact"

SHAPES = ({"launches": 1}, {"launches": 100})
TINY = {"launches": 2}


@triton.jit
def _increment_kernel(x_ptr):
    tl.store(x_ptr, tl.load(x_ptr) + 1)


def launch(x: Tensor, launches: int) -> Tensor:
    """Add `launches` to X, one launch at a time, and return X.

    Raises:
        ValueError: X is not one int32.
    """
    check("x", x, (1,), torch.int32)
    for _ in range(launches):
        _increment_kernel[(1,)](x, num_warps=1)
    return x


def reference(x: Tensor, launches: int) -> Tensor:
    """Return X + launches; `x` is only read."""
    return x + launches


def inputs(shape: dict[str, int], device: torch.device | str, seed: int = 0) -> dict:
    """Return a counter."""
    return {
        "x": torch.full((1,), seed, dtype=torch.int32, device=device),
        "launches": shape["launches"],
    }


def work(shape: dict[str, int]) -> tuple[float, float]:
    """Return no FLOPs, and the 8 bytes each launch moves."""
    return 0.0, 8.0 * shape["launches"]


PROVIDERS = {"moesim": launch}
