"""Laws of every recipe and every block: FLOPs follow weights, backward undoes forward."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hwmodels.formats import FORMATS
from workloads.blocks import FFNSpec, Site
from workloads.blocks.ffn import GatedFFN
from workloads.blocks.gqa import GQASpec
from workloads.blocks.mla import MLASpec
from workloads.blocks.moe import MoESpec
from workloads.ops import Attention, Comm, Gemm, MemoryOp
from workloads.recipes import RECIPES, Abilities, Operand, Passes

WIDTHS = st.integers(1, 40).map(lambda n: 8 * n)
WIRE = {"fp8": FORMATS["fp8_1x128"], "bf16": FORMATS["bf16"]}
UNITS = [Abilities(casts, transposes) for casts in (False, True) for transposes in (False, True)]


@st.composite
def gqa(draw):
    kv_heads = draw(st.integers(1, 4))
    heads = kv_heads * draw(st.integers(1, 4))
    return GQASpec(heads=heads, kv_heads=kv_heads, d_head=draw(WIDTHS),
                   qkv_bias=draw(st.booleans()), qk_norm=draw(st.booleans()))  # fmt: skip


@st.composite
def mla(draw):
    return MLASpec(heads=draw(st.integers(1, 8)), q_lora_rank=draw(st.none() | WIDTHS),
                   kv_lora_rank=draw(WIDTHS), d_nope=draw(WIDTHS), d_rope=draw(WIDTHS),
                   d_v=draw(WIDTHS))  # fmt: skip


@st.composite
def moe(draw):
    experts = draw(st.integers(1, 16))
    return MoESpec(routed_experts=experts, shared_experts=draw(st.integers(0, 2)),
                   top_k=draw(st.integers(1, experts)), expert_width=draw(WIDTHS))  # fmt: skip


@st.composite
def sites(draw, names=tuple(RECIPES)):
    recipe = RECIPES[draw(st.sampled_from(names))].able(draw(st.sampled_from(UNITS)))
    return Site(draw(WIDTHS), draw(st.integers(1, 3)), draw(WIDTHS), recipe,
                local_experts=draw(st.integers(1, 8)), gpus_per_token=draw(st.floats(0.5, 8)),
                dispatch=WIRE[draw(st.sampled_from(recipe.dispatches))])  # fmt: skip


ATTENTIONS = st.one_of(gqa(), mla())
FFNS = st.one_of(st.builds(GatedFFN, width=WIDTHS), moe())


def work(block, site):
    """All passes of a block, what goes before it included."""
    passes = block.passes(site)
    return block.entry(site) + passes if isinstance(block, FFNSpec) else passes


def flops(passes, *names):
    return sum(op.flops for name in names for op in passes.of(name) if not isinstance(op, Comm))


def products(works):
    return [op for op in works if isinstance(op, Gemm)]


@given(ATTENTIONS, sites())
def test_attention_computes_three_times_its_closed_form_and_what_it_computes_again(block, site):
    """Products F = B = W = 2 weights a token; the core 1 and (3 d_qk + 2 d_v) / (d_qk + d_v); B
    also what the recipe computes again, which are up-projections only.
    """
    passes, core = block.passes(site), block.core
    once = 2.0 * site.tokens * block.projection_parameters(site.hidden)
    scores = site.tokens * block.core_flops_per_token(site.length, causal=True)
    back = (3 * core.d_qk + 2 * core.d_v) / (core.d_qk + core.d_v) * scores
    again = [op for op in products(passes.backward) if op.name.endswith(" again")]
    assert site.recipe.recomputes or not again
    assert all(op.name.startswith(("q_b", "kv_b")) for op in again)
    assert flops(passes, "F") == pytest.approx(once + scores, rel=1e-12)
    assert flops(passes, "B") == pytest.approx(
        once + back + sum(op.flops for op in again), rel=1e-12
    )
    assert flops(passes, "W") == pytest.approx(once, rel=1e-12)


@given(FFNS, sites())
def test_an_ffn_computes_three_times_its_closed_form(block, site):
    """Weight gradients are 2 FLOPs a weight that a token meets; a router's is in B."""
    passes = work(block, site)
    once = 2.0 * site.tokens * block.product_parameters(site.hidden)
    router = 2.0 * site.tokens * site.hidden * getattr(block, "routed_experts", 0)
    assert flops(passes, "F") == once + router
    assert flops(passes, "B") == once + 2 * router
    assert flops(passes, "W") == once


@given(st.one_of(ATTENTIONS, FFNS), sites())
def test_every_block_keeps_something_and_moves_something(block, site):
    passes = block.passes(site)
    works = [op for name in "FBW" for op in passes.of(name) if not isinstance(op, Comm)]
    assert passes.saved_bytes > 0
    assert all(op.launches >= 1 and op.bytes >= 0 for op in works)
    assert all(op.bytes > 0 for op in works if not isinstance(op, MemoryOp))
    assert passes.backward
    assert passes.weight


@given(st.one_of(ATTENTIONS, FFNS), sites(["bf16"]))
def test_bf16_launches_nothing_around_a_product(block, site):
    """No cast but for an FP8 wire, no transpose, no scale, no latent cast; BF16 products alone."""
    for op in (op for name in "FBW" for op in work(block, site).of(name)):
        if isinstance(op, Gemm):
            assert op.format.name == "bf16"
        if isinstance(op, MemoryOp):
            assert op.family not in ("transpose", "recast_transpose", "e5m6_cast")
            assert op.family != "cast" or site.dispatch.name == "fp8_1x128"
            assert "scale transposes" not in op.name


@given(st.one_of(ATTENTIONS, FFNS), sites())
def test_every_product_goes_forward_backward_and_leaves_a_gradient(block, site):
    """Shapes of the three are turns of each other, whatever the recipe puts around them."""
    passes = work(block, site)
    forward = sorted((op.m, op.n, op.k) for op in products(passes.forward))
    back = [op for op in products(passes.backward) if not op.name.endswith(" again")]
    assert forward == sorted((op.m, op.k, op.n) for op in back if op.role == "dgrad")
    gradients = [op for op in (*back, *products(passes.weight)) if op.role == "wgrad"]
    turned = sorted((op.k, *sorted((op.m, op.n))) for op in gradients)
    assert turned == sorted((m, *sorted((n, k))) for m, n, k in forward)
    cores = [op for op in (*passes.forward, *passes.backward) if isinstance(op, Attention)]
    assert [op.backward for op in cores] in ([], [False, True])


PASSES = st.builds(
    lambda seed: Passes(
        (MemoryOp(f"F{seed}", "copy", seed),),
        (MemoryOp(f"B{seed}", "copy", seed),),
        (MemoryOp(f"W{seed}", "copy", seed),),
        float(seed),
    ),
    st.integers(0, 99),
)


@given(PASSES, PASSES, PASSES)
def test_passes_add_in_order_and_backward_the_other_way_round(a, b, c):
    both = a + b
    assert both.forward == a.forward + b.forward
    assert both.backward == b.backward + a.backward
    assert both.weight == b.weight + a.weight
    assert both.saved_bytes == a.saved_bytes + b.saved_bytes
    assert (a + b) + c == a + (b + c)
    assert Passes() + a == a == a + Passes()


@given(
    st.sampled_from(list(RECIPES.values())),
    WIDTHS,
    WIDTHS,
    WIDTHS,
    st.sampled_from(Operand),
    st.sampled_from(Operand),
)
def test_what_came_in_the_format_of_products_is_not_cast_again(recipe, rows, n, k, x, dy):
    """A linear casts what is in BF16 and nothing else; its three products stay as they are."""
    passes = recipe.linear("x", rows, n, k, x, dy)
    casts = [op.name for op in (*passes.forward, *passes.backward) if op.name.startswith("cast X")]
    is_cast = recipe.format.bits < 16 and x in (Operand.WIDE, Operand.NARROW)
    assert bool(casts) == is_cast
    assert [flops(passes, name) for name in "FBW"] == [2.0 * rows * n * k] * 3
    routed = recipe.routed_linear("x", rows, n, k, 4, x, dy)
    assert [flops(routed, name) for name in "FBW"] == [2.0 * rows * n * k] * 3
    moved = [op for name in "FBW" for op in routed.of(name) if "weight transpose" not in op.name]
    assert all(op.routed for op in moved)
    again = [op.name for op in routed.forward if op.name.startswith("cast X")]
    assert bool(again) == is_cast


def moved(passes):
    """Bytes of all kernels."""
    return sum(op.bytes for name in "FBW" for op in passes.of(name) if not isinstance(op, Comm))


@given(st.one_of(ATTENTIONS, FFNS), sites())
def test_what_a_unit_can_do_besides_changes_no_product_and_adds_no_bytes(block, site):
    """FLOPs stay, as do exchanges; bytes and launches fall or stay with each ability."""
    plain = work(block, replace(site, recipe=site.recipe.able(Abilities())))
    able = work(block, site)
    for name in "FBW":
        assert flops(able, name) == flops(plain, name)
        assert [op for op in able.of(name) if isinstance(op, Comm)] == [
            op for op in plain.of(name) if isinstance(op, Comm)
        ]
        kept = [op.name for op in plain.of(name)]
        assert all(op.name in kept for op in able.of(name))
    assert moved(able) <= moved(plain)
    assert able.saved_bytes == plain.saved_bytes


@given(st.one_of(ATTENTIONS, FFNS), sites(["bf16"]), st.sampled_from(UNITS))
def test_a_recipe_without_casts_has_no_use_for_them(block, site, unit):
    assert site.recipe.able(unit) is site.recipe
