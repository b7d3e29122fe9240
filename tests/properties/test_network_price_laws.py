"""What a step is charged for a communication is what the command gives for the same ranks."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hwmodels.library import LIBRARIES
from simulator import Experiment
from simulator.driver.point import paths_of, point_of
from simulator.driver.program import program_of
from simulator.lower.lowered import lower
from simulator.network.alike import ABSENT, MOMENTS
from simulator.network.collectives.plan import PLANS
from simulator.network.expert_exchange import normal_exchange
from simulator.network.links import WIRINGS, Network
from simulator.network.machine import Machine
from simulator.network.price import comm_s
from simulator.network.run import run_groups
from simulator.network.timing import PLAYED
from simulator.price.kernels import KernelPricer
from simulator.price.messages import message_times
from simulator.price.optimizer import NORM
from tests.clusters import cluster
from tests.prices import optimizer_seconds
from workloads.ops import Comm
from workloads.routing_matrix import expected_matrix

KINDS = ("reduce_scatter", "all_gather", "all_reduce", "all_to_all", "broadcast", "send_recv")
CLUSTERS = {
    "planes": {},
    "rails": {"name": "h800-2048-mrft"},
    "one tree": {"name": "h800-2048-ft2", "fabric__switch_radix": 32},
    "three layers": {"name": "h800-2048-ft3", "fabric__switch_radix": 16},
    "few NICs": {"node__nics": 4, "fabric__planes": 4},
    "slow NICs": {"node__nic__link_bytes_per_s": "100 Gb/s"},
}  # fmt: skip
LIBRARY_NAMES = [None, "deepep-h800"]


@st.composite
def groups(draw):
    """Disjoint groups side by side: in a row, strided, over whole nodes or parts of them."""
    how = draw(st.sampled_from(["in a row", "strided", "anyhow"]))
    ranks = draw(st.one_of(st.integers(2, 32), st.sampled_from([64, 128, 256])))
    count = draw(st.integers(1, max(1, min(4, 256 // ranks))))
    first = draw(st.sampled_from([0, 4, 8, 40]))
    order = np.arange(first, 512)
    if how == "strided":
        stride = draw(st.sampled_from([2, 8, 64]))
        order = np.arange(512).reshape(-1, stride).T.ravel()
    elif how == "anyhow":
        order = np.random.default_rng(draw(st.integers(0, 99))).permutation(512)
        ranks = min(ranks, 32)
    return order[: ranks * count].reshape(count, ranks)


def asked(kind, size_bytes):
    return Comm("asked", "send" if kind == "send_recv" else kind, (), size_bytes)


@given(
    st.sampled_from(sorted(CLUSTERS)),
    groups(),
    st.sampled_from(KINDS),
    st.sampled_from([4.0, 1e6, 3e9]),
    st.sampled_from(LIBRARY_NAMES),
)
@settings(max_examples=120)
def test_the_price_is_what_the_command_gives(name, gpus, kind, size_bytes, library):
    """On the network as it is; and if ports alone bind, wherever fabrics are full."""
    spec = cluster(nodes=64, **CLUSTERS[name])
    achieved = LIBRARIES.load(library) if library else None
    network = Network.of(spec, "adaptive")
    expected = [run.time_s for run in run_groups(kind, size_bytes, gpus, network, achieved)]
    found = comm_s(asked(kind, size_bytes), gpus, Machine.on(network, achieved))
    assert found.seconds == pytest.approx(expected, rel=1e-9)
    ports = comm_s(asked(kind, size_bytes), gpus, Machine.of_ports(spec, achieved))
    assert ports.seconds == pytest.approx(expected, rel=1e-9)


@given(
    st.sampled_from(["static", "ecmp", "adaptive"]),
    st.sampled_from([(), ("plane:3",), ("nic:1.2=0.5", "nic:3.1"), ("node:2=0.5",)]),
    groups(),
    st.sampled_from(KINDS),
)
@settings(max_examples=60)
def test_so_it_is_under_faults_and_on_paths_that_collide(routing, faults, gpus, kind):
    spec = cluster(nodes=64, faults=list(faults), fabric__switch_radix=16)
    network = Network.of(spec, routing, 7)
    expected = [run.time_s for run in run_groups(kind, 1e9, gpus, network)]
    found = comm_s(asked(kind, 1e9), gpus, Machine.on(network))
    assert found.seconds == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("library", ["nccl-h100", "sglang-h100"])
@pytest.mark.parametrize("kind", ["all_reduce", "all_gather"])
def test_so_it_is_by_the_protocols_of_a_library(library, kind):
    achieved = LIBRARIES.load(library)
    if kind not in achieved.protocols:
        return
    network = Network.of(cluster("h100-2048"), "adaptive")
    for size_bytes in (1e3, 1e5, 1e8):
        expected = run_groups(kind, size_bytes, [range(8)], network, achieved)[0].time_s
        found = comm_s(asked(kind, size_bytes), np.arange(8)[None], Machine.on(network, achieved))
        assert found.seconds == pytest.approx([expected], rel=1e-9)


# A step of DeepSeek-V3


@pytest.fixture(scope="module")
def v3():
    """The pre-training step: experiment, program, the network as the command has it, machine."""
    experiment = Experiment.load("deepseek-v3-pretrain")
    cluster_, library = experiment.cluster, experiment.profile.communication
    program = program_of(experiment)
    machine = Machine.of_ports(cluster_, library, experiment.communication.sms, program.routing)
    return experiment, program, Network.of(cluster_, "adaptive"), machine


def test_all_rings_of_a_step_take_what_the_command_gives(v3):
    """Of each home by itself, and those of all homes at once."""
    experiment, program, network, machine = v3
    chip = experiment.cluster.node.chip
    whole_chip = KernelPricer(chip, experiment.profile, chip.sms)
    end = optimizer_seconds(program.end, lower(program).end_ops, whole_chip, machine)
    checked = 0
    for rank, step in enumerate(program.end):
        for syncs, rings in ((step.reduce, end.reduce), (step.gather, end.gather)):
            for number, sync in enumerate(syncs):
                ask = sync.kind, sync.bytes, sync.groups, network, machine.library
                runs = run_groups(*ask) if rank in (0, 5) else []
                for run in runs:
                    assert rings.seconds[number, rank] == pytest.approx(run.time_s, rel=1e-9)
                checked += len(runs)
    assert checked == 2 * 2 * (1 + 64)
    dense = program.end[1].reduce[0]
    homes = np.concatenate([program.end[rank].reduce[0].groups for rank in range(1, 8)])
    for run in run_groups(dense.kind, dense.bytes, homes, network, machine.library):
        assert end.reduce.seconds[0, 1] == pytest.approx(run.time_s, rel=1e-9)


def test_a_price_has_the_same_bits_whatever_was_priced_before(v3):
    """On links at other rates, or nothing at all."""
    experiment, program, _, _ = v3
    found = []
    for before in ((), ("111 GB/s", "333 GB/s")):
        for kept in (MOMENTS, PLANS, PLAYED, WIRINGS):
            kept.forget()
        for rate in (*before, "160 GB/s"):
            fast = experiment.with_overrides({"cluster.node.chip.nvlink_bytes_per_s": rate})
            machine = Machine.of_ports(fast.cluster, fast.profile.communication)
            parts = [
                comm_s(Comm("x", sync.kind, (), sync.bytes), sync.groups, machine).seconds
                for sync in (*program.end[3].reduce, *program.end[3].gather)
            ]
            messages = message_times(program, lower(program).message_pairs, machine).times.seconds
        found.append([*(part.tolist() for part in parts), messages.tolist()])
    assert found[0] == found[1]


def test_the_norm_of_a_step_takes_what_the_command_gives(v3):
    _, program, network, machine = v3
    norm = program.end[0].norm
    (run,) = run_groups("all_reduce", NORM.size_bytes, norm, network, machine.library)
    assert comm_s(NORM, norm, machine).seconds == pytest.approx([run.time_s], rel=1e-9)


def test_messages_of_a_step_take_what_the_command_gives(v3):
    """All pipelines at once, from some pipeline ranks to the next."""
    _, program, network, machine = v3
    times = message_times(program, lower(program).message_pairs, machine)
    seconds = times.between(times.times.seconds)
    gpus = program.placement.pipelines.T
    for low, high in ((0, 1), (3, 4), (14, 15)):
        pairs = np.stack([gpus[low], gpus[high]], axis=1)
        runs = run_groups("send_recv", program.message.size_bytes, pairs, network, machine.library)
        expected = [run.time_s for run in runs]
        assert seconds[low, high] == pytest.approx(expected, rel=1e-9)
        assert seconds[high, low] == pytest.approx(expected, rel=1e-9)


def test_exchanges_of_a_step_take_what_the_command_gives(v3):
    experiment, program, _, machine = v3
    comms = {each.comm for part in program.parts for each in part.segments if each.comm is not None}
    assert {comm.kind for comm in comms} == {"dispatch", "combine"}
    for comm in comms:
        matrix = expected_matrix(program.routing[0], comm.tokens, program.top_k)
        where = experiment.cluster, machine.library, machine.sms
        run = normal_exchange(comm.kind, matrix, comm.size_bytes, *where)
        times = comm_s(comm, np.arange(64)[None], machine)
        assert times.seconds == pytest.approx([run.time_s], rel=1e-9)


# Steps whose network is not that of ports alone


CAUSES = [
    ("h800-2048-mpft", ["plane:3"]),
    ("h800-2048-mpft", ["node:2=0.5"]),
    ("h800-2048-mpft", ["leaf:0.0=0.3", "nic:7.7"]),
    ("h800-2048-ft2", ["nic:1.2=0.5", "nic:3.1"]),
    ("h800-2048-ft2", ["leaf:0.0=0.3"]),
    ("h800-2048-ft2", []),
]
SMALL_PLAN = {"pp": 4, "ep": 8, "schedule": "1f1b"}


@given(
    st.sampled_from(CAUSES),
    st.sampled_from(["static", "ecmp", "adaptive"]),
    st.sampled_from([1.0, 4.0]),
    st.booleans(),
    st.integers(0, 5),
)
@settings(max_examples=15)
def test_a_step_takes_what_the_command_gives_on_its_network(cause, routing, ratio, tied, seed):
    """Rings, tables that stages share, messages and the norm, whatever slows them."""
    name, faults = cause
    experiment = Experiment.load("deepseek-v3-pretrain").with_overrides(
        {
            "cluster": name,
            "cluster.nodes": 8,
            "cluster.faults": faults,
            "cluster.fabric.switch_radix": 64 if name.endswith("ft2") else 8,
            "cluster.fabric.oversubscription": ratio,
            "cluster.node.chip.hbm_capacity_bytes": "2 TB",
            "communication.routing": routing,
            "model.tied_embedding": tied,
            "plan": SMALL_PLAN,
            "batch.sequences": 160,
            "ranks.seed": seed,
        }
    )
    point, network = point_of(experiment), paths_of(experiment).network
    program, library = point.lowered.program, experiment.profile.communication
    machine = Machine.on(network, library)

    def taken_s(comm, groups):
        """Return what the function gives, which the command gives too."""
        kind = "send_recv" if comm.kind == "send" else comm.kind
        runs = run_groups(kind, comm.size_bytes, groups, network, library)
        found = comm_s(comm, groups, machine).seconds
        assert found == pytest.approx([run.time_s for run in runs], rel=1e-9)
        return found

    checked = 0
    for rank, step in enumerate(program.end):
        for syncs, rings in ((step.reduce, point.end.reduce), (step.gather, point.end.gather)):
            for number, sync in enumerate(syncs):
                if not sync.bytes:
                    assert rings.seconds[number, rank] == 0
                    continue
                slowest_s = taken_s(Comm("x", sync.kind, (), sync.bytes), sync.groups).max()
                assert rings.seconds[number, rank] == pytest.approx(slowest_s, rel=1e-9)
                checked += 1
    assert checked >= 4 * len(program.end)
    norm_s = taken_s(NORM, program.end[0].norm)
    assert point.end.norm_s == pytest.approx(norm_s, rel=1e-9)
    gpus = program.placement.pipelines.T
    between_s = point.messages.between(point.messages.times.seconds)
    for low, high in ((0, 1), (1, 2), (2, 3)):
        message_s = taken_s(program.message, np.stack([gpus[low], gpus[high]], axis=1))
        assert between_s[low, high] == pytest.approx(message_s, rel=1e-9)


@given(
    st.sampled_from(["static", "ecmp", "adaptive"]),
    st.sampled_from([(), ("plane:3",), ("nic:1.2=0.5", "nic:3.1")]),
    groups(),
    st.sampled_from(KINDS),
)
@settings(max_examples=30)
def test_what_the_command_tells_beside_its_seconds_is_of_the_same_plan(routing, faults, gpus, kind):
    """By the algorithm that it names all take as long; on whole links so do its parts."""
    network = Network.of(cluster(nodes=64, faults=list(faults)), routing, 3)
    runs = run_groups(kind, 1e8, gpus, network)
    named = comm_s(asked(kind, 1e8), gpus, Machine.on(network), algorithm=runs[0].algorithm)
    if not faults:
        assert named.seconds.max() == pytest.approx(max(run.time_s for run in runs), rel=1e-9)
    assert max(run.time_s for run in runs) >= named.seconds.max() * (1 - 1e-9)
    busiest_s = (runs[0].link_bytes / network.bytes_per_s.clip(1e-300)).max()
    assert max(run.time_s for run in runs) >= busiest_s * (1 - 1e-9)
    assert all(run.time_s == pytest.approx(run.fixed_s + run.wire_s, rel=1e-12) for run in runs)


def test_groups_of_different_sizes_take_what_each_takes_alone():
    """Smaller groups are as they are alone, where they meet nobody."""
    network = Network.of(cluster(nodes=8), "adaptive")
    runs = run_groups("all_gather", 1e9, [range(8), range(8, 24)], network, None, "ring")
    for run, gpus in zip(runs, (np.arange(8), np.arange(8, 24)), strict=True):
        alone = comm_s(asked("all_gather", 1e9), gpus[None], Machine.on(network), algorithm="ring")
        assert run.time_s == pytest.approx(float(alone.seconds[0]), rel=1e-9)
    filled = np.full((2, 16), ABSENT)
    filled[0, :8], filled[1] = np.arange(8), np.arange(8, 24)
    for machine in (Machine.on(network), Machine.of_ports(network.cluster)):
        found = comm_s(asked("all_gather", 1e9), filled, machine, algorithm="ring").seconds
        assert found == pytest.approx([run.time_s for run in runs], rel=1e-9)
