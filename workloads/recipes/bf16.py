"""BF16 throughout, as Megatron-LM trains without recomputation: no cast, no transpose, no copy.

Kept for the backward pass is what each operation needs of its own, in BF16, as "Reducing Activation
Recomputation in Large Transformer Models" (arXiv 2205.05198 §4.1) counts it: inputs of norms,
inputs of linears, queries, keys and values, input and output of the activation. FlashAttention
keeps the sums of the softmax (4 bytes a head) instead of its scores. Dropout is not used.

Gradients are accumulated in FP32; the optimizer keeps an FP32 master weight and two FP32 moments:
18 bytes a parameter, 6 and 12 / d where d replicas shard the states (NVIDIA/Megatron-LM, README,
distributed optimizer: "bf16 param, fp32 grads").
"""

from hwmodels.formats import FORMATS
from workloads.ops import MemoryOp, Op
from workloads.recipes import BF16_BYTES, Operand, ParameterBytes, Passes, Recipe


class Bf16(Recipe):
    """BF16 products of BF16 tensors."""

    name = "bf16"
    format = FORMATS["bf16"]
    recomputes = False
    dispatches = ("bf16", "fp8")
    parameter = ParameterBytes(weight=BF16_BYTES, gradient=4, states=4 + 4 + 4)

    def cast(
        self, name: str, rows: int, width: int, operand: Operand = Operand.WIDE
    ) -> tuple[Op, ...]:
        """Leave tensors as they are."""
        return ()

    def linear(
        self,
        name: str,
        rows: int,
        n: int,
        k: int,
        x: Operand = Operand.WIDE,
        dy: Operand = Operand.WIDE,
    ) -> Passes:
        """Multiply."""
        return self.products(name, rows, n, k)

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
        """Multiply, expert by expert."""
        return self.products(name, rows, n, k, experts, routed=True)

    def swiglu(self, name: str, rows: int, width: int, *, routed: bool = False) -> Passes:
        """Read 2 width and write width; backward read both and write 2 width. All is kept.

        The gradient of a row's weight is a product of the activation and its gradient.
        """
        pair = 2 * width
        weight = MemoryOp(f"swiglu weight gradient ({name})", "swiglu", rows * width * 4, 1, routed)
        return Passes(
            (MemoryOp(f"swiglu ({name})", "swiglu", rows * (pair + width) * 2, 1, routed),),
            (
                MemoryOp(f"swiglu backward ({name})", "swiglu", rows * pair * 5, 1, routed),
                *((weight,) if routed else ()),
            ),
            saved_bytes=rows * (pair + width) * BF16_BYTES,
        )

    def attention_output(self, rows: int, width: int) -> Passes:
        """Keep it as it is."""
        return Passes(saved_bytes=rows * width * BF16_BYTES)

    def scale_transposes(
        self, forward: int = 0, backward: int = 0, operand: Operand = Operand.QUANTISED
    ) -> Passes:
        """Do nothing: no tensor has scales."""
        return Passes()

    def weight_casts(self, parameters: float) -> tuple[MemoryOp, ...]:
        """Do nothing: products read the weights themselves."""
        return ()
