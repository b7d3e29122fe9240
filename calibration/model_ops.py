"""The ops of a model's training and decode as points to measure: what is priced gets measured.

Matrix products and attention cores map by their shape. A memory-bound op maps, by pass, family and
bytes, where one of our kernels does the same work, byte for byte but for FP8 scales, which the op
leaves out; the others of its family are priced by what these show.
"""

from collections.abc import Iterator
from typing import Any

from hwmodels.errors import InfeasibleError
from workloads.blocks import Site
from workloads.blocks.mla import MLASpec
from workloads.blocks.moe import MoESpec
from workloads.joins import PASSES
from workloads.layers import Layer
from workloads.layout import default_layout
from workloads.model import ModelSpec
from workloads.ops import Attention, Comm, Gemm, Op
from workloads.recipes import Phase, recipe
from workloads.routing import expected_copies
from workloads.stages import stage_layers

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
        InfeasibleError: the model is not MLA with experts, whose kernels are those we have.
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
    blocks = _latent_with_experts(model)
    return [
        op
        for batch in DECODE_BATCHES
        for op in decode_batch(*blocks, model.hidden, batch, DECODE_CONTEXT)
    ]


def decode_batch(
    mla: MLASpec, moe: MoESpec, hidden: int, batch: int, context: int
) -> Iterator[Record]:
    """Yield what `decode_ops` has of one batch of sequences with `context` tokens each."""
    queries = mla.heads * (mla.d_nope + mla.d_rope)
    shared = moe.shared_experts * moe.expert_width
    sites = ((mla.q_lora_rank, hidden), (mla.kv_lora_rank + mla.d_rope, hidden),
             (queries, mla.q_lora_rank), (hidden, mla.heads * mla.d_v),
             (2 * shared, hidden), (hidden, shared))  # fmt: skip
    for n, k in sites:
        yield {"kernel": "fp8_gemm", "shape": {"m": batch, "n": n, "k": k}}
    yield {"kernel": "bf16_gemm", "shape": {"m": batch, "n": moe.routed_experts, "k": hidden}}
    attention = {"batch": batch, "heads": mla.heads, "length": context, "ragged": 0}
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
    mla, moe = _latent_with_experts(model)
    site = _site(model, moe)
    memory = _memory_shapes(site, mla, moe)
    seen: set[tuple[str, str]] = set()
    for pass_, op in _ops(stage_layers(model, site, default_layout(model, 1))[0]):
        found = (
            _tensor_shape(op)
            if isinstance(op, Gemm | Attention)
            else memory.get((pass_, op.family, op.routed, op.bytes))
        )
        if found is not None and (found[0], repr(found[1])) not in seen:
            seen.add((found[0], repr(found[1])))
            yield *found, op


def _latent_with_experts(model: ModelSpec) -> tuple[MLASpec, MoESpec]:
    if not isinstance(model.attention, MLASpec) or model.moe is None:
        raise InfeasibleError(
            f"model {model.name}: kernels to measure are those of MoE with MLA, got "
            f"attention.kind = {model.attention.kind!r} "
            f"{'without' if model.moe is None else 'with'} experts"
        )
    return model.attention, model.moe


def _site(model: ModelSpec, moe: MoESpec) -> Site:
    ep = moe.routed_experts // EXPERTS_PER_GPU
    return Site(
        model.hidden,
        sequences=1,
        length=SEQUENCE_LENGTH,
        recipe=recipe("fp8-blockwise"),
        local_experts=EXPERTS_PER_GPU,
        gpus_per_token=expected_copies(moe, ep, GPUS_PER_NODE).gpus_per_token,
    )


def _ops(layers: tuple[Layer, ...]) -> Iterator[tuple[Phase, Op]]:
    """Yield the ops of one layer of each kind, with their pass."""
    for layer in {layer.kind: layer for layer in layers}.values():
        for _, ops in layer.blocks:
            for pass_ in PASSES:
                for work in ops.of(pass_):
                    if not isinstance(work, Comm):
                        yield pass_, work


def _tensor_shape(op: Gemm | Attention) -> tuple[str, Record]:
    if isinstance(op, Attention):
        kernel = "mla_prefill_backward" if op.backward else "mla_prefill"
        return kernel, {"batch": op.sequences, "length": op.length, "heads": op.heads}
    if op.format.family != "fp8":
        return "bf16_gemm", {"m": op.m, "n": op.n, "k": op.k}
    if op.role == "wgrad":
        counts = (op.k // op.groups,) * op.groups
        # Of experts the wider side gives the rows: the transposed product is as much work.
        m, n = (max(op.m, op.n), min(op.m, op.n)) if op.groups > 1 else (op.m, op.n)
        return "fp8_wgrad", {"counts": counts, "m": m, "n": n}
    if op.groups > 1:
        counts = (op.m // op.groups,) * op.groups
        return "grouped_gemm", {"counts": counts, "n": op.n, "k": op.k, "masked": 0}
    return "fp8_gemm", {"m": op.m, "n": op.n, "k": op.k}


def _memory_shapes(
    site: Site, mla: MLASpec, moe: MoESpec
) -> dict[tuple[Phase, str, bool, float], tuple[str, Record]]:
    """Kernel and shape of the memory-bound ops that one of our kernels does alike, by pass, family,
    whether rows are routed, and bytes.
    """
    t, hidden, rows, width = site.tokens, site.hidden, site.tokens * moe.top_k, moe.expert_width
    query, key_value = mla.heads * (mla.d_nope + mla.d_rope), mla.heads * (mla.d_nope + mla.d_v)
    q_rank = mla.q_lora_rank or 0
    casts: tuple[tuple[Phase, str, int, int], ...] = (
        ("F", "cast", t, hidden),
        ("F", "low_rank", t, q_rank),
        ("F", "low_rank", t, mla.kv_lora_rank),
        ("F", "cast", t, mla.heads * mla.d_v),
        ("B", "cast", t, query),
        ("B", "cast", t, key_value),
        ("B", "cast", rows, 2 * width),
    )
    arrived = t * site.gpus_per_token
    combine = {
        "tokens": round(arrived),
        "rows": rows,
        "top_k": moe.top_k,
        "experts": site.local_experts,
        "hidden": hidden,
        "weighted": 0,
    }
    rotary = {"tokens": t, "heads": mla.heads, "dim": mla.d_rope, "row": mla.d_nope + mla.d_rope}
    return {
        **{
            (pass_, family, m == rows, m * k * 3): ("quantize", {"m": m, "k": k})
            for pass_, family, m, k in casts
            if k
        },
        ("F", "add_norm", False, t * hidden * 8): ("rmsnorm", {"m": t, "k": hidden, "residual": 1}),
        ("F", "low_rank", False, t * q_rank * 4): ("rmsnorm", {"m": t, "k": q_rank, "residual": 0}),
        ("F", "rotary", False, t * mla.heads * mla.d_rope * 4): ("rope", rotary),
        ("F", "swiglu", True, rows * width * 5): (
            "swiglu",
            {"rows": rows, "width": width, "quantize": 1},
        ),
        ("F", "permute", True, (rows + arrived) * hidden * 2): ("moe_unpermute", combine),
    }
