"""How fast a study goes on one core: draws, machines that share a program, new plans, a first run.

Counts and equality are asserted, times never; goals are told beside them. An event is one point: a
draw, a machine, a plan or a run.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from simulator import Experiment, play, run, run_many
from simulator.driver.step import play as play_step
from simulator.engines.loops import compiled
from simulator.lower.lowered import lower
from simulator.tell.facts.ranks import Ranks
from simulator.tell.outcome import outcome
from simulator.uncertainty import sample

pytestmark = pytest.mark.bench

PRESET = "deepseek-v3-pretrain"
SOURCES = Path(__file__).resolve().parents[2]
PACKAGES = ("calibration", "hwmodels", "kernels", "simulator", "workloads")

MACHINES = 256
HARDWARE = {
    "cluster.node.chip.hbm_bytes_per_s": (2e12, 6e12),
    "cluster.node.chip.nvlink_bytes_per_s": (1e11, 4e11),
    "cluster.node.chip.peak_clock_hz": (1.2e9, 2.0e9),
    "cluster.node.chip.l2_bytes": (3e7, 1e8),
}
BALANCED = {"ranks.expert_load.sigma": 0.0}
ALONE = slice(5, MACHINES, 50)
"""Machines that are run by themselves too: some of each of those priced and played together."""


@pytest.fixture(scope="module", autouse=True)
def one_core():
    """Pin this thread, and what it starts, where the system can."""
    if not hasattr(os, "sched_setaffinity"):
        yield
        return
    allowed = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(allowed)})
    yield
    os.sched_setaffinity(0, allowed)


@pytest.fixture(scope="module", autouse=True)
def warm(one_core):
    """Machine code and imports are there before anything is timed."""
    compiled()
    for changes in ({"uncertainty.draws": 2}, {"ranks.play": "explicit"}, BALANCED):
        run(Experiment.load(PRESET).with_overrides(changes))


def machines(base):
    """One experiment on machines drawn at random: memory, NVLink, clock and L2."""
    rng, (low, high) = np.random.default_rng(0), np.array([*HARDWARE.values()]).T
    rows = rng.uniform(low, high, (MACHINES, len(HARDWARE))).tolist()
    return [base.with_numbers(dict(zip(HARDWARE, row, strict=True))) for row in rows]


def whole(results):
    return [result.without_timing().to_json() for result in results]


@pytest.mark.parametrize(
    ("named", "changes", "replicas", "goal_per_s"),
    [("balanced", BALANCED, (1, 1), 500), ("eight loads", {}, (8, 64), 150)],
)
def test_machines_that_share_a_program(table, named, changes, replicas, goal_per_s):
    """Points as columns give the results of points one by one, in every byte but the clock's."""
    points = machines(Experiment.load(PRESET).with_overrides(changes))

    def count(found):
        return len(found[0].lowered.pipeline.graph), MACHINES, len(found)

    goal_s = MACHINES / goal_per_s
    played = table.timed(f"{MACHINES} machines, {named}", lambda: play(points), count, 5, goal_s)
    draw = played[0].folded.draw
    assert (draw.draws, draw.ranks) == replicas
    assert len({id(step.lowered) for step in played}) == 1

    def told(results):
        return len(played[0].lowered.pipeline.graph), MACHINES, len(results)

    name = f"{MACHINES} machines, {named}, results"
    results = table.timed(name, lambda: list(run_many(points)), told)
    assert [outcome(step).metrics for step in played] == [each.metrics for each in results]
    assert len({each.metrics.step_time_s for each in results}) == MACHINES
    alone = table.timed(
        f"{len(points[ALONE])} of them one by one",
        lambda: list(map(run, points[ALONE])),
        lambda found: (len(played[0].lowered.pipeline.graph), len(found), len(found)),
    )
    assert whole(alone) == whole(results[ALONE])


@pytest.mark.parametrize(("loads", "goal_s"), [(8, 2.0), (1, None)])
def test_256_draws_of_the_folded_step(table, loads, goal_s):
    base = Experiment.load(PRESET).with_overrides({"ranks.draws": loads})
    given = base.with_overrides({"uncertainty.draws": 256})

    def count(result):
        return result.play.tasks, 257, len(result.samples["step_time_s"])

    name = f"256 draws, {loads} load{'s' * (loads > 1)} each"
    result = table.timed(name, lambda: run(given), count, 3, goal_s)
    steps = np.array(result.samples["step_time_s"])
    assert len(steps) == len(set(steps.tolist())) == 256
    assert np.median(steps) == pytest.approx(result.metrics.step_time_s, rel=0.05)
    assert result.play.tasks == run(base).play.tasks
    draw = outcome(play_step(sample(given).drawn(77))).numbers
    assert draw == {path: values[77] for path, values in result.samples.items()}


def test_128_draws_of_every_one_of_2048_ranks(table):
    given = Experiment.load("deepseek-v3-pretrain-uncertain")

    def count(result):
        return result.play.tasks, 129, len(result.samples["step_time_s"])

    result = table.timed("128 draws, every rank", lambda: run(given), count, goal_s=20.0)
    assert given.uncertainty.draws == len(set(result.samples["step_time_s"])) == 128
    assert len(result.fact(Ranks).compute_s) == given.gpus == 2048
    draw = outcome(play_step(sample(given).drawn(77), pipelines=())).numbers
    assert draw == {path: values[77] for path, values in result.samples.items()}


def test_a_plan_not_met_before(table):
    """Another number of micro-batches each time, from experiment to step."""
    batches = range(122, 142, 2)  # the preset has 120
    pipelines = Experiment.load(PRESET).pipelines
    plans = [
        Experiment.load(PRESET).with_overrides({"batch.sequences": pipelines * count})
        for count in batches
    ]
    fresh, built = iter(plans), lower.cache_info().misses

    def count(found):
        return len(found[0].pipeline.graph), 1, len(found)

    table.timed("a new plan, played", lambda: play([next(fresh)]), count, len(plans), 0.05)
    assert lower.cache_info().misses == built + len(plans)
    table.timed("the same plan, played", lambda: play(plans[-1:]), count, 10)
    assert lower.cache_info().misses == built + len(plans)


def test_the_first_run_on_a_machine(table, tmp_path):
    """`moesim run` in a copy of the sources: nothing of ours is compiled, neither Python's nor
    Numba's way. The second run finds both.
    """
    for package in PACKAGES:
        left_out = shutil.ignore_patterns("__pycache__")
        shutil.copytree(SOURCES / package, tmp_path / "copy" / package, ignore=left_out)
    environment = os.environ | {"NUMBA_CACHE_DIR": str(tmp_path / "numba")}
    for name in ("PYTHONPATH", "PYTHONDONTWRITEBYTECODE"):
        environment.pop(name, None)

    def moesim_run():
        command = [sys.executable, "-m", "simulator.cli", "run", PRESET]
        return subprocess.run(
            command, cwd=tmp_path / "copy", env=environment, capture_output=True, text=True,
            check=True,
        )  # fmt: skip

    result = run(Experiment.load(PRESET))
    count = (result.play.tasks, 1, 1)
    assert not any((tmp_path / "copy").rglob("*.pyc"))
    first = table.timed("moesim run, the first", moesim_run, lambda _: count, goal_s=6.0)
    assert any((tmp_path / "copy").rglob("*.pyc"))
    assert any((tmp_path / "numba").rglob("*.nbi"))
    again = table.timed("moesim run, again", moesim_run, lambda _: count, 3)
    for done in (first, again):
        assert f"{result.metrics.step_time_s:.3f} s" in done.stdout
