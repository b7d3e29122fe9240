"""Durations: prices at each rank's load times what slows it, and what runs beside slows."""

import numpy as np
import pytest

from hwmodels.costs.interference import slowdown, work_share
from simulator.engines.loops import PLAIN, compiled
from simulator.lower import durations
from simulator.lower.durations import Slowness, Work, fill_durations

# Kernels that meet load 0 and kernels that meet none, an exchange, a message, and a begin.
WORK = Work(
    row=np.array([0, 1, -1, -1, -1]),
    exchange=np.array([-1, -1, 1, -1, -1]),
    slot=np.array([0, 2, 1, 2, 2]),
    factor=np.array([2.0, 1.0, 1.5, 0.25, 0.0]),
)
TABLE = np.stack([np.arange(1025.0), 1000 + np.arange(1025.0)])
COLUMN = np.array([[500, 512, 520, 530], [1, 2, 3, 4], [512] * 4])  # the last is balanced
EXCHANGE_S = np.array([[[1.0, 2], [3, 4]], [[5, 6], [8, 10]]])  # two of them, two slots, two groups
SLOWNESS = Slowness(
    rank=np.array([0, 1, 1, 1, 0]),
    step=np.array([0, 1, 1, 1, 0]),
    kernels=np.array([[1.0, 2, 1, 1], [1, 1, 3, 1]]),
    jitter=np.array([[1, 1, 0.5, 1], [2, 1, 1, 1]]),
)


@pytest.fixture(params=[PLAIN, None], ids=["plain", "compiled"])
def loops(request, monkeypatch):
    """Durations are filled by these loops."""
    chosen = request.param or compiled()
    monkeypatch.setattr(durations, "loops_for", lambda tasks: chosen)
    return chosen


def test_ranks_that_are_alike_take_the_price_at_their_load(loops):
    """Kernels twice their price at the load of each; 1,512 s at the balanced load; one and a half
    times 8 s and 10 s for the second exchange of two groups at slot 1; message and begin as given.
    """
    filled = fill_durations(WORK, TABLE, COLUMN, EXCHANGE_S)
    assert filled.tolist() == [
        [1000, 1024, 1040, 1060],
        [1512] * 4,
        [12, 12, 15, 15],
        [0.25] * 4,
        [0] * 4,
    ]


def test_speed_and_jitter_slow_kernels_and_nothing_else(loops):
    """The same, times the GPU and the jitter of rank 0 and step 0, or of rank 1 and step 1: 1, 2,
    1/2 and 1 for the first kernels, 2, 1, 3 and 1 for the others.
    """
    filled = fill_durations(WORK, TABLE, COLUMN, EXCHANGE_S, SLOWNESS)
    assert filled.tolist() == [
        [1000, 2048, 520, 1060],
        [3024, 1512, 4536, 1512],
        [12, 12, 15, 15],
        [0.25] * 4,
        [0] * 4,
    ]


def test_without_loads_everything_is_balanced(loops):
    """No slots, as of a model without experts: the first kernels twice 512 s."""
    work = Work(WORK.row[:2], np.array([-1, -1]), np.array([0, 0]), WORK.factor[:2])
    filled = fill_durations(work, TABLE, COLUMN[-1:], np.zeros((0, 0, 2)))
    assert filled.tolist() == [[1024] * 4, [1512] * 4]


@pytest.mark.parametrize("seed", range(5))
def test_compiled_and_plain_loops_fill_the_same_bits(seed, monkeypatch):
    """60 tasks of 4 ranks on 6 groups of 8 replicas, a tenth of them messages."""
    rng = np.random.default_rng(seed)
    kind = rng.choice(3, 60, p=[0.6, 0.3, 0.1])
    work = Work(
        row=np.where(kind == 0, rng.integers(7, size=60), -1),
        exchange=np.where(kind == 1, rng.integers(3, size=60), -1),
        slot=np.where(kind == 1, rng.integers(5, size=60), rng.integers(6, size=60)),
        factor=rng.uniform(1, 2, 60),
    )
    slowness = Slowness(
        rng.integers(4, size=60),
        rng.integers(9, size=60),
        *(rng.lognormal(0, 0.1, (rows, 48)) for rows in (4, 9)),
    )
    table, column = rng.uniform(0, 1, (7, 600)), rng.integers(600, size=(6, 48))
    exchange_s = rng.uniform(0, 1, (3, 5, 6))
    filled = []
    for chosen in (PLAIN, compiled()):
        monkeypatch.setattr(durations, "loops_for", lambda tasks, chosen=chosen: chosen)
        filled.append(fill_durations(work, table, column, exchange_s, slowness))
    assert filled[0].tobytes() == filled[1].tobytes()
    assert len(np.unique(filled[0])) > 60 * 48 / 2


# What runs beside


def slowed(chosen, one, other, alone_s, factor, end_s, duration_s, weight):
    found = np.full(np.shape(end_s), np.nan)
    by_group = np.array(factor).reshape(len(factor), -1)  # of groups of one replica
    factor = np.ascontiguousarray(np.broadcast_to(by_group, found.shape))
    columns = (alone_s, factor, end_s, duration_s, weight)
    floats = (np.array(column, np.float64) for column in columns)
    chosen.slow_beside(np.array(one), np.array(other), *floats, found)
    return found


@pytest.mark.parametrize("chosen", [PLAIN, compiled()], ids=["plain", "compiled"])
def test_only_the_work_that_was_done_beside_something_takes_its_factor_as_long(chosen):
    """An exchange from 0 to 4 s, of factor 2, beside kernels from 1 to 3, of factor 3, and others
    from 3 to 6, of factor 1; a fourth task takes no time.

    Three quarters of the exchange's time were shared: 3/5 of its work, as 3/5 at half the rate and
    2/5 alone are 3 : 1. So its 2 s alone become 2 (1 + 3/5). The kernels were wholly beside it.
    In the second column half of the change is made; in the third nothing runs side by side.
    """
    end_s = [[4, 4, 4], [3, 3, 6], [6, 6, 9], [4, 4, 4]]
    duration_s = [[4, 4, 4], [2, 2, 2], [3, 3, 3], [0, 0, 0]]
    alone_s = [[2, 2, 4], [2, 2, 2], [3, 3, 3], [0, 0, 0]]
    found = slowed(
        chosen, [0, 0, 0], [1, 2, 3], alone_s, [2, 3, 1, 2], end_s, duration_s, [1, 0.5, 1]
    )
    expected = [[3.2, 3.6, 4], [6, 4, 2], [3, 3, 3], [0, 0, 0]]
    assert found == pytest.approx(np.array(expected), rel=1e-15)


def random_play(seed):
    """Tasks 0 to 4 one after another on one stream, 5 to 10 on the other, on 12 replicas."""
    rng = np.random.default_rng(seed)
    duration_s = rng.uniform(0.5, 2, (11, 12))
    end_s = np.concatenate([duration_s[:5].cumsum(axis=0), duration_s[5:].cumsum(axis=0)])
    one, other = (each.ravel() for each in np.meshgrid(np.arange(5), np.arange(5, 11)))
    alone_s, factor = rng.uniform(0.5, 2, (11, 12)), rng.uniform(1, 3, 11)
    return one, other, alone_s, factor, end_s, duration_s, rng.choice([0, 0.5, 1], 12)


def test_a_task_is_slowed_by_the_cost_function_of_interference():
    """Shared time is counted by sampling both streams every 10 us, to a thousandth of a task."""
    one, other, alone_s, factor, end_s, duration_s, _ = random_play(0)
    found = slowed(PLAIN, one, other, alone_s, factor, end_s, duration_s, np.ones(12))
    start_s = end_s - duration_s
    for replica in range(12):
        busy_s = [end_s[4, replica], end_s[10, replica]]
        for task in range(11):
            when = np.linspace(start_s[task, replica], end_s[task, replica], 100_001)
            beside = (when < busy_s[task < 5]).mean()  # the other stream works until then
            wanted = alone_s[task, replica] * slowdown(
                factor[task], work_share(factor[task], beside)
            )
            assert found[task, replica] == pytest.approx(wanted, rel=1e-3)


@pytest.mark.parametrize("seed", range(5))
def test_compiled_and_plain_loops_slow_to_the_same_bits(seed):
    play = random_play(seed)
    plain, machine = (slowed(chosen, *play) for chosen in (PLAIN, compiled()))
    assert plain.tobytes() == machine.tobytes()
    settled = play[-1] == 0
    assert (plain[:, settled] == play[-2][:, settled]).all()
