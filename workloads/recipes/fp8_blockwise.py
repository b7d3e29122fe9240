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

A unit may spare some of it, as §3.5.2 asks of future chips. What remains then:

    casts in flight      casts of rows before products: none; products read BF16, 2 bytes an element
                         for the 2 + 1 + 1 of reading, writing and reading again
    transposed reads     transposes of weights: none; casts along columns, which move what they
                         moved (a kernel that casts transposes for nothing)
    both                 casts along columns: none, nor unpacking for them; weight gradients read
                         what is there, BF16 or FP8 as it came
    whatever it can      what goes over the wire, what waits in FP8 or E5M6 and comes back, what
                         SwiGLU casts as it writes; the FP8 copy of weights, written once a step and
                         read by every micro-batch

The shared expert then reads in BF16 too, although FP8 rows for the wire lie beside them.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace

from hwmodels.formats import FORMATS, NumberFormat
from workloads.ops import Gemm, MemoryOp, Op, Work
from workloads.recipes import (
    BF16_BYTES,
    NO_ABILITIES,
    Abilities,
    Operand,
    ParameterBytes,
    Passes,
    Recipe,
)

BF16, FP8, E5M6 = FORMATS["bf16"], FORMATS["fp8_1x128"], FORMATS["e5m6"]
CAST, RECAST = 2 + 1, 1 + 1
TO_BE_CAST = (Operand.WIDE, Operand.NARROW)


@dataclass(frozen=True)
class Fp8Blockwise(Recipe):
    """FP8 products with a scale for every 128 elements of an activation.

    Attributes:
        unit: what multiplies can do besides.
    """

    unit: Abilities = NO_ABILITIES

    name = "fp8-blockwise"
    format = FP8
    recomputes = True
    dispatches = ("fp8",)
    parameter = ParameterBytes(
        weight=BF16_BYTES, gradient=4, states=4 + 2 + 2, copies=(("fp8_weights", 1),)
    )

    def able(self, abilities: Abilities) -> "Fp8Blockwise":
        """Use them."""
        return self if abilities == self.unit else replace(self, unit=abilities)

    @property
    def asked_for(self) -> Operand:
        """As it is, where it is cast in flight."""
        return Operand.WIDE if self.unit.casts_in_flight else Operand.QUANTISED

    @property
    def kept(self) -> NumberFormat:
        """BF16, where nobody has written it in FP8."""
        return BF16 if self.unit.casts_in_flight else FP8

    def cast(
        self, name: str, rows: int, width: int, operand: Operand = Operand.WIDE
    ) -> tuple[Op, ...]:
        """Quantise rows, unless they came so or are cast in flight."""
        if self.unit.casts_in_flight:
            return ()
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
        products = self._reading(self.products(name, rows, n, k), x, dy)
        unpacked = x is Operand.QUANTISED and not self._reads_columns
        back = (MemoryOp(f"cast back X ({name})", "cast", rows * k * CAST),) if unpacked else ()
        return Passes(
            (*self.cast(f"X ({name})", rows, k, x), *products.forward),
            (
                *self.cast(f"dY ({name})", rows, n, dy),
                *self._weight_transpose(name, n * k),
                *products.backward,
                *back,
                *self._columns(f"X ({name})", rows, k, x),
                *self._columns(f"dY ({name})", rows, n, dy),
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
        products = self._reading(products, x, dy, activation=BF16)
        transpose = self._weight_transpose(name, experts * n * k)
        operands = ((f"X ({name})", k, x), (f"dY ({name})", n, dy))
        came = [side for side in operands if side[2] is Operand.QUANTISED]
        others = [side for side in operands if side not in came]
        recast = [] if self._reads_columns else came
        return Passes(
            (*_routed(self.cast(f"X ({name})", rows, k, x)), *transpose, *products.forward),
            (
                *_routed(self.cast(f"dY ({name})", rows, n, dy)),
                *products.backward,
                *_routed(
                    op for who, width, how in others for op in self._columns(who, rows, width, how)
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
                    for who, width, _ in recast
                ),
                *products.weight,
            ),
        )

    def swiglu(self, name: str, rows: int, width: int, *, routed: bool = False) -> Passes:
        """Fuse it with the casts of what it gives; its input waits in FP8."""
        pair = 2 * width
        saved = rows * pair * CAST
        forward, backward = _plain(name, rows, width)
        if routed:
            forward, backward = _weighted(name, rows, width)
            cast = MemoryOp(
                f"cast + transpose activation ({name})", "transpose", rows * width * CAST
            )
            backward += () if self._reads_columns else _routed((cast,))
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

    def scale_transposes(
        self, forward: int = 0, backward: int = 0, operand: Operand = Operand.QUANTISED
    ) -> Passes:
        """Launch them: their bytes are next to none. What is cast in flight has no scales."""
        if self.unit.casts_in_flight and operand in TO_BE_CAST:
            return Passes()
        name = "FP8 scale transposes"
        one, other = (
            (MemoryOp(name, "small", 0, launches=launches),) if launches else ()
            for launches in (forward, backward)
        )
        return Passes(one, other)

    def weight_casts(self, parameters: float) -> tuple[MemoryOp, ...]:
        """Read BF16, write FP8."""
        return (MemoryOp("cast weights to FP8", "cast", parameters * CAST),)

    @property
    def _reads_columns(self) -> bool:
        """Whether weight gradients read operands that are neither cast nor transposed for them."""
        return self.unit.casts_in_flight and self.unit.transposed_reads

    def _weight_transpose(self, name: str, parameters: int) -> tuple[Op, ...]:
        if self.unit.transposed_reads:
            return ()
        return (MemoryOp(f"weight transpose ({name})", "transpose", parameters * RECAST),)

    def _columns(self, name: str, rows: int, width: int, operand: Operand) -> tuple[Op, ...]:
        """Return the cast along columns, and transpose, of an operand of a weight gradient."""
        if operand is Operand.READY or self._reads_columns:
            return ()
        element = RECAST if operand is Operand.QUANTISED else CAST
        family = "low_rank" if operand is Operand.NARROW else "transpose"
        return (MemoryOp(f"cast + transpose {name}", family, rows * width * element),)

    def _reading(
        self, products: Passes, x: Operand, dy: Operand, activation: NumberFormat = FP8
    ) -> Passes:
        """Return products that read their operands as they lie in memory.

        Args:
            activation: format of a `READY` input of the weight gradient where that reads columns:
                BF16 unless who made it has cast it along them as well.
        """

        if not self.unit.casts_in_flight:
            return products

        def size(operand: Operand, ready: NumberFormat = FP8) -> float:
            """Bytes of an element."""
            there = BF16 if operand in TO_BE_CAST else FP8
            return (ready if operand is Operand.READY else there).element_bytes

        columns = size(x, activation), size(dy)
        return replace(
            products,
            forward=_in_memory(products.forward, size(x), FP8.element_bytes),
            backward=_in_memory(products.backward, size(dy), FP8.element_bytes),
            weight=_in_memory(products.weight, *columns)
            if self._reads_columns
            else products.weight,
        )


def _in_memory(products: Iterable[Work], *operands: float) -> tuple[Op, ...]:
    """Return products whose operands A and B have so many bytes an element in memory."""
    of_a, of_b = operands
    unlike = (of_a, of_b) != (FP8.element_bytes, FP8.element_bytes)
    gemms = (op for op in products if isinstance(op, Gemm))
    return tuple(replace(op, in_memory=(of_a, of_b)) if unlike else op for op in gemms)


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
    )
    return _routed((forward,)), _routed(backward)
