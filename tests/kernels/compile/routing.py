"""Routings drawn once a process: to sort one takes longer than to compile for it."""

import functools
from typing import Any

from torch import Tensor

from kernels import moe_map

COUNTS = ("tokens", "rows", "top_k", "experts")


def draw_once() -> None:
    """Have kernels' `inputs` share the experts of tokens and their map; nobody writes to either."""
    draw, reference = moe_map.draw_experts, moe_map.reference

    @functools.cache
    def drawn(counts: tuple[int, ...], seed: int) -> Tensor:
        return draw(dict(zip(COUNTS, counts, strict=True)), seed)

    def draw_experts(shape: dict[str, Any], seed: int) -> Tensor:
        return drawn(tuple(shape[name] for name in COUNTS), seed)

    moe_map.draw_experts = draw_experts
    moe_map.reference = functools.cache(reference)  # a tensor is known by its identity
