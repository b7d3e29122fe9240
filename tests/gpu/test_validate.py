"""A layer measured here and validated here: every row is there, and modes are in their order."""

import pytest

pytest.importorskip("triton", reason="needs PyTorch and Triton")

from calibration.gpu_day.__main__ import main
from calibration.gpu_day.files import BLOCKING, EAGER, GRAPH
from simulator.cli.validation import validation

SLACK = 1.05
"""By which medians of two modes may differ although they do the same work."""


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory):
    out = tmp_path_factory.mktemp("day") / "day"
    assert main(["--out", str(out), "--only", "stack", "--budget", "240"]) == 0
    return validation(out, None, "none", None, None)


def test_every_op_of_the_layers_has_a_time(found) -> None:
    assert found.failed == []
    assert not found.notes
    for op in found.ops:
        assert op.graph_s is not None, op.op
        assert op.host_s is not None, op.op


def test_a_graph_is_fastest_and_waiting_slowest(found) -> None:
    totals = {(line.layer, line.mode): line for line in found.totals}
    for layer in {layer for layer, _ in totals}:
        eager, blocking, graph = (totals[layer, mode] for mode in (EAGER, BLOCKING, GRAPH))
        assert graph.measured_s <= SLACK * eager.measured_s
        assert eager.measured_s <= SLACK * blocking.measured_s


def test_no_kernel_is_faster_than_a_roofline_of_products_allows(found) -> None:
    for line in found.families:
        if line.family.startswith(("fp8", "attention")):
            assert line.simulated_s <= SLACK * line.measured_s, line
