"""Layers: FLOPs and weights are the model's closed forms, kernels are those of the trace."""

import csv
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

from calibration.read.dualpipe_ops import TRACED
from tests.layer_work import exchange, kernels, sent, v3_site
from workloads.joins import compute_ops, join
from workloads.layers import Block, Layer, Parameters
from workloads.layout import parse_layout
from workloads.memory import rank_parameters
from workloads.model import MODELS
from workloads.ops import Attention, Comm, Gemm, MemoryOp
from workloads.optimizer import SharedTable, optimizer_step
from workloads.recipes import Passes, recipe
from workloads.stages import stage_layers

V3 = MODELS.load("deepseek-v3")
TOKENS, LENGTH, EP = 4096, 4096, 64
MLA = V3.attention
CORE = V3.attention.core_flops_per_token(LENGTH, causal=True)
CORE_BACKWARD = 2.6  # (3 x 192 + 2 x 128) / (192 + 128)
UP_PROJECTIONS = MLA.q_lora_rank * MLA.heads * (MLA.d_nope + MLA.d_rope)
UP_PROJECTIONS += MLA.kv_lora_rank * MLA.heads * (MLA.d_nope + MLA.d_v)
PHASES = "FBW"
FP8 = recipe("fp8-blockwise")


@pytest.fixture(scope="module")
def layer_of(v3_step):
    """First layer of each kind."""
    return {la.kind: la for stage in v3_step.stages[::-1] for la in stage[::-1]}


def flops(layer, phase):
    return sum(op.flops for block in ("attn", "mlp") for op in kernels(layer, block, phase))


def weights_met(kind):
    """Weights of the products one token passes in a layer, the router's apart."""
    attention, experts = V3.attention_parameters, V3.moe.top_k + V3.moe.shared_experts
    return {
        "dense": attention + V3.ffn("dense").parameters(V3.hidden),
        "moe": attention + experts * V3.expert_parameters,
        "mtp": attention + experts * V3.expert_parameters + V3.mtp_projection_parameters,
        "head": V3.head_parameters,
    }[kind]


def is_transformer(kind):
    return kind != "head"


def router(kind):
    return V3.router_parameters if kind in ("moe", "mtp") else 0


@pytest.mark.parametrize("kind", ["dense", "moe", "mtp", "head"])
def test_forward_multiplies_each_weight_once_a_token_and_attends(kind, layer_of):
    """Forward = 2 (weights a token meets) + attention core, per token (ISCA'25 §5.1.2)."""
    core = CORE if is_transformer(kind) else 0
    expected = TOKENS * (2 * (weights_met(kind) + router(kind)) + core)
    assert flops(layer_of[kind], "F") == expected


@pytest.mark.parametrize("kind", ["dense", "moe", "mtp", "head"])
def test_backward_and_weight_gradients_take_a_forward_each_and_mla_recomputes(kind, layer_of):
    """dgrad = wgrad = fprop for every product; B also recomputes the up-projections of q and kv
    (arXiv 2412.19437 §3.2.3), runs attention at 2.6 times forward, and holds the router's wgrad.
    """
    once = 2 * TOKENS * weights_met(kind)
    gate = 2 * TOKENS * router(kind)
    attends = TOKENS * (CORE_BACKWARD * CORE + 2 * UP_PROJECTIONS) if is_transformer(kind) else 0
    assert flops(layer_of[kind], "B") == once + 2 * gate + attends
    assert flops(layer_of[kind], "W") == once


def test_the_stages_together_do_the_flops_of_the_model(v3_step):
    """F + B + W = published FLOPs per token + those of MTP, and what both leave out: routers,
    recomputation, and attention's 2.6 instead of 2 backward.
    """
    layers = [layer for stage in v3_step.stages for layer in stage]
    blocks, routers = V3.layers + V3.mtp_layers, V3.moe_layers + V3.mtp_layers
    per_token = V3.flops_per_token(LENGTH, causal=True) + V3.mtp_flops_per_token(
        LENGTH, causal=True
    )
    per_token += 3 * 2 * routers * V3.router_parameters
    per_token += blocks * (2 * UP_PROJECTIONS + (CORE_BACKWARD - 2) * CORE)
    done = sum(flops(layer, phase) for layer in layers for phase in PHASES)
    assert done == pytest.approx(TOKENS * per_token, rel=1e-12)


def test_the_embedding_gathers_once_and_scatters_in_fp32(v3_step):
    """BF16 rows read and written; a BF16 gradient added to an FP32 one, read and written."""
    first, second = v3_step.stages[0][:2]
    gather = [op for op in kernels(first, "attn", "F") if op.name == "embedding gather"]
    scatter = [
        op for op in kernels(first, "attn", "W") if op.name == "embedding gradient scatter-add"
    ]
    assert [op.bytes for op in gather] == [TOKENS * 7168 * 4]
    assert [op.bytes for op in scatter] == [TOKENS * 7168 * 10]
    assert not [op for op in kernels(second, "attn", "F") if "embedding" in op.name]


# Parameters


def held_by(stages, held):
    """Parameters of all ranks of an expert group with these stages, copies counted once."""
    parameters = rank_parameters(stages, held)
    return parameters.replicated + EP * parameters.routed


def test_stages_and_ranks_hold_every_parameter_once(v3_step):
    """671.03 B and MTP's 11.6 B, with embedding, MTP and heads on one DualPipe rank."""
    held = sum(held_by(v3_step.stages, (rank, 15 - rank)) for rank in range(8))
    assert held == V3.total_parameters + V3.mtp_parameters


def test_mtp_away_from_the_embedding_keeps_a_copy_of_it(v3_step):
    """One stage a rank, as under 1F1B: the last one needs the embedding again."""
    held = sum(held_by(v3_step.stages, (rank,)) for rank in range(16))
    assert held == V3.total_parameters + V3.mtp_parameters + V3.embedding_parameters


def test_a_rank_holds_four_experts_of_each_moe_layer(layer_of):
    """256 experts over 64 ranks, 44.04 M parameters each."""
    assert layer_of["moe"].parameters.routed == 256 / EP * V3.expert_parameters
    assert layer_of["dense"].parameters.routed == 0


def test_heads_on_two_stages_keep_a_matrix_each():
    model, site = v3_site()
    apart = stage_layers(model, site, parse_layout("3d+58m+mtp, head, head"))
    together = stage_layers(model, site, parse_layout("3d+58m+mtp, 2heads"))
    held = [
        sum(held_by(stages, (stage,)) for stage in range(len(stages)))
        for stages in (apart, together)
    ]
    assert held[0] - held[1] == V3.head_parameters + V3.hidden
    assert held_by(together, (0, 1)) == V3.total_parameters + V3.mtp_parameters


def test_parameters_add_term_by_term():
    total = Parameters(1, 2, 3) + Parameters(10, 20, 30)
    assert total == Parameters(11, 22, 33)
    assert (total.replicated, total.total) == (33, 66)


# Kernels


@pytest.mark.parametrize("kind", ["dense", "moe", "mtp", "head"])
def test_no_two_kernels_of_a_half_and_phase_share_a_name(kind, layer_of):
    """So that people tell them apart in a trace."""
    layer = layer_of[kind]
    for block in ("attn", "mlp"):
        for phase in PHASES:
            names = Counter(op.name for op in kernels(layer, block, phase))
            assert [name for name, count in names.items() if count > 1] == []


def test_only_kernels_on_routed_tokens_follow_the_expert_load(layer_of):
    """Weights are transposed whatever the load; the shared expert sees every token."""
    layer = layer_of["moe"]
    assert not [op for phase in PHASES for op in kernels(layer, "attn", phase) if op.routed]
    for phase in PHASES:
        for op in kernels(layer, "mlp", phase):
            known = "routed" in op.name or "permute" in op.name
            assert op.routed == (known and "weight transpose" not in op.name), op.name


def test_halves_run_one_after_the_other_and_backward_the_other_way_round():
    def half(name):
        return Passes(*((MemoryOp(f"{name} {phase}", "copy", 1),) for phase in PHASES))

    both = half("first") + half("second")
    assert [[op.name for op in both.of(phase)] for phase in PHASES] == [
        ["first F", "second F"],
        ["second B", "first B"],
        ["second W", "first W"],
    ]


def test_the_exchange_carries_the_tokens_of_the_micro_batch(layer_of):
    model, site = v3_site(sequences=2, length=1024)
    entry = model.moe.entry(site)
    out, home = entry.forward[-1], entry.backward[0]
    assert (out.kind, out.tokens, out.size_bytes) == ("dispatch", 2048, 7168 + 7168 / 128 * 4)
    assert (home.kind, home.tokens, home.size_bytes) == ("combine", 2048, 2 * 7168)
    assert (layer_of["moe"].routed, layer_of["dense"].routed) == (True, False)
    assert not any(sent(layer_of["dense"], phase) for phase in PHASES)


def test_a_layer_that_exchanges_in_one_pass_only_depends_on_the_load_too():
    sends = (exchange("dispatch", 1),)
    for ops in (Passes(forward=sends), Passes(backward=sends)):
        assert Layer("any", (Block("any", ops),)).routed
    assert not Layer("any", (Block("any", Passes()),)).routed


def test_gradients_go_out_as_tokens_do_and_come_home_likewise(layer_of):
    """The gradient of a combine is carried by kernels of a dispatch, and the other way round."""
    layer = layer_of["moe"]
    forward, backward = (
        [(work.name, work.kind) for work in sent(layer, phase) if isinstance(work, Comm)]
        for phase in "FB"
    )
    assert forward == [("dispatch", "dispatch"), ("combine", "combine")]
    assert backward == [("dispatch", "combine"), ("combine", "dispatch")]


def test_a_layout_says_what_the_layers_of_each_stage_are(v3_step):
    """3d+1m, 14*4m, 1m+mtp+2heads."""
    first, *middle, last = [[layer.kind for layer in stage] for stage in v3_step.stages]
    assert first == ["dense"] * 3 + ["moe"]
    assert middle == [["moe"] * 4] * 14
    assert last == ["moe", "mtp", "head", "head"]


# The optimizer


def test_zero_shards_the_update_and_gathers_weights():
    """Per rank: FP32 gradients reduced, 22 bytes an own parameter swept (12 read, 10 written) after
    4 for their norm and 8 to clip them, BF16 weights gathered; without ZeRO everything is swept and
    FP32 gradients are gathered.
    """
    held = Parameters(dense=512.0, tables=256.0, routed=128.0)
    everyone = np.arange(2048)[None]
    dense, experts = everyone[:, :256], np.arange(256).reshape(4, 64).T
    sharded = optimizer_step(held, dense, experts, everyone, zero=1, recipe=FP8)
    whole = optimizer_step(held, dense, experts, everyone, zero=0, recipe=FP8)
    for step in (sharded, whole):
        assert [sync.bytes for sync in step.reduce] == [768 * 4, 128 * 4]
        for sync, groups in zip(step.reduce, (dense, experts), strict=True):
            assert sync.groups is groups
    assert [sync.bytes for sync in sharded.gather] == [768 * 2, 128 * 2]
    assert [sync.bytes for sync in whole.gather] == [768 * 4, 128 * 4]
    assert sharded.norm is whole.norm is everyone
    own = 768 / 256 + 128 / 4
    norm, clip, sweep, clear, cast = (op.bytes for op in sharded.update)
    assert (norm, clip, sweep) == (own * 4, own * 8, own * 22)
    assert clear == 896 * 4
    assert cast == (512 + 128) * 3  # embedding and head stay in BF16
    assert [op.bytes for op in whole.update[:3]] == [896 * 4, 896 * 8, 896 * 22]


def test_a_table_of_several_stages_is_reduced_whole_between_them():
    """All-reduced in FP32 in two halves, ZeRO or not, before the update; ranks without it run the
    same two rings with nothing in them. What is swept stays the rank's own.
    """
    held = Parameters(dense=512.0, tables=256.0)
    dense, pair, alone = np.arange(256)[None], np.array([[0, 128]]), np.zeros((1, 1), int)
    holding, other = (
        optimizer_step(
            held, dense, alone, dense, 1, (SharedTable("embedding", size, groups),), recipe=FP8
        )
        for size, groups in ((256.0, pair), (0.0, alone))
    )
    for step, size, groups in ((holding, 256.0, pair), (other, 0.0, alone)):
        assert [sync.name for sync in step.reduce[2:]] == [
            "reduce-scatter embedding gradients between stages",
            "all-gather embedding gradients between stages",
        ]
        assert [sync.kind for sync in step.reduce[2:]] == ["reduce_scatter", "all_gather"]
        assert all(sync.bytes == size * 4 and sync.groups is groups for sync in step.reduce[2:])
        assert step.update == optimizer_step(held, dense, alone, dense, 1, recipe=FP8).update


# The measured trace

BALANCED_ROWS = TOKENS * V3.moe.top_k
SPLIT_LAUNCHES = {
    # One grouped product here; the trace ran its four experts one by one on two streams.
    ("mlp(W)", "routed down wgrad (4 experts, 2 streams)"): 4,
    ("mlp(W)", "routed up wgrad (4 experts, 2 streams)"): 4,
}
OTHER_BYTES = {
    # The table counts the gate's logits and their input gradient in FP32, we in BF16.
    ("attn(F)", "router gate"): TOKENS * 256 * 2,
    ("attn(B)", "router gate dgrad"): TOKENS * 7168 * 2,
    # And it lets the gate's weight gradient be written without being read.
    ("attn(B)", "router gate wgrad"): -256 * 7168 * 4,
}


@pytest.fixture(scope="module")
def measured_rows(measured_data):
    """Rows of the compute stream, by block and name."""
    path = measured_data / "h800_trace_ops.csv"
    if not path.is_file():
        pytest.skip(f"needs {path.name} of the measured data")
    with path.open(encoding="utf-8", newline="") as file:
        rows = {(row["phase"], row["op"]): row for row in csv.DictReader(file)}
    return {key: row for key, row in rows.items() if key[0].startswith(("attn", "mlp"))}


@pytest.fixture(scope="module")
def joined(v3_step):
    """Ops of a middle MoE layer as the trace has them."""
    return join(compute_ops(v3_step.stages[3][0]), TRACED)


@pytest.fixture(scope="module")
def priced_ops(joined):
    """The same by block and name."""
    return {(each.where, each.name): op for each, op in zip(TRACED, joined.ops, strict=True)}


def with_rows(op, row):
    """Return a routed op with the rows the traced rank had; others as they are."""
    if not op.routed:
        return op
    if isinstance(op, MemoryOp):
        return replace(op, bytes=op.bytes * int(row["M"]) / BALANCED_ROWS)
    if op.role == "wgrad":
        return replace(op, k=int(row["K"]) * op.groups)
    return replace(op, m=int(row["M"]))


def test_the_layer_runs_the_kernels_of_the_trace_and_no_others(measured_rows, priced_ops, joined):
    """h800_trace_ops.csv: DeepSeek's training trace, H800, EP64, 4 MoE layers."""
    assert set(priced_ops) == set(measured_rows)
    assert len(priced_ops) == 114
    assert joined.notes == ()


def test_every_kernel_of_the_trace_has_our_flops_bytes_and_launches(measured_rows, priced_ops):
    """FLOPs and launches exact; bytes within 1 %, as the table counts padded and shared rows."""
    for key, row in measured_rows.items():
        op = with_rows(priced_ops[key], row)
        assert op.flops == float(row["flops"] or 0), key
        assert op.launches * SPLIT_LAUNCHES.get(key, 1) == int(row["kernels"]), key
        moved = op.bytes + OTHER_BYTES.get(key, 0)
        assert moved == pytest.approx(float(row["bytes"] or 0), rel=0.01), key


def test_the_kind_of_each_op_is_the_class_of_its_row(measured_rows, priced_ops):
    families = {
        "gemm_fp8": {"fp8_block"},
        "grouped_gemm_fp8": {"fp8_block_grouped"},
        "wgrad_fp8": {"fp8_block_wgrad"},
        "gemm_bf16": {"bf16_narrow", "bf16_narrow_wgrad"},
        "attention_bf16": {"attention_forward", "attention_backward"},
    }
    for key, row in measured_rows.items():
        op = priced_ops[key]
        if row["class"] in families:
            assert isinstance(op, Gemm | Attention), key
            assert op.family in families[row["class"]], key
        else:
            assert isinstance(op, MemoryOp), key
            assert (row["class"] == "small") == (op.bytes == 0), key


def test_the_prediction_module_of_a_dense_model_is_a_dense_layer(dense_experiment):
    """With the projection that joins two tokens before it, and no exchange."""
    from simulator.driver.program import program_of

    program = program_of(dense_experiment(("model.mtp_layers", 1)))
    (mtp,) = (layer for stage in program.stages for layer in stage if layer.kind == "mtp")
    dense = next(layer for stage in program.stages for layer in stage if layer.kind == "dense")
    for phase in PHASES:
        assert kernels(mtp, "mlp", phase) == kernels(dense, "mlp", phase)
        assert not sent(mtp, phase)
        assert flops(mtp, phase) == flops(dense, phase) + 2 * TOKENS * V3.mtp_projection_parameters
