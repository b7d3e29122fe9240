"""Two prices, of a switch and of a link, behind the costs of ISCA'25 Table 3.

The table prints costs, not unit prices. A column's cost is `switches s + links l`; both costs of
four columns, in M$ and in k$ an endpoint, are met as evenly as possible: the pair of prices whose
largest error, in units of half the last printed digit, is the smallest (a linear programme). Below
1 every figure rounds to what is printed. Dragonfly is left out, to be predicted.
"""

from dataclasses import dataclass

import numpy as np
from scipy.optimize import linprog

from hwmodels.errors import CalibrationError
from hwmodels.fabrics import SwitchedFabric
from hwmodels.fabrics.dragonfly import Dragonfly
from hwmodels.fabrics.fat_tree import FatTree
from hwmodels.fabrics.multi_plane_fat_tree import MultiPlaneFatTree
from hwmodels.fabrics.slim_fly import SlimFly

# Counts and prices are asked for, not latency.
_SWITCHES = {
    "switch_radix": 64,
    "link_bytes_per_s": 50e9,
    "host_latency_s": 0.0,
    "hop_latency_s": 0.0,
}


@dataclass(frozen=True, slots=True)
class CostColumn:
    """One column of Table 3: a full fabric and its printed cost.

    Attributes:
        cost_usd, cost_usd_per_endpoint: as printed.
        cost_digit_usd, endpoint_digit_usd: what the last digit of each is worth.
    """

    name: str
    fabric: SwitchedFabric
    cost_usd: float
    cost_usd_per_endpoint: float
    endpoint_digit_usd: float
    cost_digit_usd: float = 1e6


@dataclass(frozen=True, slots=True)
class FabricPrices:
    """Fitted prices; `error`: the largest error in units of half the last printed digit."""

    switch_usd: float
    link_usd: float
    error: float


TABLE3 = (
    CostColumn("FT2", FatTree(layers=2, **_SWITCHES), 9e6, 4.39e3, 10),
    CostColumn("MPFT", MultiPlaneFatTree(planes=8, **_SWITCHES), 72e6, 4.39e3, 10),
    CostColumn("FT3", FatTree(layers=3, **_SWITCHES), 491e6, 7.5e3, 100),
    CostColumn("SF", SlimFly(q=28, **_SWITCHES), 146e6, 4.4e3, 100),
)
"""The columns that prices are fitted to; 64-port 400G switches."""

DRAGONFLY = CostColumn(
    "DF",
    Dragonfly(group_switches=32, switch_endpoints=16, global_links=16, groups=511, **_SWITCHES),
    1522e6,
    5.8e3,
    100,
)
"""The column that is predicted."""


def fit_fabric_prices(columns: tuple[CostColumn, ...] = TABLE3) -> FabricPrices:
    """Return the prices that come nearest to all printed costs of `columns`.

    Raises:
        CalibrationError: there are no columns to fit to.
    """
    if not columns:
        raise CalibrationError("fabric prices: expected at least one column of costs, got none")
    rows, costs, halves = [], [], []
    for column in columns:
        full = column.fabric.counts(column.fabric.endpoints_max)
        parts = np.array([full.switches, full.links], dtype=np.float64)
        rows += [parts, parts / full.endpoints]
        costs += [column.cost_usd, column.cost_usd_per_endpoint]
        halves += [column.cost_digit_usd / 2, column.endpoint_digit_usd / 2]
    half = np.array(halves)
    scaled, wanted = np.array(rows) / half[:, None], np.array(costs) / half
    error = np.ones((len(costs), 1))
    found = linprog(  # minimise t with |scaled @ prices - wanted| <= t
        c=[0.0, 0.0, 1.0],
        A_ub=np.block([[scaled, -error], [-scaled, -error]]),
        b_ub=np.concatenate([wanted, -wanted]),
        bounds=[(0, None)] * 3,
    )
    assert found.x is not None, "there is always a worst error"
    switch_usd, link_usd, largest = found.x.tolist()
    return FabricPrices(switch_usd, link_usd, largest)
