"""Faults of the network as training feels them: ratios by arithmetic, and who feels them."""

import numpy as np
import pytest

from hwmodels.errors import InfeasibleError, SpecError
from simulator.driver.point import paths_of
from simulator.driver.program import program_of
from simulator.driver.run import run
from simulator.driver.step import play
from simulator.network.comm_times import Slow
from simulator.price.fabric_slowdowns import fabric_slowdowns
from simulator.price.optimizer import RingSeconds
from tests.on_network import message_slowdowns, ring_slowdowns
from tests.refusals import MPFT, refusal

SMALL = (
    ("plan.ep", 16),
    ("cluster.node.chip.hbm_capacity_bytes", "2 TB"),
    ("ranks.expert_load.sigma", 0.0),
    ("cluster.node.nic.link_bytes_per_s", "100 Gb/s"),
)
"""8 nodes of 8 GPUs, 4 pipeline ranks of one expert group over 2 nodes each; slow NICs bind."""


@pytest.fixture(scope="module")
def faulty(small_experiment):
    """The small experiment with faults and other changes."""

    def make(*faults, changes=()):
        return small_experiment(*SMALL, ("cluster.faults", list(faults)), *changes)

    return make


def of_step(experiment):
    """Return paths and program of an experiment."""
    return paths_of(experiment), program_of(experiment)


@pytest.fixture(scope="module")
def slowdowns(faulty):
    def make(*faults):
        experiment = faulty(*faults)
        return fabric_slowdowns(*of_step(experiment))

    return make


def v3(*faults):
    experiment = MPFT.with_overrides({"cluster.faults": list(faults)})
    return fabric_slowdowns(*of_step(experiment))


# Ratios


def test_without_faults_there_is_nothing_to_slow_down(slowdowns, faulty):
    assert slowdowns() is None
    assert play(faulty()).fabric is None


@pytest.mark.parametrize("planes", [1, 2, 4])
def test_planes_that_are_down_leave_the_others_their_bytes(planes):
    """Exchanges spread over what is left, 8/7 for one plane of eight. A message has one port, its
    own or that of one other GPU, which then takes both: of 8 pipelines of a node, two for each
    plane take twice as long.
    """
    faults = [f"plane:{plane}" for plane in range(planes)]
    found = v3(*faults)
    assert found.exchange == pytest.approx(np.full((16, 2), 8 / (8 - planes)), rel=1e-9)
    assert (found.nvlink == 1).all()
    message = message_slowdowns(MPFT.with_overrides({"cluster.faults": faults}))
    expected = [1] * (8 - 2 * planes) + [2] * 2 * planes
    for node in message[0, 1].reshape(-1, 8):
        assert np.sort(node) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("planes", [1, 2, 4])
def test_rings_over_whole_nodes_spread_over_the_planes_that_are_left(planes):
    """NVLink at a terabyte a second, which never binds; 32 nodes hold the dense weights of each."""
    fast = {"cluster.node.chip.nvlink_bytes_per_s": "10 TB/s"}
    faults = [f"plane:{plane}" for plane in range(planes)]
    experiment = MPFT.with_overrides(fast | {"cluster.faults": faults})
    dense = ring_slowdowns(experiment)[0]
    assert dense == pytest.approx(np.full(16, 8 / (8 - planes)), rel=1e-3)


@pytest.mark.parametrize(("fault", "ratio"), [("nic:17.2=0.5", 2), ("nic:17.2", 8 / 7)])
def test_one_nic_slows_the_groups_that_contain_it_and_no_other(fault, ratio):
    """Node 17 is the second of pipeline rank 1, so of its first expert group; pipeline rank 14
    holds the same stages and shares its rings.
    """
    found = v3(fault)
    expected = np.ones((16, 2))
    expected[1, 0] = ratio
    assert found.exchange == pytest.approx(expected, rel=1e-9)
    experiment = MPFT.with_overrides({"cluster.faults": [fault]})
    rings = ring_slowdowns(experiment)
    assert (rings[:, [1, 14]] > 1).all()
    assert np.delete(rings, [1, 14], axis=1) == pytest.approx(np.ones((2, 14)), rel=1e-9)
    slow = message_slowdowns(experiment) > 1 + 1e-9
    pairs = {tuple(pair) for pair in np.argwhere(slow.any(axis=2)).tolist()}
    assert pairs == {(0, 1), (1, 2), (2, 1), (1, 0)}
    assert set(np.flatnonzero(slow.any(axis=(0, 1))) // 8) == {1}
    slowed = np.flatnonzero(slow.any(axis=(0, 1))).tolist()
    if fault.endswith("=0.5"):  # a slow NIC keeps its own messages
        assert slowed == [8 + 2]
    else:  # one that is down hands them to one other on each hop
        assert len(slowed) in (2, 3)
        assert 8 + 2 in slowed


def test_a_slow_node_slows_its_nvlink_too(slowdowns):
    found = slowdowns("node:3=0.5")
    nvlink = np.ones((4, 16))
    nvlink[1, 8:] = 2
    assert found.nvlink == pytest.approx(nvlink, rel=1e-12)
    assert found.exchange[:, 0] == pytest.approx([1, 2, 1, 1], rel=1e-9)


def test_exchanges_inside_a_node_do_not_feel_nics(faulty):
    experiment = faulty("nic:3.1", changes=(("plan.ep", 8),))
    found = fabric_slowdowns(*of_step(experiment))
    assert (found.exchange == 1).all()
    assert message_slowdowns(experiment).max() > 1


def test_a_ring_bound_by_nvlink_feels_a_slow_nic_late():
    """Of 3 s NICs need 2: half as fast they need 4; a little slower, NVLink still binds."""
    rings = RingSeconds(*(np.full((1, 2), part_s) for part_s in (0.5, 2.0, 3.0)), names=("a",))
    slowed = rings.slowed(Slow(np.array([1.25, 2.0])))
    assert slowed.seconds.tolist() == [[3.5, 4.5]]
    assert slowed.moving_s.tolist() == [[3.0, 4.0]]
    assert slowed.nic_s.tolist() == [[2.5, 4.0]]


# A step


def test_a_plane_that_is_down_is_folded_and_slows_what_nics_bind(faulty):
    whole, broken = play(faulty()), play(faulty("plane:3"))
    assert broken.explicit is None
    rates, slow = whole.pricer.exchanges.rates, broken.pricer.exchanges.rates
    for key, ports in rates.ports.items():
        nic = slow.ports[key].nic_bytes_per_s
        assert nic == pytest.approx(ports.nic_bytes_per_s * 7 / 8, rel=1e-9)
        assert slow.ports[key].nvlink_bytes_per_s == ports.nvlink_bytes_per_s
    later_s = broken.times.phases["optimizer"] - whole.times.phases["optimizer"]
    assert (later_s > 0).all()
    assert broken.times.step_s > whole.times.step_s


def test_a_plane_that_is_down_costs_at_least_its_share_of_all_nics(faulty):
    """7 of 8 planes at 100 Gb/s carry what 8 carry at 87.5, if they share it evenly: exchanges do,
    messages of the GPUs whose plane it is do not.
    """
    link = ("cluster.node.nic.link_bytes_per_s", "87.5 Gb/s")
    broken, slow = play(faulty("plane:0")), play(faulty(changes=(link,)))
    comms = {each.comm for part in broken.program.parts for each in part.segments if each.comm}
    for comm in comms:
        load = np.ones((1, 16))
        taken_s = broken.pricer.exchanges.exchange_s(comm, load)
        assert taken_s == pytest.approx(slow.pricer.exchanges.exchange_s(comm, load), rel=1e-9)
    assert broken.times.step_s > slow.times.step_s > play(faulty()).times.step_s


def test_explicit_and_folded_ranks_feel_a_plane_alike(faulty):
    both = [faulty("plane:3", changes=(("ranks.play", ranks),)) for ranks in ("auto", "explicit")]
    folded, explicit = map(play, both)
    assert explicit.times.step_s == pytest.approx(folded.times.step_s, rel=1e-9)


def test_a_plane_that_is_down_goes_with_shared_nics(faulty):
    shared = play(faulty("plane:3", changes=(("communication.nics", "shared"),)))
    assert shared.times.step_s > play(faulty("plane:3")).times.step_s


def test_a_slow_nic_is_a_straggling_one(faulty):
    """Two descriptions of one thing, until the rings, but for the latency of messages, which a
    straggler lengthens too. Rings see that NVLink binds.
    """
    straggler = {"gpu": 26, "part": "nic", "slowdown": 2.0}
    fault = play(faulty("nic:3.2=0.5"))
    twin = play(faulty(changes=(("ranks.stragglers", [straggler]),)))
    assert fault.explicit.finish_s == pytest.approx(twin.explicit.finish_s, rel=3e-6)
    whole = play(faulty(changes=(("ranks.play", "explicit"),))).explicit
    assert fault.explicit.step_s > whole.step_s
    later_s = fault.explicit.optimizer_s - whole.optimizer_s
    assert (later_s[[1, 2]] > 1e-3).all()  # two pipeline ranks of DualPipe hold the same stages
    assert later_s[[0, 3]] == pytest.approx(0.0, abs=1e-7)  # of the norm, which all ranks sum


def test_a_slow_node_is_eight_gpus_with_slow_links(faulty):
    """At 400 Gb/s, where NVLink binds exchanges; but for the latency of messages."""
    fast = ("cluster.node.nic.link_bytes_per_s", "400 Gb/s")
    stragglers = [
        {"gpu": gpu, "part": part, "slowdown": 2.0}
        for gpu in range(24, 32)
        for part in ("nic", "nvlink")
    ]
    fault = play(faulty("node:3=0.5", changes=(fast,)))
    twin = play(faulty(changes=(fast, ("ranks.stragglers", stragglers))))
    assert fault.explicit.finish_s == pytest.approx(twin.explicit.finish_s, rel=3e-6)


def test_every_rank_is_played_where_faults_set_them_apart(faulty):
    experiment = faulty("plane:3", "nic:3.2")
    assert experiment.unlike == ("cluster.faults",)
    assert experiment.is_explicit
    assert not faulty("plane:3").is_explicit
    result = run(experiment)
    assert result.play.mode == "explicit"
    basis = result.provenance.communication_basis
    told = "time on NICs of exchanges 1.14x in 3 of 4 expert groups, 1.33x in 1"
    assert f"; faults (plane:3, nic:3.2): {told}" in basis


# Refused


@pytest.mark.parametrize(
    ("faults", "error", "message"),
    [
        (["node:12"], InfeasibleError, "node 12 is down, and with it GPUs 96 to 103"),
        ([f"nic:4.{nic}" for nic in range(8)], InfeasibleError, "ranks on node 4 are cut off"),
        ([f"plane:{plane}" for plane in range(8)], InfeasibleError, "are cut off"),
        (["nic:256.0"], SpecError, "node must be below 256, got nic:256.0"),
        (["nic"], SpecError, "must be one of node:NODE"),
    ],
)
def test_ranks_without_a_network_are_named(faults, error, message):
    found = refusal({"cluster.faults": faults})
    assert isinstance(found, error)
    assert message in str(found)
    assert "\n" not in str(found)


def test_single_faults_cannot_be_folded():
    fault = {"cluster.faults": ["nic:17.2"]}
    assert "cluster.faults sets them apart" in str(refusal(fault | {"ranks.play": "folded"}))


def test_single_faults_are_felt_by_the_ranks_they_hit_on_shared_nics_too(small_experiment):
    changes = ("cluster.node.chip.hbm_capacity_bytes", "2 TB"), ("communication.nics", "shared")
    steps = {
        faults: play(small_experiment(*changes, ("plan.ep", 16), ("cluster.faults", list(faults))))
        for faults in ((), ("nic:2.2",))
    }
    assert steps["nic:2.2",].explicit.meetings is not None
    assert steps["nic:2.2",].times.step_s > steps[()].times.step_s
