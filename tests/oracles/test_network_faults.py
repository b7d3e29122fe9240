"""Faults of the network as training feels them: ratios by arithmetic, and who feels them."""

import numpy as np
import pytest

from hwmodels.errors import InfeasibleError, SpecError
from simulator.driver.point import paths_of
from simulator.driver.program import program_of
from simulator.driver.run import run
from simulator.driver.step import play
from simulator.lower.lowered import lower
from simulator.price.fabric_slowdowns import fabric_slowdowns
from simulator.price.optimizer import RingSeconds
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
    """Return paths and program of an experiment, and the pipeline ranks that send to others."""
    program = program_of(experiment)
    pairs = lower(program).message_pairs
    return paths_of(experiment), program, pairs


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
    """8/7 for one plane of eight: exchanges, messages and rings alike, everywhere."""
    found = v3(*(f"plane:{plane}" for plane in range(planes)))
    ratio = 8 / (8 - planes)
    assert found.exchange == pytest.approx(np.full((16, 2), ratio), rel=1e-9)
    assert found.ring == pytest.approx(np.full(16, ratio), rel=1e-9)
    assert found.message.max() == pytest.approx(ratio, rel=1e-9)
    assert (found.nvlink == 1).all()


@pytest.mark.parametrize(("fault", "ratio"), [("nic:17.2=0.5", 2), ("nic:17.2", 8 / 7)])
def test_one_nic_slows_the_groups_that_contain_it_and_no_other(fault, ratio):
    """Node 17 is the second of pipeline rank 1, so of its first expert group; pipeline rank 14
    holds the same stages and shares its rings.
    """
    found = v3(fault)
    expected = np.ones((16, 2))
    expected[1, 0] = ratio
    assert found.exchange == pytest.approx(expected, rel=1e-9)
    ring = np.ones(16)
    ring[[1, 14]] = ratio
    assert found.ring == pytest.approx(ring, rel=1e-9)
    slow = found.message > 1 + 1e-9
    pairs = {tuple(pair) for pair in np.argwhere(slow.any(axis=2)).tolist()}
    assert pairs == {(0, 1), (1, 2), (2, 1), (1, 0)}
    assert set(np.flatnonzero(slow.any(axis=(0, 1))) // 8) == {1}
    if fault.endswith("=0.5"):  # a slow NIC keeps its own messages
        assert np.flatnonzero(slow.any(axis=(0, 1))).tolist() == [8 + 2]


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
    assert found.message.max() > 1


def test_a_ring_bound_by_nvlink_feels_a_slow_nic_late():
    """Of 3 s NICs need 2: half as fast they need 4; a little slower, NVLink still binds."""
    rings = RingSeconds(("a",), np.full((1, 2), 0.5), np.full((1, 2), 2.0), np.full((1, 2), 3.0))
    slowed = rings.slowed(np.array([1.25, 2.0]))
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


def test_slower_nics_are_those_of_which_a_plane_is_down(faulty):
    """7 of 8 planes at 400 Gb/s carry what 8 carry at 350."""
    link = ("cluster.node.nic.link_bytes_per_s", "87.5 Gb/s")
    broken, slow = play(faulty("plane:0")), play(faulty(changes=(link,)))
    assert broken.times.step_s == pytest.approx(slow.times.step_s, rel=1e-9)


def test_explicit_and_folded_ranks_feel_a_plane_alike(faulty):
    both = [faulty("plane:3", changes=(("ranks.play", ranks),)) for ranks in ("auto", "explicit")]
    folded, explicit = map(play, both)
    assert explicit.times.step_s == pytest.approx(folded.times.step_s, rel=1e-9)


def test_a_plane_that_is_down_goes_with_shared_nics(faulty):
    shared = play(faulty("plane:3", changes=(("communication.nics", "shared"),)))
    assert shared.times.step_s > play(faulty("plane:3")).times.step_s


def test_a_slow_nic_is_a_straggling_one(faulty):
    """Two descriptions of one thing, until the rings: those see that NVLink binds."""
    straggler = {"gpu": 26, "part": "nic", "slowdown": 2.0}
    fault = play(faulty("nic:3.2=0.5"))
    twin = play(faulty(changes=(("ranks.stragglers", [straggler]),)))
    assert fault.explicit.finish_s == pytest.approx(twin.explicit.finish_s, rel=1e-9)
    whole = play(faulty(changes=(("ranks.play", "explicit"),))).explicit
    assert fault.explicit.step_s > whole.step_s
    later_s = fault.explicit.optimizer_s - whole.optimizer_s
    assert (later_s[[1, 2]] > 0).all()  # two pipeline ranks of DualPipe hold the same stages
    assert later_s[[0, 3]] == pytest.approx(0.0, abs=1e-12)


def test_a_slow_node_is_eight_gpus_with_slow_links(faulty):
    """At 400 Gb/s, where NVLink binds exchanges."""
    fast = ("cluster.node.nic.link_bytes_per_s", "400 Gb/s")
    stragglers = [
        {"gpu": gpu, "part": part, "slowdown": 2.0}
        for gpu in range(24, 32)
        for part in ("nic", "nvlink")
    ]
    fault = play(faulty("node:3=0.5", changes=(fast,)))
    twin = play(faulty(changes=(fast, ("ranks.stragglers", stragglers))))
    assert fault.explicit.finish_s == pytest.approx(twin.explicit.finish_s, rel=1e-9)


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
