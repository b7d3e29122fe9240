"""Families of training that no table of inference kernels times, by those that one does.

A follower has the constants of its leader and takes a stated factor as long. Factors are measured
where both run: in DeepSeek's training trace, seconds undisturbed over what the leader's constants,
fitted to the same trace, give for the follower's shapes.
"""

from typing import NamedTuple

from calibration.fit.profile_document import Sourced

TRACE = (
    "training trace of deepseek-ai/profile-data @4496024 (H800): measured over what the constants "
    "of {leader} fitted there give"
)


class Follower(NamedTuple):
    """A family that follows another.

    Attributes:
        leaders: whose constants it has, the first that there is.
        factor: seconds over theirs; None for as long.
        why: it may be taken for the same kernel.
    """

    kind: str
    family: str
    leaders: tuple[str, ...]
    factor: Sourced | None
    why: str


FOLLOWERS = (
    Follower(
        "gemm", "fp8_block_grouped", ("fp8_block",),
        Sourced(
            0.955, f"{TRACE.format(leader='fp8_block')}; 0.94 to 0.98 by op. P10 and P90: H800 "
            "rows of InferSim (alibaba/InferSim @f2293dab) are 6 to 11 % from prices by constants "
            "of dense products", 0.9, 1.06,
        ),
        "one tile loop over the rows of all experts",
    ),
    Follower(
        "gemm", "fp8_block_wgrad", ("fp8_block",),
        Sourced(
            1.436, f"{TRACE.format(leader='fp8_block')}; P10 and P90 over its nine ops",
            1.402, 1.493,
        ),
        "the same product; its sums are added to in FP32",
    ),
    Follower("gemm", "bf16_grouped", ("bf16",), None, "one tile loop over the rows of all experts"),
    Follower("gemm", "bf16_narrow", ("bf16",), None, "rows of the table are as narrow"),
    Follower("gemm", "bf16_narrow_wgrad", ("bf16",), None, "rows of the table are as narrow"),
    Follower(
        "attention", "attention_forward", ("gqa_context", "mla_prefill"), None,
        "a forward pass of training is a prefill of full keys and values",
    ),
    Follower(
        "attention", "attention_backward", ("gqa_context", "mla_prefill"),
        Sourced(
            1.176, f"{TRACE.format(leader='attention_forward')}, one shape; the range is assumed",
            1.1, 1.3,
        ),
        "five products to the forward's two",
    ),
)  # fmt: skip
"""In the order in which a profile lists them."""
