"""What sets ranks apart: who draws what from which seed, and who is the straggler."""

import numpy as np
import pytest

from simulator.driver.program import program_of
from simulator.driver.step import play
from simulator.lower.expansion import expand
from simulator.lower.lowered import lower
from simulator.lower.spread import draw_group, likely_loads, part_loads

PP, EP, GROUPS = 4, 8, 2
LAYERS = 59  # with experts, of 61 and one for MTP
UNLIKE = (
    ("ranks.jitter", 0.05),
    ("ranks.gpu_speed_sigma", 0.02),
    ("ranks.expert_load.correlation", 0.5),
)
COLUMNS = ("load", "slowness", "nic", "nvlink", "jitter")
BALANCED = ("ranks.expert_load.kind", "balanced")
WIDEST = np.exp(5 * np.sqrt(np.log1p(0.08**2)))
ZIPF = (("ranks.expert_load.kind", "zipf"), ("ranks.expert_load.exponent", 0.8))


@pytest.fixture(scope="module")
def draw(small_experiment):
    """Draws of one group of the small experiment, as changed."""

    def play(*changes, group=0):
        experiment = small_experiment(*changes)
        plan = lower(program_of(experiment))
        expansion = expand(plan)
        return draw_group(experiment.ranks, plan, expansion.slot_layer, group)

    return play


@pytest.fixture(scope="module")
def slots(small_experiment):
    """Pipeline rank and routed layer of every load of a pipeline."""
    expansion = expand(lower(program_of(small_experiment())))
    return expansion.slot_rank, expansion.slot_layer


def bytes_of(drawn, columns=COLUMNS):
    return {name: getattr(drawn, name).tobytes() for name in columns}


def test_a_group_draws_for_each_rank_slot_and_step(draw, slots, small_experiment):
    drawn = draw(*UNLIKE)
    assert drawn.load.shape == (len(slots[0]), EP)
    assert drawn.slowness.shape == drawn.nic.shape == drawn.nvlink.shape == (PP, EP)
    assert drawn.jitter.shape == (len(lower(program_of(small_experiment())).steps), EP)
    for column in ("load", "slowness", "jitter"):
        values = getattr(drawn, column)
        assert (values > 0).all()
        assert len(np.unique(values)) == values.size


def test_one_seed_draws_the_same_bytes_and_another_others(draw):
    once, again = (bytes_of(draw(*UNLIKE)) for _ in range(2))
    assert once == again
    drawn = ("load", "slowness", "jitter")
    other = draw(*UNLIKE, ("ranks.seed", 1))
    assert all(once[name] != own for name, own in bytes_of(other, drawn).items())
    neighbour = draw(*UNLIKE, group=1)
    assert all(once[name] != own for name, own in bytes_of(neighbour, drawn).items())


@pytest.mark.parametrize(
    ("change", "moved"),
    [
        (("ranks.jitter", 0.2), "jitter"),
        (("ranks.gpu_speed_sigma", 0.1), "slowness"),
        (("ranks.expert_load.correlation", 0.9), "load"),
        (("ranks.expert_load.sigma", 0.3), "load"),
        (("ranks.expert_load.kind", "balanced"), "load"),
        (("ranks.stragglers", [{"gpu": 3, "part": "nic", "slowdown": 2}]), "nic"),
    ],
    ids=lambda value: value[0] if isinstance(value, tuple) else "",
)
def test_who_changes_one_thing_meets_the_same_chance_in_the_others(draw, change, moved):
    before, after = bytes_of(draw(*UNLIKE)), bytes_of(draw(*UNLIKE, change))
    assert {name for name in COLUMNS if before[name] != after[name]} == {moved}


def test_a_larger_spread_spreads_the_same_chance(draw):
    """Twice the sigma of speeds, twice their logarithms; jitter keeps its order."""
    one, two = (draw(*UNLIKE, ("ranks.gpu_speed_sigma", sigma)) for sigma in (0.02, 0.04))
    assert np.log(two.slowness) == pytest.approx(2 * np.log(one.slowness), rel=1e-12)
    one, two = (draw(*UNLIKE, ("ranks.jitter", sigma)) for sigma in (0.02, 0.2))
    assert (np.argsort(one.jitter, axis=None) == np.argsort(two.jitter, axis=None)).all()


def test_what_a_group_draws_does_not_depend_on_how_many_others_there_are(draw):
    """On twice the GPUs, with as many micro-batches each."""
    twice = (("cluster.nodes", 16), ("batch.sequences", 320))
    for group in range(GROUPS):
        few, many = draw(*UNLIKE, group=group), draw(*UNLIKE, *twice, group=group)
        assert bytes_of(few) == bytes_of(many)


def test_without_any_spread_all_ranks_are_alike(draw):
    drawn = draw(("ranks.expert_load.sigma", 0.0))
    for name in COLUMNS:
        assert (getattr(drawn, name) == 1).all(), name


def test_jitter_has_mean_one_and_the_spread_asked_for(draw):
    """Over 70 chunks on 8 ranks of 20 groups: log-normal, so logarithms have mean -s^2 / 2."""
    jitter = np.stack([draw(("ranks.jitter", 0.1), group=group).jitter for group in range(20)])
    assert jitter.size == 20 * 70 * EP
    assert jitter.mean() == pytest.approx(1, abs=0.004)
    assert jitter.std() == pytest.approx(0.1, rel=0.03)
    sigma = np.sqrt(np.log1p(0.1**2))
    assert np.log(jitter).mean() == pytest.approx(-(sigma**2) / 2, abs=0.004)
    assert np.log(jitter).std() == pytest.approx(sigma, rel=0.03)


def test_speeds_have_the_spread_asked_for(draw):
    slowness = [draw(("ranks.gpu_speed_sigma", 0.05), group=g).slowness for g in range(100)]
    assert np.std(slowness) == pytest.approx(0.05, rel=0.05)
    assert np.median(slowness) == pytest.approx(1, abs=0.005)


# Stragglers


@pytest.mark.parametrize("part", ["gpu", "nic", "nvlink"])
@pytest.mark.parametrize(
    ("gpu", "group", "place"),
    [
        (0, 0, (0, 0)),
        (7, 0, (0, 7)),
        (8, 1, (0, 0)),
        (16 + 3, 0, (1, 3)),
        (2 * 16 + 8 + 5, 1, (2, 5)),
        (63, 1, (3, 7)),
    ],
)
def test_a_straggler_is_where_the_mesh_says(draw, part, gpu, group, place):
    """GPUs are numbered pipeline rank by pipeline rank, 16 each, two groups of 8 after another; it
    is slow in one part of one group.
    """
    straggler = {"gpu": gpu, "part": part, "slowdown": 1.7}
    for other in range(GROUPS):
        drawn = draw(BALANCED, ("ranks.stragglers", [straggler]), group=other)
        expected = np.ones((PP, EP))
        if other == group:
            expected[place] = 1.7
        found = {"gpu": drawn.slowness, "nic": drawn.nic, "nvlink": drawn.nvlink}
        assert (found.pop(part) == expected).all()
        assert all((values == 1).all() for values in found.values())


def test_stragglers_add_up_and_lie_on_top_of_what_is_drawn(draw):
    """Two of one GPU multiply, with its own speed too."""
    stragglers = [
        {"gpu": 16, "slowdown": 2.0},
        {"gpu": 16, "slowdown": 3.0},
        {"gpu": 17, "part": "nvlink", "slowdown": 4.0},
    ]
    before, after = draw(*UNLIKE), draw(*UNLIKE, ("ranks.stragglers", stragglers))
    expected = np.ones((PP, EP))
    expected[1, 0] = 6
    assert after.slowness == pytest.approx(before.slowness * expected, rel=1e-15)
    assert after.nvlink[1, 1] == 4
    assert after.nvlink.sum() == PP * EP + 3


# Loads of experts


LASTING = ("ranks.expert_load.correlation", 1.0)


@pytest.mark.parametrize("kind", [(("ranks.expert_load.sigma", 0.2),), ZIPF], ids=["", "zipf"])
def test_full_correlation_keeps_the_load_of_a_layer_over_micro_batches(draw, slots, kind):
    """To the bit, on both pipeline ranks that hold its stage; other layers have other loads."""
    load = draw(*kind, LASTING).load
    by_layer = [np.unique(load[slots[1] == layer], axis=0) for layer in range(LAYERS)]
    assert [len(rows) for rows in by_layer] == [1] * LAYERS
    assert len(np.unique(np.concatenate(by_layer), axis=0)) == LAYERS
    assert load.mean(axis=1) == pytest.approx(np.ones(len(load)), rel=1e-12)


@pytest.mark.parametrize("correlation", [0.0, 0.3, 0.8])
def test_two_micro_batches_on_a_layer_correlate_as_asked_and_two_layers_do_not(
    draw, slots, correlation
):
    """Over the ranks of 60 seeds; scaling 8 ranks to mean 1 ties them together a little."""
    changes = ("ranks.expert_load.correlation", correlation)
    loads = [np.log(draw(changes, ("ranks.seed", seed)).load) for seed in range(60)]
    among, own = correlations(np.stack(loads)), slots[1][:, None] == slots[1]
    assert among[own & ~np.eye(len(own), dtype=bool)].mean() == pytest.approx(correlation, abs=0.02)
    assert among[~own].mean() == pytest.approx(0, abs=0.01)
    a_stage_apart = np.abs(slots[1][:, None] - slots[1]) == 1
    assert among[a_stage_apart].mean() == pytest.approx(0, abs=0.02)


def correlations(loads):
    """(slots, slots) of logarithms (seeds, slots, ranks), seeds and ranks together."""
    loads = loads - loads.mean(axis=-1, keepdims=True)
    loads = loads.swapaxes(0, 1).reshape(loads.shape[1], -1)
    scaled = loads / loads.std(axis=1, keepdims=True)
    return scaled @ scaled.T / scaled.shape[1]


def test_groups_share_what_lasts_of_their_loads_and_nothing_else(draw):
    """They hold copies of the same experts."""
    assert np.array_equal(draw(LASTING, group=0).load, draw(LASTING, group=1).load)
    assert not np.array_equal(draw(group=0).load, draw(group=1).load)


def test_given_loads_meet_their_layers(draw, slots):
    """A row for each of the 59 routed layers, scaled to mean 1; the same in all micro-batches and
    groups.
    """
    rows = np.random.default_rng(0).uniform(0, 5, (59, EP))
    given = ("ranks.expert_load", {"kind": "matrix", "loads": rows.tolist()})
    for group in range(GROUPS):
        load = draw(given, group=group).load
        scaled = rows / rows.mean(axis=1, keepdims=True)
        assert load == pytest.approx(scaled[slots[1]], rel=1e-12)


def test_one_row_of_loads_is_that_of_all_layers(draw):
    row = [4.0, 0, 0, 2, 2, 0, 0, 0]
    load = draw(("ranks.expert_load", {"kind": "matrix", "loads": [row]})).load
    assert (load == np.array(row)).all()


def test_loads_of_popular_experts_are_those_of_the_ranks_that_hold_them(draw):
    """256 experts on 8 ranks: none above the 32 most popular together, as `likely_loads` says."""
    load = draw(*ZIPF).load
    share = np.arange(1, 257) ** -0.8
    assert load.max() < 8 * share[:32].sum() / share.sum()
    assert load.mean(axis=1) == pytest.approx(np.ones(len(load)), rel=1e-12)
    # The rank of the most popular expert has it all and the others evenly, on the mean.
    most = 8 * (1 + (share.sum() - 1) * 31 / 255) / share.sum()
    assert load.max(axis=1).mean() > most


@pytest.mark.parametrize(
    ("changes", "lowest", "highest"),
    [
        ((BALANCED,), 1.0, 1.0),
        ((("ranks.expert_load.sigma", 0.0),), 1.0, 1.0),
        ((("ranks.expert_load.sigma", 0.08),), 1 / WIDEST, WIDEST),
        ((("ranks.expert_load.sigma", 1.0),), np.exp(-5 * np.sqrt(np.log(2))), EP),
        ((("ranks.expert_load", {"kind": "matrix", "loads": [[3.0, 1] * 4]}),), 0.5, 1.5),
        (ZIPF, 0.0, EP * (np.arange(1, 33) ** -0.8).sum() / (np.arange(1, 257) ** -0.8).sum()),
    ],
    ids=["balanced", "no spread", "8 %", "wide", "matrix", "zipf"],
)
def test_hardly_any_rank_is_outside_the_likely_loads(
    small_experiment, draw, changes, lowest, highest
):
    experiment = small_experiment(*changes)
    found = likely_loads(experiment.ranks, program_of(experiment))
    assert found == pytest.approx((lowest, highest), rel=1e-12)
    loads = np.concatenate([draw(*changes, group=group).load for group in range(10)])
    assert (loads > highest * (1 + 1e-12)).mean() < 1e-3
    assert (loads < lowest * (1 - 1e-12)).mean() < 1e-3


# Loads of single chunks


@pytest.fixture(scope="module")
def chunk(small_experiment):
    """Loads of one of the distinct chunks of the small experiment, as changed."""

    def play(key, draws, *changes, seed=0):
        experiment = small_experiment(*changes)
        plan = lower(program_of(experiment))
        load = part_loads(experiment.ranks, plan, draws, np.random.default_rng(seed))
        assert load.shape == (draws, sum(plan.loads), EP)
        first = sum(plan.loads[: plan.keys.index(key)])
        return load[:, first : first + plan.parts[key].loads]

    return play


@pytest.mark.parametrize(
    ("key", "layers"),
    [
        (("F", 0, -1), [*range(13)]),
        (("Bi", -1, 3), [*range(45, 59)]),
        (("FB", 0, 3), [*range(13), *range(45, 59)]),
        (("FB", 3, 0), [*range(45, 59), *range(13)]),
    ],
)
def test_a_chunk_meets_the_loads_of_its_layers_forward_ones_first(chunk, key, layers):
    """Of 59 routed layers the stages hold 13, 16, 16 and 14."""
    rows = np.random.default_rng(1).uniform(1, 2, (59, EP))
    rows /= rows.mean(axis=1, keepdims=True)
    load = chunk(key, 3, ("ranks.expert_load", {"kind": "matrix", "loads": rows.tolist()}))
    assert load.shape == (3, len(layers), EP)
    for each in load:
        assert each == pytest.approx(rows[layers], rel=1e-12)


@pytest.mark.parametrize("changes", [(), ZIPF], ids=["lognormal", "zipf"])
def test_draws_of_a_chunk_differ_and_have_mean_one(chunk, changes):
    load = chunk(("FB", 1, 1), 5, *changes)
    assert load.shape == (5, 32, EP)
    assert load.mean(axis=-1) == pytest.approx(np.ones((5, 32)), rel=1e-12)
    assert len(np.unique(load.reshape(-1, EP), axis=0)) == 160
    assert load.tobytes() == chunk(("FB", 1, 1), 5, *changes).tobytes()
    assert load.tobytes() != chunk(("FB", 1, 1), 5, *changes, seed=1).tobytes()


@pytest.mark.parametrize("kind", [(), ZIPF], ids=["lognormal", "zipf"])
def test_lasting_loads_of_a_chunk_are_those_its_layers_have_in_every_rank(chunk, draw, slots, kind):
    """Draws stand for micro-batches, of which none changes them; layers differ."""
    every = draw(*kind, LASTING).load
    for key, layers in (
        (("FB", 1, 1), [*range(29, 45), *range(13, 29)]),
        (("F", 0, -1), [*range(13)]),
        (("Bi", -1, 3), [*range(45, 59)]),
    ):
        load = chunk(key, 5, *kind, LASTING)
        expected = np.stack([every[slots[1] == layer][0] for layer in layers])
        assert load == pytest.approx(np.broadcast_to(expected, load.shape), rel=1e-12)
        assert len(np.unique(load[0], axis=0)) == len(layers)


@pytest.mark.parametrize("correlation", [0.0, 0.5, 1.0])
def test_two_layers_of_a_chunk_have_nothing_to_do_with_each_other(chunk, correlation):
    changes = ("ranks.expert_load.correlation", correlation)
    loads = [
        np.log(chunk(("FB", 1, 1), 2, changes, ("ranks.seed", seed), seed=seed))
        for seed in range(60)
    ]
    once, again = np.stack(loads).swapaxes(0, 1)
    among = correlations(once)
    assert among[~np.eye(32, dtype=bool)].mean() == pytest.approx(0, abs=0.01)
    both = correlations(np.concatenate([once, again], axis=1))
    assert both.diagonal(32).mean() == pytest.approx(correlation, abs=0.03)


def test_a_balanced_chunk_meets_ones_to_the_bit(chunk):
    assert (chunk(("FB", 1, 1), 2, BALANCED) == 1).all()


# Whole steps


def test_given_loads_of_one_stage_slow_that_stage(small_experiment):
    """Rank 0 of stage 2 has four times the tokens of the others, those of stage 1 are balanced: the
    forwards of stage 2 take longer.
    """
    rows = np.ones((59, EP))
    rows[29:45, 0] = 4
    run = play(
        small_experiment(
            ("ranks.expert_load", {"kind": "matrix", "loads": rows.tolist()}),
            ("plan.schedule", "1f1b"),
            ("cluster.node.chip.hbm_capacity_bytes", "2 TB"),
        )
    )
    forward_s = run.times.phases["forward"]
    assert forward_s[2] > 1.2 * forward_s[1]


@pytest.mark.parametrize("ranks", ["folded", "explicit"])
def test_sms_lent_to_chunks_alone_shorten_those_and_no_others(small_experiment, ranks):
    """However ranks are played; pairs take what they took."""
    roomy = ("cluster.node.chip.hbm_capacity_bytes", "2 TB")
    played = ("ranks.play", ranks)
    few, many = (
        play(small_experiment(roomy, played, BALANCED, ("communication.lent_sms", lent)))
        for lent in (0.0, 1.0)
    )
    for key, chunk in few.parts.items():
        longer, shorter = chunk.duration_s, many.parts[key].duration_s
        if key[0] == "FB":
            assert (longer == shorter).all()
        else:
            assert (0.85 * longer < shorter).all()
            assert (shorter < 0.99 * longer).all()
    for phase in ("forward", "backward", "weight"):
        longer_s, shorter_s = (run.times.phases[phase].mean() for run in (few, many))
        assert 0.85 * longer_s < shorter_s < 0.99 * longer_s
    pairs = [run.times.phases["forward_backward"] for run in (few, many)]
    assert pairs[0] == pytest.approx(pairs[1], rel=1e-9)


def test_a_model_without_experts_can_be_played_rank_by_rank(dense_experiment):
    """Jitter lengthens its step: a chunk waits for the slowest of what it needs."""
    roomy = ("cluster.node.chip.hbm_capacity_bytes", "8 TB")
    alike, jittery = (play(dense_experiment(roomy, ("ranks.jitter", j))) for j in (0, 0.1))
    assert jittery.explicit is not None
    assert (jittery.explicit.wait_s == 0).all()
    assert jittery.times.step_s > alike.times.step_s
