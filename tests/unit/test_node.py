"""NodeSpec: what leaves the node, and NICs shared evenly."""

from typing import Any

import pytest

from hwmodels.cluster import CLUSTERS
from hwmodels.errors import InfeasibleError, SpecError
from hwmodels.node import NODES, NodeSpec
from hwmodels.spec import build, override


def h800x8_with(changes: dict[str, Any]) -> NodeSpec:
    document = NODES.document("h800x8")
    for path, value in changes.items():
        override(document, NodeSpec, path, value, "test")
    return build(NodeSpec, document, "h800x8")


def test_eight_nics_of_400_gigabits_leave_the_node() -> None:
    node = NODES.load("h800x8")
    assert node.ports == 8
    assert node.scale_out_bytes_per_s == 400e9
    assert node.scale_out_bytes_per_s_per_gpu == 50e9


def test_scale_up_to_scale_out_is_four_to_one_on_h800() -> None:
    """ISCA'25 §4.3: 200 GB/s to 50 GB/s."""
    node = NODES.load("h800x8")
    assert node.chip.nvlink_bytes_per_s / node.scale_out_bytes_per_s_per_gpu == 4


def test_every_port_of_a_nic_counts() -> None:
    node = h800x8_with({"nic.ports": 4, "nic.link_bytes_per_s": "100 Gb/s"})
    assert node.ports == 32
    assert node.scale_out_bytes_per_s == 8 * 50e9
    assert not node.pcie_binds


@pytest.mark.parametrize(("nics", "pcie_of_a_nic"), [(8, 63e9), (4, 126e9), (16, 31.5e9)])
def test_nics_are_no_faster_than_the_pcie_of_the_gpus_behind_them(
    nics: int, pcie_of_a_nic: float
) -> None:
    node = h800x8_with({"nics": nics, "nic.link_bytes_per_s": "1600 Gb/s"})
    assert node.pcie_binds
    assert node.port_bytes_per_s == pytest.approx(pcie_of_a_nic)
    assert node.scale_out_bytes_per_s_per_gpu == pytest.approx(63e9)


def test_a_cluster_is_wired_at_the_rate_that_pcie_feeds() -> None:
    cx8 = CLUSTERS.load("b200-2048-cx8")
    assert cx8.topology().endpoint_bytes_per_s == pytest.approx(63e9 / 4)


@pytest.mark.parametrize("nics", [1, 2, 4, 8, 16])
def test_nics_may_be_shared_or_several(nics: int) -> None:
    assert h800x8_with({"nics": nics}).nics == nics


def test_nics_that_cannot_be_shared_evenly_are_refused() -> None:
    with pytest.raises(
        SpecError, match=r"^h800x8: nics: must divide or be a multiple of gpus \(8\), got 3$"
    ):
        h800x8_with({"nics": 3})


@pytest.mark.parametrize(
    ("name", "links", "switches"),
    [
        ("a100x8", 12, 6),
        ("h100x8", 18, 4),
        ("h800x8", 8, 4),
        ("b200x8", 18, 2),
        ("gb200-nvl72", 18, 18),
    ],
)
def test_a_scale_up_domain_is_a_fabric_of_its_own(name: str, links: int, switches: int) -> None:
    """Every chip one switch away, and half the GPUs sending at their full rate to the others."""
    node = NODES.load(name)
    domain = node.scale_up_topology()
    assert node.scale_up_links == domain.ports == links
    assert (domain.switches, domain.diameter, domain.links) == (switches, 1, 0)
    assert domain.endpoints == node.gpus * links
    half = node.gpus // 2 * node.chip.nvlink_bytes_per_s
    assert domain.bisection_bytes_per_s == pytest.approx(half, rel=1e-12)
    chips = domain.plane_of.reshape(node.gpus, links)
    assert (chips == chips[0]).all()
    assert len(set(chips[0].tolist())) == switches


def test_the_scale_up_graph_joins_every_gpu_to_every_chip() -> None:
    graph = NODES.load("gb200-nvl72").scale_up_topology().graph()
    assert graph.number_of_nodes() == 72 * 18 + 18
    assert graph.number_of_edges() == 2 * 72 * 18
    assert all(graph.out_degree(chip) == 72 for chip in range(72 * 18, 72 * 18 + 18))


def test_a_slower_chip_has_fewer_links() -> None:
    node = h800x8_with({"chip.nvlink_bytes_per_s": "230 GB/s"})
    assert node.scale_up_links == 10  # the last not quite as fast as it could be
    assert node.scale_up_topology().bytes_per_s[0] == 23e9


@pytest.mark.parametrize("missing", ["switches", "link_bytes_per_s"])
def test_a_node_that_does_not_say_how_it_is_joined_has_no_scale_up_topology(missing: str) -> None:
    node = h800x8_with({f"scale_up.{missing}": "none"})
    with pytest.raises(
        InfeasibleError, match=f"^node h800x8: scale_up.{missing} must be given, got none$"
    ):
        node.scale_up_topology()


def test_a_misspelt_key_inside_the_chip_names_the_nearest() -> None:
    document = NODES.document("h800x8")
    document.values["chip"]["smss"] = 4
    with pytest.raises(SpecError, match=r"^n: chip.smss: unknown key; did you mean 'sms'\?$"):
        build(NodeSpec, document, "n")
