"""Layers split over tensor-, context- and expert-tensor-parallel ranks: every byte by hand, and the
work of all ranks against that of one.
"""

from collections import Counter
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hwmodels.errors import InfeasibleError
from workloads.blocks import Site
from workloads.blocks.ffn import GatedFFN
from workloads.blocks.gqa import GQASpec
from workloads.blocks.head import lm_head
from workloads.blocks.mla import MLASpec
from workloads.blocks.moe import MoESpec
from workloads.blocks.mtp import mtp_projection
from workloads.ops import Attention, Comm, Gemm
from workloads.recipes import RECIPES

SIZES = st.sampled_from([1, 2, 4, 8])
BF16 = 2


def comms(passes, phase, axis):
    """Bytes along an axis in one pass, repeats counted, by kind."""
    total = Counter()
    for work in passes.of(phase):
        if isinstance(work, Comm) and work.axes == (axis,):
            total[work.kind] += work.repeats * work.size_bytes
    return dict(total)


def flops(passes, kinds):
    return sum(
        work.flops
        for phase in "FBW"
        for work in passes.of(phase)
        if isinstance(work, kinds) and "router" not in work.name
    )


def site(hidden, sequences, length, recipe="bf16", **split):
    return Site(hidden, sequences, length // split.get("cp", 1), RECIPES[recipe], **split)


@st.composite
def transformers(draw):
    """A site, a GQA block and a gated FFN that `tp` up to 8 divides."""
    d_head = 8 * draw(st.integers(1, 8))
    kv_heads = 8 * draw(st.integers(1, 2))
    block = GQASpec(heads=kv_heads * draw(st.integers(1, 3)), kv_heads=kv_heads, d_head=d_head)
    ffn = GatedFFN(width=64 * draw(st.integers(1, 8)))
    at = site(16 * draw(st.integers(1, 8)), draw(st.integers(1, 3)), 32 * draw(st.integers(1, 4)))
    return at, block, ffn


@given(transformers(), SIZES)
def test_a_layer_gathers_and_scatters_twice_a_pass_under_sequence_parallelism(layer, tp):
    """arXiv 2205.05198 §4.2.2: an all-gather and a reduce-scatter around attention and around the
    FFN, backward too; what products read is gathered once more for the gradients of their weights.
    """
    at, block, ffn = layer
    split = replace(at, tp=tp)
    size = at.gathered * at.hidden * BF16
    passes = block.shard(tp).passes(split) + ffn.shard(tp).passes(split)
    if tp == 1:
        assert comms(passes, "F", "tp") == comms(passes, "B", "tp") == {}
        return
    assert comms(passes, "F", "tp") == {"all_gather": 2 * size, "reduce_scatter": 2 * size}
    assert comms(passes, "B", "tp") == {"all_gather": 4 * size, "reduce_scatter": 2 * size}


@given(transformers(), SIZES)
def test_a_layer_sums_twice_a_pass_without_it(layer, tp):
    """arXiv 1909.08053 §3: two all-reduces forward, two backward."""
    at, block, ffn = layer
    split = replace(at, tp=tp, sequence_parallel=False)
    passes = block.shard(tp).passes(split) + ffn.shard(tp).passes(split)
    expected = {"all_reduce": 2 * at.gathered * at.hidden * BF16} if tp > 1 else {}
    assert comms(passes, "F", "tp") == comms(passes, "B", "tp") == expected


@given(transformers(), SIZES, st.booleans())
def test_ranks_multiply_together_what_one_would(layer, tp, sequence_parallel):
    at, block, ffn = layer
    split = replace(at, tp=tp, sequence_parallel=sequence_parallel)
    shard = block.shard(tp).passes(split) + ffn.shard(tp).passes(split)
    whole = block.passes(at) + ffn.passes(at)
    assert tp * flops(shard, (Gemm, Attention)) == pytest.approx(flops(whole, (Gemm, Attention)))


@given(transformers(), SIZES)
def test_ranks_hold_together_the_weights_of_one(layer, tp):
    at, block, ffn = layer
    assert tp * block.shard(tp).projection_parameters(at.hidden) == block.projection_parameters(
        at.hidden
    )
    assert tp * ffn.held_parameters(at.hidden, tp) == ffn.parameters(at.hidden)


def test_a_key_with_fewer_heads_than_ranks_is_held_by_several():
    block = GQASpec(heads=8, kv_heads=2, d_head=16).shard(8)
    assert (block.heads, block.kv_heads) == (1, 1)


@pytest.mark.parametrize(
    ("block", "tp", "message"),
    [
        (GQASpec(heads=12, kv_heads=12, d_head=8), 8, "plan.tp: must divide the 12 attention he"),
        (GQASpec(heads=24, kv_heads=6, d_head=8), 4, "plan.tp: must divide the 6 kv heads, got 4"),
        (GQASpec(heads=24, kv_heads=3, d_head=8), 8, "divide or be a multiple of the 3 kv heads"),
        (GatedFFN(width=36), 8, "plan.tp: must divide the FFN width 36, got 8"),
    ],
)
def test_what_does_not_divide_is_refused(block, tp, message):
    with pytest.raises(InfeasibleError, match=message):
        block.shard(tp)


@given(SIZES, st.sampled_from([None, 24]))
def test_latents_are_gathered_instead_of_the_hidden_state(tp, rank):
    """Each rank projects its own tokens down; of a model without query latents, queries are split
    over ranks and read the hidden state of all tokens.
    """
    block = MLASpec(heads=8, q_lora_rank=rank, kv_lora_rank=40, d_nope=16, d_rope=8, d_v=16)
    at = site(64, 2, 32, tp=tp)
    passes = block.shard(tp).passes(at)
    latents, hidden = (rank or 0) + 48, 0 if rank else 64
    tokens = 64 * BF16
    if tp == 1:
        assert comms(passes, "F", "tp") == {}
        return
    out = tokens * 64
    assert comms(passes, "F", "tp") == {
        "all_gather": tokens * (latents + hidden),
        "reduce_scatter": out,
    }
    assert comms(passes, "B", "tp") == {
        "all_gather": out + tokens * (latents + hidden),
        "reduce_scatter": tokens * (latents + hidden),
    }


@given(SIZES)
def test_head_and_mtp_module_are_split_too(tp):
    whole, split = site(64, 1, 64), site(64, 1, 64, tp=tp)
    size = 64 * 64 * BF16
    head, module = lm_head(split, 1000), mtp_projection(split)
    assert flops(head, Gemm) == pytest.approx(flops(lm_head(whole, -(-1000 // tp)), Gemm))
    assert tp * flops(module, Gemm) == flops(mtp_projection(whole), Gemm)
    if tp > 1:
        sums = {"all_reduce": 3 * 64 * 4}
        assert comms(head, "F", "tp") == {"all_gather": size} | sums
        assert comms(head, "B", "tp") == {"all_gather": size, "reduce_scatter": size}
        assert comms(module, "F", "tp") == {"all_gather": 2 * size + size}


@given(st.sampled_from([1, 2, 4]), st.sampled_from([1, 2]), st.sampled_from(["p2p", "all_gather"]))
def test_context_parallel_ranks_share_the_core_evenly(cp, tp, way):
    """A causal core of S tokens is the same work on every rank, S^2 / 2 cp of it."""
    block = GQASpec(heads=8, kv_heads=4, d_head=16)
    at = site(64, 2, 64, cp=cp, tp=tp, cp_comm=way)
    whole, shard = block.passes(site(64, 2, 64)), block.shard(tp).passes(at)
    assert cp * tp * flops(shard, Attention) == pytest.approx(flops(whole, Attention))


def test_a_ring_passes_keys_and_values_on_and_their_gradients_all_the_way_home():
    cp, block = 4, GQASpec(heads=8, kv_heads=4, d_head=16)
    passes = block.passes(site(64, 2, 64, cp=cp))
    size = 2 * 16 * 4 * 2 * 16 * BF16  # sequences, tokens, heads, keys and values
    assert comms(passes, "F", "cp") == {"send": (cp - 1) * size}
    assert comms(passes, "B", "cp") == {"send": (cp - 1) * size + cp * size}
    assert all(work.beside == "kernels" for work in passes.forward if isinstance(work, Comm))


def test_keys_and_values_may_be_gathered_or_traded_for_heads():
    block, tokens = GQASpec(heads=8, kv_heads=4, d_head=16), 2 * 16
    gathered = block.passes(site(64, 2, 64, cp=4, cp_comm="all_gather"))
    whole = 4 * tokens * 4 * 2 * 16 * BF16
    assert comms(gathered, "F", "cp") == {"all_gather": whole}
    assert comms(gathered, "B", "cp") == {"all_gather": whole, "reduce_scatter": whole}
    traded = block.shard(1, 4).passes(site(64, 2, 64, cp=4, cp_comm="a2a"))
    mine = tokens * 16 * (8 + 4 + 4 + 8) * BF16
    assert comms(traded, "F", "cp") == comms(traded, "B", "cp") == {"all_to_all": mine}


@given(st.sampled_from([1, 2, 4]), st.floats(1, 4))
def test_ranks_that_share_experts_gather_what_came_and_sum_what_they_made(etp, gpus):
    moe = MoESpec(routed_experts=8, top_k=2, expert_width=64)
    at = site(64, 1, 32, etp=etp, local_experts=4, gpus_per_token=gpus)
    whole = replace(at, etp=1)
    passes = moe.passes(at)
    assert flops(passes, Gemm) == pytest.approx(flops(moe.passes(whole), Gemm))
    if etp == 1:
        assert comms(passes, "F", "etp") == {}
        return
    tokens = etp * 32 * gpus
    dispatched = at.dispatch.bytes_of(tokens * 64)
    assert comms(passes, "F", "etp") == pytest.approx(
        {"all_gather": dispatched, "reduce_scatter": tokens * 64 * BF16}
    )
    assert comms(passes, "B", "etp") == comms(passes, "F", "etp")
