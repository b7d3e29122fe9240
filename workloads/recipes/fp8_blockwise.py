"""DeepSeek-V3's FP8 recipe (arXiv 2412.19437 §3.3): products of 1x128 tiles and 128x128 blocks.

Activations are cast row by row before each product, weights transposed again in every backward
pass, and operands of a weight gradient cast along their columns and transposed. Attention, router,
embedding and head stay in BF16. The output of attention waits in E5M6 and the input of SwiGLU in
FP8 (§3.3.3); norms, up-projections and SwiGLU are computed again (§3.2.3). Families and bytes are
those of the kernels of DeepSeek's published training trace (deepseek-ai/profile-data @4496024),
28 % of whose compute time is such glue.

A cast reads 2 bytes an element and writes 1, by rows or by columns; what came in FP8 is written
anew by columns for 1 + 1. FP8 weights of products have a copy of 1 byte; FP32 master weights, BF16
moments and FP32 gradients (§3.3.3) are 4 + 2 + 2 and 4.
"""

from collections.abc import Iterable
from dataclasses import replace

from hwmodels.formats import FORMATS
from workloads.ops import MemoryOp, Op
from workloads.recipes import BF16_BYTES, Operand, ParameterBytes, Passes, Recipe

FP8, E5M6 = FORMATS["fp8_1x128"], FORMATS["e5m6"]
CAST, RECAST = 2 + 1, 1 + 1


class Fp8Blockwise(Recipe):
    """FP8 products with a scale for every 128 elements of an activation."""

    name = "fp8-blockwise"
    format = FP8
    recomputes = True
    dispatches = ("fp8",)
    parameter = ParameterBytes(
        weight=BF16_BYTES, gradient=4, states=4 + 2 + 2, copies=(("fp8_weights", 1),)
    )

    def cast(
        self, name: str, rows: int, width: int, operand: Operand = Operand.WIDE
    ) -> tuple[Op, ...]:
        """Quantise rows, unless they came so."""
        family = {Operand.WIDE: "cast", Operand.NARROW: "low_rank"}.get(operand)
        return (MemoryOp(f"cast {name}", family, rows * width * CAST),) if family else ()

    def linear(
        self,
        name: str,
        rows: int,
        n: int,
        k: int,
        x: Operand = Operand.WIDE,
        dy: Operand = Operand.WIDE,
    ) -> Passes:
        """Cast, multiply; a quantised input is unpacked once more on the way back."""
        products = self.products(name, rows, n, k)
        unpacked = x is Operand.QUANTISED
        back = (MemoryOp(f"cast back X ({name})", "cast", rows * k * CAST),) if unpacked else ()
        return Passes(
            (*self.cast(f"X ({name})", rows, k, x), *products.forward),
            (
                *self.cast(f"dY ({name})", rows, n, dy),
                MemoryOp(f"weight transpose ({name})", "transpose", n * k * RECAST),
                *products.backward,
                *back,
                *_columns(f"X ({name})", rows, k, x),
                *_columns(f"dY ({name})", rows, n, dy),
            ),
            products.weight,
        )

    def routed_linear(
        self,
        name: str,
        rows: int,
        n: int,
        k: int,
        experts: int,
        x: Operand = Operand.WIDE,
        dy: Operand = Operand.WIDE,
    ) -> Passes:
        """Transpose weights going forward, and what came quantised with its weight gradient."""
        products = self.products(name, rows, n, k, experts, routed=True)
        transpose = MemoryOp(f"weight transpose ({name})", "transpose", experts * n * k * RECAST)
        operands = ((f"X ({name})", k, x), (f"dY ({name})", n, dy))
        came = [side for side in operands if side[2] is Operand.QUANTISED]
        others = [side for side in operands if side not in came]
        return Passes(
            (*_routed(self.cast(f"X ({name})", rows, k, x)), transpose, *products.forward),
            (
                *_routed(self.cast(f"dY ({name})", rows, n, dy)),
                *products.backward,
                *_routed(
                    op for who, width, how in others for op in _columns(who, rows, width, how)
                ),
            ),
            (
                *(
                    MemoryOp(
                        f"recast + transpose {who}",
                        "recast_transpose",
                        rows * width * RECAST,
                        routed=True,
                    )
                    for who, width, _ in came
                ),
                *products.weight,
            ),
        )

    def swiglu(self, name: str, rows: int, width: int, *, routed: bool = False) -> Passes:
        """Fuse it with the casts of what it gives; its input waits in FP8."""
        pair = 2 * width
        saved = rows * pair * CAST
        forward, backward = _weighted(name, rows, width) if routed else _plain(name, rows, width)
        return Passes(
            (
                *forward,
                MemoryOp(f"cast swiglu input (kept, {name})", "cast", saved, routed=routed),
            ),
            (
                MemoryOp(f"cast back swiglu input ({name})", "cast", saved, routed=routed),
                *backward,
            ),
            saved_bytes=FP8.bytes_of(rows * pair),
        )

    def attention_output(self, rows: int, width: int) -> Passes:
        """Keep it in E5M6, with an FP32 scale for 128 elements."""
        size = rows * width
        moved = size * (BF16_BYTES + E5M6.element_bytes)
        return Passes(
            (MemoryOp("cast attention output to E5M6", "e5m6_cast", moved),),
            (MemoryOp("cast back attention output", "e5m6_cast", moved),),
            saved_bytes=E5M6.bytes_of(size) + size / 128 * 4,
        )

    def scale_transposes(self, forward: int = 0, backward: int = 0) -> Passes:
        """Launch them: their bytes are next to none."""
        name = "FP8 scale transposes"
        one, other = (
            (MemoryOp(name, "small", 0, launches=launches),) if launches else ()
            for launches in (forward, backward)
        )
        return Passes(one, other)

    def weight_casts(self, parameters: float) -> tuple[MemoryOp, ...]:
        """Read BF16, write FP8."""
        return (MemoryOp("cast weights to FP8", "cast", parameters * CAST),)


def _columns(name: str, rows: int, width: int, operand: Operand) -> tuple[Op, ...]:
    """Return the cast along columns, and transpose, of an operand of a weight gradient."""
    if operand is Operand.READY:
        return ()
    element = RECAST if operand is Operand.QUANTISED else CAST
    family = "low_rank" if operand is Operand.NARROW else "transpose"
    return (MemoryOp(f"cast + transpose {name}", family, rows * width * element),)


def _routed(ops: Iterable[Op]) -> tuple[Op, ...]:
    """Return ops as those of routed rows."""
    return tuple(replace(op, routed=True) for op in ops)


def _plain(name: str, rows: int, width: int) -> tuple[tuple[Op, ...], tuple[Op, ...]]:
    """Read 2 width, write width in FP8; backward that by columns, then the gradient."""
    pair = 2 * width
    forward = (MemoryOp(f"swiglu + cast ({name})", "cast", rows * (pair * BF16_BYTES + width)),)
    backward = (
        MemoryOp(
            f"swiglu + cast + transpose ({name})", "transpose", rows * (pair * BF16_BYTES + width)
        ),
        MemoryOp(f"swiglu backward ({name})", "swiglu", rows * pair * 5),
    )
    return forward, backward


def _weighted(name: str, rows: int, width: int) -> tuple[tuple[Op, ...], tuple[Op, ...]]:
    """Weight the rows as well; backward the activation is given again, and cast by itself."""
    pair = 2 * width
    forward = MemoryOp(
        f"swiglu + weight + cast ({name})", "swiglu", rows * (pair * BF16_BYTES + width)
    )
    backward = (
        MemoryOp(f"swiglu forward + backward ({name})", "swiglu", rows * pair * 6),
        MemoryOp(f"swiglu weight gradient ({name})", "swiglu", rows * width * 4),
        MemoryOp(f"cast + transpose activation ({name})", "transpose", rows * width * CAST),
    )
    return _routed((forward,)), _routed(backward)
