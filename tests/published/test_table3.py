"""ISCA'25 "Insights into DeepSeek-V3" (arXiv 2505.09343) Table 3: what networks cost.

Counts are closed forms (tests/unit/test_fabrics.py). Prices are fitted to four of the columns, so
that only the fifth, Dragonfly, tests them: 1,550 M$ where 1,522 are printed, 1.8 % too much.
"""

import pytest

from calibration.presets.fabric_prices import DRAGONFLY, TABLE3, CostColumn, fit_fabric_prices
from hwmodels.errors import CalibrationError, InfeasibleError
from hwmodels.fabrics import FabricCounts
from hwmodels.prices import PRICES, PriceSpec, fabric_cost_usd, fabric_power_w

PRICE = PRICES.load("isca25-table3")


def test_the_preset_is_what_the_fit_gives() -> None:
    fit = fit_fabric_prices()
    assert pytest.approx(fit.switch_usd, abs=5) == PRICE.switch_usd
    assert pytest.approx(fit.link_usd, abs=5) == PRICE.link_usd
    assert fit.error < 1


@pytest.mark.parametrize("column", TABLE3, ids=lambda column: column.name)
def test_a_fitted_column_rounds_to_what_is_printed(column: CostColumn) -> None:
    endpoints = column.fabric.endpoints_max
    cost = fabric_cost_usd(column.fabric, endpoints, PRICE)
    assert abs(cost - column.cost_usd) <= column.cost_digit_usd / 2
    each = cost / endpoints
    assert abs(each - column.cost_usd_per_endpoint) <= column.endpoint_digit_usd / 2


def test_dragonfly_is_predicted_two_percent_too_dear() -> None:
    endpoints = DRAGONFLY.fabric.endpoints_max
    cost = fabric_cost_usd(DRAGONFLY.fabric, endpoints, PRICE)
    assert cost / DRAGONFLY.cost_usd == pytest.approx(1.018, abs=0.001)
    assert cost / endpoints / DRAGONFLY.cost_usd_per_endpoint == pytest.approx(1.021, abs=0.001)


@pytest.mark.parametrize(
    ("left_out", "error"), [("FT2", -0.002), ("MPFT", -0.002), ("FT3", 0.063), ("SF", 0.004)]
)
def test_what_a_column_left_out_would_cost(left_out: str, error: float) -> None:
    """FT2 and MPFT say the same, so either may go. Only FT3 has two links an endpoint: without it
    a switch could cost 52 k$ and a link 2 k$ just as well.
    """
    column = next(column for column in TABLE3 if column.name == left_out)
    fit = fit_fabric_prices(tuple(each for each in TABLE3 if each is not column))
    assert fit.error < 1
    prices = PriceSpec(name="fit", switch_usd=fit.switch_usd, link_usd=fit.link_usd)
    cost = fabric_cost_usd(column.fabric, column.fabric.endpoints_max, prices)
    assert cost / column.cost_usd - 1 == pytest.approx(error, abs=0.001)


def test_no_column_is_no_fit() -> None:
    with pytest.raises(CalibrationError, match="expected at least one column"):
        fit_fabric_prices(())


def test_cost_and_power_are_those_of_switches_and_links() -> None:
    prices = PriceSpec(name="p", switch_usd=100, link_usd=1, switch_w="1 kW", link_w=10)
    counts = FabricCounts(endpoints=8, switches=3, links=5)
    assert (prices.cost_usd(counts), prices.power_w(counts)) == (305, 3050)
    column = TABLE3[0]
    watts = column.fabric.counts(2048).switches * PRICE.switch_w + 2048 * PRICE.link_w
    assert fabric_power_w(column.fabric, 2048, PRICE) == watts


def test_power_that_is_not_given_is_not_guessed() -> None:
    prices = PriceSpec(name="p", switch_usd=100, link_usd=1)
    with pytest.raises(
        InfeasibleError, match=r"^price p: switch_w and link_w must be given, got none$"
    ):
        prices.power_w(FabricCounts(8, 3, 5))
