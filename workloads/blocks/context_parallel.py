"""The core of attention on context-parallel ranks, each with an equal share of every sequence.

A rank has two of 2 cp slices of a sequence, one from either end, so that a causal mask leaves all
ranks equally much to do (NVIDIA/TransformerEngine, context_parallel.py). Its queries meet

    p2p         its own keys, then those of the others as they come round a ring: half of its
                queries all of them, or all queries half of them (Ring Attention, arXiv 2310.01889);
                the next ones come while a core computes, gradients of keys and values go the same
                way, and results are put together by kernels
    all_gather  all keys that stand before them, gathered first; backward they are gathered again
                and gradients scattered (Llama 3, arXiv 2407.21783 §3.3.2)
    a2a         all tokens: ranks trade theirs for a share of the heads, and back (DeepSpeed
                Ulysses, arXiv 2309.14509)
"""

from dataclasses import replace

from workloads.blocks import AttentionCore, Site
from workloads.ops import Attention, Beside, Comm, CommKind, MemoryOp
from workloads.recipes import BF16_BYTES, Passes

FORWARD, BACKWARD = "flash attention", "flash attention backward"


def attend(core: AttentionCore, site: Site) -> Passes:
    """Return the core on what a rank has of each sequence, and what it needs of the others."""
    if site.cp == 1:
        return _cores(Attention(FORWARD, site.sequences, site.length, *core))
    return {"p2p": _ring, "all_gather": _gathered, "a2a": _traded}[site.cp_comm](core, site)


def _cores(forward: Attention) -> Passes:
    return Passes((forward,), (replace(forward, name=BACKWARD, backward=True),))


def _ring(core: AttentionCore, site: Site) -> Passes:
    half, others, tokens = site.length // 2, site.cp - 1, site.gathered
    own = _cores(Attention(FORWARD, site.sequences, site.length, *core))
    passed = Attention(
        f"{FORWARD}, passed keys", site.sequences, half, *core, causal=False, prefix=half
    )
    name, size = "pass keys and values", tokens * _kv(core)
    ahead = _comm(name, "send", size, "kernels", others)
    back = _comm(f"{name}: gradients", "send", size, "kernels", site.cp)
    summed = MemoryOp(
        "put results of passed keys together", "elementwise",
        others * tokens * core.heads * core.d_v * 6, launches=others,
    )  # fmt: skip
    gradients = MemoryOp(
        "put gradients of passed keys together", "elementwise",
        others * tokens * (core.heads * core.d_qk + _kv(core)) * 6, launches=2 * others,
    )  # fmt: skip
    return Passes(
        (ahead, *own.forward, *[passed] * others, summed),
        (ahead, back, *own.backward, *_cores(passed).backward * others, gradients),
    )


def _gathered(core: AttentionCore, site: Site) -> Passes:
    before = (site.cp - 1) * site.length // 2  # mean of what a query of either slice has
    cores = _cores(Attention(FORWARD, site.sequences, site.length, *core, prefix=before))
    size = site.cp * site.gathered * _kv(core)
    gathered = _comm("gather keys and values", "all_gather", size)
    scattered = _comm("scatter dK, dV", "reduce_scatter", size)
    return Passes((gathered, *cores.forward), (gathered, *cores.backward, scattered))


def _traded(core: AttentionCore, site: Site) -> Passes:
    heads, kv_heads = core.heads // site.cp, core.kv_heads // site.cp
    share = core._replace(heads=heads, kv_heads=kv_heads)
    cores = _cores(Attention(FORWARD, site.sequences, site.cp * site.length, *share))
    asked = site.gathered * (core.heads * core.d_qk + _kv(core))
    given = site.gathered * core.heads * core.d_v
    queries, results = (
        Passes(
            (_comm(f"trade {name}", "all_to_all", size),),
            (_comm(f"trade d({name})", "all_to_all", size),),
        )
        for name, size in (("q, k, v", asked), ("o", given))
    )
    return queries + cores + results


def _kv(core: AttentionCore) -> int:
    """Elements of the keys and values of a token."""
    return core.kv_heads * (core.d_qk + core.d_v)


def _comm(name: str, kind: CommKind, elements: int, beside: Beside = "", repeats: int = 1) -> Comm:
    size_bytes = float(elements * BF16_BYTES)
    return Comm(name, kind, ("cp",), size_bytes, beside=beside, repeats=repeats)
