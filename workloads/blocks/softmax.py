"""The softmax part of attention, and what FlashAttention does around its backward pass."""

from workloads.blocks import AttentionCore, Site
from workloads.blocks.context_parallel import attend
from workloads.ops import MemoryOp
from workloads.recipes import Passes


def softmax(core: AttentionCore, site: Site) -> Passes:
    """Return the core and the kernels around it.

    Before the backward pass, output and its gradient are read for their product and the FP32 sum of
    dQ is cleared; behind it, that sum is read and written in BF16. Where heads share keys, dK and
    dV are summed in FP32 too (Dao-AILab/flash-attention, hopper/flash_api.cpp: `dk_accum`). One
    FP32 sum a head and token is kept.
    """
    t = site.gathered
    query, value = core.heads * core.d_qk, core.heads * core.d_v
    cores = attend(core, site)
    shared = core.kv_heads * (core.d_qk + core.d_v) if core.kv_heads < core.heads else 0
    sums = (MemoryOp("flash attention: dK, dV sums", "copy", t * shared * (4 + 6), launches=4),)
    return Passes(
        cores.forward,
        (
            MemoryOp("flash attention: prepare", "copy", t * (value + query) * 4),
            *cores.backward,
            MemoryOp("flash attention: convert dQ", "copy", t * query * 6),
            *(sums if shared else ()),
        ),
        saved_bytes=t * core.heads * 4,
    )
