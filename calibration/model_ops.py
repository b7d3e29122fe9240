"""The ops of a model's training and decode as points to measure: what is priced gets measured.

Matrix products and attention cores map by their shape. A memory-bound op maps where one of our
kernels does the same work, byte for byte but for FP8 scales, which the op leaves out; the others of
its family are priced by what these show.
"""

from collections.abc import Iterator
from typing import Any

from hwmodels.errors import InfeasibleError
from workloads.attention import MLASpec
from workloads.layers import Layer, LayerInputs
from workloads.layers.build import stage_layers
from workloads.layout import default_layout
from workloads.model import ModelSpec
from workloads.ops import Attention, Comm, Gemm, Op
from workloads.routing import expected_copies

SEQUENCE_LENGTH = 4096
EXPERTS_PER_GPU, GPUS_PER_NODE = 4, 8
DECODE_BATCHES = (32, 128)
"""Sequences of a GPU that decodes: DeepSeek's deployments lie between (arXiv 2412.19437v2 §3.4.2:
EP 320, batches of 256 tokens an expert at the most; its published decode trace has 128 a GPU)."""
DECODE_CONTEXT = 4096
Record = dict[str, Any]


def model_ops(model: ModelSpec) -> list[Record]:
    """Return a record `{kernel, shape}` for each distinct op that training `model` prices.

    One sequence of 4,096 tokens, four routed experts a GPU, as DeepSeek-V3 trains.

    Raises:
        InfeasibleError: the model has no training kernels here.
    """
    return [{"kernel": kernel, "shape": shape} for kernel, shape, _ in measurable(model)]


def decode_ops(model: ModelSpec) -> list[Record]:
    """Return a record for each distinct kernel of a decode iteration that we have a kernel for.

    Absorbed attention over `DECODE_CONTEXT` tokens; the linears of one token a sequence; the four
    routed experts of a GPU of 64, each with the rows that even routing brings it, in a masked
    layout. The products that absorb the up-projections have no kernel here.

    Raises:
        InfeasibleError: the model is not MLA with experts.
    """
    return [op for batch in DECODE_BATCHES for op in _decode_batch(model, batch)]


def _decode_batch(model: ModelSpec, batch: int) -> Iterator[Record]:
    _inputs(model)  # refuses what has no experts
    mla, moe, hidden = model.attention, model.moe, model.hidden
    if not isinstance(mla, MLASpec) or moe is None:
        raise InfeasibleError(f"model {model.name}: decode is measured for MoE with MLA")
    queries = mla.heads * (mla.d_nope + mla.d_rope)
    shared = moe.shared_experts * moe.expert_width
    sites = ((mla.q_lora_rank, hidden), (mla.kv_lora_rank + mla.d_rope, hidden),
             (queries, mla.q_lora_rank), (hidden, mla.heads * mla.d_v),
             (2 * shared, hidden), (hidden, shared))  # fmt: skip
    for n, k in sites:
        yield {"kernel": "fp8_gemm", "shape": {"m": batch, "n": n, "k": k}}
    yield {"kernel": "bf16_gemm", "shape": {"m": batch, "n": moe.routed_experts, "k": hidden}}
    attention = {"batch": batch, "heads": mla.heads, "length": DECODE_CONTEXT, "ragged": 0}
    yield {"kernel": "mla_decode", "shape": attention}
    gpus = moe.routed_experts // EXPERTS_PER_GPU
    counts = (batch * gpus * moe.top_k // moe.routed_experts,) * EXPERTS_PER_GPU
    for n, k in ((2 * moe.expert_width, hidden), (hidden, moe.expert_width)):
        shape = {"counts": counts, "n": n, "k": k, "masked": 1}
        yield {"kernel": "grouped_gemm", "shape": shape}
    yield {"kernel": "rmsnorm", "shape": {"m": batch, "k": hidden, "residual": 1}}
    yield {"kernel": "quantize", "shape": {"m": batch, "k": hidden}}
    rows = sum(counts)
    yield {"kernel": "swiglu", "shape": {"rows": rows, "width": moe.expert_width, "quantize": 1}}
    routes = {"experts": moe.routed_experts, "groups": moe.groups, "top_k": moe.top_k}
    kept = {"groups_kept": moe.groups_per_token}
    yield {"kernel": "router", "shape": {"tokens": batch, **routes, **kept}}


def measurable(model: ModelSpec) -> Iterator[tuple[str, Record, Op]]:
    """Yield kernel, shape and priced op, each kernel and shape once."""
    inputs = _inputs(model)
    memory = _memory_shapes(inputs)
    seen: set[tuple[str, str]] = set()
    for op in _ops(stage_layers(inputs, default_layout(model, 1))[0]):
        found = _tensor_shape(op) if isinstance(op, Gemm | Attention) else memory.get(op.name)
        if found is not None and (found[0], repr(found[1])) not in seen:
            seen.add((found[0], repr(found[1])))
            yield *found, op


def _inputs(model: ModelSpec) -> LayerInputs:
    if model.moe is None:
        raise InfeasibleError(f"model {model.name}: training steps are modelled for MoE with MLA")
    ep = model.moe.routed_experts // EXPERTS_PER_GPU
    return LayerInputs(
        model,
        sequences=1,
        length=SEQUENCE_LENGTH,
        local_experts=EXPERTS_PER_GPU,
        gpus_per_token=expected_copies(model.moe, ep, GPUS_PER_NODE).gpus_per_token,
    )


def _ops(layers: tuple[Layer, ...]) -> Iterator[Op]:
    """Yield the ops of one layer of each kind."""
    for layer in {layer.kind: layer for layer in layers}.values():
        for _, ops in layer.blocks:
            for work in (*ops.forward, *ops.backward, *ops.weight):
                if not isinstance(work, Comm):
                    yield work


def _tensor_shape(op: Gemm | Attention) -> tuple[str, Record]:
    if isinstance(op, Attention):
        kernel = "mla_prefill_backward" if op.backward else "mla_prefill"
        return kernel, {"batch": op.sequences, "length": op.length, "heads": op.heads}
    if op.format.family != "fp8":
        return "bf16_gemm", {"m": op.m, "n": op.n, "k": op.k}
    if op.role == "wgrad":
        counts = (op.k // op.groups,) * op.groups
        return "fp8_wgrad", {"counts": counts, "m": op.m, "n": op.n}
    if op.groups > 1:
        counts = (op.m // op.groups,) * op.groups
        return "grouped_gemm", {"counts": counts, "n": op.n, "k": op.k, "masked": 0}
    return "fp8_gemm", {"m": op.m, "n": op.n, "k": op.k}


def _memory_shapes(inputs: LayerInputs) -> dict[str, tuple[str, Record]]:
    """Kernel and shape of the memory-bound ops that one of our kernels does alike, by op name."""
    model, t = inputs.model, inputs.tokens
    moe, mla = model.moe, model.attention
    assert moe is not None, "_inputs refused models without experts"
    assert isinstance(mla, MLASpec), "stage_layers refused models without MLA"
    rows, width = t * moe.top_k, moe.expert_width
    casts = {
        "cast 1x128 hidden (q_a input)": (t, model.hidden),
        "cast q_lora": (t, mla.q_lora_rank),
        "cast kv_lora": (t, mla.kv_lora_rank),
        "cast attn out to FP8": (t, mla.heads * mla.d_v),
        "cast dQ 1x128": (t, mla.heads * (mla.d_nope + mla.d_rope)),
        "cast dKV 1x128": (t, mla.heads * (mla.d_nope + mla.d_v)),
        "cast d(swiglu in) 1x128 (routed)": (rows, 2 * width),
    }
    combine = {
        "tokens": round(t * inputs.gpus_per_token),
        "rows": rows,
        "top_k": moe.top_k,
        "experts": inputs.local_experts,
        "hidden": model.hidden,
        "weighted": 0,
    }
    rotary = {"tokens": t, "heads": mla.heads, "dim": mla.d_rope, "row": mla.d_nope + mla.d_rope}
    return {
        **{name: ("quantize", {"m": m, "k": k}) for name, (m, k) in casts.items()},
        "add+rmsnorm hidden": ("rmsnorm", {"m": t, "k": model.hidden, "residual": 1}),
        "rmsnorm q_lora": ("rmsnorm", {"m": t, "k": mla.q_lora_rank, "residual": 0}),
        "rotary q": ("rope", rotary),
        "swiglu + weight + cast (routed)": (
            "swiglu",
            {"rows": rows, "width": width, "quantize": 1},
        ),
        "reduce_fused (unpermute, BF16)": ("moe_unpermute", combine),
    }
