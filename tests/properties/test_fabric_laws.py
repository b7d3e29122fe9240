"""Laws of wired fabrics: planes are apart, ways are shared evenly, faults only ever take away."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from hwmodels.fabrics.fat_tree import FatTree
from hwmodels.fabrics.multi_plane_fat_tree import MultiPlaneFatTree
from hwmodels.fabrics.topology import Topology
from hwmodels.faults import PLACES, FaultSpec, degraded

LINK = {"link_bytes_per_s": 50e9, "host_latency_s": 0.0, "hop_latency_s": 0.0}


@st.composite
def topologies(draw: st.DrawFn) -> Topology:
    """Two or three layers, one plane or several, partly filled."""
    radix, planes = 2 * draw(st.integers(2, 4)), draw(st.integers(1, 3))
    fabric = draw(
        st.sampled_from(
            [
                FatTree(layers=3, switch_radix=radix, **LINK),
                MultiPlaneFatTree(planes=planes, switch_radix=radix, **LINK),
            ]
        )
    )
    ports = fabric.planes * draw(st.integers(1, 2))
    return fabric.topology(draw(st.integers(1, fabric.endpoints_max // ports)), ports)


@st.composite
def broken(draw: st.DrawFn) -> tuple[Topology, list[FaultSpec]]:
    """A fabric, and faults of what is in it."""
    topology = draw(topologies())
    clos = topology.clos
    sizes = {
        "node": topology.nodes,
        "port": topology.ports,
        "plane": clos.planes,
        "leaf": clos.leaves,
        "spine": clos.spines + clos.cores,
        "aggregation": clos.spines,
    }
    faults = []
    for kind in draw(st.lists(st.sampled_from(sorted(PLACES)), max_size=4)):
        uplinks = clos.pod.count if kind == "core" else clos.leaf.count
        most = [(sizes | {"uplink": uplinks})[name] for name in PLACES[kind]]
        if all(most):
            place = ".".join(str(draw(st.integers(0, size - 1))) for size in most)
            left = draw(st.sampled_from(["", "=0.5", "=0.25"]))
            faults.append(FaultSpec.model_validate(f"{kind}:{place}{left}"))
    return topology, faults


@given(broken(), st.randoms())
def test_faults_take_away_in_any_order_and_twice_is_once(case, random) -> None:
    topology, faults = case
    left = degraded(topology, faults)
    assert (left <= topology.bytes_per_s).all()
    assert (left >= 0).all()
    shuffled = faults + faults
    random.shuffle(shuffled)
    assert (degraded(topology, shuffled) == left).all()
    assert (left <= degraded(topology, faults[:-1])).all()


@given(topologies())
def test_no_link_leaves_its_plane_and_none_leads_past_a_layer(topology: Topology) -> None:
    plane = np.concatenate([topology.plane_of, topology.switch_plane])
    layer = np.concatenate([np.full(topology.endpoints, -1), topology.switch_tier])
    assert (plane[topology.tail] == plane[topology.head]).all()
    assert (np.abs(layer[topology.tail] - layer[topology.head]) == 1).all()
    assert (np.maximum(layer[topology.tail], layer[topology.head]) == topology.tier).all()


@given(topologies())
def test_both_directions_of_a_cable_join_the_same_two(topology: Topology) -> None:
    first = 0
    for cables in (topology.endpoints, topology.clos.leaf_links, topology.clos.pod_links):
        up, down = (slice(first + n * cables, first + (n + 1) * cables) for n in (0, 1))
        assert (topology.tail[up] == topology.head[down]).all()
        assert (topology.head[up] == topology.tail[down]).all()
        first += 2 * cables
    assert first == topology.directed_links


@given(topologies(), st.data())
def test_the_ways_between_two_ports_load_their_uplinks_evenly(topology: Topology, data) -> None:
    """An even hash over all choices uses every cable as often as its spine has cables down."""
    port = st.integers(0, topology.endpoints - 1)
    source, target = data.draw(port), data.draw(port)
    choices = int(topology.choices(source, target))
    if not choices or topology.switches_passed(source, target) == 1:
        return
    routes = topology.routes(source, target, np.arange(choices))
    uplinks = topology.clos.leaf
    first = np.bincount(routes[:, 1] - topology.uplink(topology.leaf_of[source], 0))
    if topology.switches_passed(source, target) == 5:
        assert (first == topology.clos.pod.paths).all()
        return
    spines = np.arange(uplinks.count) // uplinks.parallel
    assert (first == np.bincount(spines)[spines]).all()


@given(topologies())
def test_bundles_share_an_end_and_a_direction(topology: Topology) -> None:
    """Links of one bundle leave one leaf or pod, or enter it."""
    tier = np.zeros(topology.bundles, dtype=int)
    tier[topology.bundle] = topology.tier
    assert (tier[topology.bundle] == topology.tier).all()
    assert (np.bincount(topology.bundle) >= 1).all()
    links = topology.tier == 1
    ends = np.where(topology.tail < topology.head, topology.tail, topology.head)[links]
    bundles = topology.bundle[links]
    assert len(np.unique(np.stack([bundles, ends]), axis=1).T) == len(np.unique(bundles))
