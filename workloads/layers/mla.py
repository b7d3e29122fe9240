"""Multi-head latent attention in its training form (MHA with d_qk = nope + rope, d_v).

Equations: arXiv 2405.04434 §2.1. Kept for the backward pass: the low-rank latents and the
attention output; up-projections, norms and rotary are recomputed (arXiv 2412.19437 §3.2.3).
"""

from dataclasses import dataclass

from hwmodels.formats import FORMATS
from workloads.attention import MLASpec
from workloads.layers import LayerInputs, PhaseOps
from workloads.ops import Attention, Gemm, MemoryOp, Op

FP8 = FORMATS["fp8_1x128"]


@dataclass(frozen=True, slots=True)
class _Widths:
    """Row widths of the tensors inside one MLA block, in elements."""

    tokens: int
    hidden: int
    q_rank: int
    kv_rank: int
    rope: int  # of one head
    query: int  # all heads, nope + rope
    key_value: int  # all heads, k_nope + v
    nope: int  # all heads
    rotary: int  # all heads
    value: int  # all heads

    @property
    def kv_latent(self) -> int:
        return self.kv_rank + self.rope


def _widths(inputs: LayerInputs) -> _Widths:
    mla = inputs.model.attention
    assert isinstance(mla, MLASpec), "the layer builder chooses this block for MLA models only"
    assert mla.q_lora_rank is not None, "the layer builder refuses MLA without a query latent"
    return _Widths(
        tokens=inputs.tokens,
        hidden=inputs.model.hidden,
        q_rank=mla.q_lora_rank,
        kv_rank=mla.kv_lora_rank,
        rope=mla.d_rope,
        query=mla.heads * (mla.d_nope + mla.d_rope),
        key_value=mla.heads * (mla.d_nope + mla.d_v),
        nope=mla.heads * mla.d_nope,
        rotary=mla.heads * mla.d_rope,
        value=mla.heads * mla.d_v,
    )


def mla(inputs: LayerInputs) -> PhaseOps:
    """Return the attention block of one MLA layer, from the input norm to the output projection."""
    w = _widths(inputs)
    return PhaseOps(_forward(inputs, w), _backward(inputs, w), _weight(w))


def saved_bytes(inputs: LayerInputs) -> float:
    """Activations kept for the backward pass: residual, latents, output, softmax sums."""
    w = _widths(inputs)
    residual = w.tokens * w.hidden * 2
    latents = w.tokens * (w.q_rank + w.kv_latent) * 2
    scales = w.tokens * w.value / 128 * 4
    softmax_sums = w.tokens * inputs.model.attention.heads * 4
    return (
        residual
        + latents
        + inputs.saved_attention.bytes_of(w.tokens * w.value)
        + scales
        + softmax_sums
    )


def _core(inputs: LayerInputs, name: str, *, backward: bool) -> Attention:
    mla = inputs.model.attention
    assert isinstance(mla, MLASpec), "see _widths"
    return Attention(
        name,
        sequences=inputs.sequences,
        length=inputs.length,
        heads=mla.heads,
        kv_heads=mla.heads,
        d_qk=mla.d_nope + mla.d_rope,
        d_v=mla.d_v,
        backward=backward,
    )


def _assemble_qk(w: _Widths, suffix: str = "") -> tuple[Op, ...]:
    t = w.tokens
    return (
        MemoryOp(f"K assembly: copy k_nope{suffix}", "copy", t * w.nope * 4),
        MemoryOp(f"K assembly: expand k_rope{suffix}", "rotary", t * w.rotary * 2),
    )


def _forward(inputs: LayerInputs, w: _Widths) -> tuple[Op, ...]:
    t, h = w.tokens, w.hidden
    saved = inputs.saved_attention.element_bytes
    return (
        MemoryOp("add+rmsnorm hidden", "add_norm", t * h * 8),
        MemoryOp("cast 1x128 hidden (q_a input)", "cast", t * h * 3),
        MemoryOp("cast 1x128 hidden (kv_a input)", "cast", t * h * 3),
        Gemm("q_a_proj", t, w.q_rank, h, FP8),
        Gemm("kv_a_proj", t, w.kv_latent, h, FP8),
        MemoryOp("rmsnorm q_lora", "low_rank", t * w.q_rank * 4),
        MemoryOp(
            "rmsnorm kv_lora + slice copies",
            "low_rank",
            t * (w.kv_rank + w.kv_latent) * 4,
            launches=3,
        ),
        MemoryOp("cast q_lora", "low_rank", t * w.q_rank * 3),
        MemoryOp("cast kv_lora", "low_rank", t * w.kv_rank * 3),
        Gemm("q_b_proj", t, w.query, w.q_rank, FP8),
        Gemm("kv_b_proj", t, w.key_value, w.kv_rank, FP8),
        MemoryOp("rotary k", "rotary", t * w.rope * 4),
        *_assemble_qk(w),
        MemoryOp("rotary q", "rotary", t * w.rotary * 4),
        _core(inputs, "flash attention fwd (causal,192/128)", backward=False),
        MemoryOp("cast attn out to E5M6-like", "e5m6_cast", t * w.value * (2 + saved)),
        MemoryOp("cast attn out to FP8", "cast", t * w.value * 3),
        Gemm("o_proj", t, h, w.value, FP8),
        MemoryOp("scale hidden (elementwise)", "elementwise", t * h * 4),
    )


def _backward(inputs: LayerInputs, w: _Widths) -> tuple[Op, ...]:
    t, h = w.tokens, w.hidden
    saved = inputs.saved_attention.element_bytes
    weights = (
        w.value * h + w.query * w.q_rank + w.key_value * w.kv_rank + (w.kv_latent + w.q_rank) * h
    )
    latents = w.q_rank + w.kv_rank
    output = (
        MemoryOp("scale hidden (elementwise)", "elementwise", t * h * 4),
        MemoryOp("cast_back E5M6-like attn out", "e5m6_cast", t * w.value * (2 + saved)),
        MemoryOp("cast dY 1x128 (o)", "cast", t * h * 3),
        MemoryOp("weight transposes (o,q_b,kv_b,kv_a,q_a)", "transpose", weights * 2, launches=5),
        MemoryOp("FP8 scale transposes (7)", "small", 0, launches=7),
        Gemm("o dgrad", t, w.value, h, FP8, "dgrad"),
        MemoryOp("per-channel cast+transpose attn out", "transpose", t * w.value * 3),
        MemoryOp("per-channel cast+transpose dY (o)", "transpose", t * h * 3),
    )
    recompute = (
        MemoryOp(
            "recompute norms/casts q_lora kv_lora",
            "low_rank",
            t * (latents * 7 + w.kv_latent * 4),
            launches=5,
        ),
        Gemm("q_b recompute", t, w.query, w.q_rank, FP8),
        Gemm("kv_b recompute", t, w.key_value, w.kv_rank, FP8),
        *_assemble_qk(w, " (recompute)"),
        MemoryOp("rotary q,k (recompute)", "rotary", t * (w.rotary + w.rope) * 4, launches=2),
    )
    core = (
        MemoryOp("FA bwd preprocess", "copy", t * w.value * 10),
        _core(inputs, "flash attention bwd (causal,192/128)", backward=True),
        MemoryOp("FA bwd dQ convert", "copy", t * w.query * 6),
        MemoryOp("rotary bwd q,k", "rotary", t * (w.rotary + w.rope) * 4, launches=2),
    )
    return output + recompute + core + _backward_projections(w)


def _backward_projections(w: _Widths) -> tuple[Op, ...]:
    t, h = w.tokens, w.hidden
    small = w.q_rank + w.kv_rank + w.kv_latent + w.q_rank
    return (
        MemoryOp("cast dQ 1x128", "cast", t * w.query * 3),
        Gemm("q_b dgrad", t, w.q_rank, w.query, FP8, "dgrad"),
        MemoryOp("reduce dk_rope over heads", "rotary", t * w.rotary * 2),
        MemoryOp("dK/dV copies", "copy", t * w.key_value * 4, launches=2),
        MemoryOp("cast dKV 1x128", "cast", t * w.key_value * 3),
        Gemm("kv_b dgrad", t, w.kv_rank, w.key_value, FP8, "dgrad"),
        MemoryOp(
            "per-channel cast+transpose dKV,dQ",
            "transpose",
            t * (w.key_value + w.query) * 3,
            launches=2,
        ),
        MemoryOp(
            "per-channel cast+transpose small (kv,q lora, kv_a,q_a)",
            "low_rank",
            t * small * 3,
            launches=4,
        ),
        MemoryOp("lora norm bwd + slice fill/copy", "small", 0, launches=11),
        MemoryOp("rmsnorm recompute hidden", "add_norm", t * h * 8),
        MemoryOp("casts d(kv_a),d(q_a)", "low_rank", t * (w.kv_latent + w.q_rank) * 3, launches=2),
        Gemm("kv_a dgrad", t, h, w.kv_latent, FP8, "dgrad"),
        Gemm("q_a dgrad", t, h, w.q_rank, FP8, "dgrad"),
        MemoryOp("per-channel cast+transpose hidden x2", "transpose", t * h * 6, launches=2),
        MemoryOp("add dX (2)", "elementwise", t * h * 6),
        MemoryOp("rmsnorm bwd hidden (2)", "norm_backward", t * h * 10, launches=3),
    )


def _weight(w: _Widths) -> tuple[Op, ...]:
    t, h = w.tokens, w.hidden
    return (
        Gemm("o wgrad", w.value, h, t, FP8, "wgrad"),
        Gemm("kv_b wgrad", w.kv_rank, w.key_value, t, FP8, "wgrad"),
        Gemm("q_b wgrad", w.q_rank, w.query, t, FP8, "wgrad"),
        Gemm("kv_a wgrad", h, w.kv_latent, t, FP8, "wgrad"),
        Gemm("q_a wgrad", h, w.q_rank, t, FP8, "wgrad"),
    )
