"""DeepSeek-V3's kernel lists, by layer, block, pass and family, as they were written by hand.

Taken from `workloads/layers` at commit 93941c6, whose lists followed the kernels of DeepSeek's
published training trace (deepseek-ai/profile-data @4496024) one by one: one sequence of 4,096
tokens, 4 experts a rank, 7.5 GPUs a token. What recipes and blocks write must launch, compute and
move exactly that.
"""

import pytest

from tests.layer_work import v3_layers
from workloads.ops import Comm

# Kind of layer, block, pass, family: launches, FLOPs, bytes.
LISTED = {
    ("embedding", "attn", "F", "add_norm"): (1, 0, 234881024),
    ("embedding", "attn", "F", "attention_forward"): (1, 687194767360, 671088640),
    ("embedding", "attn", "F", "cast"): (3, 0, 377487360),
    ("embedding", "attn", "F", "copy"): (1, 0, 268435456),
    ("embedding", "attn", "F", "e5m6_cast"): (1, 0, 234881024),
    ("embedding", "attn", "F", "elementwise"): (1, 0, 117440512),
    ("embedding", "attn", "F", "fp8_block"): (5, 1532766453760, 867106816),
    ("embedding", "attn", "F", "low_rank"): (6, 0, 68157440),
    ("embedding", "attn", "F", "permute"): (1, 0, 117440512),
    ("embedding", "attn", "F", "rotary"): (3, 0, 202375168),
    ("embedding", "mlp", "F", "add_norm"): (1, 0, 234881024),
    ("embedding", "mlp", "F", "cast"): (3, 0, 918552576),
    ("embedding", "mlp", "F", "fp8_block"): (2, 3246995275776, 861929472),
    ("embedding", "mlp", "F", "small"): (5, 0, 0),
    ("embedding", "attn", "B", "add_norm"): (1, 0, 234881024),
    ("embedding", "attn", "B", "attention_backward"): (1, 1786706395136, 1342177280),
    ("embedding", "attn", "B", "cast"): (3, 0, 792723456),
    ("embedding", "attn", "B", "copy"): (5, 0, 2080374784),
    ("embedding", "attn", "B", "e5m6_cast"): (1, 0, 234881024),
    ("embedding", "attn", "B", "elementwise"): (2, 0, 293601280),
    ("embedding", "attn", "B", "fp8_block"): (7, 1979443052544, 1261109248),
    ("embedding", "attn", "B", "low_rank"): (11, 0, 145227776),
    ("embedding", "attn", "B", "norm_backward"): (3, 0, 293601280),
    ("embedding", "attn", "B", "rotary"): (6, 0, 404750336),
    ("embedding", "attn", "B", "small"): (18, 0, 0),
    ("embedding", "attn", "B", "transpose"): (11, 0, 1544421376),
    ("embedding", "mlp", "B", "add_norm"): (1, 0, 234881024),
    ("embedding", "mlp", "B", "cast"): (4, 0, 1082130432),
    ("embedding", "mlp", "B", "elementwise"): (1, 0, 176160768),
    ("embedding", "mlp", "B", "fp8_block"): (2, 3246995275776, 786432000),
    ("embedding", "mlp", "B", "norm_backward"): (3, 0, 293601280),
    ("embedding", "mlp", "B", "small"): (5, 0, 0),
    ("embedding", "mlp", "B", "swiglu"): (1, 0, 754974720),
    ("embedding", "mlp", "B", "transpose"): (6, 0, 1740636160),
    ("embedding", "attn", "W", "fp8_block_wgrad"): (5, 1532766453760, 1903951872),
    ("embedding", "attn", "W", "permute"): (1, 0, 293601280),
    ("embedding", "mlp", "W", "fp8_block_wgrad"): (2, 3246995275776, 3456106496),
    ("dense", "attn", "F", "add_norm"): (1, 0, 234881024),
    ("dense", "attn", "F", "attention_forward"): (1, 687194767360, 671088640),
    ("dense", "attn", "F", "cast"): (3, 0, 377487360),
    ("dense", "attn", "F", "copy"): (1, 0, 268435456),
    ("dense", "attn", "F", "e5m6_cast"): (1, 0, 234881024),
    ("dense", "attn", "F", "elementwise"): (1, 0, 117440512),
    ("dense", "attn", "F", "fp8_block"): (5, 1532766453760, 867106816),
    ("dense", "attn", "F", "low_rank"): (6, 0, 68157440),
    ("dense", "attn", "F", "rotary"): (3, 0, 202375168),
    ("dense", "mlp", "F", "add_norm"): (1, 0, 234881024),
    ("dense", "mlp", "F", "cast"): (3, 0, 918552576),
    ("dense", "mlp", "F", "fp8_block"): (2, 3246995275776, 861929472),
    ("dense", "mlp", "F", "small"): (5, 0, 0),
    ("dense", "attn", "B", "add_norm"): (1, 0, 234881024),
    ("dense", "attn", "B", "attention_backward"): (1, 1786706395136, 1342177280),
    ("dense", "attn", "B", "cast"): (3, 0, 792723456),
    ("dense", "attn", "B", "copy"): (5, 0, 2080374784),
    ("dense", "attn", "B", "e5m6_cast"): (1, 0, 234881024),
    ("dense", "attn", "B", "elementwise"): (2, 0, 293601280),
    ("dense", "attn", "B", "fp8_block"): (7, 1979443052544, 1261109248),
    ("dense", "attn", "B", "low_rank"): (11, 0, 145227776),
    ("dense", "attn", "B", "norm_backward"): (3, 0, 293601280),
    ("dense", "attn", "B", "rotary"): (6, 0, 404750336),
    ("dense", "attn", "B", "small"): (18, 0, 0),
    ("dense", "attn", "B", "transpose"): (11, 0, 1544421376),
    ("dense", "mlp", "B", "add_norm"): (1, 0, 234881024),
    ("dense", "mlp", "B", "cast"): (4, 0, 1082130432),
    ("dense", "mlp", "B", "elementwise"): (1, 0, 176160768),
    ("dense", "mlp", "B", "fp8_block"): (2, 3246995275776, 786432000),
    ("dense", "mlp", "B", "norm_backward"): (3, 0, 293601280),
    ("dense", "mlp", "B", "small"): (5, 0, 0),
    ("dense", "mlp", "B", "swiglu"): (1, 0, 754974720),
    ("dense", "mlp", "B", "transpose"): (6, 0, 1740636160),
    ("dense", "attn", "W", "fp8_block_wgrad"): (5, 1532766453760, 1903951872),
    ("dense", "mlp", "W", "fp8_block_wgrad"): (2, 3246995275776, 3456106496),
    ("moe", "attn", "F", "add_norm"): (2, 0, 469762048),
    ("moe", "attn", "F", "attention_forward"): (1, 687194767360, 671088640),
    ("moe", "attn", "F", "bf16_narrow"): (1, 15032385536, 64487424),
    ("moe", "attn", "F", "cast"): (4, 0, 465567744),
    ("moe", "attn", "F", "copy"): (1, 0, 268435456),
    ("moe", "attn", "F", "e5m6_cast"): (1, 0, 234881024),
    ("moe", "attn", "F", "elementwise"): (1, 0, 117440512),
    ("moe", "attn", "F", "expert_map"): (1, 0, 0),
    ("moe", "attn", "F", "fp8_block"): (5, 1532766453760, 867106816),
    ("moe", "attn", "F", "low_rank"): (6, 0, 68157440),
    ("moe", "attn", "F", "rotary"): (3, 0, 202375168),
    ("moe", "attn", "F", "small"): (44, 0, 0),
    ("moe", "mlp", "F", "cast"): (3, 0, 494927872),
    ("moe", "mlp", "F", "expert_map"): (2, 0, 0),
    ("moe", "mlp", "F", "fp8_block"): (2, 360777252864, 174063616),
    ("moe", "mlp", "F", "fp8_block_grouped"): (2, 2886218022912, 1216348160),
    ("moe", "mlp", "F", "permute"): (2, 0, 1379926016),
    ("moe", "mlp", "F", "small"): (5, 0, 0),
    ("moe", "mlp", "F", "swiglu"): (1, 0, 335544320),
    ("moe", "mlp", "F", "transpose"): (2, 0, 352321536),
    ("moe", "attn", "B", "add_norm"): (1, 0, 234881024),
    ("moe", "attn", "B", "attention_backward"): (1, 1786706395136, 1342177280),
    ("moe", "attn", "B", "bf16_narrow"): (1, 15032385536, 64487424),
    ("moe", "attn", "B", "bf16_narrow_wgrad"): (1, 15032385536, 75497472),
    ("moe", "attn", "B", "cast"): (3, 0, 792723456),
    ("moe", "attn", "B", "copy"): (5, 0, 2080374784),
    ("moe", "attn", "B", "e5m6_cast"): (1, 0, 234881024),
    ("moe", "attn", "B", "elementwise"): (3, 0, 469762048),
    ("moe", "attn", "B", "fp8_block"): (7, 1979443052544, 1261109248),
    ("moe", "attn", "B", "low_rank"): (11, 0, 145227776),
    ("moe", "attn", "B", "norm_backward"): (6, 0, 587202560),
    ("moe", "attn", "B", "rotary"): (6, 0, 404750336),
    ("moe", "attn", "B", "small"): (44, 0, 0),
    ("moe", "attn", "B", "transpose"): (11, 0, 1544421376),
    ("moe", "mlp", "B", "add_norm"): (1, 0, 234881024),
    ("moe", "mlp", "B", "cast"): (7, 0, 1170210816),
    ("moe", "mlp", "B", "fp8_block"): (2, 360777252864, 165675008),
    ("moe", "mlp", "B", "fp8_block_grouped"): (2, 2886218022912, 1149239296),
    ("moe", "mlp", "B", "permute"): (2, 0, 1379926016),
    ("moe", "mlp", "B", "small"): (5, 0, 0),
    ("moe", "mlp", "B", "swiglu"): (3, 0, 1157627904),
    ("moe", "mlp", "B", "transpose"): (8, 0, 901775360),
    ("moe", "attn", "W", "fp8_block_wgrad"): (5, 1532766453760, 1903951872),
    ("moe", "mlp", "W", "fp8_block_wgrad"): (4, 3246995275776, 2516582400),
    ("moe", "mlp", "W", "recast_transpose"): (2, 0, 939524096),
    ("mtp", "attn", "F", "add_norm"): (4, 0, 704643072),
    ("mtp", "attn", "F", "attention_forward"): (1, 687194767360, 671088640),
    ("mtp", "attn", "F", "bf16_narrow"): (1, 15032385536, 64487424),
    ("mtp", "attn", "F", "cast"): (5, 0, 641728512),
    ("mtp", "attn", "F", "copy"): (1, 0, 268435456),
    ("mtp", "attn", "F", "e5m6_cast"): (1, 0, 234881024),
    ("mtp", "attn", "F", "elementwise"): (1, 0, 117440512),
    ("mtp", "attn", "F", "expert_map"): (1, 0, 0),
    ("mtp", "attn", "F", "fp8_block"): (6, 2374580043776, 1087307776),
    ("mtp", "attn", "F", "low_rank"): (6, 0, 68157440),
    ("mtp", "attn", "F", "permute"): (1, 0, 117440512),
    ("mtp", "attn", "F", "rotary"): (3, 0, 202375168),
    ("mtp", "attn", "F", "small"): (44, 0, 0),
    ("mtp", "mlp", "F", "cast"): (3, 0, 494927872),
    ("mtp", "mlp", "F", "expert_map"): (2, 0, 0),
    ("mtp", "mlp", "F", "fp8_block"): (2, 360777252864, 174063616),
    ("mtp", "mlp", "F", "fp8_block_grouped"): (2, 2886218022912, 1216348160),
    ("mtp", "mlp", "F", "permute"): (2, 0, 1379926016),
    ("mtp", "mlp", "F", "small"): (5, 0, 0),
    ("mtp", "mlp", "F", "swiglu"): (1, 0, 335544320),
    ("mtp", "mlp", "F", "transpose"): (2, 0, 352321536),
    ("mtp", "attn", "B", "add_norm"): (1, 0, 234881024),
    ("mtp", "attn", "B", "attention_backward"): (1, 1786706395136, 1342177280),
    ("mtp", "attn", "B", "bf16_narrow"): (1, 15032385536, 64487424),
    ("mtp", "attn", "B", "bf16_narrow_wgrad"): (1, 15032385536, 75497472),
    ("mtp", "attn", "B", "cast"): (4, 0, 880803840),
    ("mtp", "attn", "B", "copy"): (5, 0, 2080374784),
    ("mtp", "attn", "B", "e5m6_cast"): (1, 0, 234881024),
    ("mtp", "attn", "B", "elementwise"): (3, 0, 469762048),
    ("mtp", "attn", "B", "fp8_block"): (8, 2821256642560, 1510670336),
    ("mtp", "attn", "B", "low_rank"): (11, 0, 145227776),
    ("mtp", "attn", "B", "norm_backward"): (12, 0, 1174405120),
    ("mtp", "attn", "B", "rotary"): (6, 0, 404750336),
    ("mtp", "attn", "B", "small"): (44, 0, 0),
    ("mtp", "attn", "B", "transpose"): (14, 0, 2014183424),
    ("mtp", "mlp", "B", "add_norm"): (1, 0, 234881024),
    ("mtp", "mlp", "B", "cast"): (7, 0, 1170210816),
    ("mtp", "mlp", "B", "fp8_block"): (2, 360777252864, 165675008),
    ("mtp", "mlp", "B", "fp8_block_grouped"): (2, 2886218022912, 1149239296),
    ("mtp", "mlp", "B", "permute"): (2, 0, 1379926016),
    ("mtp", "mlp", "B", "small"): (5, 0, 0),
    ("mtp", "mlp", "B", "swiglu"): (3, 0, 1157627904),
    ("mtp", "mlp", "B", "transpose"): (8, 0, 901775360),
    ("mtp", "attn", "W", "fp8_block_wgrad"): (6, 2374580043776, 2814115840),
    ("mtp", "attn", "W", "permute"): (1, 0, 293601280),
    ("mtp", "mlp", "W", "fp8_block_wgrad"): (4, 3246995275776, 2516582400),
    ("mtp", "mlp", "W", "recast_transpose"): (2, 0, 939524096),
    ("head", "mlp", "F", "add_norm"): (1, 0, 117440512),
    ("head", "mlp", "F", "bf16"): (1, 7591354695680, 2971140096),
    ("head", "mlp", "F", "loss"): (2, 0, 5295308800),
    ("head", "mlp", "B", "bf16"): (1, 7591354695680, 2971140096),
    ("head", "mlp", "B", "loss"): (1, 0, 3177185280),
    ("head", "mlp", "B", "norm_backward"): (3, 0, 176160768),
    ("head", "mlp", "W", "bf16"): (1, 7591354695680, 8531214336),
}

# Bytes kept from forward to backward, of a micro-batch.
SAVED = {
    "embedding": 395313152,
    "dense": 395313152,
    "moe": 639172608,
    "mtp": 699727872,
    "head": 58720256,
}


@pytest.fixture(scope="module")
def layer_of():
    """First layer of each kind; the one that carries the embedding counts as a kind of its own."""
    first, *others = v3_layers()
    return {layer.kind: layer for layer in reversed(others)} | {"embedding": first}


@pytest.mark.parametrize("kind", SAVED)
def test_a_layer_runs_what_was_listed_by_hand(kind, layer_of):
    found: dict[tuple[str, str, str, str], tuple[float, ...]] = {}
    for block in layer_of[kind].blocks:
        for pass_ in "FBW":
            for op in block.ops.of(pass_):
                if not isinstance(op, Comm):
                    where = kind, block.name, pass_, op.family
                    so_far = found.get(where, (0, 0, 0))
                    more = op.launches, op.flops, op.bytes
                    found[where] = tuple(a + b for a, b in zip(so_far, more, strict=True))
    listed = {where: sizes for where, sizes in LISTED.items() if where[0] == kind}
    assert found == listed


@pytest.mark.parametrize(("kind", "saved_bytes"), SAVED.items())
def test_a_layer_keeps_what_it_kept(kind, saved_bytes, layer_of):
    assert layer_of[kind].saved_bytes == saved_bytes
