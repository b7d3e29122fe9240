"""Transfers over shared links, done by hand, in both engines."""

from dataclasses import replace

import numpy as np
import pytest

from hwmodels.errors import DeadlockError, InputError
from simulator.engines import array, reference
from simulator.engines.graph import GraphBuilder, tile
from simulator.engines.loops import PLAIN, compiled

ENGINES = {
    "reference": reference.play,
    "compiled": lambda graph: array.play(graph, compiled()),
    "plain": lambda graph: array.play(graph, PLAIN),
}


@pytest.fixture(params=ENGINES.values(), ids=ENGINES)
def play(request):
    return request.param


class Links(GraphBuilder):
    """A builder of transfers, each alone in a stream of its own name unless it says otherwise."""

    __slots__ = ("capacity",)

    def __init__(self, **bytes_per_s):
        super().__init__()
        self.capacity = bytes_per_s

    def send(self, name, moved_bytes, links, seconds=0.0, stream=None, **others):
        """Move bytes over links named by one letter each."""
        crossed = [self.link(link, self.capacity[link]) for link in links]
        return self.add(
            stream or name, name, seconds, moved_bytes=moved_bytes, links=crossed, **others
        )


# By hand


def test_a_lone_transfer_takes_its_duration_and_its_bytes_over_the_slowest_link(play):
    """2 s of latency, then 12 bytes at 3 of the 4 bytes/s."""
    net = Links(a=4, b=3)
    net.send("x", 12, "ab", seconds=2)
    timeline = play(net.build())
    assert (timeline.start_s.tolist(), timeline.end_s.tolist()) == ([0], [6])


@pytest.mark.parametrize("transfers", [1, 2, 3, 7, 64])
def test_equal_transfers_on_one_link_take_as_many_times_as_long(play, transfers):
    net = Links(a=8)
    for i in range(transfers):
        net.send(f"x{i}", 24, "a", seconds=1)
    assert play(net.build()).end_s.tolist() == [1 + 3 * transfers] * transfers


def test_transfers_that_meet_share_until_one_is_over(play):
    """Over 10 bytes/s: `x` has 60 of 100 bytes left when `y` begins to move at 4 s; both move 5
    bytes/s until `y` has moved 50 at 14 s, and `x` its last 10 at full speed.
    """
    net = Links(a=10)
    net.send("x", 100, "a")
    net.send("y", 50, "a", seconds=4)
    assert play(net.build()).end_s.tolist() == [15, 14]


def test_a_link_may_carry_a_share_of_the_bytes(play):
    """Both rise to 3.2 bytes/s, when `b` is full of 3.2 and a quarter of 3.2: `x` moves its 8
    bytes in 2.5 s, and `y` the last 4 of its 12 at the 4 bytes/s of `b`.
    """
    net = Links(a=4, b=4)
    net.send("x", 8, "ab")
    net.send("y", 12, "b")
    graph = net.build()
    shared = replace(graph.transfers, share=np.array([1.0, 0.25, 1.0]))
    assert play(replace(graph, transfers=shared)).end_s == pytest.approx([2.5, 3.5])


@pytest.mark.parametrize("share", [[1.0], [1.0, 0.0], [1.0, 1.5], [1.0, np.nan]])
def test_shares_are_of_something_and_of_no_more_than_all(share):
    net = Links(a=4, b=4)
    net.send("x", 8, "ab")
    with pytest.raises(InputError, match="transfers: share must"):
        replace(net.build().transfers, share=np.array(share))


def test_nothing_moves_during_the_fixed_part(play):
    """`y` has the link for itself while `x` waits out its latency of 3 s."""
    net = Links(a=2)
    net.send("x", 4, "a", seconds=3)
    net.send("y", 6, "a")
    assert play(net.build()).end_s.tolist() == [5, 3]


def test_a_transfer_that_starts_as_another_ends_meets_nobody(play):
    net = Links(a=2)
    x = net.send("x", 4, "a", stream="s")
    net.send("y", 6, "a", stream="s")
    net.send("z", 0, "a", seconds=1, after=(x,))
    timeline = play(net.build())
    assert timeline.start_s.tolist() == [0, 2, 2]
    assert timeline.end_s.tolist() == [2, 5, 3]


def test_what_a_slow_transfer_cannot_take_goes_to_the_others(play):
    """`ab` is held to 2 bytes/s by link `b`, which `b` shares; `a` has the other 8 of link `a`."""
    net = Links(a=10, b=4)
    net.send("a", 40, "a")
    net.send("ab", 10, "ab")
    net.send("b", 10, "b")
    assert play(net.build()).end_s.tolist() == [5, 5, 5]


def test_a_long_transfer_in_a_parking_lot_has_half_of_each_link(play):
    """Three links of 6 bytes/s, a transfer of its own on each, one across all. All move 3 bytes/s
    until the long one has moved its 6 bytes; the others have 6 left, at 6 bytes/s.
    """
    net = Links(a=6, b=6, c=6)
    net.send("long", 6, "abc")
    for link in "abc":
        net.send(link, 12, link)
    assert play(net.build()).end_s.tolist() == [2, 3, 3, 3]


def test_a_triangle_fills_its_narrowest_side_first(play):
    """Sides of 2, 4 and 6 bytes/s, a transfer over each two. `ab` and `ca` fill `a` at 1 byte/s
    each; `bc` then has 3 of `b`. When it is over at 1 s, the two stay as they are, for `a` is full.
    """
    net = Links(a=2, b=4, c=6)
    net.send("ab", 4, "ab")
    net.send("bc", 3, "bc")
    net.send("ca", 4, "ca")
    assert play(net.build()).end_s.tolist() == [4, 1, 4]


def test_one_transfer_can_slow_down_when_another_ends(play):
    """`x` holds `y` to 1 byte/s and so leaves 3 to `z`. When `x` is over, `y` rises to 2 and takes
    from `z`: of 12 bytes, 3 moved in the first second, and 9 take 4.5 s.
    """
    net = Links(a=2, b=4)
    net.send("x", 1, "a")
    net.send("y", 100, "ab")
    net.send("z", 12, "b")
    assert play(net.build()).end_s[[0, 2]].tolist() == [1, 5.5]


def test_a_transfer_whose_rate_stays_when_others_change_ends_once(play):
    """`x` and `z` move 1 byte/s each over `a`, and go on so when `y` takes the other 9 of `b` at
    1 s. From 4 s, when `x` is over, `z` moves 2 and `y` 8; from 7 s `y` moves its last 10 alone.
    """
    net = Links(a=2, b=10)
    x = net.send("x", 4, "a")
    net.send("z", 10, "ab")
    net.send("y", 61, "b", seconds=1)
    net.send("behind", 0, "", seconds=1, after=(x,))
    assert play(net.build()).end_s.tolist() == [4, 7, 8, 5]


def test_transfers_that_end_together_on_paper_do_so_to_the_last_bit(play):
    """0.1 + 0.2 s and 0.3 s, of which floats make two numbers; what waits for both starts once."""
    net = Links(a=1, b=1)
    net.send("x", 0.2, "a", seconds=0.1)
    net.send("y", 0.3, "b")
    assert 0.1 + 0.2 != 0.3
    assert len(set(play(net.build()).end_s.tolist())) == 1


def test_links_that_are_not_connected_do_not_touch_each_other(play):
    """To the last bit, though changes elsewhere cut a transfer into pieces."""

    def third(*others):
        net = Links(a=3, b=0.7)
        net.send("x", 1 / 3, "a", seconds=0.1)
        for i in range(*others):
            net.send(f"y{i}", 0.1 * i, "b")
        return play(net.build()).end_s[0]

    assert third(0) == third(1, 9)


def test_members_of_a_collective_start_together_and_each_ends_on_its_own(play):
    """All start at 4 s, when `y` is ready, and share 6 bytes/s: `x` is over after 6 bytes of each,
    then `y` after 3 more. The tasks behind them start when their streams are free.
    """
    net = Links(a=6)
    net.add("s", "s0", 1)
    net.add("t", "t0", 4)
    net.add("u", "u0", 2)
    net.send("x", 6, "a", stream="s", collective=0)
    net.send("y", 9, "a", stream="t", collective=0)
    net.send("z", 0, "", stream="u", seconds=1, collective=0)
    for stream in "stu":
        net.add(stream, "behind", 1)
    timeline = play(net.build())
    assert timeline.ready_s[3:6].tolist() == [1, 4, 2]
    assert timeline.start_s[3:6].tolist() == [4, 4, 4]
    assert timeline.end_s[3:6].tolist() == [6, 6.5, 5]
    assert timeline.start_s[6:].tolist() == [6, 6.5, 5]
    assert timeline.wait_s[3:6].tolist() == [3, 0, 2]


def test_without_bytes_or_links_a_task_is_an_ordinary_one(play):
    net = Links(a=1)
    net.send("bytes", 5, "", seconds=2)
    net.send("links", 0, "a", seconds=3)
    net.send("both", 4, "a")
    assert play(net.build()).end_s.tolist() == [2, 3, 4]


def test_other_durations_keep_the_transfers(play):
    net = Links(a=2)
    net.send("x", 4, "a", seconds=3)
    assert play(net.build().with_durations(np.array([1.0]))).end_s.tolist() == [3]


@pytest.mark.parametrize("scale", [1e-15, 1e-9, 1.0, 1e12, 1e18])
def test_sizes_and_capacities_of_any_magnitude_are_played(play, scale):
    """Thirds of a byte a thousand times over: leftovers of rounding start no transfers."""
    net = Links(a=0.3 * scale, b=0.7 * scale)
    for i in range(100):
        net.send(f"x{i}", scale / 3, "ab" if i % 3 else "b", seconds=1e-9 * (i % 7))
    timeline = play(net.build())
    assert timeline.makespan_s == pytest.approx(66 / 0.9, rel=1e-9)


# Graphs that cannot finish, and wrong input


def test_a_deadlock_around_transfers_names_what_waits_for_what(play):
    """`x` could move, but waits for `y`, which waits in its collective for `z` behind `x`."""
    net = Links(a=1)
    y = net.send("y", 1, "a", stream="t", collective=0)
    net.send("x", 1, "a", stream="s", after=(y,))
    net.send("z", 1, "a", stream="s", collective=0)
    net.send("w", 9, "a", stream="u")
    with pytest.raises(DeadlockError) as error:
        play(net.build())
    assert str(error.value) == (
        "'y' on t waits in its collective for 'z' on s; 'x' on s waits for 'y' on t"
    )


def test_a_ring_of_transfers_is_refused_and_never_hangs(play):
    net = Links(a=1)
    tasks = [net.send(f"t{i}", 1, "a") for i in range(1000)]
    for i, task in enumerate(tasks):
        net.depend(task, tasks[i - 1])
    with pytest.raises(
        DeadlockError, match=r"'t0' on t0 waits for 't999' on t999; .* and 996 more"
    ):
        play(net.build())


@pytest.mark.parametrize(
    ("bytes_per_s", "moved_bytes", "links", "message"),
    [
        (0.0, 3, [0], "task 0 moves 3 bytes over link 'nic' of 0 bytes/s"),
        (-1.0, 3, [0], "link 'nic': bytes/s must be 0 or lie in 1e-30 to 1e+30, got -1.0"),
        (np.nan, 3, [0], "link 'nic': bytes/s must be 0 or lie in 1e-30 to 1e+30, got nan"),
        (5e-324, 3, [0], "link 'nic': bytes/s must be 0 or lie in 1e-30 to 1e+30, got 5e-324"),
        (np.inf, 3, [0], "link 'nic': bytes/s must be 0 or lie in 1e-30 to 1e+30, got inf"),
        (1.0, -3, [0], "moved_bytes must be 0 or lie in 1e-30 to 1e+30, got -3.0 for task 0"),
        (1.0, np.nan, [], "moved_bytes must be 0 or lie in 1e-30 to 1e+30, got nan for task 0"),
        (1.0, np.inf, [0], "moved_bytes must be 0 or lie in 1e-30 to 1e+30, got inf for task 0"),
        (1.0, 3, [1], "link must lie in 0 to 0, got 1 to 1"),
        (1.0, 3, [0, -1], "link must lie in 0 to 0, got -1 to 0"),
        (1.0, 3, [0, 0], "task 0 crosses link 'nic' twice"),
    ],
)
def test_transfers_that_cannot_be_played_are_refused_when_built(
    bytes_per_s, moved_bytes, links, message
):
    builder = GraphBuilder()
    builder.link("nic", bytes_per_s)
    builder.add("s", "x", moved_bytes=moved_bytes, links=links)
    with pytest.raises(InputError) as error:
        builder.build()
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_a_link_without_capacity_may_stand_idle(play):
    builder = GraphBuilder()
    broken, nic = builder.link("broken", 0), builder.link("nic", 2)
    builder.add("s", "x", moved_bytes=4, links=[nic])
    builder.add("t", "y", 1, links=[broken])
    assert play(builder.build()).end_s.tolist() == [2, 1]


def test_a_link_of_one_name_is_one_link_with_one_capacity():
    builder = GraphBuilder()
    assert [builder.link(name, 5) for name in ("a", "b", "a")] == [0, 1, 0]
    with pytest.raises(InputError, match="link 'a': has 5 bytes/s already, got 6"):
        builder.link("a", 6)


def test_columns_of_transfers_that_do_not_fit_are_refused():
    net = Links(a=1)
    net.send("x", 1, "a")
    graph = net.build()
    for change, message in (
        ({"link_start": np.array([0])}, "1 tasks have 0 rows of links"),
        ({"link_bytes_per_s": np.ones(2)}, "1 links have 2 capacities"),
        ({"link_start": np.array([0, 2])}, "link_start must rise from 0 to 1"),
    ):
        with pytest.raises(InputError, match=message):
            replace(graph.transfers, **change)
    with pytest.raises(InputError, match="duration_s: must be finite beside transfers"):
        graph.with_durations(np.array([np.inf]))
    two = replace(graph.transfers, moved_bytes=np.ones(2), link_start=np.array([0, 1, 1]))
    with pytest.raises(InputError, match="task graph: 1 tasks have 2 transfers"):
        replace(graph, transfers=two)


def test_copies_and_replicas_of_transfers_are_refused():
    net = Links(a=1)
    net.send("x", 1, "a")
    with pytest.raises(InputError, match="shared links cannot be repeated by rank"):
        tile(net.build(), np.ones((2, 1)))
    with pytest.raises(InputError, match="shared links are played one by one"):
        array.play_replicas(net.build(), np.ones((1, 2)))
