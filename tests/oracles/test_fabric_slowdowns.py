"""Links between switches as training feels them: factors by hand, and who feels them."""

import numpy as np
import pytest

from hwmodels.errors import InfeasibleError, SpecError
from simulator.driver.point import paths_of
from simulator.driver.program import program_of
from simulator.driver.run import run
from simulator.driver.step import play
from simulator.price.fabric_slowdowns import fabric_slowdowns, played_slowdowns
from tests.clusters import cluster
from tests.on_network import message_slowdowns, ring_slowdowns
from tests.refusals import MPFT, refusal

FABRICS = ("mpft", "mrft", "ft2", "ft3", "roce")
OVERSUBSCRIPTION, ROUTING = "cluster.fabric.oversubscription", "communication.routing"
EXPLICIT = ("ranks.play", "explicit")
SLOW_NICS = (
    ("cluster.node.nic.link_bytes_per_s", "100 Gb/s"),
    ("cluster.fabric.link_bytes_per_s", "100 Gb/s"),
)
"""Slow enough that messages and exchanges show in the step."""


@pytest.fixture(scope="module")
def on_leaves(small_experiment):
    """The small experiment, 8 nodes on leaves of few ports; `nodes` nodes to an expert group and a
    pipeline rank. Every plane looks like every other: node n has one port there.
    """

    def make(radix, oversubscription=1.0, nodes=2, routing="adaptive", changes=()):
        return small_experiment(
            ("plan.pp", 8 // nodes),
            ("plan.ep", 8 * nodes),
            ("batch.sequences", 192),
            ("cluster.node.chip.hbm_capacity_bytes", "2 TB"),
            ("ranks.expert_load.sigma", 0.0),
            ("cluster.fabric.switch_radix", radix),
            (OVERSUBSCRIPTION, oversubscription),
            (ROUTING, routing),
            *changes,
        )

    return make


def of_step(experiment):
    """Return paths and program of an experiment."""
    return paths_of(experiment), program_of(experiment)


def found(experiment):
    return fabric_slowdowns(*of_step(experiment))


def by_node(message):
    """Return the slowdown of each node's messages, those of its 8 GPUs being alike."""
    per_node = message.reshape(-1, 8)
    assert (per_node == per_node[:, :1]).all()
    return per_node[:, 0]


# By hand


def test_only_messages_that_climb_share_the_uplink(on_leaves):
    """Leaves of 4 nodes with one uplink: pipeline ranks 0 and 1 on one, 2 and 3 on the other. Both
    nodes of rank 1 send to rank 2 over one link. Of a ring, one node at a time climbs.
    """
    experiment = on_leaves(radix=6, oversubscription=4)
    message = np.ones((4, 4, 16))
    message[1, 2] = message[2, 1] = 2.0
    assert message_slowdowns(experiment) == pytest.approx(message, rel=1e-12)
    slowdowns = found(experiment)
    for alike in (slowdowns.exchange, slowdowns.nvlink):
        assert (alike == 1).all()


def test_groups_that_straddle_leaves_wait_for_the_uplink_they_share(on_leaves):
    """Leaves of 3 nodes with one uplink hold nodes 0-2, 3-5, 6 and 7; groups are 0-3 and 4-7.

    The middle leaf sends 3 -> 0, 1, 2 and 4, 5 -> 6, 7: seven units where a NIC sends three. Each
    group has a flow there. From rank 0 to rank 1 the first leaf sends three messages up, each a
    third of the rate; 3 -> 7 goes up beside 4 -> 0 and 5 -> 1, which rank 1 sends meanwhile.
    """
    experiment = on_leaves(radix=4, oversubscription=3, nodes=4)
    assert found(experiment).exchange == pytest.approx(np.full((2, 1), 7 / 3), rel=1e-12)
    message = message_slowdowns(experiment)[0, 1]
    assert by_node(message) == pytest.approx([3, 3, 3, 3], rel=1e-12)


@pytest.mark.parametrize(
    ("routing", "nodes"), [("adaptive", [4 / 3] * 4), ("static", [2, 2, 1, 2])]
)
def test_static_routes_collide_where_adaptive_ones_share(on_leaves, routing, nodes):
    """Four nodes send to the next leaf over three uplinks.

    By place under their leaf 0 to 2 are reached by uplinks 0 to 2 and down by the same; 3, the
    fourth choice, by uplink 0 and down by link 1. So 0 and 3 share the way up, 1 and 3 the way
    down, and 2 has its own.
    """
    experiment = on_leaves(radix=8, oversubscription=1.34, nodes=4, routing=routing)
    assert by_node(message_slowdowns(experiment)[0, 1]) == pytest.approx(nodes, rel=1e-12)


def test_a_whole_step_on_a_tapered_fabric():
    """MPFT with leaves of 48 nodes and 12 uplinks: three pipeline ranks of 16 nodes a leaf, so that
    16 messages cross 12 links between ranks 2 and 3, 5 and 6, and so on; groups of 8 nodes do not
    straddle leaves, and of a ring one message climbs.
    """
    experiment = MPFT.with_overrides({OVERSUBSCRIPTION: 4})
    message = np.ones((16, 16, 128))
    for first in (2, 5, 8, 11, 14):
        message[first, first + 1] = message[first + 1, first] = 16 / 12
    assert message_slowdowns(experiment) == pytest.approx(message, rel=1e-12)
    assert (found(experiment).exchange == 1).all()
    assert ring_slowdowns(experiment).max() == 1


def test_groups_on_a_tapered_tree_of_all_ports():
    """FT2 with leaves of 6 nodes and 12 uplinks. Of 8 nodes, groups have a, b under two leaves, and
    send a x b flows of 8 GPUs up from each. Leaves 0, 1 and 2 hold (6), (2, 4), (4, 2) nodes of
    groups 0 to 2 of 8, and so on: the middle one sends 8 (2 x 6 + 4 x 4) = 224 over 12 links, where
    a NIC sends 7 units.
    """
    experiment = MPFT.with_overrides({"cluster": "h800-2048-ft2", OVERSUBSCRIPTION: 4})
    assert found(experiment).exchange.max() == pytest.approx(224 / 12 / 7, rel=1e-12)


# Where no link binds


@pytest.mark.parametrize("routing", ["adaptive", "static"])
@pytest.mark.parametrize("fabric", FABRICS)
def test_full_fabrics_slow_nothing(fabric, routing):
    """Exactly 1, as is taken for granted of adaptive routing: nothing is played there."""
    changes = {"cluster": f"h800-2048-{fabric}", ROUTING: routing}
    experiment = MPFT.with_overrides(changes)
    slowdowns = played_slowdowns(*of_step(experiment))
    for each in (slowdowns.exchange, slowdowns.nvlink):
        assert (each == 1).all()
    for each in (message_slowdowns(experiment), ring_slowdowns(experiment)):
        assert each == pytest.approx(np.ones_like(each), rel=1e-9)
    assert (found(experiment) is None) == (routing == "adaptive")


@pytest.mark.parametrize("routing", ["static", "ecmp"])
def test_under_one_leaf_there_is_nothing_to_choose(on_leaves, routing):
    experiment = on_leaves(radix=16, routing=routing)
    assert experiment.unlike_links == ()
    assert found(experiment) is None
    slowdowns = played_slowdowns(*of_step(experiment))
    assert (slowdowns.exchange == 1).all()
    message = message_slowdowns(experiment)
    assert message == pytest.approx(np.ones_like(message), rel=1e-9)


def test_fast_links_between_switches_make_up_for_few_of_them(on_leaves):
    """A fourth of the links, each four times as fast as a NIC."""
    fast = ("cluster.fabric.link_bytes_per_s", "1600 Gb/s")
    message = message_slowdowns(on_leaves(radix=6, oversubscription=4, changes=(fast,)))
    assert message == pytest.approx(np.ones_like(message), rel=1e-9)


# Laws


@pytest.mark.parametrize("radix", [4, 6])
def test_oversubscription_never_makes_a_step_shorter(on_leaves, radix):
    changes = (EXPLICIT, *SLOW_NICS)
    full, tapered = (
        play(on_leaves(radix, ratio, nodes=4, changes=changes)).times.step_s
        for ratio in (1.0, radix - 1.0)
    )
    assert tapered > full


@pytest.mark.parametrize("fabric", ["mpft", "ft2"])
@pytest.mark.parametrize("ratio", [1.0, 4.0])
def test_hashed_paths_are_never_better_than_all_of_them(fabric, ratio):
    changes = {"cluster": f"h800-2048-{fabric}", OVERSUBSCRIPTION: ratio}
    experiment = MPFT.with_overrides(changes)
    spread, least = played_slowdowns(*of_step(experiment)), 1 - 1e-9
    message, ring = message_slowdowns(experiment), ring_slowdowns(experiment)
    for seed in range(2):
        hashed = MPFT.with_overrides(changes | {ROUTING: "ecmp", "ranks.seed": seed})
        exchange = found(hashed).exchange
        assert (exchange.max(axis=1) >= spread.exchange.max(axis=1) * least).all()
        by_hash = message_slowdowns(hashed)
        assert (by_hash.max(axis=2) >= message.max(axis=2) * least).all()
        assert (ring_slowdowns(hashed) >= ring * least).all()
        assert by_hash.max() > message.max()


def test_a_seed_decides_which_hashed_paths_collide():
    first, same, other = (
        message_slowdowns(MPFT.with_overrides({ROUTING: "ecmp", "ranks.seed": seed}))
        for seed in (0, 0, 2**62 + 1)
    )
    assert (first == same).all()
    assert (first != other).any()


def test_hashed_paths_lengthen_a_step(on_leaves):
    """Beside static routes, which do not collide on leaves of 4 nodes with 4 uplinks."""
    static, hashed = (
        play(on_leaves(8, nodes=4, routing=routing, changes=SLOW_NICS)).times.step_s
        for routing in ("static", "ecmp")
    )
    assert hashed > static


def test_folded_and_explicit_ranks_agree_where_nothing_binds(on_leaves):
    folded = play(on_leaves(8, changes=SLOW_NICS))
    explicit = play(on_leaves(8, routing="static", changes=SLOW_NICS))
    assert folded.explicit is None
    assert explicit.explicit is not None
    assert explicit.times.step_s == pytest.approx(folded.times.step_s, rel=1e-9)


def test_twice_the_oversubscription_is_half_the_links(on_leaves):
    """What is left of a bundle counts, not why: 2 of 4 uplinks, or 4 at half the rate."""
    slow = [
        f"link:{plane}.{leaf}.{up}=0.5" for plane in range(8) for leaf in (0, 1) for up in range(4)
    ]
    broken = on_leaves(8, nodes=4, changes=(("cluster.faults", slow),))
    tapered = on_leaves(6, 2.0, nodes=4)
    assert found(broken).exchange == pytest.approx(found(tapered).exchange, rel=1e-12)
    message = message_slowdowns(tapered)
    assert message_slowdowns(broken) == pytest.approx(message, rel=1e-12)
    assert message.max() == pytest.approx(2.0, rel=1e-12)


# Who feels it, and how it is told


@pytest.mark.parametrize(
    ("ratio", "tapered"), [(None, False), (1, False), (1.01, False), (2, True)]
)
def test_a_leaf_with_fewer_links_up_than_down_is_tapered(ratio, tapered):
    """64 ports at 1.01 are 31 down and 31 up."""
    changes = {} if ratio is None else {"fabric__oversubscription": ratio}
    assert cluster(**changes).fabric.tapered is tapered
    assert not cluster("h800-512-rail-only").fabric.tapered


def test_every_rank_is_played_where_links_may_set_them_apart(on_leaves):
    experiment = on_leaves(6, 4, routing="ecmp")
    assert experiment.unlike == (OVERSUBSCRIPTION, ROUTING)
    result = run(experiment)
    assert result.play.mode == "explicit"
    assert (
        "; oversubscription, ecmp routing: time on NICs of exch"
        in result.provenance.communication_basis
    )
    plain = run(on_leaves(6, routing="adaptive"))
    assert plain.play.mode == "folded"
    assert "oversubscription" not in plain.provenance.communication_basis


def test_faults_on_a_tapered_fabric_are_told_with_it(on_leaves):
    """A plane is missed by all alike, the uplink by some. GPUs whose own plane it is send by the
    NIC of another: both nodes of rank 1 do, so that one uplink may carry four messages.
    """
    experiment = on_leaves(6, 4, changes=(("cluster.faults", ["plane:3"]),))
    slowdowns = found(experiment)
    assert slowdowns.causes == ("faults (plane:3)", "oversubscription")
    assert slowdowns.exchange == pytest.approx(np.full((4, 1), 8 / 7), rel=1e-9)
    message = message_slowdowns(experiment)
    assert message[0, 1].max() == pytest.approx(2, rel=1e-9)
    assert message[1, 2].min() == pytest.approx(2, rel=1e-9)
    assert 2 < message[1, 2].max() <= 4 * (1 + 1e-9)


@pytest.mark.parametrize(
    ("values", "error", "message"),
    [
        ({OVERSUBSCRIPTION: 4, "ranks.play": "folded"}, SpecError, f"but {OVERSUBSCRIPTION} sets"),
        ({ROUTING: "ecmp", "ranks.play": "folded"}, SpecError, f"but {ROUTING} sets them apart"),
        ({ROUTING: "random"}, SpecError, "communication.routing"),
    ],
)
def test_what_cannot_be_is_refused_in_one_line(values, error, message):
    refused = refusal(values)
    assert isinstance(refused, error)
    assert message in str(refused)
    assert "\n" not in str(refused)


def test_a_fabric_without_known_routes_can_only_be_full(small_experiment):
    """Slim Fly is counted, not routed: taken to bind nothing, and not asked to hash."""
    fly = {
        "kind": "slim_fly",
        "q": 5,
        "switch_radix": 64,
        "link_bytes_per_s": "400 Gb/s",
        "host_latency_s": "2 us",
        "hop_latency_s": "1 us",
    }
    assert found(small_experiment(("cluster.fabric", fly))) is None
    with pytest.raises(InfeasibleError, match="slim_fly, which is not routed yet"):
        found(small_experiment(("cluster.fabric", fly), (ROUTING, "ecmp")))
