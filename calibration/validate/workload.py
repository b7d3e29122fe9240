"""The ops that the workload lists for a layer of given dimensions, by block and pass."""

from collections.abc import Sequence

from calibration.model_ops import decode_batch
from calibration.stack.dimensions import D_NOPE, D_ROPE, D_V, Dimensions
from calibration.stack.names import DECODE
from calibration.validate.ops import op_of
from hwmodels.spec import validate
from workloads.blocks import Site
from workloads.blocks.mla import MLASpec
from workloads.blocks.moe import MoESpec
from workloads.joins import compute_ops
from workloads.layers import ATTN, MLP, Block, Layer
from workloads.ops import Op
from workloads.recipes import recipe


def listed_ops(d: Dimensions) -> dict[str, Sequence[Op]]:
    """Return the kernels of a layer with experts, in training and as it decodes.

    Raises:
        SpecError, InfeasibleError: no layer has these dimensions.
    """
    mla, moe = _attention(d), _experts(d)
    site = Site(
        d.hidden,
        sequences=1,
        length=d.tokens,
        recipe=recipe("fp8-blockwise"),
        local_experts=len(d.counts),
        gpus_per_token=d.arrived / d.tokens,
    )
    layer = Layer(
        "moe",
        (Block(ATTN, mla.passes(site) + moe.entry(site)), Block(MLP, moe.passes(site))),
    )
    decoded = [
        op_of(op["kernel"], op["kernel"], op["shape"], d)
        for op in decode_batch(mla, moe, d.hidden, d.batch, d.context)
    ]
    return {**compute_ops(layer), DECODE: decoded}  # listed without blocks and passes


def _attention(d: Dimensions) -> MLASpec:
    values = {
        "heads": d.heads,
        "q_lora_rank": d.q_rank,
        "kv_lora_rank": d.kv_rank,
        "d_nope": D_NOPE,
        "d_rope": D_ROPE,
        "d_v": D_V,
    }
    return validate(MLASpec, values, "layer")


def _experts(d: Dimensions) -> MoESpec:
    values = {
        "routed_experts": d.experts,
        "shared_experts": 1,
        "top_k": d.top_k,
        "expert_width": d.expert_width,
        "groups": d.groups,
        "groups_per_token": d.groups_kept,
    }
    return validate(MoESpec, values, "layer")
