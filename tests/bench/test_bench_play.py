"""How fast the engines play: one pipeline of DeepSeek-V3's size, and 128 of them in groups of 64.

Prints a table, and writes it as JSON to the file that MOESIM_BENCH_JSON names. Counts and
makespans are asserted, times never.
"""

import contextlib
import json
import os
import resource
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from simulator.play import array, reference
from simulator.play.graph import TaskGraph

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


def forget_peak():
    """Let the peak begin anew, where Linux allows it."""
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")


def peak_bytes():
    """Most memory this process held since its peak was forgotten."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


@pytest.fixture(scope="module")
def graph():
    return pipeline_graph()


@pytest.fixture(scope="module")
def table():
    """Rows of engine, tasks, replicas, seconds, tasks a second and peak memory; printed last."""
    rows = []
    yield rows
    sys.stdout.write("\n" + "\n".join(table_lines(rows)) + "\n")
    if "MOESIM_BENCH_JSON" in os.environ:
        text = json.dumps(rows, indent=1)
        Path(os.environ["MOESIM_BENCH_JSON"]).write_text(text, encoding="utf-8")


def table_lines(rows):
    yield f"{'engine':<30}{'tasks':>9}{'replicas':>9}{'seconds':>9}{'tasks/s':>14}{'peak MB':>9}"
    for row in rows:
        yield (
            f"{row['engine']:<30}{row['tasks']:>9,}{row['replicas']:>9}{row['seconds']:>9.3f}"
            f"{row['tasks_per_s']:>14,.0f}{row['peak_bytes'] / 1e6:>9.0f}"
        )


def timed(table, engine, replicas, repeats, play):
    """Add the fastest of some plays to the table and return what the last one gave."""
    forget_peak()
    seconds = []
    for _ in range(repeats):
        started = time.perf_counter()
        played = play()
        seconds.append(time.perf_counter() - started)
    table.append(
        {
            "engine": engine,
            "tasks": TASKS,
            "replicas": replicas,
            "seconds": min(seconds),
            "tasks_per_s": TASKS * replicas / min(seconds),
            "peak_bytes": peak_bytes(),
        }
    )
    return played


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
    assert table[-1]["peak_bytes"] < 1e9


def test_one_pipeline_in_the_reference_engine(graph, table):
    played = timed(table, "reference", 1, 1, lambda: reference.play(graph))
    assert played.makespan_s == pytest.approx(MAKESPAN_S, rel=1e-12)
