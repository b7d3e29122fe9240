"""Every preset loads, says where each number is from, and agrees with its datasheet."""

import math
from collections.abc import Iterator, Mapping
from typing import Any

import pytest

from hwmodels.chip import CHIPS
from hwmodels.cluster import CLUSTERS
from hwmodels.errors import UnitError
from hwmodels.library import LIBRARIES
from hwmodels.node import NODES
from hwmodels.prices import PRICES
from hwmodels.profile import PROFILES
from hwmodels.units import read_number
from simulator.experiment import EXPERIMENTS
from workloads.model import MODELS

CATALOGUES = (CHIPS, NODES, CLUSTERS, PRICES, LIBRARIES, PROFILES, MODELS, EXPERIMENTS)
PRESETS = [pytest.param(c, n, id=f"{c.kind}-{n}") for c in CATALOGUES for n in c.names()]


def leaves(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in values.items():
        if isinstance(value, Mapping):
            yield from leaves(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def is_number(value: Any) -> bool:
    try:
        read_number(value)
    except UnitError:
        return False
    return True


@pytest.mark.parametrize(
    ("catalogue", "names"),
    [
        (CHIPS, {"a100", "b200", "gb200", "h100", "h20", "h200", "h800"}),
        (NODES, {"a100x8", "b200x8", "gb200-nvl72", "h100x8", "h20x8", "h200x8", "h800x8"}),
        (CLUSTERS, {"h800-2048-mpft", "h800-2048-mrft", "h100-2048", "h20-2048", "gb200-nvl72"}),
        (PRICES, {"isca25-table3"}),
    ],
)
def test_the_machines_we_speak_of_are_there(catalogue: Any, names: set[str]) -> None:
    assert names <= set(catalogue.names())


@pytest.mark.parametrize(("catalogue", "name"), PRESETS)
def test_a_preset_loads_under_its_own_name(catalogue: Any, name: str) -> None:
    assert catalogue.load(name).name == name


@pytest.mark.parametrize(("catalogue", "name"), PRESETS)
def test_every_number_has_a_source_or_an_assumption(catalogue: Any, name: str) -> None:
    document = catalogue.document(name)
    numbers = [path for path, value in leaves(document.values) if is_number(value)]
    assert numbers
    unsourced = [path for path in numbers if document.source_of(path) is None]
    assert not unsourced
    assert all(len(source.text) > 10 for source in document.sources.values())


@pytest.mark.parametrize(("catalogue", "name"), PRESETS)
def test_no_number_rests_on_a_default_of_the_code(catalogue: Any, name: str) -> None:
    """A default has no source; what a preset leaves out must be nothing, or an ability it lacks."""
    written = dict(leaves(catalogue.document(name).values))
    built = dict(leaves(catalogue.load(name).model_dump()))
    rests = {p: v for p, v in built.items() if p not in written and v not in (None, ())}
    silent = {p for p, v in rests.items() if v is not False}
    # A fabric that is one network by construction says so in its type.
    assert silent <= {"fabric.planes", "cluster.fabric.planes"}


# Dense tensor FLOPs of one SM in one clock, by family: a power of two that doubles from TF32 to
# BF16 to FP8 to FP4. H20 has a quarter of Hopper's.
FLOPS_PER_CLOCK_BF16 = {"ampere": 2048, "hopper": 4096, "blackwell": 8192}


@pytest.mark.parametrize("name", CHIPS.names())
def test_the_datasheet_peak_is_sms_times_clock_times_a_power_of_two(name: str) -> None:
    chip = CHIPS.load(name)
    bf16 = FLOPS_PER_CLOCK_BF16[chip.generation] // (4 if name == "h20" else 1)
    expected = {"tf32": bf16 / 2, "bf16": bf16, "fp8": bf16 * 2, "fp4": bf16 * 4}
    for family in chip.tensor:
        # Datasheets round peaks to 3 digits and clocks to 3.
        assert chip.flops_per_clock_per_sm(family) == pytest.approx(expected[family], rel=1e-3)


@pytest.mark.parametrize("name", CHIPS.names())
def test_the_vector_peak_is_a_clock_the_chip_can_reach(name: str) -> None:
    """Two FLOPs of each FP32 lane: 64 an SM on Ampere, 128 since, at a boost clock near 2 GHz."""
    chip = CHIPS.load(name)
    lanes = 64 if chip.generation == "ampere" else 128
    clock = chip.vector_flops_per_s / (chip.sms * lanes * 2)
    assert 1.3e9 < clock < 2.25e9


@pytest.mark.parametrize("name", CHIPS.names())
def test_a_chip_is_of_this_decade(name: str) -> None:
    """Bounds that catch a slipped prefix or bits taken for bytes."""
    chip = CHIPS.load(name)
    assert 40e9 <= chip.hbm_capacity_bytes <= 300e9
    assert 1e12 <= chip.hbm_bytes_per_s <= 10e12
    assert 32 * 2**20 <= chip.l2_bytes <= 256 * 2**20
    assert 100e9 <= chip.nvlink_bytes_per_s <= 1e12
    assert 300 <= chip.tdp_w <= 1500
    assert (chip.fp8_unit is None) == ("fp8" not in chip.tensor)


LABELS_GB = {"a100": 80, "h100": 80, "h800": 80, "h200": 141, "h20": 96, "b200": 180, "gb200": 186}


@pytest.mark.parametrize("name", LABELS_GB)
def test_the_memory_is_what_a_driver_reports_and_not_the_label(name: str) -> None:
    """Labels are binary GB or a little more, so that decimal ones lose 7 %; no H20 was read."""
    capacity_bytes, label = CHIPS.load(name).hbm_capacity_bytes, LABELS_GB[name]
    assert label * 1e9 <= capacity_bytes <= label * 2**30
    assert name == "h20" or capacity_bytes > 0.99 * label * 2**30
    if not CHIPS.document(name).source_of("hbm_capacity_bytes").assumed:
        assert capacity_bytes % 2**20 == 0


@pytest.mark.parametrize("name", NODES.names())
def test_a_node_is_of_this_decade(name: str) -> None:
    node = NODES.load(name)
    assert 20e9 <= node.nic.link_bytes_per_s <= 100e9
    assert node.chip.nvlink_bytes_per_s > node.pcie_bytes_per_s > node.nic.link_bytes_per_s
    assert node.scale_out_bytes_per_s_per_gpu < node.chip.nvlink_bytes_per_s


@pytest.mark.parametrize(
    ("name", "gigatransfers"), [("a100x8", 16), ("h100x8", 32), ("h800x8", 32), ("b200x8", 32)]
)
def test_pcie_is_sixteen_lanes_after_encoding(name: str, gigatransfers: int) -> None:
    """128b/130b: 63.0 GB/s on Gen5 x16, one direction."""
    expected = gigatransfers * 1e9 * 16 * (128 / 130) / 8
    assert math.isclose(NODES.load(name).pcie_bytes_per_s, expected, rel_tol=1e-3)


@pytest.mark.parametrize("name", CLUSTERS.names())
def test_nics_and_switches_of_a_cluster_speak_at_one_rate(name: str) -> None:
    cluster = CLUSTERS.load(name)
    if cluster.fabric.kind == "scale_up_only":
        return
    assert cluster.node.nic.link_bytes_per_s == cluster.fabric.link_bytes_per_s
