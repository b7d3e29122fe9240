"""NodeSpec: what leaves the node, and NICs shared evenly."""

from typing import Any

import pytest

from hwmodels.errors import SpecError
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
    node = h800x8_with({"nic.ports": 4, "nic.link_bytes_per_s": "200 Gb/s"})
    assert node.ports == 32
    assert node.scale_out_bytes_per_s == 8 * 100e9


@pytest.mark.parametrize("nics", [1, 2, 4, 8, 16])
def test_nics_may_be_shared_or_several(nics: int) -> None:
    assert h800x8_with({"nics": nics}).nics == nics


def test_nics_that_cannot_be_shared_evenly_are_refused() -> None:
    with pytest.raises(
        SpecError, match=r"^h800x8: nics: must divide or be a multiple of gpus \(8\), got 3$"
    ):
        h800x8_with({"nics": 3})


def test_a_misspelt_key_inside_the_chip_names_the_nearest() -> None:
    document = NODES.document("h800x8")
    document.values["chip"]["smss"] = 4
    with pytest.raises(SpecError, match=r"^n: chip.smss: unknown key; did you mean 'sms'\?$"):
        build(NodeSpec, document, "n")
