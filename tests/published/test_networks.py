"""ISCA'25 "Insights into DeepSeek-V3" (arXiv 2505.09343) Table 5 and Figure 5.

Two constants of each link layer come from Table 5, one NIC rate from Figure 5, so that neither
tests them; what is tested is the rest of the way: routes, forwarding, nccl-tests' conventions.
"""

import pytest

from hwmodels.errors import SpecError
from hwmodels.library import LIBRARIES
from simulator.published.network_quantities import collective_bytes_per_s, message_latency_s
from simulator.published.reproduce import figures, reproduce

PLATEAUS = {32: 59e9, 64: 51e9, 128: 47e9}  # read off the chart


@pytest.mark.parametrize("name", [f.id for f in figures() if f.id.startswith("isca25.table5.")])
def test_a_message_takes_what_was_measured(name: str) -> None:
    (row,) = reproduce([name])
    assert row.simulated == pytest.approx(row.published, rel=1e-9)


def test_a_port_alone_under_its_leaf_has_no_neighbour() -> None:
    """The planes of a rail-only network have one switch each: nothing is across leaves."""
    with pytest.raises(SpecError, match="no other port is cross-leaf and reached"):
        message_latency_s(None, cluster="h800-512-rail-only", leaves="cross-leaf")


@pytest.mark.parametrize("network", ["mpft", "mrft"])
@pytest.mark.parametrize("gpus", PLATEAUS)
def test_an_all_to_all_sends_all_but_its_own_nodes_share_over_nics(network: str, gpus: int) -> None:
    """N ranks on N / 8 nodes: a NIC of rate B carries (N - 8) / N of the bytes."""
    cluster = f"h800-2048-{network}"
    simulated = collective_bytes_per_s(
        None,
        kind="all_to_all",
        ranks=gpus,
        size_bytes=16 * 2**30,
        cluster=cluster,
        library="deepep-h800",
    )
    rate = LIBRARIES.load("deepep-h800").message_nic_bytes_per_s
    assert rate is not None
    assert simulated == pytest.approx(rate * gpus / (gpus - 8), rel=1e-3)
    assert simulated == pytest.approx(PLATEAUS[gpus], rel=0.02)


def test_the_nic_rate_is_that_of_the_two_other_plateaus() -> None:
    """Leave-one-out errors that the notes of the rows state."""
    rate = {gpus: plateau * (gpus - 8) / gpus for gpus, plateau in PLATEAUS.items()}
    notes = {f.id: f.note for f in figures() if f.id.startswith("isca25.fig5.")}
    for gpus, plateau in PLATEAUS.items():
        others = [rate[each] for each in rate if each != gpus]
        error = sum(others) / 2 * gpus / (gpus - 8) / plateau - 1
        for network in ("mpft", "mrft"):
            assert (
                f"{error:+.1%}".replace("%", " %")
                in notes[f"isca25.fig5.{network}.{gpus}.alltoall_bytes_per_s"]
            )
