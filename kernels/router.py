"""Node-limited top-k routing with a bias that balances the load without a loss.

    s = sigmoid(L);   b = s + bias
    group score = sum of the two largest b of a group;   keep the `groups_kept` best groups (nodes)
    E[t, :] = indices of the k largest b in the kept groups
    W[t, j] = scale * s[t, E[t, j]] / sum_j s[t, E[t, j]]

L (tokens, experts) fp32, bias (experts,) fp32 -> E (tokens, k) int32, W (tokens, k) fp32, both in
falling order of b. The bias only selects; it does not weigh. Ties go to the lower index.

One program routes a few tokens; a token's scores stay in registers for all k rounds.

References: DeepSeek-V3, arXiv 2412.19437 §2.1.2; DeepSeek-V3 inference code (Gate).
"""

from dataclasses import dataclass

import torch
import triton
import triton.language as tl
from torch import Tensor

from kernels._device import ceil_div, check, check_rank, interpreting, measured, next_power_of_2
from kernels._numerics import normal

FORMAT = "fp32"

SHAPES = (
    {"tokens": 4096, "experts": 256, "groups": 8, "groups_kept": 4, "top_k": 8},
    {"tokens": 32768, "experts": 256, "groups": 8, "groups_kept": 4, "top_k": 8},
    {"tokens": 128, "experts": 256, "groups": 8, "groups_kept": 4, "top_k": 8},
    {"tokens": 1037, "experts": 64, "groups": 4, "groups_kept": 2, "top_k": 6},
)
TINY = {"tokens": 3, "experts": 16, "groups": 4, "groups_kept": 2, "top_k": 2}


@dataclass(frozen=True, slots=True)
class Config:
    """Tokens per program, and its warps."""

    tokens: int = 4
    warps: int = 4


CONFIGS = (Config(), Config(tokens=1, warps=1), Config(tokens=8))
CLASSES = {"tokens": (512,)}


@measured(Config, CLASSES)
def choose(tokens: int) -> Config:
    """Return the default for every shape, where `choices.csv` has no row. By reasoning."""
    return Config()


@triton.jit
def _router_kernel(
    logits_ptr, bias_ptr, experts_ptr, weights_ptr, tokens_end, scale, logits_stride,
    EXPERTS: tl.constexpr, GROUPS: tl.constexpr, KEPT: tl.constexpr, TOP_K: tl.constexpr,
    K_CEIL: tl.constexpr, TOKENS: tl.constexpr, UPCAST: tl.constexpr,
):  # fmt: skip
    LOWEST: tl.constexpr = -3.0e38
    tokens = tl.program_id(0) * TOKENS + tl.arange(0, TOKENS)
    experts = tl.arange(0, EXPERTS)
    live = (tokens < tokens_end)[:, None]
    logits = tl.load(
        logits_ptr + tokens.to(tl.int64)[:, None] * logits_stride + experts[None, :],
        mask=live,
        other=0.0,
    )
    scores = 1.0 / (1.0 + tl.exp(-logits))
    biased = scores + tl.load(bias_ptr + experts)[None, :]

    # Sum of the two largest of each group: take the first maximum away, then look again.
    PER_GROUP: tl.constexpr = EXPERTS // GROUPS
    grouped = biased.reshape([TOKENS, GROUPS, PER_GROUP])
    first = tl.argmax(grouped, 2)
    inside = tl.arange(0, PER_GROUP)[None, None, :]
    second = tl.max(tl.where(inside == first[:, :, None], LOWEST, grouped), 2)
    group_score = tl.max(grouped, 2) + (second if PER_GROUP > 1 else 0.0)

    groups = tl.arange(0, GROUPS)[None, :]
    kept = tl.zeros((TOKENS, GROUPS), tl.int1)
    for _ in tl.static_range(KEPT):
        best = tl.argmax(tl.where(kept, LOWEST, group_score), 1)
        kept = kept | (groups == best[:, None])
    open_ = tl.where(kept[:, :, None], grouped, LOWEST).reshape([TOKENS, EXPERTS])

    slots = tl.arange(0, K_CEIL)[None, :]
    chosen = tl.zeros((TOKENS, K_CEIL), tl.int32)
    weights = tl.zeros((TOKENS, K_CEIL), tl.float32)
    for j in tl.static_range(TOP_K):
        best = tl.argmax(open_, 1)
        taken = experts[None, :] == best[:, None]
        chosen = tl.where(slots == j, best[:, None], chosen)
        score = tl.sum(tl.where(taken, scores, 0.0), 1)
        weights = tl.where(slots == j, score[:, None], weights)
        open_ = tl.where(taken, LOWEST, open_)
    weights *= scale / tl.sum(weights, 1)[:, None]
    at = tokens[:, None] * TOP_K + slots
    mask = live & (slots < TOP_K)
    tl.store(experts_ptr + at, chosen, mask=mask)
    tl.store(weights_ptr + at, weights, mask=mask)


def launch(
    logits: Tensor,
    bias: Tensor,
    *,
    groups: int,
    groups_kept: int,
    top_k: int,
    scale: float = 2.5,
    out: tuple[Tensor, Tensor] | None = None,
    config: Config | None = None,
) -> tuple[Tensor, Tensor]:
    """Return (E, W).

    Raises:
        ValueError: counts that are no powers of two or do not divide, too many experts asked for.
    """
    check_rank("logits", logits, 2)
    tokens, experts = logits.shape
    check("logits", logits, (tokens, experts), torch.float32)
    check("bias", bias, (experts,), torch.float32)
    if next_power_of_2(experts) != experts or next_power_of_2(groups) != groups:
        raise ValueError(f"router: {experts} experts, {groups} groups given, powers of two needed")
    most = experts // groups * groups_kept if groups <= experts else 0
    if not (1 <= groups_kept <= groups and 1 <= top_k <= most):
        raise ValueError(
            f"router: cannot take {top_k} of {experts} experts from {groups_kept} of "
            f"{groups} groups"
        )
    chosen, weights = out or (
        torch.empty(tokens, top_k, dtype=torch.int32, device=logits.device),
        torch.empty(tokens, top_k, dtype=torch.float32, device=logits.device),
    )
    check("out: experts", chosen, (tokens, top_k), torch.int32)
    check("out: weights", weights, (tokens, top_k), torch.float32)
    if tokens == 0:
        return chosen, weights
    if logits.stride(1) != 1:
        raise ValueError("router: rows of logits must be contiguous")
    cfg = config or choose(tokens, device=logits.device)
    _router_kernel[(ceil_div(tokens, cfg.tokens),)](
        logits, bias, chosen, weights, tokens, scale, logits.stride(0),
        EXPERTS=experts, GROUPS=groups, KEPT=groups_kept, TOP_K=top_k,
        K_CEIL=next_power_of_2(top_k), TOKENS=cfg.tokens, UPCAST=interpreting(),
        num_warps=cfg.warps,
    )  # fmt: skip
    return chosen, weights


def reference(
    logits: Tensor, bias: Tensor, *, groups: int, groups_kept: int, top_k: int, scale: float = 2.5
) -> tuple[Tensor, Tensor]:
    """Return (E, W) from plain torch, weights in float64.

    Selection stays in float32, as in the kernel, so that near ties fall the same way.
    """
    scores = logits.float().sigmoid()
    grouped = (scores + bias.float()).unflatten(1, (groups, -1))
    group_score = grouped.topk(min(2, grouped.shape[2]), 2).values.sum(2)
    best = group_score.sort(dim=1, descending=True, stable=True).indices[:, :groups_kept]
    kept = torch.zeros_like(group_score, dtype=torch.bool).scatter_(1, best, value=True)
    open_ = grouped.masked_fill(~kept[:, :, None], -torch.inf).flatten(1)
    chosen = open_.sort(dim=1, descending=True, stable=True).indices[:, :top_k]
    weights = logits.double().sigmoid().gather(1, chosen)
    return chosen.int(), weights / weights.sum(1, keepdim=True) * scale


def inputs(shape: dict[str, int], device: torch.device | str, seed: int = 0) -> dict:
    """Return fresh random arguments of `launch`."""
    tokens, experts = shape["tokens"], shape["experts"]
    return {
        "logits": normal((tokens, experts), device, seed, torch.float32),
        "bias": 0.05 * normal((experts,), device, seed + 1, torch.float32),
        "groups": shape["groups"],
        "groups_kept": shape["groups_kept"],
        "top_k": shape["top_k"],
    }


def work(shape: dict[str, int]) -> tuple[float, float]:
    """Return no tensor-core FLOPs, and the bytes: logits read, choices and weights written."""
    return 0.0, float(shape["tokens"]) * (shape["experts"] * 4 + shape["top_k"] * 8)


PROVIDERS = {"moesim": launch, "torch": reference}
