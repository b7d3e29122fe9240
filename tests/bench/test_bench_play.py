"""How fast the engines play: one pipeline of DeepSeek-V3's size, 128 of them in groups of 64, and
64 ranks that share links.

Counts and makespans are asserted, times never.
"""

import numpy as np
import pytest

from simulator.engines import array, reference
from simulator.engines.graph import GraphBuilder, TaskGraph
from simulator.engines.loops import compiled

pytestmark = pytest.mark.bench

STAGES, MICROBATCHES, LAYERS = 16, 120, 4
REPLICAS, GROUP = 128, 64
COMPUTE, COMM, SEND = range(3)
LAYER = [COMPUTE, COMPUTE, COMM, COMPUTE, COMM, COMPUTE] * 2  # twelve ops, four of them exchanges
TASKS = STAGES * MICROBATCHES * 2 * LAYERS * len(LAYER)
OP_S = {"F": 1e-4, "B": 2e-4}
MAKESPAN_S = (MICROBATCHES + STAGES - 1) * LAYERS * len(LAYER) * sum(OP_S.values())
"""Of 1F1B: every stage is busy but for a ramp of one forward and backward a stage."""


def one_f_one_b(stage):
    """Chunks of one stage in program order, as (direction, micro-batch)."""
    ahead = min(STAGES - stage, MICROBATCHES)
    program = [("F", m) for m in range(ahead)]
    for m in range(MICROBATCHES):
        program.append(("B", m))
        if m + ahead < MICROBATCHES:
            program.append(("F", m + ahead))
    return program


def pipeline_graph():
    """1F1B of 16 stages, 120 micro-batches, 4 layers of 12 ops, each op after the one before it.

    Every exchange is a collective of its own: alone in one replica, it meets those of others.
    """
    chunks = [(stage, *chunk) for stage in range(STAGES) for chunk in one_f_one_b(stage)]
    number = {chunk: index for index, chunk in enumerate(chunks)}
    size = LAYERS * len(LAYER)
    home = np.full(len(chunks), -1)  # last task of the chunk that each chunk waits for
    for index, (stage, direction, m) in enumerate(chunks):
        if direction == "F":
            source = (stage - 1, "F", m)
        else:
            source = (stage + 1, "B", m) if stage + 1 < STAGES else (stage, "F", m)
        home[index] = number.get(source, -1) * size + size - 1 if source in number else -1
    task = np.arange(TASKS)
    before = np.where(task % size == 0, np.repeat(home, size), task - 1)
    stage, direction = (np.repeat(np.array([c[i] for c in chunks]), size) for i in range(2))
    op = np.tile(np.array(LAYER), TASKS // len(LAYER))
    return TaskGraph(
        stream=stage * 3 + op,
        duration_s=np.where(direction == "F", OP_S["F"], OP_S["B"]),
        dependency_start=np.concatenate(([0], np.cumsum(before >= 0))),
        dependency=before[before >= 0],
        collective=np.where(op == COMM, task, -1),
        label=np.zeros(TASKS, dtype=np.int64),
        streams=tuple(
            f"rank {s}/{name}" for s in range(STAGES) for name in ("compute", "comm", "send")
        ),
        labels=("op",),
    )


RANKS, RANKS_A_NIC, NIC_BYTES_PER_S = 64, 8, 50e9
READY_S = 1e-6
"""One op; the first bytes move after it, and from then on the links stay full."""


def links_graph(rounds, spine):
    """Ranks that compute and send, sizes at random, over a NIC for eight and perhaps one spine."""
    moved_bytes = np.random.default_rng(1).uniform(0.5e6, 1.5e6, (RANKS, rounds))
    builder = GraphBuilder()
    for rank in range(RANKS):
        links = [builder.link(f"nic {rank // RANKS_A_NIC}", NIC_BYTES_PER_S)]
        if spine:
            links.append(builder.link("spine", NIC_BYTES_PER_S))
        for k in range(rounds):
            op = builder.add(f"rank {rank}/compute", "op", READY_S)
            size = float(moved_bytes[rank, k])
            builder.add(f"rank {rank}/send", "send", after=(op,), moved_bytes=size, links=links)
    return builder.build(), moved_bytes


def links_makespan_s(moved_bytes, spine):
    """Of links that are full until their last byte: the NIC with most to carry, or the spine."""
    carried = moved_bytes.reshape(-1, RANKS_A_NIC, moved_bytes.shape[1]).sum(axis=(1, 2))
    return READY_S + (carried.sum() if spine else carried.max()) / NIC_BYTES_PER_S


@pytest.fixture(scope="module")
def graph():
    return pipeline_graph()


def timed(table, engine, replicas, repeats, play):
    """Add the fastest of some plays to the table and return what the last one gave."""

    def count(played):
        tasks, transfers = len(played.graph), played.graph.transfers
        moving = 0 if transfers is None else int(transfers.moves.sum())
        return tasks, replicas, tasks * replicas + moving

    return table.timed(engine, play, count, repeats)


def test_one_pipeline_in_the_array_engine(graph, table):
    array.play(graph)  # compile, or read from disk
    fresh = pipeline_graph()
    assert len(fresh) == TASKS == 184_320
    first = timed(table, "array, with its order", 1, 1, lambda: array.play(fresh))
    again = timed(table, "array", 1, 5, lambda: array.play(fresh))
    assert first.makespan_s == again.makespan_s == pytest.approx(MAKESPAN_S, rel=1e-12)


@pytest.mark.parametrize(
    "keep", [pytest.param(np.zeros(0, np.int64), id="summary"), pytest.param(None, id="all")]
)
def test_all_ranks_in_the_array_engine(graph, table, keep):
    """128 replicas, exchanges meeting in groups of 64; one GPU of each group is 5 % slow, and the
    others gain on it only after the last exchange.
    """
    slowness = np.where(np.arange(REPLICAS) % GROUP == 0, 1.05, 1.0).astype(np.float32)
    seconds = graph.duration_s.astype(np.float32)[:, None] * slowness
    array.play_replicas(graph, seconds[:, :GROUP], GROUP, keep)
    played = timed(
        table,
        f"array, groups of {GROUP}, {'all' if keep is None else 'summary'}",
        REPLICAS,
        3,
        lambda: array.play_replicas(graph, seconds, GROUP, keep),
    )
    assert played.makespan_s.max() == pytest.approx(1.05 * MAKESPAN_S, rel=1e-6)
    assert played.makespan_s.min() == pytest.approx(1.05 * MAKESPAN_S, rel=1e-4)
    busy_s = played.busy_s.sum(axis=0)
    assert busy_s == pytest.approx(seconds.sum(axis=0, dtype=np.float64), rel=1e-9)
    assert played.end_s.shape == (TASKS if keep is None else 0, REPLICAS)
    assert table.rows[-1]["peak_bytes"] < 1e9


def test_one_pipeline_in_the_reference_engine(graph, table):
    played = timed(table, "reference", 1, 1, lambda: reference.play(graph))
    assert played.makespan_s == pytest.approx(MAKESPAN_S, rel=1e-12)


@pytest.mark.parametrize(("spine", "meeting"), [(False, 8), (True, 64)])
def test_shared_links_in_the_array_engine(table, spine, meeting):
    """64,000 transfers, each sharing its rate with 7 or 63 others at any time."""
    array.play(links_graph(1, spine)[0], compiled())
    graph, moved_bytes = links_graph(1000, spine)
    played = timed(table, f"array, {meeting} transfers meeting", 1, 2, lambda: array.play(graph))
    assert (table.rows[-1]["tasks"], table.rows[-1]["events"]) == (128_000, 192_000)
    assert played.makespan_s == pytest.approx(links_makespan_s(moved_bytes, spine), rel=1e-9)
    assert table.rows[-1]["peak_bytes"] < 1e9


@pytest.mark.parametrize(("spine", "meeting"), [(False, 8), (True, 64)])
def test_shared_links_in_the_reference_engine(table, spine, meeting):
    graph, moved_bytes = links_graph(30, spine)
    name = f"reference, {meeting} transfers meeting"
    played = timed(table, name, 1, 1, lambda: reference.play(graph))
    assert (table.rows[-1]["tasks"], table.rows[-1]["events"]) == (3_840, 5_760)
    assert played.makespan_s == pytest.approx(links_makespan_s(moved_bytes, spine), rel=1e-9)
