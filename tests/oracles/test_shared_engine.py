"""The array engine where transfers meet: against the reference engine, against its own loops run by
the interpreter, and against an account of every byte.
"""

import random
from dataclasses import replace
from fractions import Fraction
from itertools import pairwise

import numpy as np
import pytest

from hwmodels.errors import DeadlockError
from simulator.engines import array, reference
from simulator.engines.loops import PLAIN, compiled
from tests.random_graphs import random_graph, wild_graph, with_shares, with_transfers

COLUMNS = ("ready_s", "start_s", "end_s")


@pytest.fixture(autouse=True, scope="module")
def _compiled_loops():
    """Small graphs would be played by the loops as they stand until the compiler is loaded."""
    compiled()


def crowded_graph(rng):
    """A graph of which many tasks move bytes side by side."""
    return with_transfers(rng, random_graph(rng, most_streams=10, most_events=20, most_after=1))


def columns(timeline):
    return np.array([getattr(timeline, column) for column in COLUMNS])


def outcome(engine, graph):
    """Times of all tasks, or the message of the deadlock."""
    try:
        return columns(engine(graph))
    except DeadlockError as error:
        return str(error)


def assert_close(played, expected):
    np.testing.assert_allclose(played, expected, rtol=1e-9, atol=0)


def slowed(timeline):
    """How many transfers took longer than they would have alone."""
    graph, transfers = timeline.graph, timeline.graph.transfers
    took_s = timeline.end_s - timeline.start_s - graph.duration_s
    return sum(
        took_s[task] * transfers.link_bytes_per_s[transfers.links_of(task)].min()
        > transfers.moved_bytes[task] * (1 + 1e-9)
        for task in np.flatnonzero(transfers.moves)
    )


@pytest.mark.parametrize("seed", range(8))
def test_random_graphs_play_as_in_the_reference_engine(seed):
    """8 x 500 graphs; a third of their transfers meet others."""
    rng = random.Random(f"crowded {seed}")
    transfers = met = 0
    for _ in range(500):
        graph = crowded_graph(rng)
        expected = reference.play(graph)
        assert_close(columns(array.play(graph)), columns(expected))
        transfers += graph.transfers.moves.sum()
        met += slowed(expected)
    assert transfers > 3000
    assert met > transfers / 4


@pytest.mark.parametrize("seed", range(4))
def test_shares_of_bytes_play_as_in_the_reference_engine(seed):
    rng = random.Random(f"shares {seed}")
    moved = 0
    for _ in range(300):
        graph = crowded_graph(rng)
        part = with_shares(rng, graph)
        whole = replace(part, transfers=replace(part.transfers, share=None))
        expected, once = reference.play(part), array.play(part, compiled())
        assert_close(columns(once), columns(expected))
        assert columns(once).tobytes() == columns(array.play(part, PLAIN)).tobytes()
        moved += not np.allclose(columns(expected), columns(reference.play(whole)))
    assert moved > 100


def test_compiled_loops_give_the_bits_of_the_plain_ones():
    rng = random.Random("twin")
    for _ in range(300):
        graph = crowded_graph(rng)
        once, twin = array.play(graph, compiled()), array.play(graph, PLAIN)
        assert columns(once).tobytes() == columns(twin).tobytes()


def test_graphs_that_cannot_finish_are_refused_in_the_words_of_the_reference_engine():
    """1,000 graphs, of which most lock."""
    rng = random.Random("wild")
    locked = 0
    for _ in range(1000):
        graph = with_transfers(rng, wild_graph(rng))
        expected, played = (outcome(engine, graph) for engine in (reference.play, array.play))
        if isinstance(expected, str):
            assert played == expected
            locked += 1
        else:
            assert_close(played, expected)
    assert 300 < locked < 900


# An account of every byte: no engine, no clock, exact fractions


def exact_rates(routes, bytes_per_s):
    """Max-min fair rates of transfers by their sets of links, in fractions."""
    rates, free = {}, {link: Fraction(float(c)) for link, c in enumerate(bytes_per_s)}
    while len(rates) < len(routes):
        rising = {
            link: [t for t in routes if link in routes[t] and t not in rates] for link in free
        }
        share, full = min((free[link] / len(on), link) for link, on in rising.items() if on)
        for transfer in rising[full]:
            rates[transfer] = share
            for link in routes[transfer]:
                free[link] -= share
    return rates


def bytes_moved(timeline):
    """What fair rates move between the times at which a timeline says that transfers moved."""
    graph, transfers = timeline.graph, timeline.graph.transfers
    moves = np.flatnonzero(transfers.moves).tolist()
    routes = {task: set(transfers.links_of(task).tolist()) for task in moves}
    from_s, to_s = timeline.start_s + graph.duration_s, timeline.end_s
    moved = dict.fromkeys(moves, Fraction(0))
    for begin, end in pairwise(sorted({*from_s[moves].tolist(), *to_s[moves].tolist()})):
        now = {task: routes[task] for task in moves if from_s[task] <= begin and end <= to_s[task]}
        for task, rate in exact_rates(now, transfers.link_bytes_per_s).items():
            moved[task] += rate * (Fraction(end) - Fraction(begin))
    return moved


@pytest.mark.parametrize("play", [reference.play, array.play], ids=["reference", "array"])
def test_fair_rates_over_the_spans_of_transfers_move_their_bytes(play):
    rng = random.Random("bytes")
    for _ in range(400):
        graph = crowded_graph(rng)
        for task, moved in bytes_moved(play(graph)).items():
            assert float(moved) == pytest.approx(graph.transfers.moved_bytes[task], rel=1e-9)
