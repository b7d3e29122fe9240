"""How large the shapes of a day are: real ones, or tiny ones for a dry run in the interpreter."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from calibration.measure.measurement import Point, read_plan
from calibration.measure.plan import (
    by_others,
    decode_points,
    element_wise_points,
    gemm_points,
    grouped_points,
    op_point,
    prefill_points,
    sites,
)
from calibration.stack.dimensions import DEEPSEEK_V3, Dimensions
from kernels import load, names

Shape = Mapping[str, Any]

OPS = Path(__file__).with_name("ops.json")
"""The distinct ops of DeepSeek-V3's training and decode; `moesim calibrate ops` writes it."""

SEED = 0


class Sizes(Protocol):
    """Shapes to choose from."""

    def ops(self) -> list[Point]:
        """Return the ops that will be priced, by every provider."""

    def shapes(self, kernel: str) -> Sequence[Shape]:
        """Return the shapes at which a kernel's configurations are compared."""

    def checked(self, kernel: str) -> Sequence[Shape]:
        """Return two shapes at which a kernel's numbers are checked, the second ragged."""

    def configs(self, kernel: str) -> Sequence[Any]:
        """Return the configurations of a kernel to try, none where it has no choice."""

    def design(self) -> list[list[Point]]:
        """Return, family by family, the points that identify the cost model."""

    def copy_bytes(self) -> int:
        """Return the size of a copy that fills the device."""

    def training_layer(self) -> Dimensions:
        """Return how large the layer is that is trained as a whole."""

    def decoding_layer(self) -> Dimensions:
        """Return how large the layer is that decodes as a whole."""


class RealSizes:
    """DeepSeek-V3's shapes."""

    def ops(self) -> list[Point]:
        """Return the ops that will be priced: ours first, then the libraries'."""
        ours = read_plan(OPS)
        plain = [{"kernel": point.kernel, "shape": point.shape} for point in ours]
        return [*ours, *(op_point(op) for op in by_others(plain))]

    def shapes(self, kernel: str) -> Sequence[Shape]:
        """Return the shapes that the kernel names, the first of which are the largest."""
        return tuple(load(kernel).SHAPES)

    def checked(self, kernel: str) -> Sequence[Shape]:
        """Return the first shape that the kernel names, and the last: a ragged one."""
        module = load(kernel)
        all_ = getattr(module, "CHECKED", module.SHAPES)
        return (all_[0], all_[-1]) if len(all_) > 1 else tuple(all_)

    def configs(self, kernel: str) -> Sequence[Any]:
        """Return all that the kernel offers."""
        return tuple(getattr(load(kernel), "CONFIGS", ()))

    def design(self) -> list[list[Point]]:
        """Return anchors and shapes drawn over the model's sites, a list for each family."""
        random = np.random.default_rng(SEED)
        gemms = list(gemm_points(sites(()), random, quick=True))
        families = dict.fromkeys(point.kernel for point in gemms)
        return [
            *([point for point in gemms if point.kernel == family] for family in families),
            list(grouped_points(random, count=16)),
            list(decode_points(random, count=16)),
            list(prefill_points(random, count=12)),
            list(element_wise_points(count=4)),
        ]

    def copy_bytes(self) -> int:
        """Return 1 GiB: many times the L2."""
        return 1 << 30

    def training_layer(self) -> Dimensions:
        """Return DeepSeek-V3's."""
        return DEEPSEEK_V3

    def decoding_layer(self) -> Dimensions:
        """Return DeepSeek-V3's."""
        return DEEPSEEK_V3


TINY_LAYER = Dimensions(
    hidden=128,
    heads=1,
    q_rank=32,
    kv_rank=32,
    experts=8,
    groups=4,
    groups_kept=2,
    top_k=2,
    expert_width=32,
    tokens=8,
    arrived=5,
    counts=(5, 0),
    batch=2,
    context=70,
    decode_counts=(2,),
)


class TinySizes:
    """One shape a kernel and two configurations: the whole day, in a minute, without a GPU."""

    def ops(self) -> list[Point]:
        """Return each kernel once."""
        return [Point(kernel, load(kernel).TINY) for kernel in names() if _is_op(kernel)]

    def shapes(self, kernel: str) -> Sequence[Shape]:
        """Return the tiny shape."""
        return (load(kernel).TINY,)

    def checked(self, kernel: str) -> Sequence[Shape]:
        """Return the tiny shape, which is ragged."""
        return (load(kernel).TINY,)

    def configs(self, kernel: str) -> Sequence[Any]:
        """Return two that the kernel offers."""
        return tuple(getattr(load(kernel), "CONFIGS", ()))[:2]

    def design(self) -> list[list[Point]]:
        """Return two families of two points."""
        shapes = ((name, load(name).TINY) for name in ("quantize", "fp8_gemm"))
        return [[Point(name, shape), Point(name, {**shape, "m": 2})] for name, shape in shapes]

    def copy_bytes(self) -> int:
        """Return a page."""
        return 1 << 12

    def training_layer(self) -> Dimensions:
        """Return one with a head, and an expert of two that has rows."""
        return TINY_LAYER

    def decoding_layer(self) -> Dimensions:
        """Return the same with the latent that decoding knows."""
        return replace(TINY_LAYER, kv_rank=512, counts=(2,))


def _is_op(kernel: str) -> bool:
    return not kernel.startswith("probe_") and kernel != "occupy"
