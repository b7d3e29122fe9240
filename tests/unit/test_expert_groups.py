"""Experts on ranks: loads, replicas, capacity, copies; and all of it end to end in a step."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hwmodels.errors import InfeasibleError, SpecError
from simulator import Experiment, run
from simulator.driver.experts import expert_group
from simulator.driver.point import point_of
from simulator.driver.program import program_of
from simulator.lower.lowered import lower
from simulator.lower.spread import part_loads
from simulator.study.screen import memory_of, screen
from simulator.tell.facts.expert_group import ExpertGroups
from workloads.eplb import eplb
from workloads.experts import Capacity, ExpertGroup, Table
from workloads.memory import routed_layers
from workloads.model import MODELS
from workloads.recipes import Passes
from workloads.routing import copies_on, placed_copies

V3 = MODELS.load("deepseek-v3").moe
LAYERS, EXPERTS, EP = 59, 256, 64
SHORT = Experiment.load("deepseek-v3-pretrain", {"batch.sequences": 4096})
SKEWED = np.random.default_rng(0).lognormal(0, 0.5, (LAYERS, EXPERTS)).round(6).tolist()
EVEN = {"ranks.expert_load": {"kind": "measured", "counts": [[7] * EXPERTS]}}


def measured(counts=SKEWED, **changes):
    load = {"kind": "measured", "counts": counts} | changes.pop("load", {})
    values = {f"{name.replace('__', '.')}": value for name, value in changes.items()}
    return SHORT.with_overrides({"ranks.expert_load": load} | values)


def balancer(redundant=0):
    return {"policy": "eplb", "redundant_experts": redundant}


def one_rank_gets(load):
    """Counts by which the first four experts, those of rank 0, get `load` times the mean."""
    rest = (EXPERTS - 4 * load) / (EXPERTS - 4)
    return [[load] * 4 + [rest] * (EXPERTS - 4)]


# Loads of ranks


def test_in_order_a_rank_gets_the_mean_of_its_experts():
    group = ExpertGroup(2, 4)
    loads = np.array([[2.0, 1.0, 0.5, 0.5]])
    assert group.rank_loads(loads, np.zeros(1, int)).tolist() == [[1.5, 0.5]]


def test_replicas_share_the_load_of_their_expert():
    """Expert 0 of load 2 lies on both ranks: 1 on each, and 2/3 of an expert beside it."""
    group = ExpertGroup(2, 4, Table.of(np.array([[0, 1, 2, 0, 3, 3]])))
    loads = np.array([[2.0, 1.0, 0.5, 0.5]])
    assert group.local_experts == 3
    assert group.rank_loads(loads, np.zeros(1, int)).tolist() == [[(1 + 1 + 0.5) / 2, 1.5 / 2]]


def test_layers_have_placements_of_their_own():
    group = ExpertGroup(2, 2, Table.of(np.array([[0, 1], [1, 0]])))
    loads = np.array([[1.5, 0.5]] * 3)
    assert group.rank_loads(loads, np.array([0, 1, 0])).tolist() == [
        [1.5, 0.5],
        [0.5, 1.5],
        [1.5, 0.5],
    ]


@given(st.integers(0, 10**6), st.sampled_from([0, 8, 16]))
def test_no_row_is_lost_wherever_experts_lie(seed, redundant):
    loads = np.random.default_rng(seed).exponential(size=(3, 32))
    loads /= loads.mean(axis=1, keepdims=True)
    slots = Table.of(eplb(loads, 32 + redundant, 4, 2, 8))
    found = ExpertGroup(8, 32, slots).rank_loads(loads, np.arange(3))
    assert found.mean(axis=1) == pytest.approx(1, abs=1e-12)


def test_a_capacity_cuts_what_is_above_and_padding_fills_what_is_below():
    loads = np.array([3.0, 0.5, 0.5, 0.0])
    assert Capacity(1.25).kept(loads).tolist() == [1.25, 0.5, 0.5, 0.0]
    assert Capacity(1.25).dropped(loads) == (3 - 1.25) / 4
    assert Capacity(1.25, padded=True).kept(loads).tolist() == [1.25] * 4
    assert Capacity(1.25, padded=True).dropped(loads) == (3 - 1.25) / 4
    assert Capacity(3.0).dropped(loads) == 0


@given(st.floats(0.1, 4), st.integers(0, 10**6))
def test_what_is_kept_and_what_is_dropped_is_all(factor, seed):
    loads = np.random.default_rng(seed).exponential(size=64)
    loads /= loads.mean()
    capacity = Capacity(factor)
    assert capacity.kept(loads).mean() + capacity.dropped(loads) == pytest.approx(1)
    assert capacity.kept(loads).max() <= factor


# Traffic


def test_experts_in_order_cost_the_copies_they_cost():
    """The same draw of tokens, slot by slot."""
    members = (8,) * 8
    placed = placed_copies(V3, members, ExpertGroup(64, 256, Table.of(np.arange(256)[None])))
    in_order = copies_on(V3, members)
    assert placed.nodes_per_token == pytest.approx(in_order.nodes_per_token, rel=1e-12)
    assert placed.gpus_per_token == pytest.approx(in_order.gpus_per_token, rel=1e-12)


def test_groups_on_nodes_keep_tokens_on_few_of_them_and_scattered_experts_do_not():
    """V3's tokens use 4 of 8 groups. Scattered, 8 experts hit 8 (1 - C(224, 8) / C(256, 8)) = 5.3
    nodes, were all choices of them alike.
    """
    members, loads = (8,) * 8, np.array(SKEWED)
    on_nodes = ExpertGroup(64, 256, Table.of(eplb(loads, 320, 8, 8, 64)))
    scattered = ExpertGroup(64, 256, Table.of(eplb(loads, 320, 1, 1, 64)))
    near, far = (placed_copies(V3, members, group) for group in (on_nodes, scattered))
    assert near.nodes_per_token == pytest.approx(copies_on(V3, members).nodes_per_token, rel=1e-12)
    assert far.nodes_per_token == pytest.approx(5.3, abs=0.1)
    assert near.gpus_per_token <= 8


# Replicas' gradients


def test_held_experts_are_counted_by_their_ranks():
    """Expert 0 on three ranks, 2 on two, 1 on one though twice, 3 on one."""
    slots = np.array([[0, 2, 0, 2, 0, 3, 1, 1]])
    held = ExpertGroup(4, 4, Table.of(slots)).held([0])
    assert sorted(held) == [1, 2, 3]
    assert held[3].ranks.tolist() == [[0, 1, 2]]
    assert (held[2].ranks.tolist(), held[2].most) == ([[0, 1]], 1)
    assert (held[1].ranks.tolist(), held[1].most) == ([[2], [3]], 1)


def test_redundant_experts_are_reduced_by_all_that_hold_them():
    """Two ranks of each group, two groups: rings of twice as many members, each with one expert."""
    experiment = measured(ranks__expert_placement=balancer(64))
    program = program_of(experiment)
    for end in program.end:
        by_name = {ring.name: ring for ring in end.reduce}
        alone = by_name["reduce-scatter experts gradients"]
        twice = by_name["reduce-scatter experts on 2 ranks gradients"]
        assert twice.groups.shape[1] == 2 * alone.groups.shape[1]
        assert len(np.unique(twice.groups)) == twice.groups.size
        each = MODELS.load("deepseek-v3").expert_parameters * 4
        assert twice.bytes / each == pytest.approx(round(twice.bytes / each))
        assert 0 < twice.bytes < alone.bytes + twice.bytes
        assert len(end.gather) == len({ring.name for ring in end.gather}) >= 3


# Memory


def test_what_routed_kernels_keep_is_routed(v3_step):
    """Received tokens and inputs of SwiGLU: all that grows with the rows of a layer."""
    for layer in {layer for stage in v3_step.stages for layer in stage if layer.routed}:
        assert 0 < layer.routed_bytes < layer.saved_bytes
    moe = v3_step.stages[1][0]
    assert moe.routed_bytes / 1e9 == pytest.approx(0.225 + 0.138, abs=0.005)
    assert not any(
        layer.routed_bytes for stage in v3_step.stages for layer in stage if not layer.routed
    )


def test_what_is_kept_of_two_is_the_sum():
    two = Passes(saved_bytes=3, routed_bytes=2) + Passes(saved_bytes=5, routed_bytes=4)
    assert (two.saved_bytes, two.routed_bytes) == (8, 6)


def test_even_counts_need_what_balanced_loads_need():
    balanced = run(SHORT.with_overrides({"ranks.expert_load": {"kind": "balanced"}}))
    even = run(SHORT.with_overrides(EVEN))
    assert even.memory_bytes == pytest.approx(balanced.memory_bytes, rel=1e-12)
    assert even.metrics.numbers == pytest.approx(balanced.metrics.numbers, rel=1e-12)


def test_a_rank_with_twice_the_load_makes_the_step_slower_and_its_memory_larger():
    """By hand: 17 chunks in flight of up to four layers keep the routed share once more, and one
    layer's exchange has buffers for it.
    """
    roomy = {"cluster.node.chip.hbm_capacity_bytes": "200 GB"}
    even, loaded = (run(measured(one_rank_gets(load)).with_overrides(roomy)) for load in (1.0, 2.0))
    assert loaded.metrics.numbers["step_time_s"] > 1.2 * even.metrics.numbers["step_time_s"]
    moe = program_of(measured(one_rank_gets(2.0))).stages[1][0]
    more = 17 * 4 * moe.routed_bytes + moe.exchanged_bytes
    assert loaded.memory_bytes["total"] - even.memory_bytes["total"] == pytest.approx(
        more, rel=1e-9
    )
    assert loaded.fact(ExpertGroups).worst_load == pytest.approx([2.0] * LAYERS)
    assert loaded.fact(ExpertGroups).peak_bytes == loaded.memory_bytes["total"]


def test_a_matrix_of_ranks_and_the_counts_that_give_it_come_to_the_same():
    ranks = {"kind": "matrix", "loads": [[1.3] + [62.7 / 63] * 63]}
    by_rank, by_expert = (
        run(SHORT.with_overrides({"ranks.expert_load": ranks})),
        run(measured(one_rank_gets(1.3))),
    )
    assert by_rank.metrics.numbers == pytest.approx(by_expert.metrics.numbers, rel=1e-12)
    assert by_rank.memory_bytes == pytest.approx(by_expert.memory_bytes, rel=1e-12)


def test_what_does_not_fit_is_refused():
    with pytest.raises(
        InfeasibleError, match=r"memory of pipeline rank 1: needs 127 GB \(activations"
    ):
        run(measured(one_rank_gets(3.0)))


def test_a_screen_needs_the_memory_of_a_play_and_sees_who_is_slower():
    for changes in ({}, {"ranks__expert_placement": balancer(64)}):
        experiment = measured(**changes)
        assert memory_of(experiment)["total"] == pytest.approx(
            run(experiment).memory_bytes["total"]
        )
    slow, fast = (screen(measured(one_rank_gets(load))).numbers for load in (1.3, 1.0))
    assert slow["step_time_s"] > fast["step_time_s"]


# Placement


def test_the_balancer_shortens_a_skewed_step_and_redundancy_further():
    seconds = [
        run(measured(ranks__expert_placement=placement)).metrics.numbers["step_time_s"]
        for placement in ({"policy": "contiguous"}, balancer(), balancer(64))
    ]
    assert seconds[0] > 1.05 * seconds[1] > 1.05 * 1.01 * seconds[2]


def test_a_redundant_expert_takes_the_memory_of_an_expert():
    """64 of them on 64 ranks: one more slot beside four on each of eight layers."""
    plain, more = (
        program_of(measured(ranks__expert_placement=balancer(redundant))).memory_bytes[7]
        for redundant in (0, 64)
    )
    slot = 8 * MODELS.load("deepseek-v3").expert_parameters
    assert more["weights"] - plain["weights"] == 2 * slot
    assert more["gradients"] - plain["gradients"] == 4 * slot
    assert more["optimizer_states"] - plain["optimizer_states"] == 8 * slot / 4


def test_lasting_popularity_is_what_the_balancer_goes_by():
    zipf = {"kind": "zipf", "exponent": 0.3, "correlation": 1.0}
    changes = {"ranks.expert_load": zipf, "ranks.expert_placement": balancer(64)}
    group = expert_group(SHORT.with_overrides(changes))
    in_order = expert_group(SHORT.with_overrides({"ranks.expert_load": zipf}))
    worst = [each.lasting.values.max(axis=1).mean() for each in (in_order, group)]
    assert worst[0] > 1.3
    assert worst[1] < 1.15
    assert group.lasting.values.mean() == pytest.approx(1)


# Counts


def test_every_layer_meets_its_counts():
    experiment = measured()
    plan = lower(program_of(experiment))
    loads = part_loads(experiment.ranks, plan, 1, np.random.default_rng(0))
    counts = np.array(SKEWED)
    by_rank = (counts / counts.mean(axis=1, keepdims=True)).reshape(LAYERS, EP, -1).mean(axis=2)
    layers = np.concatenate([plan.program.loads.layer[s[0]] for s in plan.program.loads.of_part])
    assert loads[0] == pytest.approx(by_rank[layers], rel=1e-12)


def test_jitter_spreads_counts_and_keeps_their_sum():
    experiment = measured(load={"sigma": 0.2})
    plan = lower(program_of(experiment))
    loads = part_loads(experiment.ranks, plan, 50, np.random.default_rng(0))
    assert loads.mean(axis=-1) == pytest.approx(1, rel=1e-12)
    assert (loads.std(axis=0) > 0).all()
    still = part_loads(measured().ranks, plan, 1, np.random.default_rng(0))[0]
    assert loads.mean(axis=0) == pytest.approx(still, rel=0.1)


@pytest.mark.parametrize("ending", ["csv", "parquet"])
def test_counts_are_read_from_a_file(ending, tmp_path):
    path, rows = tmp_path / f"loads.{ending}", [row[:] for row in SKEWED]
    if ending == "csv":
        path.write_text("\n".join(",".join(map(str, row)) for row in rows) + "\n", "utf-8")
    else:
        pa, pq = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
        columns = {f"expert {n}": [row[n] for row in rows] for n in range(EXPERTS)}
        pq.write_table(pa.table(columns), path)
    assert measured(str(path)).ranks == measured().ranks


def test_the_result_holds_the_counts_and_not_the_path(tmp_path):
    path = tmp_path / "loads.csv"
    path.write_text("\n".join(",".join(map(str, row)) for row in SKEWED), "utf-8")
    result = run(measured(str(path)))
    path.unlink()
    assert result.resolved().ranks.expert_load.counts == tuple(map(tuple, SKEWED))


WIDE = [[1.0] * EXPERTS]
REFUSED = {
    "too few experts": ([[1, 2]], "rows must have a count for each of 256 routed experts, got 2"),
    "too few layers": (WIDE * 3, "one for each of the 59 layers with experts, got 3"),
    "rows of two lengths": (
        [[1.0] * EXPERTS, [1.0]],
        "rows must be as long as the first, 256, got 1",
    ),
    "below zero": ([[-1.0] + [1.0] * 255], "counts"),
    "not a number": ([[float("nan")] + [1.0] * 255], "counts"),
    "nothing": ([[0.0] * EXPERTS], "rows must have a load above 0, got none in row 0"),
    "none": ([], "kind = 'measured' and 'counts' come together"),
    "no file": ("nowhere.csv", "nowhere.csv: expected a table of counts, got"),
    "another format": ("loads.xlsx", "a .csv or .parquet file, got 'loads.xlsx'"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_bad_counts_are_refused_in_one_line(case):
    counts, reason = REFUSED[case]
    with pytest.raises(SpecError) as error:
        measured(counts)
    assert reason in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(("text", "reason"), [("1,x\n", "row 0 must be numbers"), ("", "counts")])
def test_a_file_of_no_numbers_is_refused(text, reason, tmp_path):
    path = tmp_path / "loads.csv"
    path.write_text(text, "utf-8")
    with pytest.raises(SpecError, match=reason):
        measured(str(path))


def test_a_parquet_file_that_is_none_is_refused(tmp_path):
    path = tmp_path / "loads.parquet"
    path.write_bytes(b"no table")
    with pytest.raises(SpecError, match="must be a table of numbers"):
        measured(str(path))


# What does not go together

ZIPF = {"kind": "zipf", "exponent": 0.3}
TOGETHER = {
    "eplb by ranks": ({"ranks.expert_placement": balancer()}, SpecError, "got 'lognormal'"),
    "eplb by what does not last": (
        {"ranks.expert_load": ZIPF, "ranks.expert_placement": balancer()},
        SpecError,
        "'zipf' with a correlation",
    ),
    "redundancy in order": (
        {"ranks.expert_placement": {"redundant_experts": 64}},
        SpecError,
        "must be 0 without policy = 'eplb', got 64",
    ),
    "slots that do not divide": (
        EVEN | {"ranks.expert_placement": balancer(3)},
        InfeasibleError,
        "must divide over plan.ep = 64 ranks, got 3",
    ),
    "eplb and a limit of nodes": (
        EVEN | {"ranks.expert_placement": balancer(), "communication.routed_nodes_max": 4},
        SpecError,
        "communication.routed_nodes_max: limits nodes with experts in order",
    ),
    "a capacity of ranks": (
        {"communication.capacity_factor": 1.25},
        SpecError,
        "communication.capacity_factor: needs loads of experts",
    ),
    "padding without an end": (
        {"communication.pad_to_capacity": True},
        SpecError,
        "pad_to_capacity: must come with capacity_factor",
    ),
    "folded layers of their own": (
        {"ranks.expert_load": {"kind": "measured", "counts": SKEWED}, "ranks.play": "folded"},
        SpecError,
        "ranks.expert_load.counts sets them apart",
    ),
}


@pytest.mark.parametrize("case", TOGETHER)
def test_what_does_not_go_together_is_refused_in_one_line(case):
    values, kind, reason = TOGETHER[case]
    with pytest.raises(kind) as error:
        SHORT.with_overrides(values)
    assert type(error.value) is kind
    assert reason in str(error.value)


# Capacity


def test_a_capacity_that_nobody_reaches_changes_nothing():
    balanced = {"ranks.expert_load": {"kind": "balanced"}}
    without = run(SHORT.with_overrides(balanced))
    at_one = run(SHORT.with_overrides(balanced | {"communication.capacity_factor": 1.0}))
    assert at_one.metrics.numbers == pytest.approx(without.metrics.numbers, rel=1e-12)
    assert at_one.memory_bytes == pytest.approx(without.memory_bytes, rel=1e-12)
    assert at_one.fact(ExpertGroups).dropped_rows == 0


def test_capped_experts_drop_rows_and_take_less_time_and_memory():
    free, capped = run(measured()), run(measured(communication__capacity_factor=1.2))
    counts = np.array(SKEWED)
    loads = counts / counts.mean(axis=1, keepdims=True)
    assert capped.fact(ExpertGroups).dropped_rows == pytest.approx((loads - 1.2).clip(0).mean())
    assert max(capped.fact(ExpertGroups).worst_load) <= 1.2
    assert capped.metrics.numbers["step_time_s"] < free.metrics.numbers["step_time_s"]
    assert capped.memory_bytes["total"] < free.memory_bytes["total"]


def test_padded_experts_take_their_capacity_and_no_rank_waits():
    padded = run(measured(communication__capacity_factor=1.1, communication__pad_to_capacity=True))
    facts = padded.fact(ExpertGroups)
    assert facts.worst_load == pytest.approx([1.1] * LAYERS)
    assert facts.routed_rows == pytest.approx(1.1)
    capped = run(measured(communication__capacity_factor=1.1))
    assert padded.metrics.numbers["step_time_s"] > capped.metrics.numbers["step_time_s"]


def test_half_of_the_rows_take_half_of_the_exchange():
    """On the wire, what is sent too: only latencies stay."""
    balanced = {"ranks.expert_load": {"kind": "balanced"}}
    seconds = []
    for factor in (1.0, 0.5):
        values = balanced | {"communication.capacity_factor": factor}
        experiment = SHORT.with_overrides(values)
        point = point_of(experiment)
        comm = next(c for c in point.lowered.comms if c.kind == "dispatch")
        seconds.append(point.pricer.exchanges.times(comm, np.full(EP, factor)).moving_s)
    assert seconds[1] == pytest.approx(seconds[0] / 2, rel=1e-12)


# Every field does something

FIELDS = {
    "counts": {"ranks.expert_load.counts": one_rank_gets(1.2)},
    "sigma": {"ranks.expert_load.sigma": 0.1},
    "policy": {"ranks.expert_placement.policy": "eplb"},
    "redundant_experts": {"ranks.expert_placement": balancer(64)},
    "capacity_factor": {"communication.capacity_factor": 1.05},
    "pad_to_capacity": {
        "communication.capacity_factor": 1.3,
        "communication.pad_to_capacity": True,
    },
}


@pytest.mark.parametrize("name", FIELDS)
def test_every_field_of_skew_moves_step_and_memory_or_one_of_them(name):
    before, after = run(measured()), run(measured().with_overrides(FIELDS[name]))
    assert before.metrics.numbers != after.metrics.numbers
    assert (before.memory_bytes != after.memory_bytes) == (name != "sigma")


def test_routed_layers_are_numbered_as_loads_are(v3_step):
    numbered = list(routed_layers(v3_step.stages))
    assert [number for *_, number in numbered] == list(range(v3_step.loads.layers))
