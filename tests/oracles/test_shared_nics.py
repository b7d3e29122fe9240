"""Traffic that meets on NICs, against arithmetic: nothing met, one meeting, bytes, both engines."""

from dataclasses import replace

import numpy as np
import pytest

from simulator.driver.step import play
from simulator.engines import array, reference
from simulator.lower.folded_pipeline import of_mean_rank, timeline_of
from simulator.lower.nic_crossings import EXCHANGE, MESSAGE, RING, TRAFFIC
from simulator.lower.pipeline import rank_times
from simulator.lower.shared_nics import nic_graph, on_shared_nics, slowest_ranks
from simulator.network.machine import Machine
from simulator.price.kernels import KernelPricer
from simulator.price.messages import message_times
from simulator.price.optimizer import OptimizerSeconds, RingSeconds
from tests.prices import optimizer_seconds
from workloads.schedules import SCHEDULES

ROOM = ("cluster.node.chip.hbm_capacity_bytes", "2 TB")
TWO_NODES = ("plan.ep", 16)
SLOW_NICS = ("cluster.node.nic.link_bytes_per_s", "100 Gb/s")
"""Exchanges between nodes are bound by them; at 400 Gb/s NVLink binds those of two nodes."""
ONE_NODE = np.arange(8)[None]
CHAIN = (
    ("plan.pp", 2),
    ("plan.schedule", "1f1b"),
    ("cluster.nodes", 4),
    ("batch.sequences", 16 * 2),
    ("model.mtp_layers", 0),
)
"""Two pipeline ranks that have no table in common, two micro-batches."""


@pytest.fixture(scope="module")
def played(small_experiment):
    """The parts of a folded run: what `on_shared_nics` takes after the message's bytes."""

    def make(*changes):
        run = play(small_experiment(ROOM, TWO_NODES, SLOW_NICS, *changes))
        chip = run.experiment.cluster.node.chip
        optimizer = optimizer_seconds(
            run.program.end,
            run.lowered.end_ops,
            KernelPricer(chip, run.experiment.profile, chip.sms),
            machine_of(run),
        )
        return run, optimizer

    return make


def machine_of(run):
    return Machine.of_ports(run.experiment.cluster, run.experiment.profile.communication)


def messages(run, size_bytes):
    """Messages of another size."""
    message = replace(run.program.message, size_bytes=size_bytes)
    program = replace(run.program, message=message)
    return message_times(program, run.lowered.message_pairs, machine_of(run))


def of_messages(run):
    """Latency of a message between nodes, and bytes/s of its NIC."""
    times = messages(run, 1e9).times
    return float(times.latency_s.max()), 1e9 / float(times.nic_s.max())


def separate(run, optimizer, message_bytes, engine=array):
    """The same pipeline with a NIC for each kind of traffic."""
    of_messages = run.pipeline.links.of_messages
    times = messages(run, message_bytes)
    message = of_messages(times.slowest(times.times.seconds))
    folded, pipeline = run.folded, run.pipeline
    steps_s = folded.steps_s + folded.lag_s
    played = engine.play(pipeline.timed(steps_s, message, optimizer.seconds()))
    spans = of_mean_rank(pipeline.graph, played.start_s, played.end_s, folded.lag_s)
    return timeline_of(pipeline.graph, spans)


def shared(run, optimizer, message_bytes, engine=array):
    nics = on_shared_nics(run.folded, run.pricer, messages(run, message_bytes), optimizer)
    return nics.played(run.folded, engine.play(nics.graph))


def flat_optimizer(run, ring_s, nic_s, kernels_s=0.0):
    """One ring before the kernels and none after, alike on all ranks."""
    pp = run.experiment.plan.pp
    rings = [np.full((2, pp), value / 2) for value in (0.0, nic_s, ring_s)]
    names = ("reduce a", "reduce b")
    nothing = RingSeconds(*np.zeros((3, 2, pp)), names=("gather a", "gather b"))
    return OptimizerSeconds(RingSeconds(*rings, names=names), np.full(pp, kernels_s), nothing)


# Nothing to meet


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("sigma", [0.0, 0.2])
def test_without_messages_every_step_is_where_it_is_on_separate_nics(played, schedule, sigma):
    run, optimizer = played(("plan.schedule", schedule), ("ranks.expert_load.sigma", sigma))
    expected, found = separate(run, optimizer, 0.0), shared(run, optimizer, 0.0)
    for column in ("start_s", "end_s"):
        assert getattr(found.record.steps, column) == pytest.approx(
            getattr(expected, column), rel=1e-9
        )
    assert found.delay_s == pytest.approx(0.0, abs=1e-9 * expected.makespan_s)


def test_messages_that_are_alone_on_their_nics_take_what_they_take(played):
    """Expert groups in one node, rings that need no NIC, one micro-batch: a chain of chunks and
    messages, one at a time.
    """
    alone = ("batch.sequences", 16), ("model.mtp_layers", 0)
    run, _ = played(("plan.ep", 8), ("plan.schedule", "1f1b"), *alone)
    optimizer, size = flat_optimizer(run, 0.1, 0.0), run.program.message.size_bytes
    assert run.program.microbatches == 1
    expected, found = separate(run, optimizer, size), shared(run, optimizer, size)
    assert found.record.steps.end_s == pytest.approx(expected.end_s, rel=1e-9)
    moves = found.record.segments.graph.transfers.moves
    assert moves[found.nics.crossings.traffic == MESSAGE].all()
    assert not moves[found.nics.crossings.traffic != MESSAGE].any()


def test_the_slowest_rank_alone_takes_as_long_as_the_chunk(played):
    run, _ = played(("ranks.expert_load.sigma", 0.3))
    alone = slowest_ranks(run.folded, run.pricer)
    first = 0
    for key in run.lowered.keys:
        graph, chunk = run.lowered.parts[key].graph.graph, run.parts[key]
        own = slice(first, first + len(graph))
        first += len(graph)
        replay = array.play_replicas(graph, alone.seconds[own])
        assert replay.makespan_s == pytest.approx(chunk.duration_s, rel=1e-12)
        assert (alone.wait_s[own] + alone.moving_s[own] <= alone.seconds[own] + 1e-12).all()
        assert (alone.nic_s[own] <= alone.moving_s[own] * (1 + 1e-12)).all()
    assert first == len(alone.seconds)
    assert alone.wait_s.any()


# One meeting


def test_a_message_and_an_exchange_that_meet_each_get_half_of_the_nic(played):
    """Rank 0 sends its first chunk's result while it computes the second one. The message is as
    long as it takes to have a quarter of the exchange's time left when the first exchange moves.
    Until it is over both move at half speed: each ends that quarter later than alone.
    """
    run, _ = played(*CHAIN)
    optimizer = flat_optimizer(run, 0.0, 0.0)
    latency_s, nic_rate = of_messages(run)
    nics = nic_graph(run.lowered)
    expansion = nics.expansion
    alone = shared(run, optimizer, 0.0)
    second = expansion.begin[1]
    exchange = second + 1 + int(np.argmax(nics.crossings.traffic[second + 1 :] == EXCHANGE))
    nic_s = alone.alone.nic_s[exchange]
    start_s = alone.record.segments.end_s[second]
    moves_s = alone.record.segments.end_s[exchange] - nic_s
    message_nic_s = moves_s - start_s - latency_s + nic_s / 4
    assert nic_s > 0
    assert message_nic_s > nic_s / 4

    found = shared(run, optimizer, message_nic_s * nic_rate)
    message = expansion.message[0]
    end_s = found.record.segments.end_s
    assert end_s[message] == pytest.approx(moves_s + nic_s / 2, rel=1e-9)
    assert end_s[exchange] == pytest.approx(moves_s + nic_s + nic_s / 4, rel=1e-9)
    assert found.delay_s[[message, exchange]] == pytest.approx([nic_s / 4] * 2, rel=1e-6)
    first_of_rank_1 = expansion.begin[run.pipeline.links.first[1]]
    assert end_s[first_of_rank_1] == end_s[message]


def test_what_an_exchange_leaves_of_its_nic_is_for_the_message(played):
    """At 400 Gb/s NVLink binds: an exchange that needs a share s < 1/2 of its NIC keeps its pace,
    and what is left of the message takes 1 / (1 - s) of its time.
    """
    run, _ = played(*CHAIN, ("cluster.node.nic.link_bytes_per_s", "400 Gb/s"))
    optimizer, (latency_s, nic_rate) = flat_optimizer(run, 0.0, 0.0), of_messages(run)
    alone = shared(run, optimizer, 0.0)
    traffic, expansion = alone.nics.crossings.traffic, alone.nics.expansion
    exchange = (
        expansion.begin[1] + 1 + int(np.argmax(traffic[expansion.begin[1] + 1 :] == EXCHANGE))
    )
    moving_s, nic_s = alone.alone.moving_s[exchange], alone.alone.nic_s[exchange]
    ends_s, starts_s = alone.record.segments.end_s[[exchange, expansion.begin[1]]]
    share, left_s = nic_s / moving_s, moving_s / 4
    assert 0.1 < share < 0.5
    message_nic_s = ends_s - moving_s - starts_s - latency_s + left_s

    end_s = shared(run, optimizer, message_nic_s * nic_rate).record.segments.end_s
    assert end_s[exchange] == pytest.approx(ends_s, rel=1e-12)
    late_s = ends_s - moving_s + left_s / (1 - share)
    assert end_s[expansion.message[0]] == pytest.approx(late_s, rel=1e-9)


def test_a_ring_meets_the_last_message(played):
    """The last rank of 1F1B sends its last gradient and begins to reduce: of a ring that needs its
    NIC for the first second on, a message of half a second gets half, and both lose half a second.
    """
    run, _ = played(*CHAIN)
    latency_s, nic_rate = of_messages(run)
    size = 0.5 * nic_rate
    ring_s = 4.0
    found = shared(run, flat_optimizer(run, ring_s, ring_s), size)
    nics, end_s = found.nics, found.record.segments.end_s
    last_step_s = end_s[nics.expansion.end[-1]]
    message = nics.expansion.message[-1]
    assert run.pipeline.links.rank[run.pipeline.links.sender[-1]] == 1
    assert found.record.segments.start_s[message] == pytest.approx(last_step_s, rel=1e-12)
    assert end_s[message] == pytest.approx(last_step_s + latency_s + 1.0, rel=1e-9)
    done_s = found.record.steps.end_s[-1]
    assert done_s == pytest.approx(last_step_s + ring_s + 0.5, rel=1e-9)
    rings = nics.optimizer[[0, 1], 1]
    assert found.delay_s[rings] == pytest.approx([0.5, 0.0], abs=1e-9)


def test_ranks_that_hold_the_same_stages_begin_to_reduce_together(played):
    """DualPipe: rank r and rank pp - 1 - r."""
    run, optimizer = played(("plan.schedule", "dualpipe"))
    found = shared(run, optimizer, run.program.message.size_bytes)
    start_s = found.record.segments.start_s[found.nics.optimizer[0]]
    end_s = found.record.segments.end_s[found.nics.expansion.end]
    last_s = end_s[np.array(run.pipeline.links.first[1:]) - 1]
    assert start_s == pytest.approx(np.maximum(last_s, last_s[::-1]), rel=1e-12)


# Laws


@pytest.fixture(scope="module", params=SCHEDULES)
def crowded(request, played):
    """A run whose messages are ten times as long, and its play on shared NICs."""
    run, optimizer = played(("plan.schedule", request.param), ("ranks.expert_load.sigma", 0.2))
    size = 10 * run.program.message.size_bytes
    return run, optimizer, size, shared(run, optimizer, size)


def test_both_engines_agree(crowded):
    run, optimizer, size, found = crowded
    other = shared(run, optimizer, size, reference)
    for column in ("ready_s", "start_s", "end_s"):
        assert getattr(found.record.segments, column) == pytest.approx(
            getattr(other.record.segments, column), rel=1e-9
        )


def test_each_nic_moves_what_its_rank_sends_and_gets(crowded):
    """Seconds of a NIC times its rate; both directions of an exchange, one of a message."""
    run, optimizer, size, found = crowded
    (_, nic_rate), links = of_messages(run), run.pipeline.links
    transfers = found.record.segments.graph.transfers
    pp = len(run.pipeline.program)
    moved = np.repeat(transfers.moved_bytes, np.diff(transfers.link_start))
    found_bytes = np.bincount(transfers.link, moved)[: 2 * pp].reshape(pp, 2)
    parts = slowest_ranks(run.folded, run.pricer)
    steps = run.folded.draw.of_step, run.lowered.part_of_step
    sizes = [len(run.lowered.parts[key].graph.segments) for key in run.lowered.keys]
    first = np.concatenate(([0], np.cumsum(sizes)))
    per_chunk = np.add.reduceat(parts.nic_s, first[:-1], axis=0)  # (keys, draws)
    exchange = np.bincount(links.rank, per_chunk[steps[1], steps[0]], pp)
    ring = optimizer.reduce.nic_s.sum(axis=0) + optimizer.gather.nic_s.sum(axis=0)
    sent, got = (
        np.bincount(ends, minlength=pp) * size
        for ends in (links.rank[links.sender], links.receiver)
    )
    found_s = found_bytes / 1e9  # counted in seconds of NICs of 1 GB/s
    assert found_s[:, 0] == pytest.approx(exchange + ring + sent / nic_rate, rel=1e-9)
    assert found_s[:, 1] == pytest.approx(exchange + ring + got / nic_rate, rel=1e-9)


def test_no_nic_moves_more_than_its_rate_allows_while_anything_moves(crowded):
    *_, found = crowded
    timeline = found.record.segments
    transfers = timeline.graph.transfers
    starts_s = timeline.graph.duration_s + timeline.start_s - found.alone.wait_s
    task = np.repeat(np.arange(len(timeline.graph)), np.diff(transfers.link_start))
    for link in range(len(transfers.links)):
        own = task[transfers.link == link]
        spans = sorted(zip(starts_s[own].tolist(), timeline.end_s[own].tolist(), strict=True))
        covered_s, until_s = 0.0, 0.0
        for start_s, end_s in spans:
            covered_s += max(0.0, end_s - max(start_s, until_s))
            until_s = max(until_s, end_s)
        assert found.alone.nic_s[own].sum() <= covered_s * (1 + 1e-9)


def test_nothing_is_sped_up_by_meeting(crowded):
    """No task; and, though no theorem, no step of these."""
    run, optimizer, size, found = crowded
    step_s = found.record.steps.makespan_s
    assert (found.delay_s >= -1e-9 * step_s).all()
    delays = found.by_traffic(found.delay_s)
    assert delays.shape == (len(TRAFFIC), run.experiment.plan.pp)
    assert (delays[[EXCHANGE, MESSAGE]].sum(axis=1) > 0).all()
    assert step_s >= separate(run, optimizer, size).makespan_s


def test_phases_of_the_shared_play_sum_to_the_step(crowded):
    run, *_, found = crowded
    times = rank_times(run.pipeline, found.record.steps)
    assert sum(times.phases.values()) == pytest.approx(
        np.full(run.experiment.plan.pp, times.step_s), rel=1e-12
    )
    assert all((seconds >= 0).all() for seconds in times.phases.values())


def test_the_nic_part_of_a_balanced_exchange_is_its_bytes_over_the_rate(played):
    """Exposed exchanges of a forward chunk, GPUs alike: nothing waits, nothing slows it down."""
    run, _ = played(("plan.schedule", "1f1b"), ("ranks.expert_load.sigma", 0.0))
    alone = slowest_ranks(run.folded, run.pricer)
    rates, (routing,) = run.pricer.exchanges.rates, run.program.routing
    key = next(key for key in run.lowered.keys if key[0] == "F")
    chunk = run.lowered.parts[key]
    sizes = [len(run.lowered.parts[other].graph.segments) for other in run.lowered.keys]
    first = sum(sizes[: run.lowered.keys.index(key)])
    checked = 0
    for task, segment in enumerate(chunk.graph.segments):
        comm = segment.comm
        if comm is None:
            assert alone.nic_s[first + task, 0] == 0
            continue
        rate = rates.ports[comm.kind, routing.nodes].nic_bytes_per_s
        nic_s = comm.token_bytes * routing.remote_nodes_per_token / rate
        assert alone.nic_s[first + task, 0] == pytest.approx(nic_s, rel=1e-12)
        checked += 1
    assert checked


def test_rings_inside_a_node_leave_nics_alone(played):
    run, optimizer = played()
    assert (optimizer.reduce.nic_s <= optimizer.reduce.seconds).all()
    assert optimizer.reduce.nic_s.any()
    inside = optimizer_seconds(
        tuple(
            replace(step, reduce=tuple(replace(sync, groups=ONE_NODE) for sync in step.reduce))
            for step in run.program.end
        ),
        run.lowered.end_ops,
        KernelPricer(run.experiment.cluster.node.chip, run.experiment.profile, 132),
        machine_of(run),
    )
    assert not inside.reduce.nic_s.any()
    assert (inside.gather.nic_s == optimizer.gather.nic_s).all()


def test_rings_are_told_apart_from_other_traffic(played):
    run, _ = played()
    nics = nic_graph(run.lowered)
    assert (nics.crossings.traffic[nics.optimizer] == RING).sum() == 4 * run.experiment.plan.pp
    assert (nics.crossings.traffic[nics.expansion.message] == MESSAGE).all()
    assert (
        np.diff(nics.crossings.links.link_start)[expected := nics.crossings.traffic == MESSAGE] == 2
    ).all()
    assert (
        np.diff(nics.crossings.links.link_start)[(nics.crossings.traffic >= 0) & ~expected] == 3
    ).all()
    assert not np.diff(nics.crossings.links.link_start)[nics.crossings.traffic < 0].any()


def test_traffic_crosses_the_nics_of_who_sends_and_who_gets_it(played):
    run, optimizer = played()
    found, links = shared(run, optimizer, 1e6), run.pipeline.links
    transfers, expansion = found.record.segments.graph.transfers, found.nics.expansion

    def crossed(task):
        return [transfers.links[link] for link in transfers.links_of(task)[:2]]

    for number, task in enumerate(expansion.message.tolist()):
        sender, receiver = links.rank[links.sender[number]], links.receiver[number]
        assert sender != receiver
        assert crossed(task) == [f"rank {sender}/nic out", f"rank {receiver}/nic in"]
    for task in np.flatnonzero(
        found.nics.crossings.traffic[: len(expansion.rank)] == EXCHANGE
    ).tolist():
        rank = expansion.rank[task]
        assert crossed(task) == [f"rank {rank}/nic out", f"rank {rank}/nic in"]
    for rank in range(run.experiment.plan.pp):
        own = [crossed(task) for task in found.nics.optimizer[[0, 1, 3, 4], rank].tolist()]
        assert own == [[f"rank {rank}/nic out", f"rank {rank}/nic in"]] * 4
