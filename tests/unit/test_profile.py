"""The shipped kernel profile: complete, sourced, and what it promises."""

import pytest

from hwmodels.chip import CHIPS
from hwmodels.costs import gemm_time_s
from hwmodels.errors import OutOfRangeError, UnknownPresetError
from hwmodels.profile import PROFILES, KernelProfile

GEMMS = {
    "fp8_block",
    "fp8_block_grouped",
    "fp8_block_wgrad",
    "bf16",
    "bf16_narrow",
    "bf16_narrow_wgrad",
}
ATTENTIONS = {"attention_forward", "attention_backward"}
H800 = PROFILES.load("h800-deepseek")


def test_every_family_that_is_priced_has_its_interference() -> None:
    assert set(H800.gemm) == GEMMS
    assert set(H800.attention) == ATTENTIONS
    assert set(H800.interference) == GEMMS | ATTENTIONS | set(H800.memory_op)


def test_it_was_measured_on_a_chip_we_know() -> None:
    assert H800.chip in CHIPS.names()
    assert H800.name == "h800-deepseek"


def test_the_head_rate_is_a_distribution() -> None:
    """The LM head of DeepSeek-V3 runs at the sustained rate, which carries its spread."""
    source = PROFILES.document("h800-deepseek").source_of("gemm.bf16.sustained_fraction")
    assert source is not None
    assert source.p10 is not None
    assert source.p90 is not None
    assert source.p10 < H800.gemm["bf16"].sustained_fraction < source.p90
    chip = CHIPS.load("h800")
    head = gemm_time_s(
        chip,
        H800.gemm["bf16"],
        4096,
        129280,
        7168,
        tensor_family="bf16",
        element_bytes=2.0,
        output_bytes=2.0,
    )
    assert str(head.bound) == "sustained"
    rate = 2 * 4096 * 129280 * 7168 / float(head.time_s)
    assert rate / chip.tensor_flops_per_s("bf16") == pytest.approx(0.727, abs=0.001)


def test_communication_is_never_faster_than_its_links() -> None:
    links, exchange = H800.communication, H800.communication.exchange
    nic, nvlink = links.link_nic_bytes_per_s, links.link_nvlink_bytes_per_s
    assert max(exchange.dispatch_nic_bytes_per_s, exchange.combine_nic_bytes_per_s) < nic
    assert max(exchange.nvlink_bytes_per_s, exchange.forwarding_nvlink_bytes_per_s) < nvlink
    assert links.message_nic_bytes_per_s < nic
    assert links.nvlink_bytes_per_s < nvlink


def test_errors_of_the_fit_travel_with_it() -> None:
    assert H800.errors["gemm_held_out_layers"] <= 0.04
    assert abs(H800.errors["glue_total_held_out_layers"]) <= 0.10


@pytest.mark.parametrize(
    ("ask", "message"),
    [
        (lambda p: p.parameters("fp4"), "kernels: no family 'fp4'"),
        (lambda p: p.parameters("casts"), "kernels: no family 'casts'; did you mean 'cast'?"),
        (lambda p: p.interference_factor("fp9"), "interference: no family 'fp9'"),
    ],
)
def test_a_family_it_does_not_know_is_refused(ask: object, message: str) -> None:
    assert callable(ask)
    with pytest.raises(OutOfRangeError, match="profile h800-deepseek: ") as caught:
        ask(H800)
    assert message in str(caught.value)


def test_an_unknown_profile_names_the_nearest() -> None:
    with pytest.raises(UnknownPresetError, match="did you mean 'h800-deepseek'"):
        PROFILES.load("h800-deepsek")


def test_a_profile_survives_its_own_dump() -> None:
    assert KernelProfile.model_validate(H800.model_dump(mode="json")) == H800
