"""Communication libraries: what a document must say, and what the shipped ones say."""

import pytest

from hwmodels.errors import SpecError, UnknownPresetError
from hwmodels.library import LIBRARIES, LibrarySpec
from hwmodels.spec import build, expand

TABLES = ("deepep-b200", "deepep-gb200", "deepep-h100", "deepep-h200", "deepep-hopper-cluster")
EXCHANGE = {"nvlink_bytes_per_s": 1e11, "saturating_sms": 20}


def built(**values: object) -> LibrarySpec:
    return build(LibrarySpec, expand(LibrarySpec, {"name": "x", "version": "1", **values}))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"message_nic_bytes_per_s": 4e10}, "link_nic_bytes_per_s: must be given with message_nic"),
        ({"nvlink_bytes_per_s": 4e10}, "link_nvlink_bytes_per_s: must be given with nvlink_bytes"),
        ({"exchange": EXCHANGE}, "link_nvlink_bytes_per_s: must be given with exchange"),
        (
            {"exchange": {"nvlink_bytes_per_s": 1e11}, "link_nvlink_bytes_per_s": 2e11},
            "exchange: must have saturating_sms, or both dispatch_work and combine_work",
        ),
        (
            {
                "exchange": EXCHANGE | {"dispatch_work": {"latency_s": 0.0}},
                "link_nvlink_bytes_per_s": 2e11,
            },
            "exchange: must have saturating_sms, or both dispatch_work and combine_work",
        ),
        ({"exchange": EXCHANGE | {"nvlink_bytes": 1e11}}, "did you mean 'nvlink_bytes_per_s'"),
    ],
)
def test_a_library_without_what_its_rates_need_is_refused(
    values: dict[str, object], message: str
) -> None:
    with pytest.raises(SpecError) as caught:
        built(**values)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_an_unknown_library_names_the_nearest() -> None:
    with pytest.raises(UnknownPresetError, match="did you mean 'deepep-h800'"):
        LIBRARIES.load("deepep-h80")


def test_the_libraries_we_speak_of_are_there() -> None:
    assert {*TABLES, "deepep-h800"} <= set(LIBRARIES.names())


@pytest.mark.parametrize("name", [*TABLES, "deepep-h800"])
def test_no_exchange_is_faster_than_its_links(name: str) -> None:
    library = LIBRARIES.load(name)
    exchange, low = library.exchange, library.low_latency
    assert exchange is not None
    assert low is not None
    nvlink = [exchange.nvlink_bytes_per_s, exchange.forwarding_nvlink_bytes_per_s]
    nvlink += [low.dispatch.nvlink_bytes_per_s, low.combine.nvlink_bytes_per_s]
    nic = [exchange.dispatch_nic_bytes_per_s, exchange.combine_nic_bytes_per_s]
    nic += [low.dispatch.nic_bytes_per_s, low.combine.nic_bytes_per_s]
    for rates, link in (
        (nvlink, library.link_nvlink_bytes_per_s),
        (nic, library.link_nic_bytes_per_s),
    ):
        given = [rate for rate in rates if rate is not None]
        assert all(link is not None and rate < link for rate in given)


def test_h100_and_h200_have_one_sm_and_so_one_set_of_channel_constants() -> None:
    """Fitted apart, to different rows of the same shapes; Hopper's SM is the same."""
    for direction in ("dispatch", "combine"):
        one, other = (
            LIBRARIES.load(name).exchange.work(direction).model_dump()  # type: ignore[union-attr]
            for name in ("deepep-h100", "deepep-h200")
        )
        for constant, value in one.items():
            assert value == other[constant] or value == pytest.approx(other[constant], rel=0.06)
