"""How fast collectives are planned and played on networks: 2,048 GPUs, 32 groups at once.

What crosses links is asserted, times never. A warm run has its plan; its flows are played anew.
"""

from itertools import pairwise

import numpy as np
import pytest

from hwmodels.cluster import CLUSTERS
from simulator import Experiment
from simulator.driver.program import program_of
from simulator.lower.lowered import lower
from simulator.network.alike import MOMENTS
from simulator.network.collectives.plan import PLANS
from simulator.network.exchange_pricer import ExchangePricer
from simulator.network.links import WIRINGS, Network
from simulator.network.machine import Machine
from simulator.network.placement import place
from simulator.network.run import run_collective, run_groups
from simulator.network.timing import PLAYED
from simulator.price.kernels import KernelPricer
from simulator.price.messages import message_times
from tests.prices import optimizer_seconds

pytestmark = pytest.mark.bench

GIB = 2.0**30


@pytest.fixture(scope="module")
def network():
    return Network.of(CLUSTERS.load("h800-2048-mpft"))


@pytest.fixture(scope="module", autouse=True)
def warm(network):
    """Machine code and imports are there before anything is timed."""
    run_groups("all_to_all", 1e6, place(network.cluster, 16, 8, "random"), network)


def played_anew(play):
    def run():
        PLAYED.forget()
        return play()

    return run


def count(rows):
    """Rows of flows, groups, and flows that end."""
    return lambda runs: (rows, len(runs), rows)


def test_2048_gpus_in_one_all_to_all(table, network):
    """256 nodes x 2,040 GPUs elsewhere between nodes; 8 x 7 pairs on each inside."""
    gpus = place(network.cluster, 2048)[0]
    rows = 256 * 2040 + 256 * 56

    def play():
        return [run_collective("all_to_all", GIB, gpus, network, algorithm="one-shot")]

    def planned():
        PLANS.forget()
        PLAYED.forget()
        return play()

    table.timed("2,048 GPUs all-to-all, plan new", planned, count(rows), repeats=3)
    runs = table.timed(
        "2,048 GPUs all-to-all, plan kept", played_anew(play), count(rows), repeats=7
    )
    kept = table.timed("2,048 GPUs all-to-all, flows kept", play, count(rows), repeats=7)
    assert kept[0].time_s == runs[0].time_s
    assert runs[0].wire_s == pytest.approx(GIB * 255 / 256 / 50e9, rel=1e-9)
    nics = runs[0].link_bytes[2 * 2048 : 4 * 2048]
    assert nics == pytest.approx(GIB * 255 / 256, rel=1e-9)


@pytest.mark.parametrize("how", ["packed", "random"])
@pytest.mark.parametrize("algorithm", ["one-shot", "auto"])
def test_32_groups_of_64_in_all_to_all(table, network, how, algorithm):
    """Bytes between nodes are those of all pairs on different nodes, group by group."""
    groups = place(network.cluster, 64, 32, how)
    node = groups // 8
    pairs = np.sum(node[:, :, None] != node[:, None, :])
    rows = sum((np.unique(own).size - 1) * 64 for own in node)

    def play():
        return run_groups("all_to_all", GIB, groups, network, None, algorithm)

    play()
    name = f"32 {how} EP64 groups, {algorithm}"
    runs = table.timed(name, played_anew(play), count(rows), repeats=3)
    assert len(runs) == 32
    nics = runs[0].link_bytes[2 * 2048 : 3 * 2048]
    assert nics.sum() == pytest.approx(pairs * GIB / 64, rel=1e-9)


def test_all_communication_of_a_step(table):
    """Gradients, their norm, messages and exchanges of DeepSeek-V3's step: at other rates of its
    links each time, and the first time.
    """
    experiment = Experiment.load("deepseek-v3-pretrain")
    program = program_of(experiment)
    pairs, library = lower(program).message_pairs, experiment.profile.communication
    chip = experiment.cluster.node.chip
    whole_chip, ops = KernelPricer(chip, experiment.profile, chip.sms), lower(program).end_ops
    nvlink = "cluster.node.chip.nvlink_bytes_per_s"
    clusters = [experiment.with_numbers({nvlink: 1e11 + 1e9 * n}).cluster for n in range(20)]

    def price(clusters):
        times = []
        for each in clusters:
            machine = Machine.of_ports(each, library, 20, program.routing)
            end = optimizer_seconds(program.end, ops, whole_chip, machine)
            ExchangePricer.of(machine)
            times.append((end.seconds(), message_times(program, pairs, machine).times.seconds))
        return times

    def first():
        for kept in (WIRINGS, MOMENTS, PLANS, PLAYED):
            kept.forget()
        return price(clusters[:1])

    def priced(times):
        return sum(len(program.end) for _ in times), 1, len(times)

    table.timed("communication of a step, first", first, priced, repeats=3)
    found = table.timed("20 steps at other rates", lambda: price(clusters), priced, repeats=7)
    assert all((slow > fast).all() for (slow, _), (fast, _) in pairwise(found))
