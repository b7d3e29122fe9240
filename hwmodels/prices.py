"""What a scale-out network costs and draws: a price for a switch, a price for a link; and what a
cluster draws with it.

Links are those between switches, with the optics of both ends, as a fabric counts them; cables to
the NICs, NICs and hosts are in neither price.
"""

from pathlib import Path
from typing import NamedTuple

from hwmodels.cluster import ClusterSpec
from hwmodels.errors import InfeasibleError
from hwmodels.fabrics import FabricCounts, FabricSpec
from hwmodels.spec import Catalogue, Spec
from hwmodels.units import Usd, Watts


class PriceSpec(Spec):
    """Prices of one kind of switch and link.

    Attributes:
        switch_usd: one switch.
        link_usd: one link between switches, both ends.
        switch_w: power of one switch without its optics.
        link_w: power of the optics of one link, both ends.
    """

    name: str
    switch_usd: Usd
    link_usd: Usd
    switch_w: Watts | None = None
    link_w: Watts | None = None

    def cost_usd(self, counts: FabricCounts) -> float:
        """Return the price of all switches and of the links between them."""
        return counts.switches * self.switch_usd + counts.links * self.link_usd

    def power_w(self, counts: FabricCounts) -> float:
        """Return the power of all switches and of the links between them.

        Raises:
            InfeasibleError: the preset does not say what they draw.
        """
        if self.switch_w is None or self.link_w is None:
            raise InfeasibleError(f"price {self.name}: switch_w and link_w must be given, got none")
        return counts.switches * self.switch_w + counts.links * self.link_w


PRICES = Catalogue("price", Path(__file__).parent / "presets" / "prices", PriceSpec)


def fabric_cost_usd(fabric: FabricSpec, endpoints: int, prices: PriceSpec) -> float:
    """Return the price of a fabric that joins `endpoints` NIC ports.

    Raises:
        InfeasibleError: there is no such fabric.
    """
    return prices.cost_usd(fabric.counts(endpoints))


def fabric_power_w(fabric: FabricSpec, endpoints: int, prices: PriceSpec) -> float:
    """Return the power of a fabric that joins `endpoints` NIC ports.

    Raises:
        InfeasibleError: there is no such fabric, or its power is not given.
    """
    return prices.power_w(fabric.counts(endpoints))


class ClusterPower(NamedTuple):
    """What is known of the power of a cluster, in W: its sources are those of `tdp_w` of the chip
    and of the prices.

    Attributes:
        gpus_w: every GPU at its TDP, which a training run comes near to.
        network_w: switches of the fabric and links between them, as priced.
    """

    gpus_w: float
    network_w: float

    @property
    def total_w(self) -> float:
        """Both. Hosts, NICs, NVLink switches, fans and the losses of a hall are not known: less
        than a cluster draws, so that what it does for a joule is less than by this.
        """
        return self.gpus_w + self.network_w


def network_usd(cluster: ClusterSpec, prices: PriceSpec) -> float:
    """Return the price of a cluster's fabric in USD: switches and the links between them."""
    return prices.cost_usd(cluster.fabric_counts)


def power_w(cluster: ClusterSpec, prices: PriceSpec) -> ClusterPower:
    """Return what the GPUs of a cluster and its fabric draw.

    Raises:
        InfeasibleError: the prices do not say what switches and links draw.
    """
    network_w = prices.power_w(cluster.fabric_counts) if cluster.endpoints else 0.0
    return ClusterPower(cluster.gpus * cluster.node.chip.tdp_w, network_w)
