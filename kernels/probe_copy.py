"""Probe: how fast memory is copied, by all SMs or a few.

    Y[i] = X[i]

X, Y (words,) int32. A persistent program per slot copies every so-many-th block; with `sms` it
shows what bandwidth a few SMs can draw, which is what a communication kernel on 20 SMs has.
"""

from dataclasses import dataclass

import torch
import triton
import triton.language as tl
from torch import Tensor

from kernels._device import ceil_div, check, check_rank, measured, programs
from kernels._numerics import generator

FORMAT = "exact"

SHAPES = ({"bytes": 1 << 30}, {"bytes": 1 << 26}, {"bytes": 1 << 22}, {"bytes": 4_000_004})
TINY = {"bytes": 4096}


@dataclass(frozen=True, slots=True)
class Config:
    """Words copied at a time, warps, programs per SM."""

    words: int = 4096
    warps: int = 8
    per_sm: int = 4


CONFIGS = (Config(), Config(words=8192, per_sm=2), Config(words=2048, warps=4, per_sm=8))
CLASSES = {"bytes": (33_554_432,)}


@measured(Config, CLASSES)
def choose(bytes: int) -> Config:
    """Return the default for every shape, where `choices.csv` has no row. By reasoning."""
    return Config()


@triton.jit
def _copy_kernel(x_ptr, y_ptr, words, WORDS: tl.constexpr):
    for block in tl.range(tl.program_id(0), tl.cdiv(words, WORDS), tl.num_programs(0)):
        at = block * WORDS + tl.arange(0, WORDS)
        tl.store(y_ptr + at, tl.load(x_ptr + at, mask=at < words), mask=at < words)


def launch(
    x: Tensor, *, out: Tensor | None = None, config: Config | None = None, sms: int | None = None
) -> Tensor:
    """Return a copy of X made by at most `sms` SMs.

    Raises:
        ValueError: X is no contiguous int32 vector.
    """
    check_rank("x", x, 1)
    check("x", x, tuple(x.shape), torch.int32)
    y = torch.empty_like(x) if out is None else out
    check("out", y, tuple(x.shape), torch.int32)
    if x.numel() == 0:
        return y
    if not (x.is_contiguous() and y.is_contiguous()):
        raise ValueError("probe_copy: x and out must be contiguous")
    cfg = config or choose(x.numel() * x.element_size(), device=x.device)
    grid = programs(ceil_div(x.numel(), cfg.words), x.device, sms, cfg.per_sm)
    _copy_kernel[(grid,)](x, y, x.numel(), WORDS=cfg.words, num_warps=cfg.warps)
    return y


def reference(x: Tensor) -> Tensor:
    """Return a copy of X."""
    return x.clone()


def inputs(shape: dict[str, int], device: torch.device | str, seed: int = 0) -> dict[str, Tensor]:
    """Return random words."""
    return {
        "x": torch.randint(
            -(1 << 31),
            1 << 31,
            (shape["bytes"] // 4,),
            dtype=torch.int32,
            device=device,
            generator=generator(device, seed),
        )
    }


def work(shape: dict[str, int]) -> tuple[float, float]:
    """Return no FLOPs, and the bytes read and written."""
    return 0.0, 2.0 * (shape["bytes"] // 4 * 4)


PROVIDERS = {"moesim": launch, "torch": reference}
