"""How fast rows of a study come on one core: points on new machines, plans screened and played.

Counts and equality are asserted, times never; goals are told beside them: half of what two cores
shall do, and some more for writing rows. An event is one row, from its numbers to its outcome.
"""

import os

import numpy as np
import pytest

from simulator import Experiment, play
from simulator.driver.points import play_in_turn
from simulator.engines.loops import compiled
from simulator.study.screen import screen
from simulator.tell.outcome import outcome

pytestmark = pytest.mark.bench

PRESET = "deepseek-v3-pretrain"
POINTS = 512
RANGES = {
    "cluster.node.chip.hbm_bytes_per_s": (2e12, 6e12),
    "cluster.node.chip.nvlink_bytes_per_s": (1e11, 4e11),
    "cluster.node.chip.peak_clock_hz": (1.2e9, 2.0e9),
    "cluster.node.nic.link_bytes_per_s": (3e10, 5e10),
}
ROOMY = {"cluster.node.chip.hbm_capacity_bytes": "400 GB"}


@pytest.fixture(scope="module", autouse=True)
def one_core():
    """Pin this thread where the system can; machine code is there before anything is timed."""
    compiled()
    play([Experiment.load(PRESET)])
    if not hasattr(os, "sched_setaffinity"):
        yield
        return
    allowed = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(allowed)})
    yield
    os.sched_setaffinity(0, allowed)


def counted(rows):
    return len(rows), 1, len(rows)


@pytest.mark.parametrize(
    ("named", "changes", "goal_per_s"),
    [("balanced", {"ranks.expert_load.sigma": 0.0}, 650), ("eight loads", {}, 190)],
)
def test_rows_on_new_machines(table, named, changes, goal_per_s):
    base = Experiment.load(PRESET).with_overrides(changes)
    rng, (low, high) = np.random.default_rng(0), np.array([*RANGES.values()]).T
    rows = rng.uniform(low, high, (POINTS, len(RANGES))).tolist()

    def numbers():
        points = (base.with_numbers(dict(zip(RANGES, row, strict=True))) for row in rows)
        return [outcome(played).numbers for played in play_in_turn(points)]

    found = table.timed(f"{POINTS} rows, {named}", numbers, counted, 3, POINTS / goal_per_s)
    assert len({row["step_time_s"] for row in found}) == POINTS


def plans(batches):
    """Plans of three schedules on two depths and two widths, none of whose programs was met."""
    base = Experiment.load(PRESET).with_overrides(ROOMY)
    return [
        base.with_overrides(
            {
                "plan.pp": pp,
                "plan.ep": ep,
                "plan.schedule": schedule,
                "batch.sequences": 2048 // pp * batch,
            }
        )
        for batch in batches
        for pp in (8, 16)
        for ep in (32, 64)
        for schedule in ("1f1b", "zb1p", "dualpipe")
    ]


def test_plans_not_met_before(table):
    """Each is screened, then played; as many micro-batches as no other has."""
    given = plans((96, 112, 128))

    def screened():
        return [screen(plan).numbers for plan in given]

    def played():
        return [outcome(play([plan])[0]).numbers for plan in given]

    few = table.timed(f"{len(given)} new plans screened", screened, counted, 1, len(given) / 70)
    all_s = table.timed(f"{len(given)} new plans played", played, counted, 1, len(given) / 25)
    assert len(few) == len(all_s) == 36
    assert [row["memory_bytes.total"] for row in few] == [
        row["memory_bytes.total"] for row in all_s
    ]
