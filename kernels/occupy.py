"""Hold some SMs, idle or copying, while something else is measured on the rest.

    Y[i] = X[i], over and over, until stop[0] != 0 or `rounds` rounds have passed

X, Y (words,) int32; stop (1,) int32, set from another stream; started (1,) int32 counts programs
that run. A program takes a whole SM: 1024 threads whose registers fill the register file, so no
other kernel's program fits beside it. Between two tiles it polls `stop`, as a communication kernel
polls its peers; `words = 0` makes it poll only.

Used for two measurements: with idle holders, what a kernel does on 112 of 132 SMs; with copying
ones, how much slower it gets beside a dispatch or combine that runs on 20 SMs. (The memory traffic
is like theirs, the network is not there.)
"""

from dataclasses import dataclass

import torch
import triton
import triton.language as tl
from torch import Tensor

from kernels._device import check, check_rank
from kernels._numerics import generator

FORMAT = "exact"
WARPS = 32
# Words of one program at a time. 40 registers of each of 1024 threads, loaded before the first is
# stored; with the addresses a thread then needs more than 56, and 1024 x 64 is the whole file.
WIDE, NARROW = 32 * 1024, 8 * 1024
TILE = WIDE + NARROW

# 20 of 132 SMs belong to communication in DeepSeek-V3's training; each copies its share.
SHAPES = ({"sms": 20, "bytes": 1 << 26, "rounds": 64}, {"sms": 20, "bytes": 0, "rounds": 64})
TINY = {"sms": 1, "bytes": 4096, "rounds": 1}


@dataclass(frozen=True, slots=True)
class Config:
    """Polls between two tiles: more of them, less traffic."""

    polls: int = 1


@triton.jit
def _occupy_kernel(
    x_ptr, y_ptr, stop_ptr, started_ptr, words, rounds, polls,
    WIDE: tl.constexpr, NARROW: tl.constexpr,
):  # fmt: skip
    tl.atomic_add(started_ptr, 1)
    tiles = tl.maximum(tl.cdiv(words, WIDE + NARROW), 1)
    tile = tl.program_id(0) % tiles
    left = rounds
    while left > 0:
        wide = tile * (WIDE + NARROW) + tl.arange(0, WIDE)
        narrow = tile * (WIDE + NARROW) + WIDE + tl.arange(0, NARROW)
        first = tl.load(x_ptr + wide, mask=wide < words)
        second = tl.load(x_ptr + narrow, mask=narrow < words)
        tl.store(y_ptr + wide, first, mask=wide < words)
        tl.store(y_ptr + narrow, second, mask=narrow < words)
        for _ in range(polls):
            if tl.atomic_add(stop_ptr, 0) != 0:
                left = 0
        tile = (tile + tl.num_programs(0)) % tiles
        left -= 1


def launch(
    x: Tensor,
    stop: Tensor,
    started: Tensor,
    sms: int,
    rounds: int,
    *,
    out: Tensor | None = None,
    config: Config | None = None,
) -> Tensor:
    """Hold `sms` SMs and copy X to the result, tile by tile, for at most `rounds` rounds.

    Raises:
        ValueError: X is no contiguous int32 vector, or counts are not positive.
    """
    check_rank("x", x, 1)
    check("x", x, tuple(x.shape), torch.int32)
    check("stop", stop, (1,), torch.int32)
    check("started", started, (1,), torch.int32)
    if sms < 1 or rounds < 1 or not x.is_contiguous():
        raise ValueError(
            f"occupy: {sms} SMs for {rounds} rounds given, at least 1 of each; x must be contiguous"
        )
    y = torch.empty_like(x) if out is None else out
    check("out", y, tuple(x.shape), torch.int32)
    polls = (config or Config()).polls
    _occupy_kernel[(sms,)](
        x, y, stop, started, x.numel(), rounds, polls, WIDE=WIDE, NARROW=NARROW, num_warps=WARPS
    )
    return y


def reference(x: Tensor, stop: Tensor, started: Tensor, sms: int, rounds: int) -> Tensor:
    """Return X: what Y holds once every tile had its turn."""
    return x.clone()


def inputs(shape: dict[str, int], device: torch.device | str, seed: int = 0) -> dict:
    """Return random words, and flags that say: run."""
    on = {"dtype": torch.int32, "device": device}
    x = torch.randint(
        -(1 << 31), 1 << 31, (shape["bytes"] // 4,), generator=generator(device, seed), **on
    )
    return {
        "x": x,
        "stop": torch.zeros(1, **on),
        "started": torch.zeros(1, **on),
        "sms": shape["sms"],
        "rounds": shape["rounds"],
    }


def work(shape: dict[str, int]) -> tuple[float, float]:
    """Return no FLOPs, and the bytes that all rounds read and write."""
    tiles = shape["rounds"] * shape["sms"] if shape["bytes"] else 0
    return 0.0, 8.0 * TILE * tiles


PROVIDERS = {"moesim": launch}
