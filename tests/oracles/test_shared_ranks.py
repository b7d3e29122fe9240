"""Every rank on a NIC that all its traffic shares, against every rank on separate ones, against one
pipeline that stands for all, and engine against engine.
"""

import numpy as np
import pytest

from simulator.driver.step import play
from simulator.lower.nic_crossings import EXCHANGE, MESSAGE, RING
from simulator.tell.facts.nics import Nics

ROOM = ("cluster.node.chip.hbm_capacity_bytes", "2 TB")
EVERY = ("ranks.play", "explicit")
SHARED = ("communication.nics", "shared")
TWO_NODES = ("plan.ep", 16)
ALIKE = ("ranks.expert_load.sigma", 0.0)


@pytest.fixture(scope="module")
def both(small_experiment):
    """The same step with shared and with separate NICs, every rank played."""

    def make(*changes):
        return (
            play(small_experiment(ROOM, EVERY, ("communication.nics", nics), *changes))
            for nics in ("shared", "separate")
        )

    return make


@pytest.mark.parametrize("schedule", ["1f1b", "zb1p", "dualpipe"])
def test_ranks_that_meet_nobody_are_where_they_are_on_separate_nics(both, schedule):
    """Exchanges stay inside nodes, so that NICs carry messages alone: two of one rank may not be on
    their way at once in either direction but one after another, as its port sends them.
    """
    shared, separate = both(("plan.schedule", schedule), ("ranks.jitter", 0.05))
    one, other = shared.explicit, separate.explicit
    assert one.meetings.separate_step_s == other.step_s
    assert one.meetings.busy_s[EXCHANGE].tolist() == [0] * 4
    late = one.finish_s - other.finish_s
    assert late.min() > -1e-9
    assert late.max() <= one.meetings.busy_s[MESSAGE].sum() * 2


def test_a_job_of_one_stage_has_nothing_that_meets(both):
    """Exchanges over nodes, no messages: every rank ends where it does on NICs of its own."""
    changes = ("plan.pp", 1), ("plan.schedule", "1f1b"), ("plan.layout", "none"), TWO_NODES
    shared, separate = both(*changes, ("batch.sequences", 128), ("ranks.jitter", 0.05))
    assert shared.explicit.finish_s == pytest.approx(separate.explicit.finish_s, rel=1e-9)
    assert shared.explicit.step_s == pytest.approx(separate.explicit.step_s, rel=1e-9)
    assert shared.explicit.wait_s == pytest.approx(separate.explicit.wait_s, rel=1e-6, abs=1e-9)
    assert shared.explicit.meetings.busy_s[EXCHANGE].min() > 0
    assert shared.explicit.meetings.delay_s == pytest.approx(0, abs=1e-9)


@pytest.mark.parametrize("schedule", ["1f1b", "zb1p", "dualpipe"])
def test_ranks_that_are_alike_are_those_of_the_one_pipeline_that_stands_for_them(
    small_experiment, schedule
):
    """Within half a per cent; what waits for what differs inside steps only."""
    changes = ROOM, SHARED, TWO_NODES, ALIKE, ("plan.schedule", schedule)
    folded = play(small_experiment(*changes))
    every = play(small_experiment(*changes, EVERY))
    assert every.explicit.step_s == pytest.approx(folded.times.step_s, rel=5e-3)
    finish_s = every.explicit.finish_s
    assert np.ptp(finish_s, axis=1) == pytest.approx(0, abs=1e-9)
    alone, found = folded.shared.by_traffic(folded.shared.alone.nic_s), every.explicit.meetings
    assert found.busy_s == pytest.approx(alone, rel=1e-6)


@pytest.mark.parametrize("seed", range(3))
def test_meeting_speeds_nobody_up(both, seed):
    changes = TWO_NODES, ("ranks.jitter", 0.05), ("ranks.seed", seed)
    shared, separate = both(*changes, ("ranks.gpu_speed_sigma", 0.02))
    assert shared.explicit.step_s > separate.explicit.step_s
    met = shared.explicit.meetings
    assert met.delay_s.min() > -1e-9
    assert met.delay_s[[EXCHANGE, MESSAGE]].sum() > 0
    assert met.busy_s[RING].min() > 0
    phases = shared.explicit.phase_s.sum(axis=0)
    assert phases == pytest.approx(np.full_like(phases, shared.explicit.step_s), rel=1e-9)


def test_engines_agree_on_ranks_that_share_nics(small_experiment):
    changes = (
        ROOM, EVERY, SHARED, TWO_NODES, ("ranks.jitter", 0.05), ("cluster.nodes", 8),
        ("plan.pp", 2), ("plan.schedule", "1f1b"), ("plan.layout", "none"), ("plan.ep", 32),
        ("batch.sequences", 64), ("ranks.stragglers", [{"gpu": 3, "part": "nic", "slowdown": 2}]),
    )  # fmt: skip
    one, other = (
        play(small_experiment(*changes, ("ranks.engine", name))).explicit
        for name in ("array", "reference")
    )
    assert one.step_s == pytest.approx(other.step_s, rel=1e-9)
    for name in ("finish_s", "phase_s", "compute_s", "communication_s"):
        first, second = getattr(one, name), getattr(other, name)
        assert first == pytest.approx(second, rel=1e-8, abs=1e-9), name
    assert one.meetings.delay_s == pytest.approx(other.meetings.delay_s, rel=1e-6, abs=1e-9)


def test_a_slow_nic_is_felt_where_it_is_shared(small_experiment):
    slow = ("ranks.stragglers", [{"gpu": 5, "part": "nic", "slowdown": 4}])
    whole, held = (
        play(small_experiment(ROOM, EVERY, SHARED, TWO_NODES, *more)).explicit
        for more in ((), (slow,))
    )
    assert held.step_s > 1.05 * whole.step_s
    assert held.blame_s.argmax() == 5


def test_facts_tell_of_all_ranks(both):
    shared, separate = both(TWO_NODES, ("ranks.jitter", 0.05))
    nics = Nics.of(shared)
    assert (nics.step_s, nics.separate_step_s) == (shared.times.step_s, separate.times.step_s)
    met = shared.explicit.meetings
    assert list(nics.busy_s.values()) == met.busy_s.mean(axis=1).tolist()
    assert list(nics.delay_s.values()) == met.delay_s.mean(axis=1).clip(min=0).tolist()
    assert Nics.of(separate) is None


def test_a_fault_slows_the_end_of_a_step_once(both):
    """On separate NICs beside shared ones as by itself; and meeting makes nothing faster."""
    shared, separate = both(TWO_NODES, ("cluster.faults", ["nic:2.2=0.5"]))
    assert shared.explicit.meetings.separate_step_s == separate.explicit.step_s
    assert shared.explicit.step_s > separate.explicit.step_s * (1 - 1e-12)
    assert shared.tasks > separate.tasks
