"""What a GPU is asked to do: shapes, formats, FLOPs and bytes, and no chip in sight.

An op is one kernel or a fused run of like kernels, or bytes that ranks pass each other.
`routed=True` marks work on routed tokens: its row count is the balanced one here and scales with
the expert load of the rank that runs it (`m` of a forward or dgrad GEMM, `k` of a wgrad GEMM, the
bytes of a memory op).
"""

from dataclasses import dataclass
from typing import ClassVar, Literal

from hwmodels.formats import NumberFormat

Stream = Literal["compute", "comm", "copy", "send", "host"]
"""Queues of a rank that run side by side."""

COMPUTE: Stream = "compute"
COMM: Stream = "comm"
SEND: Stream = "send"
HOST: Stream = "host"

GemmRole = Literal["fprop", "dgrad", "wgrad"]
NARROW = 512
"""Side up to which libraries run a BF16 product with one fixed tile, be it few tiles or short ones:
seen at 256 (the router of DeepSeek's training trace), at 512 assumed."""


@dataclass(frozen=True, slots=True)
class Gemm:
    """`C (m, n) = A (m, k) @ B (k, n)`, the rows (wgrad: the depth k) shared by `groups` experts.

    For fprop and dgrad, `m` counts the rows of all groups together and each group has its own
    (k, n) weight; for wgrad, `m x n` is one group's weight and `k` counts all groups' rows.
    A wgrad accumulates into FP32, so it reads and writes its output.

    Attributes:
        in_memory: bytes of an element of A and of B in memory, where products change formats on the
            way; None where both lie there in `format`.
    """

    name: str
    m: int
    n: int
    k: int
    format: NumberFormat
    role: GemmRole = "fprop"
    groups: int = 1
    routed: bool = False
    in_memory: tuple[float, float] | None = None
    stream: ClassVar[Stream] = COMPUTE

    @property
    def family(self) -> str:
        """Family in a kernel profile, named after the format: `bf16`, `fp8` where a tensor shares
        one scale, `fp8_block` where blocks have theirs; then `_grouped` for experts and `_wgrad`
        for weight gradients. Of 16 bits a weight gradient is a product like others, and a narrow
        one, as a router's, is `bf16_narrow` or `bf16_narrow_wgrad`.
        """
        name = self.format.family + ("_block" if self.format.scale_block else "")
        is_wgrad = self.role == "wgrad"
        if self.format.bits < 16 and is_wgrad:
            return f"{name}_wgrad"
        if self.groups > 1:
            return f"{name}_grouped"
        if self.format.bits < 16 or min(self.m, self.n, self.k) > NARROW:
            return name
        return f"{name}_narrow_wgrad" if is_wgrad else f"{name}_narrow"

    @property
    def site(self) -> str:
        """Its weight (wgrad: the weight's gradient), by shape: what a table of kernels calls a
        site, whatever the rows."""
        return f"{self.m}x{self.n}" if self.role == "wgrad" else f"{self.n}x{self.k}"

    @property
    def flops(self) -> float:
        """Multiply-adds count two."""
        return 2.0 * self.m * self.n * self.k

    @property
    def scaled_flops(self) -> float:
        """Those of them whose sums take the scales of blocks that FP8 shares along k."""
        is_scaled = self.format.family == "fp8" and self.format.scale_block > 0
        return self.flops if is_scaled else 0.0

    @property
    def output_bytes(self) -> int:
        """Bytes moved per element of C: written in BF16; a weight gradient is read and written in
        FP32, to accumulate over micro-batches in the product's own epilogue.
        """
        return 8 if self.role == "wgrad" else 2

    @property
    def bytes(self) -> float:
        """Operands read once, result moved once; scales excluded."""
        of_a, of_b = self.in_memory or (self.format.element_bytes,) * 2
        if self.role == "wgrad":
            result = self.groups * self.m * self.n * self.output_bytes
            return (self.m * of_a + self.n * of_b) * self.k + result
        operands = (self.m * of_a + self.groups * self.n * of_b) * self.k
        return operands + self.m * self.n * self.output_bytes

    @property
    def launches(self) -> int:
        """One kernel, whatever the groups."""
        return 1


@dataclass(frozen=True, slots=True)
class Attention:
    """Softmax attention core on BF16 tensors (FlashAttention form), causal or full.

    FLOPs of a causal pass count the lower triangle. The backward pass does five matrix products
    to the forward's two: 3 of depth `d_qk` and 2 of depth `d_v`.

    Attributes:
        length: queries of each sequence.
        prefix: keys before those of the queries, which all of them see.
    """

    name: str
    sequences: int
    length: int
    heads: int
    kv_heads: int
    d_qk: int
    d_v: int
    causal: bool = True
    backward: bool = False
    prefix: int = 0
    routed: bool = False
    stream: ClassVar[Stream] = COMPUTE

    @property
    def family(self) -> str:
        """`attention_forward` or `attention_backward`."""
        return "attention_backward" if self.backward else "attention_forward"

    @property
    def site(self) -> str:
        """Its heads and sequences, by shape."""
        heads = f"{self.heads}/{self.kv_heads} heads of {self.d_qk}+{self.d_v}"
        after = f" after {self.prefix}" if self.prefix else ""
        return f"{self.sequences}x{self.length}{after}, {heads}"

    @property
    def flops(self) -> float:
        """Multiply-adds count two; a causal pass counts half of the square of its own tokens."""
        depth = 3 * self.d_qk + 2 * self.d_v if self.backward else self.d_qk + self.d_v
        own = float(self.length) ** 2 * (0.5 if self.causal else 1.0)
        pairs = self.sequences * self.heads * (own + float(self.length) * self.prefix)
        return 2.0 * pairs * depth

    @property
    def bytes(self) -> float:
        """q, k, v read and o written in BF16; backward twice that (their gradients)."""
        width = self.d_qk + self.d_v
        q_and_o = float(self.length) * self.heads * width
        k_and_v = float(self.length + self.prefix) * self.kv_heads * width
        return self.sequences * (q_and_o + k_and_v) * 2 * (2 if self.backward else 1)

    @property
    def launches(self) -> int:
        """One fused kernel."""
        return 1


@dataclass(frozen=True, slots=True)
class DecodeAttention:
    """Attention of one new token a sequence over a paged cache of latents, in BF16: MLA with its
    up-projections absorbed, so that all heads read one key, whose first channels are the value.

    Attributes:
        sequences: that decode; length: tokens in the cache of each, the new one included.
        d_qk, d_v: channels of a latent that are keys, and of those that are values.
    """

    name: str
    sequences: int
    length: int
    heads: int
    d_qk: int
    d_v: int
    routed: bool = False
    stream: ClassVar[Stream] = COMPUTE

    @property
    def family(self) -> str:
        """`mla_decode`."""
        return "mla_decode"

    @property
    def site(self) -> str:
        """Its heads and sequences, by shape."""
        return f"{self.sequences}x{self.length}, {self.heads} heads of {self.d_qk}+{self.d_v}"

    @property
    def flops(self) -> float:
        """Multiply-adds count two."""
        return 2.0 * self.sequences * self.heads * self.length * (self.d_qk + self.d_v)

    @property
    def bytes(self) -> float:
        """The cache read once, queries read and results written."""
        rows = float(self.sequences * self.heads)
        cache = float(self.sequences * self.length) * self.d_qk
        return 2 * (cache + rows * (self.d_qk + self.d_v))

    @property
    def launches(self) -> int:
        """One fused kernel."""
        return 1


@dataclass(frozen=True, slots=True)
class MemoryOp:
    """A kernel bound by memory or by its launch: casts, norms, copies, permutes, small kernels.

    `family` groups kernels with one efficiency in the profile; `bytes` counts reads and writes;
    `launches` counts kernels, each paying the launch gap and the family's fixed time; those that
    a communication needs first run on its stream.
    """

    name: str
    family: str
    bytes: float
    launches: int = 1
    routed: bool = False
    stream: Stream = COMPUTE

    @property
    def site(self) -> str:
        """Its bytes."""
        return f"{self.launches}x{self.bytes:.0f}"

    @property
    def flops(self) -> float:
        """Counted as zero: no tensor-core work."""
        return 0.0


Op = Gemm | Attention | DecodeAttention | MemoryOp


CommKind = Literal[
    "dispatch", "combine", "send", "reduce_scatter", "all_gather", "all_reduce", "all_to_all",
    "broadcast",
]  # fmt: skip


Beside = Literal["", "kernels", "weights"]
"""What runs while a communication is under way: nothing of its pass; the kernels that follow it,
whose own followers wait for both; or the weight gradients of its block."""


@dataclass(frozen=True, slots=True)
class Comm:
    """Bytes that ranks along some axes of the mesh pass each other; an op among the others.

    Attributes:
        name: for people; a gradient goes by the name of what it is the gradient of.
        kind: what carries it. `dispatch` sends each token to the experts it goes to, `combine`
            brings them home (what is sent and what comes home both wait for all ranks); `send`
            goes from rank to rank; the others are collectives, as `simulator.network.collectives`
            has them.
        axes: of the mesh, along which ranks take part.
        size_bytes: of one copy of one token; of all other kinds by nccl-tests' conventions.
        tokens: of one rank; those that each gets depend on the load of its experts.
        nvlink_bytes: of a copy on NVLink where NICs code what they send, else None.
        beside: what of its own pass it runs beside; other passes are not asked.
        repeats: how often it happens, one after another.
        follows_load: whether its bytes are those of a balanced load and follow the fullest rank's.
    """

    name: str
    kind: CommKind
    axes: tuple[str, ...]
    size_bytes: float
    tokens: int = 1
    stream: Stream = COMM
    nvlink_bytes: float | None = None
    beside: Beside = ""
    repeats: int = 1
    follows_load: bool = False

    @property
    def token_bytes(self) -> float:
        """One copy of all tokens of a rank."""
        return self.tokens * self.size_bytes

    @property
    def nvlink_token_bytes(self) -> float:
        """The same on NVLink."""
        each = self.size_bytes if self.nvlink_bytes is None else self.nvlink_bytes
        return self.tokens * each

    @property
    def routed(self) -> bool:
        """Whether experts decide how much each rank gets."""
        return self.kind in ("dispatch", "combine")


Work = Op | Comm
"""What stands in the list of a block, in the order in which it is launched."""
